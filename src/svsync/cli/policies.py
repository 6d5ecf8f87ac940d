"""Policies as an operator looks after them: who may do what on which paths."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from svsync.cli.arguments import acting_user, add_command, add_group, local_path
from svsync.cli.output import Output
from svsync.domain.bindings import Bound
from svsync.domain.errors import UsageError
from svsync.domain.policies import Permission

if TYPE_CHECKING:
    from svsync.services.policies import NewRule

_MOST_BYTES: Final = 1024 * 1024
_PAGE: Final = 1000
_POLICY: Final = "a policy's name, or its id as `policies list` shows it"


def add_commands(subparsers: Any) -> None:
    policies = add_group(subparsers, "policies", "who may do what on which paths")
    listed = add_command(policies, "list", "every policy, in a line for each rule", list_policies)
    shown = add_command(policies, "show", "a policy: its rules, and whom it is bound to", show)
    made = add_command(policies, "create", "make a policy, bound to nobody yet", create)
    made.add_argument("name", metavar="NAME", help="letters, digits and . _ -")
    made.add_argument(
        "--rule",
        metavar="PATTERN=PERMISSIONS",
        action="append",
        default=[],
        help=f"as 'apps/billing/**=read,list'; repeatable; permissions: {', '.join(Permission)}",
    )
    made.add_argument(
        "--file", metavar="FILE", help="the policy as the API takes it, in JSON; - is stdin"
    )
    made.add_argument("--description", metavar="TEXT", help="what it is for")
    gone = add_command(policies, "delete", "remove a policy with its bindings", delete)
    bound = add_command(policies, "bind", "give a policy to an identity or a group", bind)
    freed = add_command(policies, "unbind", "take a policy from an identity or a group", unbind)
    for parser in (shown, gone, bound, freed):
        parser.add_argument("policy", metavar="POLICY", help=_POLICY)
    for parser in (bound, freed):
        parser.add_argument("identity", metavar="IDENTITY", help="sa:NAME, user:NAME or group:NAME")
    tried = add_command(
        policies, "test", "may somebody do something with a path, and by which rule", test
    )
    tried.add_argument("path", metavar="PATH")
    tried.add_argument(
        "permission",
        metavar="PERMISSION",
        choices=[str(permission) for permission in Permission],
        help=", ".join(Permission),
    )
    tried.add_argument("--identity", metavar="ID", help="who: sa:NAME or user:NAME")
    tried.add_argument(
        "--group",
        metavar="NAME",
        action="append",
        help="a group to be in, in place of those that are known of ID; repeatable",
    )
    listed.set_defaults(policy=None)


# --- policies -------------------------------------------------------------------------


async def list_policies(args: argparse.Namespace) -> int:
    from svsync.cli.opening import opened, record

    found: list[dict[str, Any]] = []
    async with opened(args) as (app, tenant):
        await record(app, tenant, "policy.list")
        after: str | None = ""
        while after is not None:
            page, after = await app.policies.list_policies(tenant, limit=_PAGE, after=after)
            found += page
    tell_policies(args, found)
    return 0


def tell_policies(args: argparse.Namespace, found: Sequence[Mapping[str, Any]]) -> None:
    """Policies, in a line for each rule."""
    out: Output = args.out
    if out.json:
        out.document({"policies": found, "next_cursor": None})
    elif not found:
        out.line("There are no policies: `svsync policies create` makes one.")
    else:
        out.table(("name", "path pattern", "permissions", "bindings"), _lines(found))


def _lines(found: Sequence[Mapping[str, Any]]) -> list[tuple[object, ...]]:
    lines: list[tuple[object, ...]] = []
    for policy in found:
        for number, rule in enumerate(policy["rules"] or [None]):
            first = number == 0
            lines.append(
                (
                    policy["name"] if first else "",
                    rule and rule["path_pattern"],
                    rule and " ".join(rule["permissions"]),
                    policy["bindings"] if first else "",
                )
            )
    return lines


async def show(args: argparse.Namespace) -> int:
    from svsync.cli.opening import opened, record

    bound: list[dict[str, Any]] = []
    async with opened(args) as (app, tenant):
        await record(app, tenant, "policy.show", about={"policy": args.policy})
        policy: dict[str, Any] = await app.policies.show(tenant, args.policy)
        after: str | None = "/"
        while after is not None:
            page, after = await app.policies.list_bindings(
                tenant, policy["id"], limit=_PAGE, after=after
            )
            bound += page
    tell_policy(args, policy, bound)
    return 0


def tell_policy(
    args: argparse.Namespace, policy: Mapping[str, Any], bound: Sequence[Mapping[str, Any]]
) -> None:
    """A policy, and whom it is bound to."""
    out: Output = args.out
    if out.json:
        out.document({**policy, "bound_to": bound})
        return
    out.heading(policy["name"])
    out.facts(
        [
            ("id", policy["id"]),
            ("description", policy["description"]),
            ("made", f"{policy['created_at']} by {policy['created_by']}"),
            ("bound to", ", ".join(_name(one) for one in bound) or "nobody"),
        ]
    )
    if policy["rules"]:
        out.line()
        out.table(
            ("path pattern", "permissions"),
            [(rule["path_pattern"], " ".join(rule["permissions"])) for rule in policy["rules"]],
        )


def _name(binding: Mapping[str, Any]) -> str:
    named: str = binding["identity_id"]
    return f"group:{named}" if binding["identity_type"] == "group" else named


async def create(args: argparse.Namespace) -> int:
    from svsync.cli.opening import opened, record

    rules, description = asked_policy(args)
    told = [[rule.path_pattern, ",".join(rule.permissions)] for rule in rules]
    async with opened(args) as (app, tenant):
        await record(app, tenant, "policy.create", about={"policy": args.name, "rules": told})
        made = await app.policies.create(
            tenant, args.name, rules, description=description, by=f"cli:{acting_user()}"
        )
    tell_made(args, made)
    return 0


def tell_made(args: argparse.Namespace, made: Mapping[str, Any]) -> None:
    """A policy that is new."""
    out: Output = args.out
    if out.json:
        out.document(made)
    else:
        out.line(f"{made['name']} is made: {made['id']}.")
        out.line(f"It is bound to nobody yet: `svsync policies bind {made['name']} sa:NAME`")


async def delete(args: argparse.Namespace) -> int:
    from svsync.cli.opening import opened, record

    async with opened(args) as (app, tenant):
        await record(app, tenant, "policy.delete", about={"policy": args.policy})
        await app.policies.delete(tenant, args.policy)
    tell_deleted(args)
    return 0


def tell_deleted(args: argparse.Namespace) -> None:
    """A policy that is gone."""
    out: Output = args.out
    if out.json:
        out.document({"policy": args.policy, "deleted": True})
    else:
        out.line(f"{args.policy} is gone, with its bindings.")


# --- bindings -------------------------------------------------------------------------


async def bind(args: argparse.Namespace) -> int:
    from svsync.cli.opening import opened, record

    bound = Bound.parse(args.identity)
    async with opened(args) as (app, tenant):
        await record(app, tenant, "policy.bind", about={"policy": args.policy, **_whom(bound)})
        made, new = await app.policies.bind(tenant, args.policy, bound, by=f"cli:{acting_user()}")
    tell_bound(args, bound, made, new=new)
    return 0


def tell_bound(
    args: argparse.Namespace, bound: Bound, made: Mapping[str, Any], *, new: bool
) -> None:
    """A binding; `new`: it was not there before."""
    out: Output = args.out
    if out.json:
        out.document(made)
    else:
        out.line(f"{args.policy} {'is bound' if new else 'was bound already'} to {bound}.")


async def unbind(args: argparse.Namespace) -> int:
    from svsync.cli.opening import opened, record

    bound = Bound.parse(args.identity)
    async with opened(args) as (app, tenant):
        await record(app, tenant, "policy.unbind", about={"policy": args.policy, **_whom(bound)})
        await app.policies.unbind(tenant, args.policy, bound)
    tell_unbound(args, bound)
    return 0


def tell_unbound(args: argparse.Namespace, bound: Bound) -> None:
    """A binding that is gone."""
    out: Output = args.out
    if out.json:
        out.document({"policy": args.policy, **_whom(bound), "bound": False})
    else:
        out.line(f"{args.policy} is bound to {bound} no more.")


def _whom(bound: Bound) -> dict[str, str]:
    return {"identity_type": str(bound.type), "identity_id": bound.id}


# --- what decides ---------------------------------------------------------------------


async def test(args: argparse.Namespace) -> int:
    """Exit 1 where it is denied."""
    from svsync.cli.opening import opened, record
    from svsync.domain.access import Identity
    from svsync.domain.bindings import group_name
    from svsync.services.policy_tests import Question

    refuse_nobody(args)
    asked = Question(
        local_path(args.path),
        Permission(args.permission),
        None if args.identity is None else Identity.parse(args.identity),
        None if args.group is None else [group_name(name) for name in args.group],
    )
    async with opened(args) as (app, tenant):
        about = {"permission": args.permission, "identity_id": args.identity}
        await record(app, tenant, "policy.test", path=asked.path, about=about)
        told: dict[str, Any] = await app.policy_tests.test(tenant, asked)
    return tell_decision(args, told)


def refuse_nobody(args: argparse.Namespace) -> None:
    if args.identity is None and args.group is None:
        raise UsageError("name who is meant: --identity sa:NAME, or --group NAME")


def tell_decision(args: argparse.Namespace, told: Mapping[str, Any]) -> int:
    """What policies decide; the exit code that says it too."""
    out: Output = args.out
    if out.json:
        out.document(told)
    else:
        _tell(out, told)
    return 0 if told["allowed"] else 1


def _tell(out: Output, told: Mapping[str, Any]) -> None:
    who = told["identity"] or "a member of these groups"
    out.line("allowed" if told["allowed"] else "denied")
    groups = ", ".join(told["groups"]) or "none"
    facts = [("who", who), ("groups", groups), ("path", told["path"])]
    rule = told["rule"]
    if rule is not None:
        out.facts(
            [
                *facts,
                ("policy", f"{rule['policy']}, rules[{rule['rule']}]"),
                ("pattern", rule["path_pattern"]),
                ("permissions", " ".join(rule["permissions"])),
                ("through", ", ".join(rule["through"])),
            ]
        )
        return
    out.facts([*facts, ("rule", f"none gives {told['permission']} on this path")])
    if told["near"]:
        out.line()
        out.line("These came near:")
        out.table(
            ("policy", "path pattern", "permissions", "why not"),
            [
                (
                    f"{near['policy']}, rules[{near['rule']}]",
                    near["path_pattern"],
                    " ".join(near["permissions"]),
                    _why(near),
                )
                for near in told["near"]
            ],
        )


def _why(near: Mapping[str, Any]) -> str:
    match near["reason"]:
        case "not_bound":
            return f"bound to {', '.join(near['bound_to']) or 'nobody'} only"
        case "permission_missing":
            return "it does not give this permission"
        case _:
            return "its pattern does not match the path"


# --- rules as they are written --------------------------------------------------------


def asked_policy(args: argparse.Namespace) -> tuple[list["NewRule"], str | None]:
    """Rules and description, of the options or of a file."""
    if (args.file is None) == (not args.rule):
        raise UsageError("give the rules with --rule, or the policy with --file")
    if args.file is None:
        return [_rule(text) for text in args.rule], args.description
    given = _document(args.file)
    unknown = given.keys() - {"name", "description", "rules"}
    if unknown:
        raise UsageError("the file holds a key that no policy has: name, description, rules")
    if given.get("name", args.name) != args.name:
        raise UsageError("the file gives the policy another name than the command does")
    rules, description = given.get("rules"), args.description or given.get("description")
    if not isinstance(rules, list) or not isinstance(description, str | None):
        raise UsageError("the file needs rules, a list, and may have a description, a text")
    return [_rule_of(rule, number) for number, rule in enumerate(rules)], description


def _rule(text: str) -> "NewRule":
    from svsync.services.policies import NewRule

    pattern, equals, names = text.rpartition("=")
    if not equals:
        raise UsageError("a rule is PATTERN=PERMISSIONS, as 'apps/billing/**=read,list'")
    return NewRule(pattern, _permissions(names.split(","), "--rule"))


def _rule_of(given: object, number: int) -> "NewRule":
    from svsync.services.policies import NewRule

    at = f"rules[{number}]"
    if not isinstance(given, dict) or given.keys() != {"path_pattern", "permissions"}:
        raise UsageError(f"{at}: a rule has path_pattern and permissions, and nothing else")
    pattern, names = given["path_pattern"], given["permissions"]
    if not isinstance(pattern, str) or not isinstance(names, list):
        raise UsageError(f"{at}: path_pattern is a text, permissions is a list")
    return NewRule(pattern, _permissions(names, at))


def _permissions(names: Sequence[object], at: str) -> list[Permission]:
    known = list(map(str, Permission))
    if any(name not in known for name in names):
        raise UsageError(f"{at}: there are the permissions {', '.join(known)}")
    return [Permission(str(name)) for name in names]


def _document(file: str) -> dict[str, Any]:
    import json

    try:
        if file == "-":
            data = sys.stdin.buffer.read(_MOST_BYTES + 1)
        else:
            with open(file, "rb") as opened:
                data = opened.read(_MOST_BYTES + 1)
    except OSError:
        raise UsageError("the file of --file cannot be read") from None
    try:
        found = json.loads(data) if len(data) <= _MOST_BYTES else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UsageError("the file of --file is no JSON object of at most 1 MiB")
    return found
