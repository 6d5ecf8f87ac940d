"""Runs in the foreground: `run-once`, `plan`, and the reports of past ones."""

import argparse
import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from svsync.cli.arguments import add_command, add_group, backend_option
from svsync.cli.costs import of_month, of_run, too_short
from svsync.cli.output import Output, ago, say, span
from svsync.domain.errors import BackendBusyError, SvsyncError

if TYPE_CHECKING:
    from svsync.app import App
    from svsync.domain.guards import Allow
    from svsync.domain.ids import TenantId
    from svsync.services.run_ends import Ended
    from svsync.services.runs import Request

CONFLICTS_WAIT: Final = 4
PARTIAL: Final = 5

_POLL_S: Final = 0.5
_CALLS: Final = ("login", "list", "metadata", "read", "write", "delete")
_EXAMPLES: Final = 3
_PLANNED: Final = 50


def add_commands(subparsers: Any) -> None:
    once = add_command(subparsers, "run-once", "run one cycle of a backend and report", run_once)
    once.add_argument("--dry-run", action="store_true", help="do all but write, on either side")
    once.add_argument("--wait", action="store_true", help="wait while somebody else runs it")
    for flag, words in (
        ("--allow-mass-delete", "let this run delete what a guard would stop"),
        ("--allow-mass-overwrite", "let this run overwrite what a guard would stop"),
        ("--allow-regression", "let this run go back to earlier versions"),
        ("--fail-on-conflicts", "exit 4 when conflicts wait for a person"),
        ("--fail-on-partial", "exit 5 when something was skipped"),
    ):
        once.add_argument(flag, action="store_true", help=words)
    plan_ = add_command(subparsers, "plan", "show what a run would do, and do none of it", plan)
    for parser in (once, plan_):
        backend_option(parser)
        parser.add_argument(
            "--path", action="append", metavar="GLOB", help="only these local paths (repeatable)"
        )
        parser.set_defaults(failure={"run_id": None})
    runs = add_group(subparsers, "runs", "reports of past runs")
    listing = add_command(runs, "list", "the last runs of a backend, newest first", list_runs)
    backend_option(listing)
    listing.add_argument("--limit", type=int, default=20, metavar="N", help="default: 20")
    shown = add_command(runs, "show", "the report of one run", show_run)
    shown.add_argument("run", metavar="RUN")


# --- commands -------------------------------------------------------------------------


async def run_once(args: argparse.Namespace) -> int:
    """One cycle; the exit code is that of its cause, or asked for by --fail-on-…"""
    from svsync.app import rates_shared
    from svsync.cli.opening import opened, record
    from svsync.domain.guards import Allow

    allow = Allow(args.allow_mass_delete, args.allow_mass_overwrite, args.allow_regression)
    request = _request(args, dry=args.dry_run, allow=allow)
    out: Output = args.out
    async with opened(args) as (app, tenant):
        if not args.dry_run:
            allowed = [guard for guard, passed in asdict(allow).items() if passed]
            about = {"paths": args.path, "allow": allowed}
            await record(app, tenant, "federation.sync", backend=args.backend, about=about)
            await app.overview.refuse_stopped()
        async with rates_shared(app):
            ended = await _run(app, tenant, request, out, wait=args.wait)
        document = ended.to_json()
        if out.json:
            out.document(document)
        else:
            show_report(out, document)
    _raise_failure(ended)
    return exit_code(args, document, ended.conflicts_open)


def exit_code(args: argparse.Namespace, run: Mapping[str, Any], conflicts_open: int) -> int:
    """Of a run that went through, as asked for by --fail-on-…"""
    if args.fail_on_conflicts and conflicts_open:
        say(f"{conflicts_open} conflicts wait: `svsync conflicts list` shows them")
        return CONFLICTS_WAIT
    if args.fail_on_partial and run["result"] == "partial":
        say("something was skipped; the report names each path with its reason")
        return PARTIAL
    return 0


async def plan(args: argparse.Namespace) -> int:
    """A dry run. Where a guard would stop the run, it is passed by, so that the plan
    shows what it stops; the exit code is that of the run that would be stopped."""
    from svsync.app import rates_shared
    from svsync.cli.opening import opened
    from svsync.services.plans import look

    out: Output = args.out
    async with opened(args) as (app, tenant), rates_shared(app):

        async def run(allow: "Allow") -> "Ended":
            return await _run(app, tenant, _request(args, dry=True, allow=allow), out)

        found = await look(run)
        document = found.to_json(await app.federation.status(tenant, args.backend))
        # As a service tells it, but for what that leaves out: too much, or not to be listed.
        document |= {"planned": len(document["plan"]), "hidden": 0}
    if out.json:
        out.document(document)
    else:
        show_report(out, document)
    _raise_failure(found.first)
    return 0


