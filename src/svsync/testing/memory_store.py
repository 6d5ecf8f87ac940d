"""The remote store of the backend in memory, and whoever changes it behind svsync's back."""

import hashlib
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

from svsync.domain.changes import Entry, RemoteUnknown
from svsync.domain.ids import RemotePath
from svsync.domain.values import Payload
from svsync.ports import Operation

T = TypeVar("T")

PAGE: Final = 1000
_EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class StoredVersion:
    payload: Payload
    created_at: datetime
    made: int
    deleted: int = 0
    destroyed: bool = False
    by: str = ""
    """Its id, where versions have any."""

    @property
    def readable(self) -> bool:
        return not (self.deleted or self.destroyed)


@dataclass(frozen=True, slots=True)
class StoredSecret:
    """One name; replaced whole with each change, so that a listing may lag."""

    versions: Mapping[int, StoredVersion]
    current: int
    tags: Mapping[str, str]

    @property
    def gone(self) -> bool:
        return not self.versions[self.current].readable

    @property
    def value_token(self) -> str:
        version = self.versions[self.current]
        return f"{self.current}|{version.made}|{version.deleted}|{version.destroyed}"

    @property
    def meta_token(self) -> str:
        return tags_token(self.tags)


def tags_token(tags: Mapping[str, str]) -> str:
    """The meta token of a name that has these tags."""
    return hashlib.sha256(repr(sorted(tags.items())).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Generated:
    """Names `<prefix>NNNN/NNNNNNN` below a prefix, a thousand a folder, made when asked."""

    prefix: str
    count: int

    def path(self, index: int) -> str:
        return f"{self.prefix}{index // PAGE:04d}/{index:07d}"

    def index(self, path: str) -> int | None:
        last = path.rpartition("/")[2]
        if not (last.isascii() and last.isdigit()):
            return None
        index = int(last)
        return index if index < self.count and self.path(index) == path else None

    def folder(self, number: int) -> str:
        return f"{self.prefix}{number:04d}/"


@dataclass
class MemoryStore:
    """The remote store. Change it by its methods, steer it by its attributes.

    Attributes:
        identity: what `connect` tells; another one is another store.
        hidden: names that listings lack and reads deny.
        denied: folders (ending in `/`) whose listing and reads are denied.
        failed: folders whose listing breaks.
        readonly: folders (ending in `/`) and names whose writes are denied.
        unreadable: what a read of a name answers instead of its value.
        max_value: largest value in bytes that may be written; None: as declared.
        before: awaited before each call with its operation and path; it may
            wait, raise, or change the store.
        after: awaited likewise once a call has had its effect; what it raises is
            an answer that was lost.
        calls: how many calls were made, by operation.
        tokens_cost_calls: a listing without `tokens` leaves them out, as Vault's.
        recoverable: a deleted value can be brought back; None: where there is history.
        marks: a version has an id of its own, which is that of the push that made it.
    """

    identity: str = "memory"
    hidden: set[str] = field(default_factory=set)
    denied: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    readonly: set[str] = field(default_factory=set)
    unreadable: dict[str, RemoteUnknown] = field(default_factory=dict)
    max_value: int | None = None
    before: Callable[[Operation, str], Awaitable[None]] | None = None
    after: Callable[[Operation, str], Awaitable[None]] | None = None
    calls: Counter[Operation] = field(default_factory=Counter)
    tokens_cost_calls: bool = False
    recoverable: bool | None = None
    marks: bool = False
    _secrets: dict[str, StoredSecret] = field(default_factory=dict)
    _listed: Mapping[str, StoredSecret] | None = None
    _seen: Mapping[str, StoredSecret] | None = None
    _generated: Generated | None = None
    _touched: dict[int, int] = field(default_factory=dict)
    _faults: dict[Operation, deque[Exception]] = field(default_factory=dict)
    _moment: int = 0

    # --- what a person does there -------------------------------------------------

    def put(self, path: str, value: Payload | Mapping[str, str], by: str = "") -> int:
        """Write a new version, even of an equal value; its number. `by` is its id where the
        store `marks`; empty: one of nobody's push."""
        if self._generated is not None and (index := self._generated.index(path)) is not None:
            self._touched[index] = self._touched.get(index, 1) + 1
            return self._touched[index]
        payload = value if isinstance(value, Payload) else Payload.from_fields(value)
        old = self._secrets.get(path)
        number = max(old.versions, default=0) + 1 if old else 1
        moment = self._tick()
        mark = (by or f"version {moment}") if self.marks else ""
        version = StoredVersion(payload, _EPOCH + timedelta(seconds=moment), moment, by=mark)
        versions = {**(old.versions if old else {}), number: version}
        self._secrets[path] = StoredSecret(versions, number, old.tags if old else {})
        return number

    def tag(self, path: str, tags: Mapping[str, str]) -> None:
        """Replace the tags."""
        self._secrets[path] = replace(self._secrets[path], tags=dict(tags))

    def delete(self, path: str, number: int | None = None) -> None:
        """Soft delete the current version, or that one."""
        self._change(path, number, lambda version: replace(version, deleted=self._tick()))

    def undelete(self, path: str, number: int | None = None) -> None:
        self._change(path, number, lambda version: replace(version, deleted=0))

    def destroy(self, path: str, number: int | None = None) -> None:
        self._change(path, number, lambda version: replace(version, destroyed=True))

    def remove(self, path: str) -> None:
        """The name is gone with its history; written again it begins at 1."""
        del self._secrets[path]

    def rollback(self, path: str, number: int) -> None:
        """Back to an earlier version, those above it lost, as after a restore."""
        secret = self._secrets[path]
        kept = {n: version for n, version in secret.versions.items() if n <= number}
        self._secrets[path] = replace(secret, versions=kept, current=number)

    def generate(self, prefix: str, count: int) -> Generated:
        """Add `count` names of one version each; `put` gives one a new version."""
        self._generated = Generated(prefix, count)
        return self._generated

    # --- what goes wrong ----------------------------------------------------------

    def lag(self) -> None:
        """From now on listings show this moment; reads show the truth."""
        self._listed = dict(self._secrets)

    def moment(self) -> Mapping[str, StoredSecret]:
        """What is there now, for `fall_behind`."""
        return dict(self._secrets)

    def fall_behind(self, moment: Mapping[str, StoredSecret]) -> None:
        """From now on listings and reads alike show that moment; writes meet the truth."""
        self._listed = self._seen = moment

    def catch_up(self) -> None:
        self._listed = self._seen = None

    def fail(self, operation: Operation, *errors: Exception) -> None:
        """The next calls of this operation raise these, one each."""
        self._faults.setdefault(operation, deque()).extend(errors)

    # --- for the backend ----------------------------------------------------------

    async def called(self, operation: Operation, path: str, effect: Callable[[], T]) -> T:
        self.calls[operation] += 1
        if self.before is not None:
            await self.before(operation, path)
        if faults := self._faults.get(operation):
            raise faults.popleft()
        result = effect()
        if self.after is not None:
            await self.after(operation, path)
        return result

    def is_readonly(self, path: str) -> bool:
        folders = tuple(one for one in self.readonly if one.endswith("/"))
        return path in self.readonly or path.startswith(folders)

    def is_denied(self, path: str) -> bool:
        return path in self.hidden or any(path.startswith(folder) for folder in self.denied)

    def secret(self, path: str) -> StoredSecret | None:
        if self._generated is not None and (index := self._generated.index(path)) is not None:
            return self._generated_secret(path, index)
        return self._secrets.get(path)

    def seen(self, path: str) -> StoredSecret | None:
        """What a read shows of a name."""
        return self.secret(path) if self._seen is None else self._seen.get(path)

    def listed_names(self) -> Mapping[str, StoredSecret]:
        return self._secrets if self._listed is None else self._listed

    def generated_pages(self, prefix: str) -> Iterator[tuple[str, list[Entry]]]:
        """Folder and entries, as fast as this machine makes them."""
        made = self._generated
        if made is None or not made.prefix.startswith(prefix):
            return
        touched, tags, meta = self._touched, _NO_TAGS, _NO_TAGS_TOKEN
        for folder_number in range((made.count + PAGE - 1) // PAGE):
            folder = made.folder(folder_number)
            first = folder_number * PAGE
            indexes = range(first, min(first + PAGE, made.count))
            yield (
                folder,
                [
                    Entry(
                        RemotePath(f"{folder}{index:07d}"),
                        f"{(number := touched.get(index, 1))}|{index}|0|False",
                        meta,
                        number,
                        False,
                        tags,
                    )
                    for index in indexes
                ],
            )

    def _generated_secret(self, path: str, index: int) -> StoredSecret:
        number = self._touched.get(index, 1)
        payload = Payload.from_fields({"user": path, "password": f"{index}-{number}-{'x' * 64}"})
        return StoredSecret({number: StoredVersion(payload, _EPOCH, index)}, number, _NO_TAGS)

    def _change(
        self, path: str, number: int | None, change: Callable[[StoredVersion], StoredVersion]
    ) -> None:
        secret = self._secrets[path]
        number = secret.current if number is None else number
        versions = {**secret.versions, number: change(secret.versions[number])}
        self._secrets[path] = replace(secret, versions=versions)

    def _tick(self) -> int:
        self._moment += 1
        return self._moment


_NO_TAGS: Final[Mapping[str, str]] = {}
_NO_TAGS_TOKEN: Final = hashlib.sha256(b"[]").hexdigest()[:16]
