"""Which backend a local path belongs to, and what that allows a local write to do."""

from dataclasses import dataclass
from typing import Final

from svsync.domain.errors import SvsyncError
from svsync.domain.federation import BackendSpec, ConflictPolicy, Mode, PathSettings, Writes
from svsync.domain.ids import LocalPath, RemotePath
from svsync.domain.mapping import Mapped, RuleSet, Unmapped
from svsync.domain.runs import SkipReason
from svsync.services.runs import Backends
from svsync.store import federation
from svsync.store.database import Transaction
from svsync.store.federation import StoredBackend
from svsync.store.pairs import Mapping

_NAMELESS: Final = (SkipReason.NAME_NOT_ALLOWED, SkipReason.AMBIGUOUS_SEPARATOR)


@dataclass(frozen=True, slots=True)
class Owner:
    """The backend that federates a path, and how."""

    stored: StoredBackend
    rules: RuleSet
    mapping: Mapping
    rule: int
    remote: RemotePath
    settings: PathSettings

    @property
    def spec(self) -> BackendSpec:
        return self.stored.spec

    @property
    def writes_through(self) -> bool:
        return self.settings.writes is Writes.WRITE_THROUGH

    @property
    def local_first(self) -> bool:
        """The side that wins conflicts is written first."""
        return self.settings.conflict_resolution is ConflictPolicy.LOCAL_WINS


async def owner_of(tx: Transaction, backends: Backends, path: LocalPath) -> Owner | None:
    """The backend whose mapping holds the path, whether or not a secret is there yet.

    Raises:
        SvsyncError: `proxied_path_read_only`, `federated_path_read_only`: such a path
            takes no local write; `initial_sync_running`: not before the next full run.
    """
    for stored in await federation.list_backends(tx):
        if stored.state == "deleting" or stored.spec.is_standby:
            continue
        spec = stored.spec
        rules = backends.mapping(spec)
        mapped = rules.to_remote(path)
        if not isinstance(mapped, Mapped):
            continue
        settings = spec.for_rule(rules.spec(mapped.rule))
        if settings.mode is Mode.PROXY:
            raise SvsyncError(
                f"{path} is read through {spec.id}, which is authoritative: write it there",
                code="proxied_path_read_only",
            )
        if settings.writes is Writes.DISABLED:
            raise SvsyncError(
                f"{path} is federated by {spec.id} with `writes: disabled`: write it there,"
                " or allow local writes",
                code="federated_path_read_only",
            )
        if rules.spec(mapped.rule).local in stored.initial:
            raise SvsyncError(
                f"{spec.id} was in proxy mode and has not brought in what is below"
                f" {rules.spec(mapped.rule).local} yet: write after its first full run",
                code="initial_sync_running",
            )
        mapping = Mapping("", "")
        if settings.writes is Writes.WRITE_THROUGH:
            rules, mapping = backends.rules(spec)
        return Owner(stored, rules, mapping, mapped.rule, mapped.remote, settings)
    return None


async def refuse_nameless(tx: Transaction, backends: Backends, path: LocalPath) -> None:
    """For a path that no backend owns and at which nothing is yet: whoever makes it means
    it to be written through where a rule says so, and is told where that cannot be.

    Raises:
        SvsyncError: `name_not_allowed`, `ambiguous_separator`.
    """
    for stored in await federation.list_backends(tx):
        if stored.state == "deleting" or stored.spec.is_standby:
            continue
        rules = backends.mapping(stored.spec)
        mapped = rules.to_remote(path)
        if not isinstance(mapped, Unmapped) or mapped.rule is None:
            continue
        settings = stored.spec.for_rule(rules.spec(mapped.rule))
        through = settings.mode is Mode.SYNC and settings.writes is Writes.WRITE_THROUGH
        if through and mapped.reason in _NAMELESS:
            raise SvsyncError(
                f"{path} can have no name in {stored.spec.id}, where it would be written through"
                f" ({mapped.detail}): choose another path, or set `escape` on its rule",
                code=mapped.reason,
            )
