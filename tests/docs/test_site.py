"""The documents as a site: all of them are on it, and no link leads nowhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def build(source: Path, to: Path) -> subprocess.CompletedProcess[str]:
    """As `make docs` does."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning"),
            *("--conf-dir", ROOT / "docs", "--doctree-dir", to / "doctrees", source, to / "site"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    assert (built := build(ROOT / "docs", folder)).returncode == 0, built.stderr
    return folder / "site"


def test_every_page_is_on_the_site(site: Path) -> None:
    pages = {path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")}
    pages.remove(Path("decisions/0000-template.md"))
    assert {path for path in pages if not (site / path.with_suffix(".html")).exists()} == set()


def test_it_asks_nothing_of_anybody_else(site: Path) -> None:
    """Neither a script nor a style, font or picture comes from another place."""
    asked = {
        found
        for page in site.rglob("*.html")
        for found in re.findall(
            r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)=\"((?:https?:)?//[^\"]+)",
            page.read_text(),
        )
    }
    assert asked == set()


@pytest.mark.parametrize(
    "text",
    [
        "# A\n\n[away](nowhere.md)\n",
        "# A\n\n[away](../../nowhere.toml)\n",
        "# A\n\n[b](#nowhere)\n",
    ],
)
def test_a_link_that_leads_nowhere_ends_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text(text)
    built = build(tmp_path / "docs", tmp_path)
    assert built.returncode == 1
    assert "nowhere" in built.stderr


def test_what_is_outside_is_told_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "rules.yml").touch()
    (tmp_path / "docs/index.md").write_text("# A\n\nSee [`rules.yml`](../rules.yml) there.\n")
    assert build(tmp_path / "docs", tmp_path).returncode == 0
    assert "rules.yml</span></code> there." in (tmp_path / "site/index.html").read_text()
