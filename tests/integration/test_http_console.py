"""Is the console what its sources give, and is a browser told to keep it to itself?"""

import gzip
import json
import re
import shutil
import subprocess
from pathlib import Path

import aiohttp
import pytest
from tests.api import Front, open_front
from tests.house import House

from svsync.http.console import TYPES, Console, headers_of

ROOT = Path(__file__).parents[2]
ASSETS = ROOT / "src/svsync/http/assets"
SOURCES = ROOT / "console"


async def test_each_file_is_given_without_a_token_and_under_the_policy(front: Front) -> None:
    nobody = front.client.with_token(None)
    for name in TYPES:
        answer = await nobody.get("/ui/" if name == "index.html" else f"/ui/{name}")
        assert answer.status == 200
        assert answer.body == (ASSETS / name).read_text("utf-8")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert answer.headers["Content-Type"].startswith(TYPES[name])
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "require-trusted-types-for 'script'" in policy
        assert "unsafe" not in policy
        assert "*" not in policy
    at = f"{front.listener.url}/ui"
    async with front.client.session.get(at, allow_redirects=False) as moved:
        assert (moved.status, moved.headers["Location"]) == (308, "/ui/")


async def test_what_is_known_is_not_sent_again_and_what_is_sent_is_packed(front: Front) -> None:
    at = f"{front.listener.url}/ui/console.js"
    plain = (ASSETS / "console.js").read_bytes()
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        tags = set()
        for coding in ("gzip, br", "identity"):
            asked = {"Accept-Encoding": coding}
            async with session.get(at, headers=asked) as answer:
                body = await answer.read()
                tag = answer.headers["ETag"]
                assert answer.headers["Vary"] == "Accept-Encoding"
                assert answer.headers["Cache-Control"] == "no-cache"
            assert (gzip.decompress(body) if coding != "identity" else body) == plain
            tags.add(tag)
            async with session.get(at, headers={**asked, "If-None-Match": tag}) as known:
                assert (known.status, await known.read()) == (304, b"")
        assert len(tags) == 2


async def test_console_is_left_out_where_it_is_not_wanted(house: House) -> None:
    async with open_front(house, console=False) as front:
        for path in ("/ui", "/ui/", "/ui/console.js", "/ui/config.json"):
            async with front.client.session.get(front.listener.url + path) as answer:
                assert (answer.status, (await answer.json())["error"]["code"]) == (404, "not_found")


async def test_scaikey_is_named_where_the_console_is_known_there(house: House) -> None:
    issuer = "https://scaikey.example.com"
    for client, told in ((None, None), ("page", {"issuer": issuer, "client_id": "page"})):
        async with open_front(house, scaikey_url=issuer, console_client_id=client) as front:
            answer = await front.client.with_token(None).get("/ui/config.json")
        assert answer.body == {"scaikey": told}
        policy = answer.headers["Content-Security-Policy"]
        assert (issuer in policy) == (client is not None)
    assert "connect-src 'self';" in headers_of(Console())["Content-Security-Policy"]


def test_page_has_nothing_inline_and_nothing_from_elsewhere() -> None:
    page = (ASSETS / "index.html").read_text("utf-8")
    assert re.findall(r'(?:src|href)="([^"]*)"', page) == [
        "/ui/icon.svg",
        "/ui/console.css",
        "/ui/console.js",
    ]
    assert not re.search(r"<script(?![^>]*src)|<style|style=|\son\w+=", page)
    assert "url(" not in (ASSETS / "console.css").read_text("utf-8")


def test_no_source_makes_markup_of_text_or_keeps_anything() -> None:
    sources = [*(SOURCES / "src").rglob("*.ts"), *(SOURCES / "src").rglob("*.tsx")]
    assert sources
    for source in sources:
        text = source.read_text("utf-8")
        found = re.findall(
            r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function"
            r"|localStorage|document\.cookie|indexedDB|postMessage"
            r"|randomUUID",  # missing where the page came over plain http
            text,
        )
        assert not found, source
        if source.name != "scaikey.ts":
            assert "sessionStorage" not in text, source


def test_nothing_but_preact_is_shipped_and_the_lock_names_no_registry() -> None:
    package = json.loads((SOURCES / "package.json").read_text())
    assert set(package["dependencies"]) == {"preact"}
    lock = json.loads((SOURCES / "package-lock.json").read_text())
    for name, about in lock["packages"].items():
        assert "resolved" not in about, name
        assert not name or about["integrity"].startswith("sha512-"), name


def test_shipped_files_are_those_that_the_sources_give(tmp_path: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed: the console is not made anew")
    work = tmp_path / "console"
    shutil.copytree(SOURCES, work, ignore=shutil.ignore_patterns("node_modules"))
    installed = subprocess.run([npm, "ci"], cwd=work, capture_output=True, check=False)
    if installed.returncode:
        pytest.skip("npm cannot install here: the console is not made anew")
    for command in (["check"], ["build", "--", str(tmp_path / "made")]):
        done = subprocess.run([npm, "run", *command], cwd=work, capture_output=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    made = {file.name: file.read_bytes() for file in (tmp_path / "made").iterdir()}
    assert made == {file.name: file.read_bytes() for file in ASSETS.iterdir()}, "run `make console`"
