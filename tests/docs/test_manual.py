"""Is the man page the one that the parser makes, and does troff read it without a word?"""

import shutil
import subprocess
from pathlib import Path

import pytest
from tests.docs.cli_page import commands

from svsync.cli.main import build_parser
from svsync.cli.manual import page

PAGE = Path(__file__).parents[2] / "docs/reference/svsync.1"
GROFF = shutil.which("groff")


def test_it_is_current() -> None:
    assert PAGE.read_text("ascii") == page(), (
        "run: python -m svsync.cli.manual > docs/reference/svsync.1"
    )


@pytest.mark.skipif(GROFF is None, reason="no groff here")
def test_troff_warns_of_nothing_and_shows_each_command_with_its_example() -> None:
    assert GROFF is not None
    read = subprocess.run(
        [GROFF, "-man", "-ww", "-Tutf8", "-P-cbou", "-rLL=100n", str(PAGE)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert read.stderr == ""
    for words, _, _ in commands(build_parser()):
        assert f"\n   svsync {' '.join(words)}\n" in read.stdout
    assert "    svsync policies create billing --rule 'apps/billing/**=read,list'\n" in read.stdout
    assert "--identity sa:billing" in read.stdout
