"""Reading one secret: decide, find, record, open, answer.

What is not here may be read through a backend: who is to be asked is found out before
anything is recorded, so that an access has one row, which names the backend (`proxying`).

The value that is kept sealed is the exact JSON text of `data`, so an answer is put
together around it: nothing is parsed, and no number changes on the way. Ciphertexts that
were read are kept, sealed as they are, with what is said of their secrets, up to a bound in
bytes; a version never changes, and which one is the current one is looked up with every read.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from svsync.domain.access import Call, Scope, shut
from svsync.domain.audit import Decision, Entry
from svsync.domain.changes import PairStatus, RemoteValue, shown_version
from svsync.domain.envelope import Binding, Purpose
from svsync.domain.errors import NotFoundError, StoreUnavailableError, SvsyncError
from svsync.domain.federation import Mode, RuleSpec
from svsync.domain.ids import BackendId, KeyId, LocalPath, SecretId, TenantId
from svsync.domain.policies import Permission, Permissions
from svsync.observe.logs import get_logger
from svsync.services.answers import Federated, Secret, described, secret_of
from svsync.services.authority import Rights
from svsync.services.authorizing import absent, refused
from svsync.services.proxied_flights import Heard
from svsync.services.proxying import READ, Proxying, passed, passing
from svsync.services.recording import Access, Recorder, Told
from svsync.services.sealing import Sealed, Sealing
from svsync.services.secrets import metadata_of
from svsync.store import federation
from svsync.store.database import Database, Row

CACHED_BYTES: Final = 64 * 1024 * 1024
"""Ciphertext, and what is said of it, that is kept for the next read of the same version."""
DECIDED: Final = 100_000
"""Decisions that are remembered; beyond it all are made anew."""
_TRIES: Final = 5
"""Looks at a path while backends are configured anew all the time."""


class StaleRightsError(Exception):
    """The rights that a read was asked with are not those of now: nothing was decided."""


class _Read(Access):
    """One read, and what came of it."""

    __slots__ = ("_allowed", "_call", "_fresh", "row", "stale")

    def __init__(
        self,
        call: Call,
        allowed: bool,
        path: LocalPath,
        version: int | None,
        known: tuple[bytes, int] | None,
        fresh: bool,
    ) -> None:
        """`allowed`: whether the caller may read it, by rights of the epoch that `call` names."""
        super().__init__(call.tenant, path, version, known)
        self._call = call
        self._allowed = allowed
        self._fresh = fresh
        self.stale = False
        self.row: Row | None = None

    def settle(self, row: Row) -> Entry | None:
        caller = self._call.caller
        if not self._fresh and row["epoch"] != caller.epoch:
            self.stale = True
            return None
        if row["tenant_status"] != "active":
            raise shut(row["tenant_status"])
        if not self._allowed:
            return self._call.entry(READ, Decision.DENY, path=self.path)
        self.row = row
        # Of what is not here it is not known yet who is asked for it.
        return self.entry(row) if row["state"] == "live" else None

    def entry(self, row: Row) -> Entry:
        """What is recorded of a path that is looked for here alone."""
        return self._call.entry(
            READ,
            Decision.ALLOW,
            path=self.path,
            version=row["version"],
            backend=row["backend_id"],
        )


_Found = tuple[Secret, Entry]


class Glance(_Read):
    """A read of a current value by what is at hand, and by one call where it passes through.

    Attributes:
        secret: the answer, once `told` is; None: it was not looked at closely enough to say
            anything of it, and nothing was recorded: it is to be read as any other.
        told: what came of it.
        heard: what a backend said of it.
    """

    __slots__ = ("_find", "heard", "secret", "told")

    def __init__(
        self,
        call: Call,
        path: LocalPath,
        known: tuple[bytes, int] | None,
        find: "Callable[[Glance, Row, Entry | None], _Found | None]",
        tell: "Callable[[Glance], None]",
    ) -> None:
        """`find` gives the answer, and what is recorded of it, for a caller who may have it:
        by what stands now, and what is recorded of a path that is looked for here alone."""
        super().__init__(call, True, path, None, known, fresh=False)
        self._find = find
        self.secret: Secret | None = None
        self.heard: Heard | None = None
        self.told = Told(partial(tell, self))

    def settle(self, row: Row) -> Entry | None:
        try:
            entry = super().settle(row)
            # Refused, or by rights that are not those of now: the long way says so.
            found = None if self.row is None else self._find(self, row, entry)
        except SvsyncError:
            return None
        except Exception as bug:  # noqa: BLE001 - others of the batch have no part in it
            get_logger().error("glance_failed", exc_info=bug)
            return None
        if found is None:
            return None
        self.secret, entry = found
        return entry


@dataclass(frozen=True, slots=True)
class _Kept:
    """`rev` is that of the secret when `said` was made of it; `bound` is what `sealed` is
    bound to."""

    secret: SecretId
    version: int
    rev: int
    sealed: Sealed
    bound: bytes
    said: bytes

    @property
    def size(self) -> int:
        return len(self.sealed.sealed) + len(self.bound) + len(self.said)


class Reading:
    """The audited read path, of every tenant."""

    def __init__(
        self,
        db: Database,
        recorder: Recorder,
        sealing: Sealing,
        proxying: Proxying,
        *,
        room: int = CACHED_BYTES,
    ) -> None:
        """`room`: bytes that are kept of ciphertexts and what is said of them."""
        self._db = db
        self._recorder = recorder
        self._sealing = sealing
        self._proxying = proxying
        self._room = room
        self._kept: OrderedDict[tuple[TenantId, str], _Kept] = OrderedDict()
        self._bytes = 0
        self._modes: dict[tuple[TenantId, str, int], Callable[[int | None], str]] = {}
        self._decided: dict[tuple[Permissions, str], bool] = {}
        self._here_after_all: set[tuple[TenantId, str]] = set()

    async def read(
        self,
        call: Call,
        rights: Rights,
        path: LocalPath,
        version: int | None,
        *,
        fresh: bool,
        heard: Heard | None = None,
    ) -> Secret:
        """A secret's current version, or an earlier one.

        Args:
            fresh: the rights were asked for after the request began.
            heard: what a backend said of the path since then.

        Raises:
            StaleRightsError: they changed: ask for them, and again.
            NotFoundError: there is none, or the caller may not know whether there is.
            ForbiddenError: the caller may know of it, and may not read it.
            StoreUnavailableError: it could not be looked up, or not recorded.
            KeyServiceError: `value_unreadable`, `key_destroyed`.
            Others as `Proxying.read`, where the path is read through.
        """
        for _ in range(_TRIES):
            asked, kept = await self._look(call, rights, path, version, fresh)
            row = asked.row
            if row is None:
                raise refused(call, rights.permissions, Permission.READ, path, Scope.SECRETS_READ)
            if row["state"] == "live":
                return await self._here(call.tenant, path, version, row, kept)
            self._forget(call.tenant, path)
            owners = await self._proxying.owners(call.tenant, row["federation_epoch"])
            through = owners.through(path)
            # What was deleted here is not to come in again before the table decided so.
            if through is not None and not (through.initial and row["state"] == "deleted"):
                return await self._proxying.read(call, path, version, through, owners.epoch, heard)
            if owners.epoch == row["federation_epoch"]:
                await self._recorder.record(asked.entry(row))
                return await self._here(call.tenant, path, version, row, kept)
            # A backend was changed in between: what is here may have come to be seen by that.
        raise StoreUnavailableError("backends are being changed all the time: try again")

    def may(self, rights: Rights, path: LocalPath) -> bool:
        """Whether somebody may read a path, be there anything or not."""
        return rights.caller.has(Scope.SECRETS_READ) and self._decide(rights.permissions, path)

    def glance(self, call: Call, path: LocalPath, tell: Callable[[Glance], None]) -> Glance | None:
        """Begin to read a current value by what is at hand, for somebody who `may`; see `Glance`.
        None: neither was it read here lately nor is it known where to ask for it. The rights may
        be remembered ones. `tell` is called once it is done, unless `told` is cancelled before;
        it raises nothing.

        Raises AuditUnavailableError, OverloadedError: it cannot be recorded.
        """
        kept = self._kept.get((call.tenant, path))
        if kept is None:
            return self._glance_through(call, path, tell)

        def find(_: Glance, row: Row, entry: Entry | None) -> _Found | None:
            self._proxying.learn(call.tenant, row["federation_epoch"])
            if entry is None:  # it is not here any more
                return None
            secret = self._at_hand(call.tenant, path, row, kept)
            return None if secret is None else (secret, entry)

        known = kept.sealed.nonce, kept.rev
        asked = Glance(call, path, known, find, tell)
        self._recorder.take_in(asked, asked.told)
        return asked

    def _glance_through(
        self, call: Call, path: LocalPath, tell: Callable[[Glance], None]
    ) -> Glance | None:
        """The same of what a backend is asked for. What it says is answered where the rights and
        the owners by which it was asked still stand as that is recorded."""
        way = self._proxying.at_hand(call.tenant, path)
        if way is None or (call.tenant, path) in self._here_after_all:
            return None
        through, epoch = way

        def find(asked: Glance, row: Row, entry: Entry | None) -> _Found | None:
            self._proxying.learn(call.tenant, row["federation_epoch"])
            if entry is not None:
                self._remember_here(call.tenant, path)
            found = asked.heard.found if asked.heard is not None else None
            if (
                entry is not None
                or row["federation_epoch"] != epoch
                or not isinstance(found, RemoteValue)
            ):
                return None
            secret = passed(path, found, through, through)
            return secret, passing(call, path, through, shown_version(found.order))

        def heard(what: Heard) -> None:
            asked.heard = what
            if not isinstance(what.found, RemoteValue):
                asked.told.set_result(None)
                return
            try:
                self._recorder.take_in(asked, asked.told)
            except SvsyncError as refused:
                asked.told.set_exception(refused)

        asked = Glance(call, path, None, find, tell)
        asked.told.gone = self._proxying.flights.hear(call.tenant, path, through, epoch, heard)
        return asked

    def _remember_here(self, tenant: TenantId, path: LocalPath) -> None:
        """Backends are not asked in vain for each read of what is here and not kept."""
        if len(self._here_after_all) >= DECIDED:
            self._here_after_all.clear()
        self._here_after_all.add((tenant, path))

    def _at_hand(self, tenant: TenantId, path: LocalPath, row: Row, kept: _Kept) -> Secret | None:
        """As `_here` answers; None where that would have to wait for something."""
        check_readable(row, path, None)
        mode = None
        if row["backend_id"] is not None:
            mode_of = self._modes.get((tenant, row["backend_id"], row["rev"]))
            if mode_of is None:
                return None
            mode = mode_of(row["rule_ord"])
        keys = self._sealing.at_hand(tenant)
        if keys is None:
            return None
        kept = self._kept_of(tenant, path, None, row, kept)
        if (row["secret_id"], row["version"]) != (kept.secret, kept.version):
            return None
        data = keys.open_at_hand(kept.sealed, kept.bound)
        return None if data is None else _answer(path, data, kept, row, mode)

    async def _look(
        self, call: Call, rights: Rights, path: LocalPath, version: int | None, fresh: bool
    ) -> tuple[_Read, _Kept | None]:
        kept = self._kept.get((call.tenant, path)) if version is None else None
        known = None if kept is None else (kept.sealed.nonce, kept.rev)
        asked = _Read(call, self.may(rights, path), path, version, known, fresh)
        await self._recorder.submit(asked)
        if asked.stale:
            raise StaleRightsError
        if asked.row is not None:
            self._proxying.learn(call.tenant, asked.row["federation_epoch"])
        return asked, kept

    def _decide(self, permissions: Permissions, path: str) -> bool:
        """Whether they let somebody read a path; rules that changed are other permissions."""
        allowed = self._decided.get((permissions, path))
        if allowed is None:
            if len(self._decided) >= DECIDED:
                self._decided.clear()
            allowed = permissions.decide(path, Permission.READ) is not None
            self._decided[permissions, path] = allowed
        return allowed

    async def _here(
        self, tenant: TenantId, path: LocalPath, version: int | None, row: Row, kept: _Kept | None
    ) -> Secret:
        """What is stored here, opened and answered."""
        check_readable(row, path, version)
        kept = self._kept_of(tenant, path, version, row, kept)
        keys = await self._sealing.for_tenant(tenant)
        data = await keys.open(Purpose.VALUE, kept.secret, path, row["version"], kept.sealed)
        mode = None if row["backend_id"] is None else await self._mode(tenant, row)
        return _answer(path, data, kept, row, mode)

    def _kept_of(
        self, tenant: TenantId, path: LocalPath, version: int | None, row: Row, kept: _Kept | None
    ) -> _Kept:
        """What is kept of a version, or was looked up."""
        if row["nonce"] is not None or kept is None:
            secret, key = SecretId(row["secret_id"]), KeyId(row["key_id"])
            binding = Binding(tenant, secret, path, row["version"], key, Purpose.VALUE)
            kept = _Kept(
                secret,
                row["version"],
                row["row_rev"],
                Sealed(key, row["nonce"], row["sealed"]),
                binding.associated_data(),
                described(row["secret_type"], row["version"], row["created_at"], metadata_of(row)),
            )
            if version is None:
                self._keep(tenant, path, kept)
        elif (tenant, path) in self._kept:  # others may have driven it out meanwhile
            self._kept.move_to_end((tenant, path))
        return kept

    def _keep(self, tenant: TenantId, path: str, kept: _Kept) -> None:
        size = kept.size
        if size > self._room // 16:
            return
        before = self._kept.pop((tenant, path), None)
        self._bytes += size - (before.size if before else 0)
        self._kept[tenant, path] = kept
        while self._bytes > self._room:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= oldest.size

    def _forget(self, tenant: TenantId, path: str) -> None:
        """It is not here any more: nobody looks first for what was."""
        self._here_after_all.discard((tenant, path))
        if (gone := self._kept.pop((tenant, path), None)) is not None:
            self._bytes -= gone.size

    def forget(self, tenant: TenantId) -> None:
        """Let go of what is kept of a tenant that was shredded."""
        for of, path in [key for key in self._kept if key[0] == tenant]:
            self._forget(of, path)

    async def _mode(self, tenant: TenantId, row: Row) -> str:
        """The mode of the rule that a path falls under."""
        key = (tenant, row["backend_id"], row["rev"])
        mode_of = self._modes.get(key)
        if mode_of is None:
            mode_of = self._modes[key] = await self._mode_of(tenant, row["backend_id"])
        return mode_of(row["rule_ord"])

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


def _answer(path: LocalPath, data: bytes, kept: _Kept, row: Row, mode: str | None) -> Secret:
    """`mode`: of the path's rule, None where no backend has it."""
    federated = None
    if mode is not None:
        federated = Federated(row["backend_id"], mode, row["synced_at"], row["pair_status"])
    return secret_of(
        path,
        data,
        kept.said,
        version=row["version"],
        federated=federated,
        in_conflict=row["pair_status"] == PairStatus.CONFLICT,
    )


def check_readable(row: Row, path: str, version: int | None) -> None:
    """Raises NotFoundError where the row holds no value that may be read."""
    readable = row["state"] == "live" or (row["state"] == "deleted" and version is not None)
    if not readable:
        raise absent(path)
    if row["version"] is None or row["version_state"] != "live" or not row["has_value"]:
        raise NotFoundError(
            f"{path} has no version {version} that can be read", code="version_not_found"
        )
