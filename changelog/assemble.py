"""Assembles CHANGELOG.md from the fragments beside this file: `python changelog/assemble.py`.

A folder is a release, `unreleased` or `<version>_<day>`; a file is a change. TEMPLATE.md
says how one is written.
"""

from pathlib import Path

KINDS = ("Security", "Fixed", "Changed", "Added")
HERE = Path(__file__).parent
TARGET = HERE.parent / "CHANGELOG.md"


def assemble(root: Path = HERE) -> str:
    """The text of CHANGELOG.md, newest release first.

    Raises:
        ValueError: a fragment whose first line is not `Kind: sentence`.
    """
    parts = ["# Changelog\n\nAssembled by `python changelog/assemble.py`; do not edit.\n"]
    for release in sorted((p for p in root.iterdir() if p.is_dir()), key=_age, reverse=True):
        fragments = [_parsed(path) for path in sorted(release.glob("*.md"))]
        if not fragments:
            continue
        version, _, day = release.name.partition("_")
        parts.append(f"\n## {version.capitalize()}{f' ({day})' if day else ''}\n")
        for kind in KINDS:
            of_kind = [(title, text) for found, title, text in fragments if found == kind]
            if of_kind:
                parts.append(f"\n### {kind}\n")
            parts += [f"\n**{title}.** {text}\n" for title, text in of_kind]
    return "".join(parts)


def _age(release: Path) -> tuple[bool, list[int]]:
    """Unreleased is the newest; versions are compared as numbers."""
    version = release.name.partition("_")[0]
    numbers = [int(n) for n in version.split(".") if n.isdecimal()]
    return release.name == "unreleased", numbers


def _parsed(path: Path) -> tuple[str, str, str]:
    head, _, text = path.read_text("utf-8").partition("\n\n")
    kind, colon, title = head.strip().partition(": ")
    if kind not in KINDS or not colon or not title or not text.strip():
        raise ValueError(f"{path.name}: begin with one of {', '.join(KINDS)}: and a sentence")
    return kind, title.rstrip("."), " ".join(text.split())


if __name__ == "__main__":
    TARGET.write_text(assemble(), "utf-8")
