"""Policies, by a service."""

import argparse

from svsync.cli import policies as here
from svsync.cli.arguments import local_path
from svsync.cli.remote.opening import asked
from svsync.client.records import PolicyRule
from svsync.domain.access import Identity
from svsync.domain.bindings import Bound, group_name
from svsync.domain.policies import Permission


async def list_policies(args: argparse.Namespace) -> int:
    async with asked(args) as client:
        found = await client.policies.list()
    here.tell_policies(args, found)
    return 0


async def show(args: argparse.Namespace) -> int:
    async with asked(args) as client:
        policy = await client.policies.get(args.policy)
        bound = await client.policies.bindings(policy["id"])
    here.tell_policy(args, policy, bound)
    return 0


async def create(args: argparse.Namespace) -> int:
    asked_rules, description = here.asked_policy(args)
    rules: list[PolicyRule] = [
        {
            "path_pattern": rule.path_pattern,
            "permissions": [one.value for one in rule.permissions],
        }
        for rule in asked_rules
    ]
    async with asked(args) as client:
        made = await client.policies.create(args.name, rules, description=description)
    here.tell_made(args, made)
    return 0


async def delete(args: argparse.Namespace) -> int:
    async with asked(args) as client:
        await client.policies.delete(args.policy)
    here.tell_deleted(args)
    return 0


async def bind(args: argparse.Namespace) -> int:
    bound = Bound.parse(args.identity)
    async with asked(args) as client:
        before = await client.policies.bindings(args.policy)
        made = await client.policies.bind(args.policy, str(bound))
    known = {(one["identity_type"], one["identity_id"]) for one in before}
    new = (made["identity_type"], made["identity_id"]) not in known
    here.tell_bound(args, bound, made, new=new)
    return 0


async def unbind(args: argparse.Namespace) -> int:
    bound = Bound.parse(args.identity)
    async with asked(args) as client:
        await client.policies.unbind(args.policy, str(bound))
    here.tell_unbound(args, bound)
    return 0


async def test(args: argparse.Namespace) -> int:
    """Exit 1 where it is denied."""
    here.refuse_nobody(args)
    path = local_path(args.path)
    permission = Permission(args.permission)
    identity = None if args.identity is None else Identity.parse(args.identity).id
    groups = None if args.group is None else [group_name(name) for name in args.group]
    async with asked(args) as client:
        told = await client.policies.test(path, permission.value, identity=identity, groups=groups)
    return here.tell_decision(args, told)
