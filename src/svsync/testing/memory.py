"""A backend in memory that does whatever a test asks of it.

`MemoryStore` is the remote store, and the hands of whoever changes it behind
svsync's back; `MemoryDriver(store)` opens backends onto it. It has versions,
soft delete, tags and folders as Vault's KV v2 has them, and it can hide keys,
deny folders, lag, fail and stop in the middle. `generate` makes a store of
millions of names that take no memory.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, Literal

from svsync.domain.changes import (
    Entry,
    HistoricVersion,
    ListingPage,
    RemoteGone,
    RemoteRead,
    RemoteUnknown,
    RemoteValue,
    Scope,
    ScopeOutcome,
)
from svsync.domain.errors import BackendUnreachableError
from svsync.domain.federation import BackendSpec
from svsync.domain.ids import RemotePath
from svsync.domain.paths import remote_problem
from svsync.ports import (
    Backend,
    CallGuard,
    Check,
    Connection,
    CredentialSource,
    Features,
    Operation,
)
from svsync.testing.memory_store import PAGE, Generated, MemoryStore, StoredSecret

__all__ = ["FEATURES", "Generated", "MemoryBackend", "MemoryDriver", "MemoryStore"]

FEATURES: Final = Features(history=True, ordered_tokens=True, compare_and_set=True, folders=True)


class MemoryBackend:
    """See `ports.Backend`."""

    def __init__(self, store: MemoryStore, spec: BackendSpec, guard: CallGuard) -> None:
        self._store = store
        self._spec = spec
        self._guard = guard
        self._closed = False

    @property
    def features(self) -> Features:
        return FEATURES

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

    async def look_up(self, path: RemotePath) -> Entry | RemoteRead:
        if problem := remote_problem(path, max_bytes=FEATURES.max_name):
            return RemoteUnknown(str(problem.code), problem.detail)
        await self._call("metadata", path)
        if self._store.is_denied(path):
            return RemoteUnknown("denied")
        secret = self._store.secret(path)
        return RemoteGone() if secret is None else _entry(path, secret)

    async def read(self, paths: Sequence[RemotePath]) -> Sequence[RemoteRead]:
        return [await self._read(path) for path in paths]

    async def read_history(
        self, path: RemotePath, *, above: int, below: int, limit: int
    ) -> Sequence[HistoricVersion]:
        await self._call("metadata", path)
        secret = None if self._store.is_denied(path) else self._store.secret(path)
        if secret is None or limit < 1:
            return ()
        found = [
            HistoricVersion(number, version.payload, version.created_at)
            for number, version in sorted(secret.versions.items())
            if above < number < below and version.readable
        ][-limit:]
        for version in found:
            await self._call("read", f"{path}?version={version.number}")
        return found

    async def aclose(self) -> None:
        self._closed = True

    async def _read(self, path: RemotePath) -> RemoteRead:
        if problem := remote_problem(path, max_bytes=FEATURES.max_name):
            return RemoteUnknown(str(problem.code), problem.detail)
        await self._call("read", path)
        if self._store.is_denied(path):
            return RemoteUnknown("denied")
        if path in self._store.unreadable:
            return self._store.unreadable[path]
        secret = self._store.secret(path)
        if secret is None:
            return RemoteGone()
        version = secret.versions[secret.current]
        if secret.gone:
            reason = "destroyed" if version.destroyed else "deleted"
            return RemoteGone(secret.value_token, secret.meta_token, secret.current, reason)
        if version.payload.size > self._spec.max_value_bytes:
            return RemoteUnknown("value_too_large")
        return RemoteValue(
            version.payload,
            secret.value_token,
            secret.meta_token,
            secret.current,
            secret.tags,
            version.created_at,
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
                    _entry(path, names[path]) if told else Entry(RemotePath(path))
                    for path in shown[start : start + PAGE]
                )
            )
        yield ListingPage(scopes=(Scope(folder, ScopeOutcome.COMPLETE),))

    async def _call(self, operation: Operation, path: str) -> None:
        if self._closed:
            raise BackendUnreachableError("the backend is closed", operation=operation)
        await self._guard.call(operation, lambda: self._store.called(operation, path))


def _entry(path: str, secret: StoredSecret) -> Entry:
    return Entry(
        RemotePath(path),
        secret.value_token,
        secret.meta_token,
        secret.current,
        secret.gone,
        secret.tags,
    )


class MemoryDriver:
    """See `ports.BackendDriver`. Every backend it opens sees the same store."""

    features: Features = FEATURES

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore()

    def check_config(self, spec: BackendSpec) -> None:
        """Every configuration will do."""

    def open(
        self, spec: BackendSpec, credential: CredentialSource, guard: CallGuard
    ) -> AbstractAsyncContextManager[Backend]:
        return self._open(spec, guard)

    @asynccontextmanager
    async def _open(self, spec: BackendSpec, guard: CallGuard) -> AsyncIterator[Backend]:
        backend = MemoryBackend(self.store, spec, guard)
        try:
            yield backend
        finally:
            await backend.aclose()