async def list_runs(args: argparse.Namespace) -> int:
    from svsync.cli.opening import opened

    async with opened(args) as (app, tenant):
        runs = await app.runs.recent(tenant, args.backend, max(1, args.limit))
    for run in runs:
        del run["skipped"]  # how many there are stands in `counts`; `runs show` names them
    tell_runs(args, runs)
    return 0


def tell_runs(args: argparse.Namespace, runs: Sequence[Mapping[str, Any]]) -> None:
    """Reports of runs, in a line each."""
    out: Output = args.out
    if out.json:
        out.document({"runs": runs, "next_cursor": None})
        return
    if not runs:
        out.line(
            f"{args.backend} has never run; `svsync run-once --backend {args.backend}` runs it."
        )
        return
    now = datetime.now(UTC)
    columns = ("run", "kind", "result", "began", "wrote")
    out.table(columns, [_run_row(run, now) for run in runs])


async def show_run(args: argparse.Namespace) -> int:
    from svsync.cli.opening import opened

    async with opened(args) as (app, tenant):
        run = await app.runs.show(tenant, args.run)
    tell_run(args, run)
    return 0


def tell_run(args: argparse.Namespace, run: Mapping[str, Any]) -> None:
    """The report of one."""
    out: Output = args.out
    if out.json:
        out.document(run)
    else:
        show_report(out, run, past=True)


# --- running --------------------------------------------------------------------------


def _request(args: argparse.Namespace, *, dry: bool, allow: Any = None) -> "Request":
    from svsync.domain.globs import Glob
    from svsync.domain.guards import Allow
    from svsync.services.runs import Request

    paths = None if args.path is None else tuple(Glob(text) for text in args.path)
    return Request(args.backend, paths=paths, dry=dry, allow=allow or Allow())


async def _run(
    app: "App", tenant: "TenantId", request: "Request", out: Output, *, wait: bool = False
) -> "Ended":
    """The run, once nobody else runs the backend if `wait`; its report if it is interrupted.

    Raises:
        BackendBusyError: somebody else runs this backend now, and `wait` is not set.
    """
    from svsync.app import new_id

    before, waiting_for = new_id("run"), ""
    with out.progress() as bar:
        while True:
            try:
                return await app.runs.run(tenant, request, bar)
            except BackendBusyError as busy:
                if not wait:
                    raise
                if busy.holder != waiting_for:
                    waiting_for = busy.holder
                    say(f"{waiting_for} is running {request.backend}: waiting for it")
                await asyncio.sleep(_POLL_S)
            except asyncio.CancelledError:
                await _report_interrupted(app, tenant, request, out, before)
                raise


async def _report_interrupted(
    app: "App", tenant: "TenantId", request: "Request", out: Output, before: str
) -> None:
    """The run that a signal ended, as its row has it. Ids sort by their moment, so that
    of a run of ours comes after the one drawn when we began."""
    for run in await app.runs.recent(tenant, request.backend, 1):
        error, ours = run["error"], str(run["run_id"]) > before
        if ours and isinstance(error, dict) and error["code"] == "interrupted" and out.json:
            out.document(run)


def _raise_failure(ended: "Ended") -> None:
    """A failed run's error, for the one place that makes exit codes of errors."""
    if ended.record.error is not None:
        error = ended.record.error
        raise ended.cause or SvsyncError(error.message, code=error.code)


# --- what people see ------------------------------------------------------------------


def show_report(out: Output, run: Mapping[str, Any], *, past: bool = False) -> None:
    """A run as its JSON tells it. The sentence of a live one's error goes to stderr."""
    dry = run["kind"] == "dry"
    result = run["result"] or run["state"]
    took = "" if run["duration_ms"] is None else f" after {span(run['duration_ms'] / 1000)}"
    kind = "dry run, nothing was written" if dry else f"{run['kind']} run"
    out.heading(f"{run['backend_id']}: {result}{took} ({kind})", result)
    error = run["error"]
    out.facts(
        [
            ("run", run["run_id"]),
            ("error", error and f"{error['code']} while in stage {error['stage']}"),
            ("", error["message"] if error and past else None),
        ]
    )
    _show_counts(out, run["counts"])
    if "plan" in run:
        _show_plan(out, run["plan"], run.get("guards", ()), failed=error is not None)
    _show_skipped(out, run)
    _show_effort(out, run)


