"""Which backend a local path belongs to, and what that allows a local write to do."""

from dataclasses import dataclass

from svsync.domain.errors import SvsyncError
from svsync.domain.federation import BackendSpec, ConflictPolicy, Mode, PathSettings, Writes
from svsync.domain.ids import LocalPath, RemotePath
from svsync.domain.mapping import Mapped, RuleSet
from svsync.services.runs import Backends
from svsync.store import federation
from svsync.store.database import Transaction
from svsync.store.federation import StoredBackend
from svsync.store.pairs import Mapping


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
