"""A Redis or Valkey server as a backend: listing and reading. What is written stands in
`writing`, how a secret lies there in `layout`."""

import re
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final, TypeVar

from svsync.domain.changes import (
    Entry,
    Folder,
    HistoricVersion,
    ListingPage,
    RemoteGone,
    RemoteRead,
    RemoteUnknown,
    Scope,
    ScopeOutcome,
    Tags,
)
from svsync.domain.errors import DeniedError, ProtocolError
from svsync.domain.federation import BackendSpec
from svsync.domain.ids import RemotePath
from svsync.domain.mapping import RuleSet
from svsync.domain.paths import remote_problem
from svsync.domain.pushes import Landed, Ready, Refused, RemoteWrite
from svsync.domain.values import Payload
from svsync.ports import CallGuard, Check, Connection, Features, Operation
from svsync_redis.layout import (
    STATE,
    STORE_KEY,
    WHOLE,
    Secret,
    entry_of,
    gone_of,
    look,
    moment_of,
    payload_of,
    secret_of,
    value_of,
)
from svsync_redis.session import Command, RedisSession
from svsync_redis.writing import RedisWriting

T = TypeVar("T")

FEATURES: Final = Features(
    history=True,
    ordered_tokens=True,
    compare_and_set=True,
    tags=True,
    max_name=1024,
    max_value=1024 * 1024,
)
_PAGE: Final = 500
_PROBE: Final = "svsync-connection-test"
"""A name that is asked for and need not exist."""
_GLOB: Final = re.compile(r"([*?\[\]\\^])")


