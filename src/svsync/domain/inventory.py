"""What a store holds, sorted into what to federate, copy, re-create or leave.

The classes are those of the migration guides. A survey goes page by page, and what is kept
of it is bounded: counts by folder, and the first of what somebody has to look at.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from typing import Final

from svsync.domain.changes import Scope, ScopeOutcome
from svsync.domain.ids import RemotePath
from svsync.domain.paths import local_problem

MOST_NOTABLE: Final = 1_000
MOST_FOLDERS: Final = 2_000
_FEW: Final = 300
"""Secrets up to which the guide calls a Vault simple enough to be copied outright."""


class Advice(StrEnum):
    FEDERATE = "federate"
    COPY = "copy"
    RECREATE = "recreate"
    LEAVE = "leave"


class Trait(StrEnum):
    """What a store says of a secret that counts when it is moved."""

    ROTATED = "rotated"
    OWNED = "owned"
    REPLICA = "replica"


@dataclass(frozen=True, slots=True)
class Engine:
    """One thing that is mounted in a store: `kv-v2`, `kv-v1`, or the name of another engine.
    `path` ends with a slash; `root` is what remote paths in it begin with."""

    path: str
    kind: str
    root: str = ""


@dataclass(frozen=True, slots=True)
class Surveyed:
    """A secret as a survey tells of it; never a value.

    `read_on`: the day (UTC) on which the store says that it was last read, None where it
    does not say.
    """

    path: RemotePath
    gone: bool = False
    traits: frozenset[Trait] = frozenset()
    read_on: date | None = None


@dataclass(frozen=True, slots=True)
class SurveyPage:
    """A part of a survey. `rejected`: names that may not be used, with their reason codes."""

    engines: tuple[Engine, ...] = ()
    secrets: tuple[Surveyed, ...] = ()
    scopes: tuple[Scope, ...] = ()
    rejected: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Judged:
    advice: Advice
    reason: str
    why: str


_KV: Final = ("kv-v2", "kv-v1")
_DYNAMIC: Final = Judged(
    Advice.RECREATE,
    "dynamic_engine",
    "create the engine in ScaiVault, point applications there, and let old leases drain",
)
_ENGINES: Final[Mapping[str, Judged]] = {
    "kv-v2": Judged(Advice.FEDERATE, "kv", "federate it, then move subtree by subtree"),
    "kv-v1": Judged(
        Advice.FEDERATE,
        "kv_without_versions",
        "federate it, then move subtree by subtree; a delete there is for good",
    ),
    "pki": Judged(
        Advice.RECREATE,
        "pki",
        "create new CAs and roles in ScaiVault, and let old certificates expire",
    ),
    "transit": Judged(
        Advice.LEAVE, "transit", "ScaiVault encrypts for nobody: keep it, or move to a cloud's KMS"
    ),
} | dict.fromkeys(
    (
        "database", "aws", "azure", "gcp", "kubernetes", "ldap", "openldap", "ad", "rabbitmq",
        "consul", "nomad", "terraform", "alicloud", "mongodbatlas",
    ),
    _DYNAMIC,
)  # fmt: skip
_UNKNOWN: Final = Judged(
    Advice.LEAVE, "unknown_engine", "nothing in ScaiVault stands for it: leave it where it is"
)

_PLAIN: Final = Judged(Advice.FEDERATE, "secret", "")
_GONE: Final = Judged(
    Advice.LEAVE, "no_value", "it is deleted there, or has no current value: nothing to move"
)
_OWNED: Final = Judged(
    Advice.LEAVE, "owned", "another service of the cloud makes and rotates it: leave it there"
)
_ROTATED: Final = Judged(
    Advice.FEDERATE,
    "rotated",
    "it is rotated there: federate it in sync mode, or turn the rotation off before it is copied",
)
_REPLICA: Final = Judged(
    Advice.FEDERATE,
    "replica",
    "a replica of another region: federate the primary, and this one by standby_for",
)
_NOT_LOCAL: Final = Judged(
    Advice.COPY,
    "name_not_local",
    "no ScaiVault path may be named so: federate it by a rule with transform.escape, and copy it"
    " from there to a new path",
)
_UNUSABLE: Final = Judged(
    Advice.RECREATE,
    "name_not_usable",
    "its name may not be sent to a backend: write it anew under another name",
)


def judge_engine(engine: Engine) -> Judged:
    return _ENGINES.get(engine.kind, _UNKNOWN)


def judge(secret: Surveyed, name: str) -> Judged:
    """What to do with a secret; `name` is its path below its engine."""
    if secret.gone:
        return _GONE
    if Trait.OWNED in secret.traits:
        return _OWNED
    if local_problem(name):
        return _NOT_LOCAL
    if Trait.ROTATED in secret.traits:
        return _ROTATED
    return _REPLICA if Trait.REPLICA in secret.traits else _PLAIN


@dataclass(slots=True)
class Folder:
    """Secrets that stand below one place, by what to do with them."""

    secrets: int = 0
    federated: int = 0
    advice: Counter[str] = field(default_factory=Counter)


class Tally:
    """Takes the pages of a survey, and tells what they come to."""

    def __init__(
        self, depth: int, federates: Callable[[RemotePath], bool], most: int = MOST_NOTABLE
    ) -> None:
        """
        Args:
            depth: segments below an engine, or from the beginning, that make a folder.
            federates: is this path federated already?
            most: secrets to look at that are named; the others are counted.
        """
        self._depth = depth
        self._federates = federates
        self._most = most
        self._engines: list[Engine] = []
        self._folders: dict[str, Folder] = {}
        self._notable: list[tuple[str, Judged]] = []
        self._more = 0
        self._scopes: list[Scope] = []
        self._refused = 0
        self._listed = 0

    def take(self, page: SurveyPage) -> None:
        self._engines += page.engines
        for secret in page.secrets:
            root = self._root_of(secret.path)
            folder = self._folder(root, secret.path)
            judged = judge(secret, secret.path[len(root) :])
            folder.secrets += 1
            folder.federated += self._federates(secret.path)
            folder.advice[judged.advice] += 1
            if judged is not _PLAIN:
                self._note(secret.path, judged)
        for name, _ in page.rejected:
            folder = self._folder(self._root_of(name), name)
            folder.secrets += 1
            folder.advice[_UNUSABLE.advice] += 1
            self._note(name, _UNUSABLE)
        self._listed += sum(scope.outcome is ScopeOutcome.COMPLETE for scope in page.scopes)
        refused = [s for s in page.scopes if s.outcome is not ScopeOutcome.COMPLETE]
        self._refused += len(refused)
        self._scopes += refused[: self._most - len(self._scopes)]

    @property
    def saw_nothing(self) -> bool:
        """All that was asked for was refused."""
        return bool(self._scopes) and not (self._listed or self._folders)

    def report(self) -> dict[str, object]:
        """What `inventory --json` gives of it."""
        total: Counter[str] = Counter()
        for folder in self._folders.values():
            total += folder.advice
        secrets = sum(folder.secrets for folder in self._folders.values())
        simple = {engine.kind for engine in self._engines} == {"kv-v2"} and 0 < secrets <= _FEW
        return {
            "secrets": secrets,
            "advice": {str(advice): total[advice] for advice in Advice},
            "engines": [
                {"path": engine.path, "kind": engine.kind, **_told(judge_engine(engine))}
                for engine in sorted(self._engines, key=lambda engine: engine.path)
            ],
            "folders": [
                {
                    "prefix": prefix,
                    "secrets": folder.secrets,
                    "federated": folder.federated,
                    "advice": {str(advice): folder.advice[advice] for advice in Advice},
                }
                for prefix, folder in sorted(self._folders.items())
            ],
            "notable": [{"path": path, **_told(judged)} for path, judged in self._notable],
            "notable_more": self._more,
            "not_listed": [
                {"prefix": s.prefix, "outcome": str(s.outcome), "reason": s.reason}
                for s in self._scopes
            ],
            "not_listed_more": self._refused - len(self._scopes),
            "simple": simple and not self._scopes,
        }

    def _root_of(self, path: str) -> str:
        roots = (e.root for e in self._engines if e.kind in _KV and path.startswith(e.root))
        return max(roots, key=len, default="")

    def _folder(self, root: str, path: str) -> Folder:
        above = path[len(root) :].split("/")[:-1][: self._depth]
        prefix = root + "".join(f"{segment}/" for segment in above)
        if prefix not in self._folders and len(self._folders) >= MOST_FOLDERS:
            prefix = root  # as many as a person reads; what is left is told at the engine's root
        return self._folders.setdefault(prefix, Folder())

    def _note(self, path: str, judged: Judged) -> None:
        if len(self._notable) < self._most:
            self._notable.append((path, judged))
        else:
            self._more += 1


def _told(judged: Judged) -> dict[str, object]:
    return {"advice": str(judged.advice), "reason": judged.reason, "why": judged.why}
