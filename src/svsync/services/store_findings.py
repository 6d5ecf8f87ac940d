"""What `doctor` finds of the database server: version, log, clock, and whether it is the one
that it was."""

from datetime import datetime
from typing import Final

from svsync.services.findings import Finding, ok, warning, wrong
from svsync.store import restore
from svsync.store.database import Database, Row

OLDEST_MAJOR: Final = 14
SKEW_S: Final = 2.0
"""Seconds by which two clocks may differ; leases go by the database's alone."""


def version(server: Row, where: str) -> Finding:
    major = server["version_num"] // 10_000
    says = f"{where} {server['version'].split()[0]} answers"
    if major < OLDEST_MAJOR:
        return wrong("database", says, f"bring it to PostgreSQL {OLDEST_MAJOR} or later")
    return ok("database", says)


def parameters(server: Row) -> Finding:
    """Values are sealed before they are sent; names and fingerprints are not."""
    logging: list[str] = server["logging_parameters"]
    if not logging:
        return ok("parameters", "the database logs none")
    names = [said.partition(" ")[0] for said in logging]
    return warning(
        "parameters",
        f"{', '.join(logging)}: where the database logs statements, names and ciphertext stand"
        " in its log",
        "as its administrator: " + "; ".join(f"ALTER DATABASE … SET {name} = 0" for name in names),
    )


def clock(server: Row, before: datetime, after: datetime) -> Finding:
    """What the answer's way took is no difference."""
    ahead = (server["now"] - before - (after - before) / 2).total_seconds()
    way = (after - before).total_seconds() / 2
    zone = f"its time zone is {server['timezone']}"
    if abs(ahead) - way > SKEW_S:
        word = "ahead of" if ahead > 0 else "behind"
        return warning(
            "clock",
            f"the database's is {abs(ahead):,.0f} s {word} this machine's; {zone}",
            "let both follow one time server: logins and certificates go by this machine's",
        )
    return ok("clock", f"the database's and this machine's agree; {zone}")


async def look_at_home(db: Database) -> Finding:
    """Is the database where it was when it was last in order?"""
    if await restore.home(db) is None:
        return warning(
            "restore",
            "whether the database was restored from a backup cannot be told, for svsync's role"
            " may not ask on which server it is",
            "as its administrator: GRANT EXECUTE ON FUNCTION pg_control_system(),"
            " pg_control_checkpoint() TO the role; until then run `svsync migrate"
            " --after-restore` after each restore by yourself",
        )
    if await restore.has_moved(db):
        return wrong(
            "restore",
            "the database is on another server or timeline than it was",
            "where it was restored from a backup, or a standby took over: run `svsync"
            " migrate --after-restore`",
        )
    return ok("restore", "the database is on the server and timeline that it was on")
