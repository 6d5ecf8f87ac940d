"""Backends as they are configured: list, show, test, the mapping."""

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from svsync.cli.arguments import add_command, add_group, backend_option
from svsync.cli.lifecycle import add_verbs
from svsync.cli.output import Output
from svsync.cli.standing import said_there_are_none
from svsync.domain.errors import DeniedError, NotFoundError, UsageError

if TYPE_CHECKING:
    from svsync.cli.opening import Compiled
    from svsync.config.model import Settings
    from svsync.domain.mapping import Explanation


def add_commands(subparsers: Any) -> None:
    backends = add_group(subparsers, "backends", "the stores that are federated")
    add_command(backends, "list", "every backend, in a line each", list_backends)
    shown = add_command(backends, "show", "a backend's configuration as it is in force", show)
    tested = add_command(backends, "test", "sign in and look what is granted", test)
    for parser in (shown, tested):
        parser.add_argument("backend", metavar="ID", help="a backend's id or name")
    added = add_command(backends, "add", "let a service make a backend, and try it", add)
    added.add_argument(
        "file", metavar="FILE", help="the keys of one backend, in YAML or JSON; - is stdin"
    )
    added.add_argument(
        "--require-healthy", action="store_true", help="make it only if it is healthy"
    )
    add_verbs(backends)
    mapping = add_group(subparsers, "map", "the path mapping, looked at without any store")
    tried = add_command(mapping, "test", "what becomes of some paths, both ways", map_test)
    backend_option(tried)
    tried.add_argument("paths", metavar="PATH", nargs="+", help="a local or a remote path")
    tried.set_defaults(rest="paths")
    linted = add_command(mapping, "lint", "rules that can never match", map_lint)
    backend_option(linted, required=False)


# --- backends -------------------------------------------------------------------------


async def list_backends(args: argparse.Namespace) -> int:
    from svsync.cli.opening import opened
    from svsync.services.federation import IN_BRIEF

    async with opened(args) as (app, tenant):
        backends = await app.federation.list_backends(tenant)
    tell_backends(args, [{name: backend[name] for name in IN_BRIEF} for backend in backends])
    return 0


def tell_backends(args: argparse.Namespace, backends: Sequence[Mapping[str, Any]]) -> None:
    """Backends, in a line each."""
    out: Output = args.out
    if out.json:
        out.document({"backends": backends})
    elif said_there_are_none(out, backends):
        pass
    else:
        rows = [(b["id"], b["name"], b["type"], b["mode"], b["state"]) for b in backends]
        out.table(("id", "name", "type", "mode", "state"), rows)


async def show(args: argparse.Namespace) -> int:
    from svsync.cli.opening import opened
    from svsync.config.backend_document import describe_stored

    async with opened(args) as (app, tenant):
        found = await app.federation.show(tenant, args.backend)
    tell_backend(args, describe_stored(found))
    return 0


def tell_backend(args: argparse.Namespace, found: Mapping[str, Any]) -> None:
    """A backend's configuration, in the words of the file."""
    out: Output = args.out
    if out.json:
        out.document(found)
        return
    out.facts(
        [
            (key, value if isinstance(value, str | int | float) else _words(value))
            for key, value in found.items()
            if key not in ("path_mapping", "config") and value not in (None, {}, [], ())
        ]
        + [(f"config.{key}", value) for key, value in found["config"].items()]
    )
    out.line()
    columns = ("rule", "local", "remote", "but")
    out.table(columns, [_rule_row(n, rule) for n, rule in enumerate(found["path_mapping"])])


async def add(_args: argparse.Namespace) -> int:
    raise UsageError(
        "a backend is added under `backends:` in the configuration file; with --url a service"
        " makes one"
    )


def tell_added(args: argparse.Namespace, made: Mapping[str, Any]) -> None:
    """A backend that is new, and what a connection to it showed."""
    out: Output = args.out
    if out.json:
        out.document(made)
        return
    out.facts(
        [
            ("backend", f"{made['id']} ({made['name']})"),
            ("status", made["status"]),
            *(("warning", warning) for warning in made["warnings"]),
        ]
    )
    _show_checks(out, made)


async def test(args: argparse.Namespace) -> int:
    """Exit 0 also where a part is denied: `degraded` is told, and the rest works."""
    from svsync.cli.opening import opened

    async with opened(args) as (app, tenant):
        spec = await app.federation.spec(tenant, args.backend)
        found = await app.federation.test(tenant, args.backend)
    document = {
        "id": spec.id,
        "name": spec.name,
        "status": found.status,
        "version": found.version,
        "identity": found.identity,
        "latency_ms": round(found.latency_ms, 1),
        "warnings": list(found.warnings),
        "checks": [{"name": c.name, "state": c.state, "hint": c.hint} for c in found.checks],
    }
    tell_tested(args, document)
    return 0


def tell_tested(args: argparse.Namespace, document: Mapping[str, Any]) -> None:
    """What a connection showed. Raises DeniedError: nothing."""
    out: Output = args.out
    if out.json:
        out.document(document)
    else:
        _show_test(out, document)
    if document["status"] == "denied":
        raise DeniedError(
            f"{document['id']} lets us in and shows nothing: grant what is missing",
            operation="connect",
        )


def _show_test(out: Output, document: Mapping[str, Any]) -> None:
    # A cloud's store has no version.
    version = f"version {document['version']}, " if document["version"] else ""
    out.facts(
        [
            ("backend", f"{document['id']} ({document['name']})"),
            ("status", document["status"]),
            ("answers", f"{version}in {document['latency_ms']} ms"),
            ("store", document["identity"] or None),
            *(("warning", warning) for warning in document["warnings"]),
        ]
    )
    _show_checks(out, document)