def _show_counts(out: Output, counts: Mapping[str, Any]) -> None:
    from svsync.cli.words import ALWAYS, COUNTS

    rows = [
        (words, counts[count])
        for count, words in COUNTS.items()
        if counts.get(count) or (count in ALWAYS and count in counts)
    ]
    if counts.get("skipped"):
        rows.append(("skipped", counts["skipped"]))
    if rows:
        out.line()
        out.table(("secrets", "count"), rows)


def _show_plan(
    out: Output,
    plan: Sequence[Mapping[str, Any]],
    guards: Sequence[Mapping[str, Any]],
    *,
    failed: bool,
) -> None:
    out.line()
    if failed and not guards:
        out.line("It ended before it knew what would change." if not plan else "Until it ended:")
        if not plan:
            return
    for guard in guards[1:]:
        out.line(f"Then {guard['code']} would stop it: {guard['message']}")
    if guards:
        out.line("This would follow, were it not stopped:")
    if not plan:
        out.line("Nothing would change.")
        return
    shown = sorted(plan, key=lambda p: (p["path"], p["remote_path"]))
    rows = [(p["action"], p["path"], p["remote_path"], p["detail"]) for p in shown[:_PLANNED]]
    out.table(("action", "path", "remote path", "what"), rows)
    if len(plan) > _PLANNED:
        out.line(f"… and {len(plan) - _PLANNED:,} more: --json shows them all")


def _show_skipped(out: Output, run: Mapping[str, Any]) -> None:
    """Grouped by reason, with the first few names; --json has them all."""
    from svsync.cli.words import REASONS

    by_reason: Mapping[str, int] = run["counts"].get("skipped_by_reason", {})
    rows = []
    for reason, count in sorted(by_reason.items(), key=lambda item: -item[1]):
        named = [s["remote_path"] for s in run["skipped"] if s["reason"] == reason][:_EXAMPLES]
        more = f" … {count - len(named):,} more" if named and count > len(named) else ""
        words = {str(key): text for key, text in REASONS.items()}.get(reason, "")
        rows.append((reason, count, words, ", ".join(named) + more))
    if rows:
        out.line()
        out.table(("left as it is", "count", "because", "such as"), rows)


def _show_effort(out: Output, run: Mapping[str, Any]) -> None:
    from svsync.domain.runs import Stage

    calls = [f"{run['api_calls'][name]:,} {name}" for name in _CALLS if run["api_calls"].get(name)]
    stages = [f"{s} {ms:,} ms" for s in Stage if (ms := run["stages_ms"].get(s))]
    throttled = run["counts"].get("throttled")
    cycle = run.get("calls_per_cycle")
    facts = [
        ("calls", ", ".join(calls) or "none"),
        ("cost", of_run(run["counts"].get("estimated_cost"))),
        ("throttled", throttled or None),
        ("values read", _size(run["counts"].get("bytes", 0))),
        ("time", ", ".join(stages) or None),
    ]
    if "guards" in run:
        known = "known after the first run"
        if cycle is not None:
            bill = of_month(run.get("estimated_cost")) or "no price of them is known"
            known = f"{cycle:,} calls, as the last run; {bill}"
        facts += [
            ("it would cost", of_run(run.get("would_cost"))),
            ("a cycle costs", known),
            ("interval", too_short(run)),
        ]
    out.line()
    out.facts(facts)


def _size(count: int) -> str | None:
    if not count:
        return None
    return f"{count:,} bytes" if count < 10_240 else f"{count / 1024:,.0f} KiB"


def _run_row(run: Mapping[str, Any], now: datetime) -> tuple[object, ...]:
    counts = run["counts"]
    changed = sum(counts.get(name, 0) for name in ("created", "updated", "deleted", "pushed"))
    return (
        run["run_id"],
        run["kind"],
        run["error"]["code"] if run["error"] else run["result"] or run["state"],
        ago(run["started_at"], now),
        None if run["kind"] == "dry" else changed,
    )
