"""A marker that secret values carry, and the search for it in all that came out.

A test takes its values from the fixture `canary`. When it ends, the marker is
looked for in the log and in the test's database, and wherever the test told
the canary to look, in every encoding in which a value could have got there.
"""

import base64
import logging
import secrets
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio
from tests.postgres import connected

from svsync.embedded.postgres_install import wheel_programs

Source = Callable[[], str | bytes]
"""Gives what was written somewhere, when it is asked at the end of the test."""


def encodings(marker: str) -> dict[str, set[bytes]]:
    """Every form of an ASCII marker that is looked for, by the name of its encoding."""
    raw = marker.encode("ascii")
    padded = [_base64_of_marker_alone(raw, shift) for shift in range(3)]
    return {
        "raw": {raw, marker.encode("utf-16-le")},
        "base64": {*padded, *(form.translate(_URL_SAFE) for form in padded)},
        "hex": {raw.hex().encode(), raw.hex().upper().encode()},
        "json": _each_character(raw, "\\u{:04x}", "\\u{:04X}"),
        "percent": _each_character(raw, "%{:02x}", "%{:02X}"),
        "python": _each_character(raw, "\\x{:02x}", "\\x{:02X}"),
        "octal": _each_character(raw, "\\{:03o}"),
    }


_URL_SAFE = bytes.maketrans(b"+/", b"-_")


def _base64_of_marker_alone(raw: bytes, shift: int) -> bytes:
    """The characters that depend on nothing but the marker, `shift` bytes into a group."""
    text = base64.b64encode(bytes(shift) + raw).rstrip(b"=")
    first = (0, 2, 3)[shift]
    last = len(text) - (1 if (shift + len(raw)) % 3 else 0)
    return text[first:last]


def _each_character(raw: bytes, *escapes: str) -> set[bytes]:
    return {"".join(map(escape.format, raw)).encode() for escape in escapes}


@dataclass(slots=True)
class Canary:
    """Values that can be recognised wherever they turn up.

    Attributes:
        marker: in every value; ASCII, no other test has the same.
    """

    marker: str = field(default_factory=lambda: f"canary{secrets.token_hex(10)}")
    _sources: dict[str, Source] = field(default_factory=dict)

    def value(self, name: str = "") -> str:
        """A value with the marker, and with characters that encodings escape."""
        return f'{name}"ä\\ %+{self.marker}/ü\n'

    def found_in(self, text: str | bytes) -> set[str]:
        """The encodings in which the marker is there, however it is broken into lines."""
        raw = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
        unbroken = raw.translate(None, b"\r\n\t ").replace(b"\\n", b"").replace(b"\\r", b"")
        return {
            encoding
            for encoding, forms in encodings(self.marker).items()
            if any(form in raw or form in unbroken for form in forms)
        }

    def watch(self, name: str, source: Source) -> None:
        """Look at what `source` gives when the test ends."""
        self._sources[name] = source

    def watch_folder(self, folder: Path) -> None:
        """Look at every file below a folder, and its name, when the test ends."""
        self.watch(str(folder), lambda: b"\n".join(_contents(folder)))

    def check(self) -> None:
        """Fail with the places where the marker turned up; what is there is not shown."""
        found = {name: self.found_in(source()) for name, source in self._sources.items()}
        leaks = [f"{name} ({', '.join(sorted(how))})" for name, how in found.items() if how]
        assert not leaks, f"the marker turned up in: {'; '.join(leaks)}"


def _contents(folder: Path) -> list[bytes]:
    return [
        str(path).encode() + b"\n" + (path.read_bytes() if path.is_file() else b"")
        for path in sorted(folder.rglob("*"))
    ]


async def database_contents(admin_url: str) -> bytes:
    """All that a database holds: its rows as pg_dump writes them, and its files.

    The files also hold what rows and indexes once held and no query shows.
    """
    dumped = subprocess.run(  # noqa: ASYNC221 - nothing else runs when a test has ended
        [wheel_programs() / "pg_dump", "--data-only", admin_url], check=True, capture_output=True
    ).stdout
    async with connected(admin_url) as admin:
        await admin.execute("CHECKPOINT")
        rows = await admin.fetch(
            "SELECT pg_read_binary_file(pg_relation_filepath(oid), 0, 1 << 29, true) AS content "
            "FROM pg_class WHERE oid >= 16384 AND pg_relation_filepath(oid) IS NOT NULL"
        )
    return b"\n".join([dumped, *(row["content"] or b"" for row in rows)])


@pytest.fixture
def _test_database(request: pytest.FixtureRequest) -> str | None:
    """The superuser's address of the test's database, if the test has one.

    Asked for here so that the database outlives the canary's last look at it.
    """
    if "database_url" not in request.fixturenames:
        return None
    address: str = request.getfixturevalue("admin_url")
    return address


@pytest_asyncio.fixture
async def canary(
    _test_database: str | None, caplog: pytest.LogCaptureFixture
) -> AsyncIterator[Canary]:
    """Values for this test; what they leave in log and database fails it."""
    bird = Canary()
    caplog.set_level(logging.DEBUG)
    yield bird
    bird.watch("the log", lambda: caplog.text)
    if _test_database is not None:
        contents = await database_contents(_test_database)
        bird.watch("the database", lambda: contents)
    bird.check()
