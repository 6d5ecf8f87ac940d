"""Reading one secret: decide, find, record, open, answer.

The value that is kept sealed is the exact JSON text of `data`, so an answer is put
together around it: nothing is parsed, and no number changes on the way. Ciphertexts that
were read are kept, sealed as they are, up to a bound in bytes; a version never changes,
and which one is the current one is looked up with every read.
"""

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from svsync.domain.access import Call, ForbiddenError, Scope
from svsync.domain.audit import Decision, Entry
from svsync.domain.changes import PairStatus
from svsync.domain.envelope import Purpose
from svsync.domain.errors import NotFoundError
from svsync.domain.federation import Mode, RuleSpec
from svsync.domain.ids import BackendId, KeyId, LocalPath, SecretId, TenantId
from svsync.domain.policies import Permission, Permissions
from svsync.services.authority import Rights
from svsync.services.authorizing import absent, refused
from svsync.services.recording import Access, Recorder
from svsync.services.sealing import Sealed, Sealing
from svsync.services.secrets import metadata_of, time_of
from svsync.store import federation
from svsync.store.database import Database, Row

CACHED_BYTES: Final = 64 * 1024 * 1024
"""Ciphertext that is kept for the next read of the same version."""
READ: Final = "secret.read"


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret as it is answered: `before`, the exact text of `data`, `after`.

    Attributes:
        version: its number.
        in_conflict: a person has to decide about it; this is the local value.
    """

    version: int
    before: bytes
    data: bytes
    after: bytes
    in_conflict: bool

    @property
    def body(self) -> bytes:
        return self.before + self.data + self.after


class StaleRightsError(Exception):
    """The rights that a read was asked with are not those of now: nothing was decided."""


class _Read(Access):
    """One read, and what came of it."""

    __slots__ = ("_call", "_fresh", "_permissions", "allowed", "row", "stale")

    def __init__(
        self,
        call: Call,
        permissions: Permissions,
        path: LocalPath,
        version: int | None,
        known: tuple[int, int] | None,
        fresh: bool,
    ) -> None:
        super().__init__(call.tenant, path, version, known)
        self._call = call
        self._permissions = permissions
        self._fresh = fresh
        self.stale = False
        self.allowed = False
        self.row: Row | None = None

    def settle(self, row: Row) -> Entry | None:
        caller = self._call.caller
        if not self._fresh and row["epoch"] != caller.epoch:
            self.stale = True
            return None
        if row["tenant_status"] != "active":
            raise ForbiddenError(f"the tenant is {row['tenant_status']}", code="tenant_shut")
        allowed = caller.has(Scope.SECRETS_READ) and (
            self._permissions.decide(self.path, Permission.READ) is not None
        )
        if not allowed:
            return self._call.entry(READ, Decision.DENY, path=self.path)
        self.allowed, self.row = True, row
        return self._call.entry(
            READ,
            Decision.ALLOW,
            path=self.path,
            version=row["version"],
            backend=row["backend_id"],
        )


@dataclass(frozen=True, slots=True)
class _Kept:
    secret: SecretId
    version: int
    sealed: Sealed


class Reading:
    """The audited read path, of every tenant."""

    def __init__(
        self, db: Database, recorder: Recorder, sealing: Sealing, *, room: int = CACHED_BYTES
    ) -> None:
        """`room`: bytes of ciphertext that are kept."""
        self._db = db
        self._recorder = recorder
        self._sealing = sealing
        self._room = room
        self._kept: OrderedDict[tuple[TenantId, str], _Kept] = OrderedDict()
        self._bytes = 0
        self._modes: dict[tuple[TenantId, str, int], Callable[[int | None], str]] = {}
        self._described: OrderedDict[tuple[int, int], str] = OrderedDict()

    async def read(
        self, call: Call, rights: Rights, path: LocalPath, version: int | None, *, fresh: bool
    ) -> Secret:
        """A secret's current version, or an earlier one.

        Args:
            fresh: the rights were asked for after the request began.

        Raises:
            StaleRightsError: they changed: ask for them, and again.
            NotFoundError: there is none, or the caller may not know whether there is.
            ForbiddenError: the caller may know of it, and may not read it.
            StoreUnavailableError: it could not be looked up, or not recorded.
            KeyServiceError: `value_unreadable`, `key_destroyed`.
        """
        kept = self._kept.get((call.tenant, path)) if version is None else None
        known = None if kept is None else (int(kept.secret), kept.version)
        asked = _Read(call, rights.permissions, path, version, known, fresh)
        await self._recorder.submit(asked)
        if asked.stale:
            raise StaleRightsError
        if asked.row is None:
            raise refused(call, rights.permissions, Permission.READ, path, Scope.SECRETS_READ)
        row = asked.row
        check_readable(row, path, version)
        if row["sealed"] is not None:
            secret = SecretId(row["secret_id"])
            sealed = Sealed(KeyId(row["key_id"]), row["nonce"], row["sealed"])
            if version is None:
                self._keep(call.tenant, path, _Kept(secret, row["version"], sealed))
        else:
            assert kept is not None
            secret, sealed = kept.secret, kept.sealed
            self._kept.move_to_end((call.tenant, path), last=True)
        keys = await self._sealing.for_tenant(call.tenant)
        data = await keys.open(Purpose.VALUE, secret, path, row["version"], sealed)
        return await self._answer(call.tenant, path, row, data)

    def _keep(self, tenant: TenantId, path: str, kept: _Kept) -> None:
        size = len(kept.sealed.sealed)
        if size > self._room // 16:
            return
        before = self._kept.pop((tenant, path), None)
        self._bytes += size - (len(before.sealed.sealed) if before else 0)
        self._kept[tenant, path] = kept
        while self._bytes > self._room:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= len(oldest.sealed.sealed)

    async def _answer(self, tenant: TenantId, path: str, row: Row, data: bytes) -> Secret:
        described = self._described.get((row["secret_id"], row["row_rev"]))
        if described is None:
            described = json.dumps(metadata_of(row), separators=(",", ":"))
            self._described[row["secret_id"], row["row_rev"]] = described
            if len(self._described) > 10_000:
                self._described.popitem(last=False)
        before = f'{{"path":"{path}","data":'
        after = (
            f',"secret_type":{json.dumps(row["secret_type"])},"version":{row["version"]}'
            f',"created_at":"{time_of(row["created_at"])}","metadata":{described}'
            f',"federation":{await self._federation(tenant, row)}}}'
        )
        in_conflict = row["pair_status"] == PairStatus.CONFLICT
        return Secret(row["version"], before.encode(), data, after.encode(), in_conflict)

    async def _federation(self, tenant: TenantId, row: Row) -> str:
        backend = row["backend_id"]
        if backend is None:
            return "null"
        key = (tenant, backend, row["rev"])
        mode_of = self._modes.get(key)
        if mode_of is None:
            mode_of = self._modes[key] = await self._mode_of(tenant, backend)
        synced = time_of(row["synced_at"])
        at = "null" if synced is None else f'"{synced}"'
        return (
            f'{{"backend_id":"{backend}","mode":"{mode_of(row["rule_ord"])}","synced_at":{at}'
            f',"status":"{row["pair_status"]}"}}'
        )

    async def _mode_of(self, tenant: TenantId, backend: str) -> Callable[[int | None], str]:
        """The mode of each rule of a backend, by its number; until a run has mapped a path
        anew, that of the whole backend."""
        async with self._db.transaction(tenant, read_only=True) as tx:
            stored = await federation.find(tx, BackendId(backend))
        if stored is None:  # removed meanwhile
            return lambda rule: str(Mode.SYNC)
        spec = stored.spec
        modes: Mapping[int | None, str] = {
            None: str(spec.for_rule(RuleSpec("")).mode),
            **{ord: str(spec.for_rule(rule).mode) for ord, rule in enumerate(spec.rules)},
        }
        if len(self._modes) > 10_000:
            self._modes.clear()
        return lambda rule: modes.get(rule, modes[None])


def check_readable(row: Row, path: str, version: int | None) -> None:
    """Raises NotFoundError where the row holds no value that may be read."""
    readable = row["state"] == "live" or (row["state"] == "deleted" and version is not None)
    if not readable:
        raise absent(path)
    if row["version"] is None or row["version_state"] != "live" or not row["has_value"]:
        raise NotFoundError(
            f"{path} has no version {version} that can be read", code="version_not_found"
        )
