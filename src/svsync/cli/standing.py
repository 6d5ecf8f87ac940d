"""How backends stand, in words and plain tables; for one look at them and for many."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from svsync.cli.costs import of_month, shortest, too_short
from svsync.cli.output import Output, ago, span

_COLUMNS: Final = (
    "backend",
    "state",
    "last sync",
    "next",
    "stale",
    "secrets",
    "conflicts",
    "error",
)


def of_backend(look: Mapping[str, Any], backend: str | None) -> Mapping[str, Any]:
    """The same look at one backend alone, where one is named."""
    if backend is None:
        return look
    return {**look, "backends": [b for b in look["backends"] if b["id"] == backend]}


def show(out: Output, look: Mapping[str, Any], *, one: bool) -> None:
    """A look; `one`: at the one backend that somebody named."""
    backends = look["backends"]
    stopped = look.get("stopped")  # a service does not tell
    if out.json and one:
        out.document({**backends[0], **({"stopped": stopped} if "stopped" in look else {})})
        return
    if out.json:
        out.document(look)
        return
    now = datetime.fromisoformat(look["at"])
    if stopped:
        out.heading(stop_line(stopped, now), "failed")
    if one:
        out.facts(_facts(backends[0], stopped, now))
    elif not said_there_are_none(out, backends):
        out.table(_COLUMNS, [_row(b, stopped, now) for b in backends])
        for line in _short_lines(backends):
            out.line(line)
    for line in unsafe_lines(backends):
        out.heading(line, "failed")


def state_of(status: Mapping[str, Any]) -> str:
    """One word; what was never reached, or does not get to its end, is not called healthy."""
    if status["paused"]:
        return "paused"
    if status["last_sync_at"] is None and status["connection_latency_ms"] is None:
        return "new"
    if status["consecutive_failures"] and status["status"] == "healthy":
        return "failing"
    return str(status["status"])


def next_words(status: Mapping[str, Any], stopped: object, now: datetime) -> str | None:
    """When the next run is due; nobody starts it while no daemon runs."""
    due = status["next_sync_at"]
    if status["paused"] or due is None:
        return None
    if stopped:
        return "stopped"
    if put_off := status.get("put_off"):
        return f"put off, {ago(put_off['until'], now)}"
    words = ago(due, now)
    return words if words.startswith("in ") else f"due {words}"


def stop_line(stopped: Mapping[str, str], now: datetime) -> str:
    from svsync.services.overview import RESUME

    return (
        f"All runs are stopped, by {stopped['by']}, {ago(stopped['since'], now)}:"
        f" {RESUME} lets them begin again."
    )


def unsafe_lines(backends: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is to be red on every look, whatever else is well."""
    return [
        f"{b['id']}: tls_verify is off, anybody on the way can read every secret"
        for b in backends
        if not b["tls_verify"]
    ]


def _short_lines(backends: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of those whose cycles cannot be as often as they are to be."""
    return [f"{b['id']}: {words}" for b in backends if (words := shortest(b))]


def said_there_are_none(out: Output, backends: Sequence[object]) -> bool:
    """Say so, where there are none."""
    if not backends:
        out.line("There is no backend: name one under `backends:` in the configuration file.")
    return not backends


def _stale(status: Mapping[str, Any]) -> str | None:
    seconds = status["staleness_s"]
    return None if seconds is None else span(round(seconds))


def _row(b: Mapping[str, Any], stopped: object, now: datetime) -> tuple[object, ...]:
    return (
        b["id"],
        state_of(b),
        ago(b["last_sync_at"], now),
        next_words(b, stopped, now),
        _stale(b),
        b["secrets_synced"],
        b["conflicts_open"],
        b["last_error"],
    )


def _facts(s: Mapping[str, Any], stopped: object, now: datetime) -> list[tuple[str, object]]:
    lease, latency = s["lease"], s["connection_latency_ms"]
    return [
        ("backend", s["id"]),
        ("state", state_of(s)),
        ("mode", s["mode"]),
        ("last sync", ago(s["last_sync_at"], now)),
        ("last success", ago(s["last_success_at"], now)),
        ("next sync", next_words(s, stopped, now)),
        ("put off", s["put_off"] and s["put_off"]["reason"]),
        ("interval", too_short(s)),
        ("stale for", _stale(s)),
        (
            "running now",
            lease and f"{lease['holder']}, {ago(lease['expires_at'], now)} at the latest",
        ),
        ("secrets", s["secrets_synced"]),
        ("conflicts", s["conflicts_open"]),
        ("pending pushes", s["pending_pushes"] or None),
        ("diverged", s["diverged"]),
        ("skipped", s["skipped"]),
        ("quarantined", s["quarantined"]),
        ("latency", None if latency is None else f"{latency:.0f} ms"),
        ("calls a cycle", s["calls_per_cycle"]),
        ("costs", of_month(s["estimated_cost"])),
        ("failures", s["consecutive_failures"] or None),
        ("unreachable", s["unreachable_since"] and f"since {ago(s['unreachable_since'], now)}"),
        ("last error", s["last_error"]),
        ("last run", s["last_run"]),
    ]
