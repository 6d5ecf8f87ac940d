"""What is read through, listed one folder at a time: names, and never a value.

Only where a rule replaces the beginning of a path by another is a local folder one of the
backend's. What lies below any other rule is not listed, and the answer says so.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from svsync.domain.changes import Entry, PairStatus, ScopeOutcome
from svsync.domain.ids import LocalPath
from svsync.domain.mapping import Mapped
from svsync.domain.paths import local_problem
from svsync.domain.policies import Permission, Permissions
from svsync.domain.tags import flatten, merge_fields
from svsync.services.proxied_paths import Compiled, Owners

PROXIED: Final = "proxied"
"""The status of a path that is read through by its rule's mode."""


@dataclass(slots=True)
class ProxiedFolder:
    """What is read through in one local folder, as far as somebody may list it.

    Attributes:
        secrets: those that stand in it, by path, as a list shows them; what a backend's
            listing does not tell is None.
        folders: those in it, in order, each ending with `/`. There may be nothing in one
            that they may list.
        incomplete: a backend could not be asked, or did not tell all.
    """

    secrets: dict[str, dict[str, object]] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    incomplete: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """One folder of one backend that stands for a local one."""

    compiled: Compiled
    rule: int
    remote: str


def folders_of(
    owners: Owners, permissions: Permissions, folder: str, found: ProxiedFolder
) -> Iterator[Asked]:
    """Whom to ask for a local folder; what nobody need be asked for is put in at once.

    `folder` ends with `/`, or is empty.
    """
    given = permissions.prefixes(Permission.LIST)
    for compiled in owners.owners:
        for number, rule in enumerate(compiled.rules.rules):
            if rule.spec.exclude or not compiled.reads_through_rule(number):
                continue
            local = compiled.rules.local_prefix(number)
            if not any(_meet(one, local) and _meet(one, folder) for one in given):
                continue
            if local.startswith(folder) and local != folder:
                if "/" in local[len(folder) :]:
                    found.folders.add(local[: local.index("/", len(folder)) + 1])
                else:
                    found.incomplete = True
            elif folder.startswith(local):
                if not (rule.replaces_beginning and rule.separator == "/"):
                    found.incomplete = True
                    continue
                yield Asked(compiled, number, rule.literal + folder[len(local) :])


def take(
    asked: Asked,
    permissions: Permissions,
    folder: str,
    entries: tuple[Entry, ...],
    inner: tuple[str, ...],
    outcome: ScopeOutcome,
    found: ProxiedFolder,
) -> None:
    """Put in what a backend said of its folder: what maps into the local one, by the rule
    that it was asked for, and may be listed."""
    found.incomplete |= outcome is not ScopeOutcome.COMPLETE
    for path in inner:
        local = folder + path[len(asked.remote) :]
        if local_problem(local.removesuffix("/")) is None:
            found.folders.add(local)
    rules = asked.compiled.rules
    for entry in entries:
        mapped = rules.to_local(entry.remote_path)
        if entry.gone or not isinstance(mapped, Mapped) or mapped.rule != asked.rule:
            continue
        if permissions.decide(mapped.local, Permission.LIST) is not None:
            found.secrets[mapped.local] = _shown(mapped.local, asked, entry)


def _shown(path: LocalPath, asked: Asked, entry: Entry) -> dict[str, object]:
    tags = entry.tags or {}
    transform = asked.compiled.rules.spec(asked.rule).tags
    initial = asked.rule in asked.compiled.initial
    return {
        "path": path,
        "version": entry.order or None,
        "secret_type": None,
        "metadata": {
            "tags": list(flatten(tags, transform)),
            "owner": None,
            "description": None,
            "custom": merge_fields({}, {}, tags, local_wins=False),
        },
        "updated_at": None,
        "status": str(PairStatus.INITIAL) if initial else PROXIED,
    }


def _meet(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)
