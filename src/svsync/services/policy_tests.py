"""Which rule decides? Asked for an identity and its groups, without doing anything.

The rules are found and compiled by the same code that a request is decided by. Where none
allows, those that came near are named: a pattern that matches without the permission, a
rule that would allow and belongs to somebody else, most often to a group that the identity
is not in, and one that gives the permission nearby, as in a folder beside. The scope
`admin` of a token is no policy, so it plays no part here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

from svsync.domain.access import Identity
from svsync.domain.bindings import Bound, BoundType
from svsync.domain.ids import LocalPath, TenantId
from svsync.domain.policies import Permission, Rule, literal_segments
from svsync.services.authority import compiled
from svsync.store import access, groups
from svsync.store import policies as store
from svsync.store.database import Database, Row, Transaction

_LOOKED_AT: Final = 1_000
"""Rules that begin as the path does, or as the folders beside its own: those that came near
are chosen of them."""
_NEAR: Final = 10
_NAMED: Final = 10
"""Bindings that are named of a rule that belongs to others."""

_DIFFERS: Final = "pattern_differs"
_NOBODY: Final = ("", "")


@dataclass(frozen=True, slots=True)
class Question:
    """May somebody do something with a path?

    Attributes:
        identity: who; None: nobody but a member of the groups.
        groups: of theirs; None: those that the store knows of the identity.
    """

    path: LocalPath
    permission: Permission
    identity: Identity | None = None
    groups: Sequence[str] | None = None


class PolicyTests:
    """Tells what policies would decide, for every tenant."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def test(self, tenant: TenantId, asked: Question) -> dict[str, object]:
        """`allowed`, the `rule` that decides (None: no rule allows it), and `near`: rules that
        nearly did, with the reason why they do not."""
        identity = asked.identity
        who = _NOBODY if identity is None else (str(identity.type), identity.id)
        async with self._db.transaction(tenant, read_only=True) as tx:
            names = asked.groups
            if names is None:
                names = [] if identity is None else await groups.groups_of(tx, identity.id)
            rights = compiled(await access.rules_of(tx, *who, names))
            rule = rights.decide(asked.path, asked.permission)
            near = [] if rule is not None else await _near(tx, asked, who, names)
            told = None if rule is None else await _told(tx, rule, who, names)
        return {
            "allowed": rule is not None,
            "path": asked.path,
            "permission": str(asked.permission),
            "identity": None if identity is None else identity.id,
            "groups": list(names),
            "rule": told,
            "near": near,
        }


async def _told(
    tx: Transaction, rule: Rule, who: tuple[str, str], names: Sequence[str]
) -> dict[str, object]:
    """The rule, and by what the identity has it."""
    ways = await store.ways(tx, rule.policy_id, who, names)
    held = [str(Bound(BoundType(way["identity_type"]), way["identity_id"])) for way in ways]
    return {**rule.describe(), "through": held}


async def _near(
    tx: Transaction, asked: Question, who: tuple[str, str], names: Sequence[str]
) -> list[dict[str, object]]:
    above = "".join(f"{segment}/" for segment in asked.path.split("/")[:-2])
    rows = await store.near(tx, asked.path, above, who, names, named=_NAMED, limit=_LOOKED_AT)
    found = sorted(_judged(rows, asked), key=lambda one: one[0])  # stable: the store's order
    return [about for _, about in found[:_NEAR]]


def _judged(
    rows: list[Row], asked: Question
) -> Iterator[tuple[tuple[int, int], dict[str, object]]]:
    """What keeps each rule from allowing it, with its place: the most telling first, and of
    those that give the permission elsewhere the closest."""
    segments = asked.path.split("/")
    for row, rule in zip(rows, compiled(rows).rules, strict=True):
        matches = rule.pattern.read(segments) is not None
        gives = asked.permission in rule.permissions
        held = row["held"]
        if matches and gives and not held:
            place, reason = (0, 0), "not_bound"
        elif matches and held:
            place, reason = (1, 0), "permission_missing"
        elif gives and held and rule.pattern.literal:
            place, reason = (2, -_in_common(literal_segments(rule.pattern), segments)), _DIFFERS
        else:
            continue
        bound = [_name(text) for text in row["bound"]] if not held else None
        about = rule.describe() | {"reason": reason}
        yield place, about if bound is None else {**about, "bound_to": bound}


def _in_common(one: Sequence[str], other: Sequence[str]) -> int:
    """How many segments both begin with."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _name(text: str) -> str:
    kind, _, id = text.partition(" ")
    return str(Bound(BoundType(kind), id))