def _show_checks(out: Output, document: Mapping[str, Any]) -> None:
    out.line()
    rows = [(c["name"], c["state"], c["hint"]) for c in document["checks"]]
    out.table(("permission", "state", "granted by"), rows)


# --- mapping --------------------------------------------------------------------------


async def map_test(args: argparse.Namespace) -> int:
    """Exit 1 when some path is federated neither as a local nor as a remote one."""
    from svsync.cli.opening import compiled, settings_of

    settings = settings_of(args)
    [(spec, rules)] = _of_file(settings, compiled(settings), args.backend)
    return tell_mapped(
        args,
        {
            "backend_id": spec.id,
            "paths": [
                {
                    "path": path,
                    "as_remote": _explained(rules.explain_remote(path)),
                    "as_local": _explained(rules.explain_local(path)),
                }
                for path in args.paths
            ],
        },
    )


def tell_mapped(args: argparse.Namespace, found: Mapping[str, Any]) -> int:
    """What becomes of paths; the exit code that says it too. A service tells nothing (None) of
    what the caller may not list."""
    out: Output = args.out
    if out.json:
        out.document(found)
    else:
        for one in found["paths"]:
            _show_explained(out, one["path"], one["as_remote"], one["as_local"])
    return 0 if all(any(map(_maps, _sides(one))) for one in found["paths"]) else 1


async def map_lint(args: argparse.Namespace) -> int:
    """Exit 1 when a rule can never match."""
    from svsync.cli.opening import compiled, settings_of
    from svsync.domain.mapping_lint import lint

    settings = settings_of(args)
    backends = _of_file(settings, compiled(settings), args.backend)
    found = [(spec, finding) for spec, rules in backends for finding in lint(rules)]
    out: Output = args.out
    if out.json:
        findings = [
            {
                "backend_id": spec.id,
                "rule": finding.rule,
                "where": settings.place(spec, f"path_mapping[{finding.rule}]"),
                "covered_by": list(finding.covered_by),
                "message": finding.sentence,
            }
            for spec, finding in found
        ]
        out.document({"findings": findings})
    else:
        for spec, finding in found:
            out.line(f"{settings.place(spec, f'path_mapping[{finding.rule}]')}: {finding.sentence}")
        if not found:
            out.line("Every rule can match.")
    return 1 if found else 0


def _of_file(settings: "Settings", backends: "Compiled", name: str | None) -> "Compiled":
    """The file's backend of that id or name; all of them where none is named."""
    if name is None:
        return backends
    found = [(spec, rules) for spec, rules in backends if name in (spec.id, spec.name)]
    if not found:
        known = ", ".join(spec.id for spec, _ in backends) or "none"
        source = settings.source or "the environment"
        raise NotFoundError(
            f"{source} has no backend {name!r}: it has {known}", code="backend_not_found"
        )
    return found[:1]


def _sides(one: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, ...]:
    return one["as_remote"], one["as_local"]


def _maps(explained: Mapping[str, Any] | None) -> bool:
    return explained is not None and explained["local"] is not None


def _explained(found: "Explanation") -> dict[str, object]:
    from svsync.domain.mapping import Mapped

    outcome = found.outcome
    about: dict[str, object] = {
        "rule": found.rule,
        "local_pattern": found.local_pattern or None,
        "remote_pattern": found.remote_pattern or None,
        "captures": [{"name": name, "value": held} for name, held in found.captures],
    }
    if isinstance(outcome, Mapped):
        ends = {"local": outcome.local, "remote": outcome.remote, "reason": None, "detail": None}
        return about | ends
    reason = {"reason": str(outcome.reason), "detail": outcome.detail}
    return about | {"local": None, "remote": None} | reason


def _show_explained(
    out: Output, path: str, remote: Mapping[str, Any] | None, local: Mapping[str, Any] | None
) -> None:
    """The side or sides on which a rule matches; without one, why not."""
    out.heading(path)
    sides = (("remote", remote), ("local", local))
    told = [(name, side) for name, side in sides if side is not None]
    shown = [one for one in told if one[1]["rule"] is not None]
    if not shown and len(told) < len(sides):
        out.line("  The token may not list what it may be, so nothing is told of it.")
    elif not shown:
        shown = told[:1]
    for name, side in shown:
        captures = ", ".join(f"{one['name']} = {one['value']}" for one in side["captures"])
        rule = None if side["rule"] is None else f"{side['rule']}: {side['local_pattern']}"
        if rule and side["remote_pattern"]:
            rule += f" <-> {side['remote_pattern']}"
        result = f"{side['local']} <-> {side['remote']}"
        out.facts(
            [
                ("  taken as", f"a {name} path" if rule else "a local or a remote path"),
                ("  rule", rule or "none matches"),
                ("  captures", captures or None),
                ("  result", result if _maps(side) else f"{side['reason']}: {side['detail']}"),
            ]
        )
    out.line()


def _rule_row(number: int, rule: Mapping[str, Any]) -> tuple[object, ...]:
    sides = (rule.get("local", ""), rule.get("remote", ""))
    if rule.get("exclude"):
        return (number, *sides, "excluded")
    over = {**rule.get("transform", {}), **rule}
    return (number, *sides, _words({k: v for k, v in over.items() if k not in _OF_RULES}))


_OF_RULES: Final = ("local", "remote", "transform")


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {held}" for key, held in value.items())
    return str(value)
