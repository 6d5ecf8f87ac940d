"""`python -m svsync` is the program `svsync`."""

from svsync.cli.main import run

if __name__ == "__main__":
    run()
