"""Policies: who may do what on which paths."""

from collections.abc import Sequence
from typing import Any, Final

from svsync.client.calls import Calls, at_revision, new_key, segment
from svsync.client.errors import unusable
from svsync.client.federation import every
from svsync.client.records import (
    NewBinding,
    Permission,
    Policy,
    PolicyBinding,
    PolicyDecision,
    PolicyRule,
)
from svsync.domain.bindings import Bound
from svsync.domain.errors import UsageError

_POLICIES: Final = "/v1/policies"


class Policies:
    """`client.policies`. A policy is named by its id or its name. Each method raises
    SvsyncError, `policy_not_found` among others."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def list(self) -> tuple[Policy, ...]:
        """Every policy with its rules, by name."""
        return tuple(await every(self._calls, _POLICIES, "policies"))

    async def get(self, policy: str) -> Policy:
        found: Policy = await self._calls.get(_one(policy))
        return found

    async def create(
        self, name: str, rules: Sequence[PolicyRule], *, description: str | None = None
    ) -> Policy:
        """Make a policy; it is bound to nobody yet.

        Raises SvsyncError: `policy_exists`, `invalid_field` with the rule's place.
        """
        body: dict[str, Any] = {"name": name, "rules": list(rules)}
        if description is not None:
            body["description"] = description
        made: Policy = await self._calls.send("POST", _POLICIES, body, key=new_key())
        return made

    async def patch(
        self,
        policy: str,
        *,
        name: str | None = None,
        rules: Sequence[PolicyRule] | None = None,
        description: str | None = None,
        rev: int | None = None,
    ) -> Policy:
        """Change what is given: `rules` take the place of all, an empty description takes it
        away. It counts for every request that begins after the answer.

        `rev`: only if it is at this revision; else `version_conflict`.
        """
        body: dict[str, Any] = {}
        if name is not None:
            body["name"] = name
        if rules is not None:
            body["rules"] = list(rules)
        if description is not None:
            body["description"] = description or None
        changed: Policy = await self._calls.send(
            "PATCH", _one(policy), body, headers=at_revision(rev)
        )
        return changed

    async def delete(self, policy: str, *, rev: int | None = None) -> None:
        """Remove a policy with its bindings; `rev`: only if it is at this revision."""
        await self._calls.send("DELETE", _one(policy), headers=at_revision(rev))

    async def bindings(self, policy: str) -> tuple[PolicyBinding, ...]:
        """Whom a policy is bound to, by type and id."""
        return tuple(await every(self._calls, f"{_one(policy)}/bindings", "bindings"))

    async def bind(self, policy: str, identity: str) -> NewBinding:
        """Bind a policy to `sa:NAME`, `user:NAME` or `group:NAME`; also where it is so already."""
        bound = _bound(identity)
        body = {"identity_type": str(bound.type), "identity_id": bound.id}
        made: NewBinding = await self._calls.send(
            "POST", f"{_one(policy)}/bindings", body, key=new_key()
        )
        return made

    async def unbind(self, policy: str, identity: str) -> None:
        """Take a policy back. Raises SvsyncError: `binding_not_found`."""
        bound = _bound(identity)
        whom = f"{bound.type}/{segment(bound.id, 'the identity')}"
        await self._calls.send("DELETE", f"{_one(policy)}/bindings/{whom}")

    async def test(
        self,
        path: str,
        permission: Permission,
        *,
        identity: str | None = None,
        groups: Sequence[str] | None = None,
    ) -> PolicyDecision:
        """May `sa:NAME` or `user:NAME` do something with a path, and by which rule? Nothing is
        done.

        `groups`: to be in, in place of those that are known of the identity.
        """
        body: dict[str, Any] = {"path": path, "permission": permission}
        if identity is not None:
            body["identity_id"] = identity
        if groups is not None:
            body["groups"] = list(groups)
        told: PolicyDecision = await self._calls.send("POST", f"{_POLICIES}/test", body)
        return told


def _one(policy: str) -> str:
    return f"{_POLICIES}/{segment(policy, 'the policy')}"


def _bound(identity: str) -> Bound:
    try:
        return Bound.parse(identity)
    except UsageError as problem:
        raise unusable(problem.message) from None
