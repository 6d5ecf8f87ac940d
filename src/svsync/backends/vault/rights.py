"""What a token may do that is not tried, because trying it would be doing it.

`sys/capabilities-self` tells it for names that need not exist, and changes nothing. It is
a permission itself: the policy `default` has it, a narrower role needs a line for it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from svsync.backends.vault.kv import Mount
from svsync.domain.federation import BackendSpec, Mode, Writes
from svsync.domain.rules import Rule
from svsync.ports import Check

PROBE: Final = "svsync-connection-test"
"""A name that is asked about and need not exist."""

ASKING: Final = "sys/capabilities-self"

Needs = tuple[tuple[str, str], ...]
"""Paths and the capability that each takes, all of them together."""


@dataclass(frozen=True, slots=True)
class Right:
    """Something that svsync does, and the ways to be allowed it.

    Attributes:
        name: what it is, for people.
        ways: what is needed; any one of them will do.
        hint: the policy line that grants it.
        optional: svsync can do without.
    """

    name: str
    ways: tuple[Needs, ...]
    hint: str
    optional: bool = False

    def paths(self) -> Iterator[str]:
        return (path for needs in self.ways for path, _ in needs)

    def check(self, told: Mapping[str, Any]) -> Check:
        """`told` is the answer about all paths."""

        def held(path: str, capability: str) -> bool:
            return bool({capability, "root"} & set(told.get(path) or ()))

        if any(all(held(*need) for need in needs) for needs in self.ways):
            return Check(self.name, "granted")
        return Check(self.name, "missing_optional" if self.optional else "missing", self.hint)


def policy_line(path: str, *capabilities: str) -> str:
    """A line for the policy, as a person pastes it."""
    listed = ", ".join(f'"{capability}"' for capability in capabilities)
    return f'path "{path}" {{ capabilities = [{listed}] }}'


def own_token() -> list[Right]:
    """That the token may look after itself."""
    return [
        Right(
            f"{verb} own token",
            (((f"auth/token/{verb}-self", "update"),),),
            policy_line(f"auth/token/{verb}-self", "update"),
            optional=True,
        )
        for verb in ("renew", "revoke")
    ]


def written(spec: BackendSpec, rules: tuple[Rule, ...]) -> dict[str, str]:
    """What local writes go through to: names for people, each with a path to ask about.

    A rule's folder, or its path where it has no wildcard.
    """
    found: dict[str, str] = {}
    for rule in rules:
        settings = spec.for_rule(rule.spec)
        if rule.spec.exclude or settings.mode is not Mode.SYNC:
            continue
        if settings.writes is Writes.WRITE_THROUGH:
            folder = rule.literal[: rule.literal.rfind("/") + 1]
            whole = rule.remote is not None and not rule.remote.slots
            found[rule.literal if whole else folder] = rule.literal if whole else folder + PROBE
    return found


def to_write(place: str, sample: str, mount: Mount, *, deletes: bool) -> list[Right]:
    """What writes below `place` take; `sample` is a path there."""

    def of(verb: str, path: str) -> str:
        middle = f"{verb}/" if mount.version == 2 else ""
        return f"{mount.path}/{middle}{path[len(mount.root) :]}"

    def granting(verb: str, *capabilities: str) -> str:
        pattern = of(verb, place) + ("" if place == sample else "*")
        return policy_line(pattern, *capabilities)

    data = of("data", sample)
    reading = ("read",) if mount.version == 2 else ("read", "list")
    rights = [
        Right(
            f"write {place}",
            (((data, "create"), (data, "update")),),
            granting("data", *reading, "create", "update"),
        )
    ]
    if mount.version == 1:  # neither tags nor deletes
        return rights
    about, undelete = of("metadata", sample), of("undelete", sample)
    rights.append(
        Right(
            f"tag {place}",
            (((about, "patch"),), ((about, "update"),)),
            granting("metadata", "read", "list", "patch"),
            optional=True,
        )
    )
    if deletes:
        named = ((of("delete", sample), "update"),)
        rights += [
            Right(
                f"delete {place}",
                (named, ((data, "delete"), (undelete, "update"))),
                granting("delete", "update"),
            ),
            # What a delete met that was not meant is brought back by this.
            Right(f"undelete {place}", (((undelete, "update"),),), granting("undelete", "update")),
        ]
    return rights
