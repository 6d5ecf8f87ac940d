"""A backend in memory that does whatever a test asks of it.

`MemoryStore` is the remote store, and the hands of whoever changes it behind
svsync's back; `MemoryDriver(store)` opens backends onto it. It has versions,
soft delete, tags and folders as Vault's KV v2 has them, and it can hide keys,
deny folders, lag, fail and stop in the middle. With other `features` it is a
store without conditions or without history. `generate` makes a store of
millions of names that take no memory.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Final, Literal, TypeVar

from svsync.domain.changes import (
    Entry,
    Folder,
    HistoricVersion,
    ListingPage,
    RemoteGone,
    RemoteRead,
    RemoteUnknown,
    RemoteValue,
    Scope,
    ScopeOutcome,
    Tags,
)
from svsync.domain.decide import PushKind
from svsync.domain.errors import BackendError, BackendUnreachableError, DeniedError
from svsync.domain.federation import BackendSpec
from svsync.domain.ids import RemotePath
from svsync.domain.paths import remote_problem
from svsync.domain.pushes import REMOTE_CHANGED, Landed, Ready, Refused, RemoteWrite
from svsync.domain.values import Encoding, Payload, canonical
from svsync.ports import (
    Backend,
    CallGuard,
    Check,
    Connection,
    CredentialSource,
    Features,
    Operation,
)
from svsync.testing.memory_store import PAGE, Generated, MemoryStore, StoredSecret, tags_token

__all__ = ["FEATURES", "Generated", "MemoryBackend", "MemoryDriver", "MemoryStore"]

FEATURES: Final = Features(
    history=True, ordered_tokens=True, compare_and_set=True, tags=True, folders=True
)

T = TypeVar("T")


class MemoryBackend:
    """See `ports.Backend`."""

    def __init__(
        self,
        store: MemoryStore,
        spec: BackendSpec,
        guard: CallGuard,
        features: Features = FEATURES,
    ) -> None:
        self._store = store
        self._spec = spec
        self._guard = guard
        self._features = features
        self._closed = False

    @property
    def features(self) -> Features:
        return self._features

    async def connect(self, prefixes: Sequence[str], *, probe: bool = True) -> Connection:
        await self._call("login", "")
        if not probe:
            return Connection(self._store.identity, "healthy", "memory")
        checks = [
            Check(f"read {prefix}", "missing", f"undeny {prefix}")
            if self._store.is_denied(prefix)
            else Check(f"read {prefix}", "granted")
            for prefix in prefixes
        ]
        missing = sum(check.state == "missing" for check in checks)
        status: Literal["healthy", "degraded", "denied"] = "degraded"
        if missing in (0, len(checks)):
            status = "denied" if missing else "healthy"
        return Connection(self._store.identity, status, "memory", 0.0, tuple(checks))

    async def list_entries(
        self, prefixes: Sequence[str], *, tokens: bool
    ) -> AsyncGenerator[ListingPage]:
        told = tokens or not self._store.tokens_cost_calls
        for prefix in prefixes:
            for folder, paths in self._folders(prefix).items():
                await self._call("list", folder)
                if self._store.is_denied(folder):
                    yield ListingPage(scopes=(Scope(folder, ScopeOutcome.DENIED, "denied"),))
                    continue
                if folder in self._store.failed:
                    yield ListingPage(scopes=(Scope(folder, ScopeOutcome.FAILED, "broken"),))
                    continue
                for page in self._pages(folder, paths, told):
                    yield page
            for folder, entries in self._store.generated_pages(prefix):
                await self._call("list", folder)
                scope = Scope(folder, ScopeOutcome.COMPLETE)
                yield ListingPage(tuple(entries), (scope,))

    async def list_folder(self, folder: str) -> Folder:
        await self._call("list", folder)
        if self._store.is_denied(folder):
            return Folder(Scope(folder, ScopeOutcome.DENIED, "denied"))
        if folder in self._store.failed:
            return Folder(Scope(folder, ScopeOutcome.FAILED, "broken"))
        names = self._store.listed_names()
        below = [path for path in names if path.startswith(folder)]
        inner = {
            path[: path.index("/", len(folder)) + 1] for path in below if "/" in path[len(folder) :]
        }
        entries = [
            self._entry(path, names[path])
            for path in below
            if "/" not in path[len(folder) :] and path not in self._store.hidden
        ]
        complete = Scope(folder, ScopeOutcome.COMPLETE)
        return Folder(complete, tuple(entries), tuple(sorted(inner)))

    async def look_up(self, path: RemotePath) -> Entry | RemoteRead:
        if problem := remote_problem(path, max_bytes=self._features.max_name):
            return RemoteUnknown(str(problem.code), problem.detail)
        await self._call("metadata", path)
        if self._store.is_denied(path):
            return RemoteUnknown("denied")
        secret = self._store.seen(path)
        return RemoteGone() if secret is None else self._entry(path, secret)

    async def read(self, paths: Sequence[RemotePath]) -> Sequence[RemoteRead]:
        return [await self._read(path) for path in paths]

    async def read_history(
        self, path: RemotePath, *, above: int, below: int, limit: int
    ) -> Sequence[HistoricVersion]:
        await self._call("metadata", path)
        secret = None if self._store.is_denied(path) else self._store.seen(path)
        if secret is None or limit < 1 or not self._features.history:
            return ()
        found = [
            HistoricVersion(number, version.payload, version.created_at)
            for number, version in sorted(secret.versions.items())
            if above < number < below and version.readable
        ][-limit:]
        for version in found:
            await self._call("read", f"{path}?version={version.number}")
        return found

    async def check(self, order: RemoteWrite) -> Ready | Refused:
        if problem := remote_problem(order.path, max_bytes=self._features.max_name):
            return Refused(str(problem.code), problem.detail)
        if order.payload is not None and order.payload.size > self._largest():
            return Refused("value_too_large")
        if order.kind is PushKind.DELETE and not self._recoverable():
            return Refused("delete_not_recoverable")
        if order.kind is PushKind.METADATA and not self._features.tags:
            return Refused("bad_metadata")
        await self._call("metadata", order.path)
        if self._store.is_denied(order.path):
            return Refused("denied")
        secret = self._store.seen(order.path)
        if not _stands(order, secret):
            return Refused(REMOTE_CHANGED)
        before = None
        conditional = self._features.compare_and_set
        if order.kind is PushKind.PUT and not (conditional or self._recoverable()):
            read = await self._read(order.path)
            if not isinstance(read, RemoteValue) or read.value_token != order.expected_token:
                return Refused(REMOTE_CHANGED)
            before = read
        tags = (secret.tags if secret is not None else {}) if self._features.tags else None
        return Ready(order.expected_token, conditional, tags, before)

    async def write(self, order: RemoteWrite, ready: Ready, tags: Tags | None) -> Landed | Refused:
        path, landed = order.path, Landed()
        if order.kind is not PushKind.METADATA:
            operation: Operation = "delete" if order.kind is PushKind.DELETE else "write"
            try:
                changed = await self._call(operation, path, lambda: self._change(order, ready))
            except DeniedError:
                return Refused("denied")
            if changed is None:
                return Refused(REMOTE_CHANGED)
            landed = changed
        if tags is None:
            return landed
        wanted, there = dict(tags), dict(ready.tags or {})
        if wanted != there:
            try:
                await self._call("write", path, lambda: self._set_tags(path, wanted))
            except BackendError as error:
                denied = isinstance(error, DeniedError)
                if order.kind is PushKind.METADATA:
                    if denied:
                        return Refused("denied")
                    raise
                if error.sent and not denied:
                    return replace(landed, tags_refused="write_outcome_unknown")
                wanted, reason = there, "denied" if denied else "push_refused"
                landed = replace(landed, tags_refused=reason)
        return replace(landed, meta_token=tags_token(wanted), tags=wanted)

    async def find_delete(self, order: RemoteWrite) -> Landed | Refused | None:
        path, number = order.path, order.expected_order
        await self._call("metadata", path)
        secret = None if self._store.is_denied(path) else self._store.secret(path)
        version = secret.versions.get(number or 0) if secret is not None else None
        after = secret.versions.get((number or 0) + 1) if secret is not None else None
        if version is None or after is None or not self._features.history:
            return None
        if version.deleted and version.deleted < after.made:
            return Landed(order=number)
        if version.deleted:
            await self._call("write", path, lambda: self._store.undelete(path, number))
        return Refused(REMOTE_CHANGED)

    async def aclose(self) -> None:
        self._closed = True

    def _largest(self) -> int:
        limits = (self._features.max_value, self._spec.max_value_bytes, self._store.max_value)
        return min(limit for limit in limits if limit is not None)

    def _recoverable(self) -> bool:
        given = self._store.recoverable
        return self._features.history if given is None else given

    def _change(self, order: RemoteWrite, ready: Ready) -> Landed | None:
        """Write or delete, all at once; None: somebody was faster, and nothing was done."""
        path, payload = order.path, order.payload
        self._may_write(path)
        if payload is not None and (made := self._made_before(order)) is not None:
            return made
        # A delete looks at what it deletes also where a write takes no condition.
        conditional = ready.conditional or payload is None
        if conditional and not _stands(order, self._store.secret(path)):
            return None
        if payload is None:
            self._store.delete(path)
        else:
            if self._features.json_doubles and payload.encoding is Encoding.JSON:
                payload = Payload.from_json_text(canonical(payload))
            self._store.put(path, payload, order.push_id)
        now = self._store.secret(path)
        assert now is not None
        return self._landed(now)

    def _made_before(self, order: RemoteWrite) -> Landed | None:
        """The same write again is the same version, where an id tells and is a condition."""
        secret = self._store.secret(order.path)
        same = secret is not None and _made_by(secret)[:1] == (order.push_id,)
        if secret is None or secret.gone or not (same and self._features.compare_and_set):
            return None
        return self._landed(secret)

    def _landed(self, secret: StoredSecret) -> Landed:
        return Landed(secret.value_token, order=self._order(secret))

    def _order(self, secret: StoredSecret) -> int | None:
        return secret.current if self._features.ordered_tokens else None

    def _entry(self, path: str, secret: StoredSecret) -> Entry:
        return Entry(
            RemotePath(path),
            secret.value_token,
            secret.meta_token,
            self._order(secret),
            secret.gone,
            secret.tags,
        )

    def _set_tags(self, path: RemotePath, tags: Tags) -> None:
        self._may_write(path)
        self._store.tag(path, tags)

    def _may_write(self, path: RemotePath) -> None:
        if self._store.is_readonly(path):
            raise DeniedError(f"the backend denies write of {path}", operation="write", path=path)

    async def _read(self, path: RemotePath) -> RemoteRead:
        if problem := remote_problem(path, max_bytes=self._features.max_name):
            return RemoteUnknown(str(problem.code), problem.detail)
        await self._call("read", path)
        if self._store.is_denied(path):
            return RemoteUnknown("denied")
        if path in self._store.unreadable:
            return self._store.unreadable[path]
        secret = self._store.seen(path)
        if secret is None:
            return RemoteGone()
        version = secret.versions[secret.current]
        if secret.gone:
            reason = "destroyed" if version.destroyed else "deleted"
            return RemoteGone(secret.value_token, secret.meta_token, self._order(secret), reason)
        if version.payload.size > self._spec.max_value_bytes:
            return RemoteUnknown("value_too_large")
        return RemoteValue(
            version.payload,
            secret.value_token,
            secret.meta_token,
            self._order(secret),
            secret.tags,
            version.created_at,
            made_by=_made_by(secret),
        )

    def _folders(self, prefix: str) -> dict[str, list[str]]:
        """Names by the folder they stand in; the prefix and what lies between too."""
        folders: dict[str, list[str]] = {prefix: []}
        for path in self._store.listed_names():
            if not path.startswith(prefix):
                continue
            folder = path[: path.rfind("/") + 1]
            for at in range(len(prefix), len(folder) + 1):
                if folder[:at].endswith("/") and len(folder[:at]) > len(prefix):
                    folders.setdefault(folder[:at], [])
            folders.setdefault(folder, []).append(path)
        shut = self._store.denied | self._store.failed
        return {
            folder: paths
            for folder, paths in folders.items()
            if not any(folder.startswith(one) and folder != one for one in shut)
        }

    def _pages(self, folder: str, paths: list[str], told: bool) -> Iterator[ListingPage]:
        names = self._store.listed_names()
        shown = [path for path in paths if path not in self._store.hidden]
        for start in range(0, len(shown), PAGE):
            yield ListingPage(
                tuple(
                    self._entry(path, names[path]) if told else Entry(RemotePath(path))
                    for path in shown[start : start + PAGE]
                )
            )
        yield ListingPage(scopes=(Scope(folder, ScopeOutcome.COMPLETE),))

    async def _call(
        self, operation: Operation, path: str, effect: Callable[[], T | None] = lambda: None
    ) -> T | None:
        if self._closed:
            raise BackendUnreachableError("the backend is closed", operation=operation, sent=False)
        return await self._guard.call(
            operation, lambda: self._store.called(operation, path, effect)
        )


def _stands(order: RemoteWrite, secret: StoredSecret | None) -> bool:
    """Is the name still as the order expects it?"""
    if order.kind is PushKind.METADATA:
        return secret is not None
    token = None if secret is None else secret.value_token
    readable = secret is not None and not secret.gone
    return token == order.expected_token and readable == (order.kind is not PushKind.CREATE)


def _made_by(secret: StoredSecret) -> tuple[str, ...]:
    """Of the current version and the one before it, as far as that was kept."""
    numbers = (secret.current, secret.current - 1)
    versions = [secret.versions[number] for number in numbers if number in secret.versions]
    return tuple(version.by for version in versions if version.by)


class MemoryDriver:
    """See `ports.BackendDriver`. Every backend it opens sees the same store, and has
    `features`: without `compare_and_set` a write overwrites whatever is there; without
    `history` nothing earlier can be read, nor brought back unless the store says so; without
    `ordered_tokens` no number is told; with `json_doubles` what is written comes back with
    every number a double."""

    def __init__(self, store: MemoryStore | None = None, features: Features = FEATURES) -> None:
        self.store = store or MemoryStore()
        self.features = features

    def check_config(self, spec: BackendSpec) -> None:
        """Every configuration will do."""

    def open(
        self, spec: BackendSpec, credential: CredentialSource, guard: CallGuard
    ) -> AbstractAsyncContextManager[Backend]:
        return self._open(spec, guard)

    @asynccontextmanager
    async def _open(self, spec: BackendSpec, guard: CallGuard) -> AsyncIterator[Backend]:
        backend = MemoryBackend(self.store, spec, guard, self.features)
        try:
            yield backend
        finally:
            await backend.aclose()
