"""How `make docs` builds the site: Sphinx, with pages in Markdown. See docs/decisions/0059."""

import re
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util.logging import getLogger

project = "svsync"
copyright = "ScaiVault"
extensions = ["myst_parser"]
exclude_patterns = ["decisions/0000-template.md"]
html_theme = "furo"
html_title = "svsync"
html_copy_source = False
html_use_index = False
html_show_sphinx = False
myst_heading_anchors = 4
suppress_warnings = ["misc.highlighting_failure"]  # policies of OpenBao are not quite HCL

_OUTSIDE = re.compile(r"\[([^]]+)\]\(((?:\.\./)+[^)#]+)(?:#[^)]*)?\)")


def _leave_the_site_out(app: Sphinx, page: str, source: list[str]) -> None:
    """What a link names outside of these pages is in the repository, and not on the site."""
    folder = Path(app.srcdir, page).parent

    def text(found: re.Match[str]) -> str:
        target = (folder / found[2]).resolve()
        if target.is_relative_to(app.srcdir):
            return found[0]
        if not target.exists():
            getLogger(__name__).warning("%s leads to no file", found[2], location=page)
        return found[1]

    source[0] = _OUTSIDE.sub(text, source[0])


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _leave_the_site_out)