class RedisBackend:
    """See `svsync.ports.Backend`."""

    def __init__(
        self, spec: BackendSpec, rules: RuleSet, session: RedisSession, guard: CallGuard
    ) -> None:
        self._spec = spec
        self._rules = rules
        self._session = session
        self._guard = guard
        largest = min(FEATURES.max_value, spec.max_value_bytes)
        self._writing = RedisWriting(session, guard, largest)

    @property
    def features(self) -> Features:
        return FEATURES

    # --- connect ------------------------------------------------------------------

    async def connect(self, prefixes: Sequence[str], *, probe: bool = True) -> Connection:
        """What the store calls itself: an address would follow the server, not the data."""
        try:
            [told] = await self._ask("metadata", STORE_KEY, ("GET", STORE_KEY))
        except ValueError:
            told = None
        if not told:
            raise ProtocolError(
                f"the store has no name: SET {STORE_KEY} to one that no other store has",
                operation="connect",
            )
        checks = {prefix: await self._checks(prefix) for prefix in prefixes if probe}
        missing = [any(one.state == "missing" for one in found) for found in checks.values()]
        return Connection(
            told.decode(errors="replace"),
            "healthy" if not any(missing) else "denied" if all(missing) else "degraded",
            checks=tuple(check for found in checks.values() for check in found),
        )

    async def _checks(self, prefix: str) -> list[Check]:
        line = f"ACL SETUSER <user> ~{prefix}* +scan +hmget"
        return [
            await self._check(f"list {prefix}", "list", ("SCAN", 0, "COUNT", 1), line),
            await self._check(f"read {prefix}", "metadata", _hmget(prefix + _PROBE, STATE), line),
        ]

    async def _check(self, name: str, operation: Operation, command: Command, hint: str) -> Check:
        try:
            await self._ask(operation, None, command)
        except DeniedError:
            return Check(name, "missing", hint)
        return Check(name, "granted")

    # --- listing ------------------------------------------------------------------

    async def list_entries(
        self, prefixes: Sequence[str], *, tokens: bool
    ) -> AsyncGenerator[ListingPage]:
        """SCAN goes through all keys of the database, once for all prefixes together. It
        may give a key twice, and it gives every one that is there from beginning to end."""
        seen: set[str] = set()
        cursor = 0
        try:
            while True:
                cursor, keys = await self._scan(cursor, prefixes)
                yield await self._page(keys, tuple(prefixes), seen)
                if cursor == 0:
                    break
        except DeniedError:
            yield ListingPage(
                scopes=tuple(Scope(prefix, ScopeOutcome.DENIED, "denied") for prefix in prefixes)
            )
            return
        yield ListingPage(scopes=tuple(Scope(p, ScopeOutcome.COMPLETE) for p in prefixes))

    async def list_folder(self, folder: str) -> Folder:
        entries: list[Entry] = []
        folders: dict[str, None] = {}
        scope = Scope(folder, ScopeOutcome.COMPLETE)
        async for page in self.list_entries([folder], tokens=False):
            for entry in page.entries:
                name = entry.remote_path[len(folder) :]
                if "/" in name:
                    folders[folder + name[: name.index("/") + 1]] = None
                else:
                    entries.append(entry)
            scope = page.scopes[-1] if page.scopes else scope
        return Folder(scope, tuple(entries), tuple(folders))

    async def _scan(self, cursor: int, prefixes: Sequence[str]) -> tuple[int, list[bytes]]:
        match = _GLOB.sub(r"\\\1", prefixes[0]) + "*" if len(prefixes) == 1 else "*"
        command = ("SCAN", cursor, "MATCH", match, "COUNT", _PAGE, "TYPE", "hash")
        [[following, keys]] = await self._ask("list", None, command)
        return int(following), keys

    async def _page(
        self, keys: Sequence[bytes], prefixes: tuple[str, ...], seen: set[str]
    ) -> ListingPage:
        names: list[RemotePath] = []
        rejected: list[tuple[str, str]] = []
        for key in keys:
            name = key.decode(errors="surrogateescape")
            if not name.startswith(prefixes) or name in prefixes or name in seen:
                continue
            seen.add(name)
            if problem := remote_problem(name, max_bytes=FEATURES.max_name):
                shown = name.encode(errors="surrogateescape").decode(errors="backslashreplace")
                rejected.append((shown.encode("unicode_escape").decode(), str(problem.code)))
            else:
                names.append(RemotePath(name))
        entries = [entry for entry in await self._entries(names) if entry is not None]
        return ListingPage(tuple(entries), rejected=tuple(rejected))

    async def _entries(self, names: Sequence[RemotePath]) -> list[Entry | None]:
        """What their hashes say, in one round trip; None: removed since it was listed."""
        if not names:
            return []
        asked = [command for name in names for command in look(name)]
        try:
            told = await self._ask("list", None, *asked)
        except (DeniedError, ValueError):
            if len(names) > 1:  # keys are denied, or hold no hash, one by one: find out which
                halves = names[: len(names) // 2], names[len(names) // 2 :]
                return [entry for half in halves for entry in await self._entries(half)]
            return [Entry(names[0])]
        return [
            _entry(name, fields, there)
            for name, fields, there in zip(names, told[::2], told[1::2], strict=True)
        ]

    # --- reading ------------------------------------------------------------------

    async def look_up(self, path: RemotePath) -> Entry | RemoteRead:
        if problem := self._problem(path):
            return problem
        try:
            secret = secret_of(*await self._ask("metadata", path, *look(path)))
        except DeniedError:
            return RemoteUnknown("denied")
        except ValueError as spoiled:
            return RemoteUnknown("undecodable", str(spoiled))
        return RemoteGone() if secret is None else entry_of(path, secret)

    async def read(self, paths: Sequence[RemotePath]) -> Sequence[RemoteRead]:
        return [await self._read(path) for path in paths]

    async def _read(self, path: RemotePath) -> RemoteRead:
        if problem := self._problem(path):
            return problem
        try:
            [[*fields, made, value]] = await self._ask("read", path, _hmget(path, WHOLE))
            secret = secret_of(fields, value is not None)
        except DeniedError:
            return RemoteUnknown("denied")
        except ValueError as spoiled:
            return RemoteUnknown("undecodable", str(spoiled))
        if secret is None:
            return RemoteGone()
        return gone_of(secret) if secret.gone else value_of(secret, made, value, self._largest)

    async def read_history(
        self, path: RemotePath, *, above: int, below: int, limit: int
    ) -> Sequence[HistoricVersion]:
        if self._problem(path) or limit < 1:
            return ()
        try:
            [raw] = await self._ask("metadata", path, ("HKEYS", path))
        except ValueError:
            return ()
        fields = set(raw)
        numbers = sorted(
            int(name[6:])
            for name in fields
            if re.fullmatch(rb"value:[0-9]{1,9}", name) and b"deleted:" + name[6:] not in fields
        )
        wanted = [number for number in numbers if above < number < below][-limit:]
        found = [await self._version(path, number) for number in wanted]
        return [version for version in found if version is not None]

    async def _version(self, path: RemotePath, number: int) -> HistoricVersion | None:
        command = _hmget(path, (f"value:{number}", f"made:{number}"))
        [[value, made]] = await self._ask("read", path, command)
        if value is None:
            return None
        payload = payload_of(value, self._largest)
        if not isinstance(payload, Payload):
            return None
        return HistoricVersion(number, payload, moment_of(made))

    # --- writing ------------------------------------------------------------------

    async def check(self, order: RemoteWrite) -> Ready | Refused:
        if problem := self._problem(order.path):
            return Refused(problem.reason, problem.detail)
        return await self._writing.check(order)

    async def write(self, order: RemoteWrite, ready: Ready, tags: Tags | None) -> Landed | Refused:
        if problem := self._problem(order.path):
            return Refused(problem.reason, problem.detail)
        return await self._writing.write(order, tags)

    async def find_delete(self, order: RemoteWrite) -> Landed | Refused | None:
        return await self._writing.find_delete(order)

    async def aclose(self) -> None:
        await self._session.aclose()

    # --- small words ----------------------------------------------------------------

    @property
    def _largest(self) -> int:
        return self._spec.max_value_bytes

    def _problem(self, path: RemotePath) -> RemoteUnknown | None:
        """Why this name is not asked for."""
        if problem := remote_problem(path, max_bytes=FEATURES.max_name):
            return RemoteUnknown(str(problem.code), problem.detail)
        if not self._rules.in_literal_prefix(path):
            return RemoteUnknown("illegal_path", "the path lies outside of every rule")
        return None

    async def _ask(self, operation: Operation, shown: str | None, *commands: Command) -> list[Any]:
        """One round trip, through the guard."""
        return await self._guard.call(
            operation, lambda: self._session.ask(operation, shown, *commands)
        )


def _hmget(key: str, fields: Sequence[str]) -> Command:
    return ("HMGET", key, *fields)


def _entry(name: RemotePath, fields: Sequence[bytes | None], there: int) -> Entry | None:
    """A hash that is no secret is listed without tokens: the read that follows says why."""
    try:
        secret: Secret | None = secret_of(fields, there)
    except ValueError:
        return Entry(name)
    return None if secret is None else entry_of(name, secret)
