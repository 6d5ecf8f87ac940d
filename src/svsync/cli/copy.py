"""Copies of secrets at new paths, by a mapping."""

import argparse
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final

from svsync.cli.arguments import acting_user, add_command
from svsync.cli.output import Output, quoted, say

if TYPE_CHECKING:
    from svsync.app import App
    from svsync.domain.ids import TenantId
    from svsync.services.operating import Operating
    from svsync.services.transfer import Access, Report

Tell = Callable[[int, int | None], None]
"""Takes how many are done, and of how many; None: that is not known."""
_DONE: Final = {
    "unchanged": "there already",
    "overwritten": "overwritten",
    "labelled": "labelled",
    "differs": "left as it is",
    "failed": "failed",
}


def add_commands(subparsers: Any) -> None:
    copied = add_command(
        subparsers, "copy", "copy secrets to new paths; what is there already is left", copy
    )
    copied.add_argument(
        "--mapping", metavar="FILE", required=True, help="which path is copied where (YAML)"
    )
    placing_options(copied)


def placing_options(parser: argparse.ArgumentParser) -> None:
    """Those of every command that brings values to their places."""
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="write a new version where another value is, or one was deleted",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be done")


async def copy(args: argparse.Namespace) -> int:
    from svsync.config.copy_mapping import load_copy_mapping

    mapping = load_copy_mapping(args.mapping)
    async with operating(args) as (_, _, access):
        return await copy_by(args, mapping, access)


@asynccontextmanager
async def operating(
    args: argparse.Namespace,
) -> AsyncIterator[tuple["App", "TenantId", "Operating"]]:
    """Secrets of `--tenant` on the store itself, as whoever runs this program."""
    from svsync.app import new_id
    from svsync.cli.opening import opened
    from svsync.services.nameless import NamelessSecrets
    from svsync.services.operating import Operating, operator_call

    async with opened(args) as (app, tenant):
        call = operator_call(tenant, args.tenant, acting_user(), new_id("req"))
        yield app, tenant, Operating(
            call,
            reading=app.reading,
            listing=app.listing,
            secrets=app.secrets,
            writes=app.writes,
            recorder=app.recorder,
            nameless=NamelessSecrets(app.db, app.registry, app.proxying.open),
        )  # fmt: skip


async def copy_by(args: argparse.Namespace, mapping: Any, access: "Access") -> int:
    """The copies of a mapping, whoever makes them."""
    from svsync.services.copying import copy as copy_all
    from svsync.services.transfer import Report

    report = Report(dry=args.dry_run)

    async def work(tell: Tell) -> None:
        await copy_all(
            access, mapping, report,
            overwrite=args.overwrite, tell=lambda done: tell(done, None),
        )  # fmt: skip

    return await placed(args, report, ("copying", "copied"), work)


async def placed(
    args: argparse.Namespace,
    report: "Report",
    words: tuple[str, str],
    work: Callable[[Tell], Awaitable[None]],
) -> int:
    """Do it, and tell what was done, also where it ends early. The exit code. `words`: how that
    is called while it is done, and afterwards."""
    out: Output = args.out
    doing, done = words
    try:
        with counting(out, doing) as tell:
            await work(tell)
    except BaseException:  # a signal too, which cancels it: what was done until then is done
        args.failure = report.as_json()
        if (report.placed or report.unchanged or report.not_listed) and not out.json:
            tell_placed(out, report, done)
        raise
    if out.json:
        out.document(report.as_json())
    else:
        tell_placed(out, report, done)
    return 0 if report.well else 1


@contextmanager
def counting(out: Output, words: str) -> Iterator[Tell]:
    """A bar if somebody looks at it; what is printed is the answer and nothing else."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    with out.counting(words) as tell:
        yield tell


def tell_placed(out: Output, report: "Report", done: str) -> None:
    """What became of each value but those that were there already, and how many there are."""
    from svsync.services.transfer import Outcome

    named = {name: _word(name, done, dry=report.dry) for name in Outcome}
    told = sorted(report.placed, key=lambda one: (one.path, one.source))
    rows = [
        (quoted(one.source), quoted(one.path) or "-", named[one.outcome], _because(one))
        for one in told
    ]
    if rows:
        out.table(("source", "path", "outcome", "because"), rows)
    counts = report.counts()
    said = [f"{many:,} {named[Outcome(name)]}" for name, many in counts.items() if many]
    if said or report.well:
        out.line(f"{', '.join(said)}." if said else "There is nothing to do.")
    tell_unmatched(report.unmatched)
    for prefix in report.not_listed:
        say(f"a backend did not list all below {prefix!r}, so there may be more: run it again")


def tell_unmatched(lines: list[str]) -> None:
    """Lines of a mapping that nothing came of, so that a slip in one does not look like done."""
    for line in lines:
        say(f"paths: {line} matches no secret that can be listed: correct or remove that line")


def _word(outcome: str, done: str, *, dry: bool) -> str:
    word = _DONE.get(outcome, done)
    return f"would be {word}" if dry and outcome in ("created", "overwritten", "labelled") else word


def _because(one: Any) -> str:
    if one.message is not None:
        return str(one.message)
    if one.before is None:
        return f"{', '.join(one.labels)} set" if one.labels else ""
    dropped = f"{', '.join(one.dropped)} dropped; " if one.dropped else ""
    return f"{dropped}version {one.before} stays in its history"
