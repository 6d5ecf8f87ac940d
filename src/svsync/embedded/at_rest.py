"""What the embedded store holds at rest, seen as somebody who stole the disk sees it.

Every row of every table, read as superuser and past row-level security, and every
file of the state directory, the write-ahead log included: what rows once held and
no query shows any more is still in those.
"""

import base64
import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg

from svsync.domain.errors import StoreError
from svsync.embedded.postgres import embedded_postgres

_DATABASE: Final = "svsync"
_BATCH: Final = 500
_SAMPLE_BYTES: Final = 12


@dataclass(frozen=True, slots=True)
class AtRest:
    """What was looked at, and where a value was found.

    Attributes:
        found: names of tables and files that hold one of the values in some form;
            empty where all is well.
        versions: sealed values of secrets; `conflict_sides`: those of conflicts.
        pushes: writes to backends that are on record, each named by its fingerprint.
        sample: the first bytes of the sealed value asked for.
    """

    tables: int
    rows: int
    files: int
    file_bytes: int
    versions: int
    conflict_sides: int
    pushes: int
    sample: bytes
    found: tuple[str, ...]


async def look_at_rest(state_dir: Path, values: Sequence[bytes], sample_of: str) -> AtRest:
    """Look for each value as text, base64 and hex in all that `state_dir` holds.

    `sample_of` is the local path of the secret whose sealed value is shown.

    Raises:
        StoreError: the database would not be read.
    """
    forms = [form for value in values for form in _forms(value)]
    async with embedded_postgres(state_dir) as server:
        address, _, query = server.admin_dsn.partition("?")
        dsn = f"{address.rpartition('/')[0]}/{_DATABASE}?{query}"
        try:
            connection = await asyncpg.connect(
                dsn, server_settings={"default_transaction_read_only": "on"}
            )
            try:
                looked = await _look_at_tables(connection, forms, sample_of)
                await connection.execute("CHECKPOINT")
            finally:
                await connection.close()
        except asyncpg.PostgresError as error:
            raise StoreError(
                f"the database could not be looked at ({type(error).__name__})"
            ) from None
    tables, rows, in_tables, counts = looked
    files, size, in_files = _look_at_files(state_dir, forms)
    return AtRest(
        tables=tables,
        rows=rows,
        files=files,
        file_bytes=size,
        versions=counts["versions"],
        conflict_sides=counts["sides"],
        pushes=counts["pushes"],
        sample=counts["sample"],
        found=(*in_tables, *in_files),
    )


async def _look_at_tables(
    connection: "asyncpg.Connection[asyncpg.Record]", forms: Sequence[bytes], sample_of: str
) -> tuple[int, int, list[str], asyncpg.Record]:
    names = await connection.fetch(
        "SELECT quote_ident(tablename) AS name FROM pg_tables WHERE schemaname = 'public'"
    )
    rows, found = 0, []
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        for name in (record["name"] for record in names):
            held = False
            # As text a bytea column is hex, in which the values are looked for too.
            async for row in connection.cursor(f"SELECT t::text FROM {name} t", prefetch=_BATCH):  # noqa: S608
                rows += 1
                held = held or _holds(row[0].encode(), forms)
            if held:
                found.append(f"table {name}")
        counts = await connection.fetchrow(
            """
            SELECT (SELECT count(*) FROM versions WHERE sealed IS NOT NULL) AS versions,
                   (SELECT count(local_sealed) + count(remote_sealed) FROM conflicts) AS sides,
                   (SELECT count(*) FROM pushes) AS pushes,
                   substr(v.sealed, 1, $2) AS sample
            FROM secrets s JOIN versions v USING (tenant_id, secret_id)
            WHERE s.path = $1 AND v.version = s.current_version
            """,
            sample_of,
            _SAMPLE_BYTES,
        )
    if counts is None:
        raise StoreError(f"there is no sealed value of {sample_of}")
    return len(names), rows, found, counts


def _look_at_files(folder: Path, forms: Sequence[bytes]) -> tuple[int, int, list[str]]:
    files, size, found = 0, 0, []
    for path in _files(folder):
        files += 1
        with path.open("rb") as file:
            length = path.stat().st_size
            size += length
            if length:
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                    if any(content.find(form) >= 0 for form in forms):
                        found.append(f"file {path.relative_to(folder)}")
    return files, size, found


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())


def _holds(content: bytes, forms: Sequence[bytes]) -> bool:
    return any(form in content for form in forms)


def _forms(value: bytes) -> Iterator[bytes]:
    """The value as text, as hex, and as base64 at each of its three alignments."""
    yield value
    yield value.hex().encode()
    for shift in range(3):
        text = base64.b64encode(bytes(shift) + value).rstrip(b"=")
        yield text[(0, 2, 3)[shift] : len(text) - (1 if (shift + len(value)) % 3 else 0)]
