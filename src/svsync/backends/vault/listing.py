"""Listing KV folders: several at a time, page by page, in bounded memory.

Two ways lead to the version tokens. OpenBao's `detailed-metadata` tells them
with each page, one call for some hundred secrets; its policy line is optional.
Without it, and on HashiCorp Vault, a folder's names come in one LIST, and each
secret's metadata in a call of its own, where tokens are asked for. Which way a
mount goes shows itself at the first folder that is not empty.

A LIST is sent as a GET with `list=true`, which the API takes for the same, and
which passes proxies that know no such method.

SCAN, which would list a whole tree at once, is never used: it has no pages, and
it loses its connection while keys are being deleted.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

from svsync.backends.vault.calls import VaultCalls, is_of_one_path, run_all
from svsync.backends.vault.kv import Mount, entry_of, says_absent, server_now
from svsync.clients.vault import Answer, AnswerTooLargeError
from svsync.domain.changes import Entry, Folder, ListingPage, Scope, ScopeOutcome
from svsync.domain.errors import (
    BackendError,
    BackendUnreachableError,
    DeniedError,
    ListingError,
    LoginError,
    ProtocolError,
    ThrottledError,
)
from svsync.domain.ids import RemotePath
from svsync.domain.paths import remote_problem

_PAGE: Final = 500
_WORKERS: Final = 8
_PLAIN_NAME: Final = re.compile(r"(?!\.\.?/?$)[A-Za-z0-9._ @:=+-]+/?").fullmatch
_WHOLE_BACKEND = (BackendUnreachableError, ThrottledError, LoginError)


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder still to be listed; `at_prefix`: a rule begins here."""

    mount: Mount
    path: str
    at_prefix: bool


@dataclass
class VaultListing:
    """One listing of all folders below the prefixes.

    Attributes:
        tokens: false leaves tokens out where they would cost a call a secret.
        max_secrets: more names than this, folders included, do not end well.
    """

    calls: VaultCalls
    tokens: bool
    max_secrets: int
    _seen: int = 0
    _page_size: int = field(default_factory=lambda: _PAGE)
    _detailed: dict[Mount, bool] = field(default_factory=dict)

    async def pages(self, prefixes: Sequence[str]) -> AsyncGenerator[ListingPage]:
        """The pages, in no order. Raises ListingError (`listing_unbounded`)."""
        ready: asyncio.Queue[ListingPage | None] = asyncio.Queue(maxsize=_WORKERS)
        todo: list[_Folder] = []
        for prefix in prefixes:
            start = await self._start(prefix)
            if isinstance(start, Scope):
                yield ListingPage(scopes=(start,))
            else:
                todo.append(start)
        producer = asyncio.create_task(self._produce(todo, ready))
        try:
            while (page := await ready.get()) is not None:
                yield page
            await producer
        finally:
            producer.cancel()
            await asyncio.gather(producer, return_exceptions=True)

    async def folder(self, path: str) -> Folder:
        """One folder alone. Raises ListingError (`listing_unbounded`)."""
        start = await self._start(path)
        if isinstance(start, Scope):
            return Folder(start)
        ready: asyncio.Queue[ListingPage | None] = asyncio.Queue()
        inner = await self._list_folder(start, ready)
        pages = [page for _ in range(ready.qsize()) if (page := ready.get_nowait()) is not None]
        return Folder(
            pages[-1].scopes[0],
            tuple(entry for page in pages for entry in page.entries),
            tuple(folder.path for folder in inner),
        )

    async def _start(self, prefix: str) -> _Folder | Scope:
        try:
            mount = await self.calls.find_mount(prefix)
        except DeniedError:
            return Scope(prefix, ScopeOutcome.DENIED, "mount_denied")
        if not mount.holds(prefix):
            return Scope(prefix, ScopeOutcome.FAILED, "rule_lacks_data")
        return _Folder(mount, prefix, at_prefix=True)

    async def _produce(self, todo: list[_Folder], ready: asyncio.Queue[ListingPage | None]) -> None:
        """List folders, newest found first, so that few wait at any time."""
        running: set[asyncio.Task[list[_Folder]]] = set()
        try:
            while todo or running:
                while todo and len(running) < _WORKERS:
                    running.add(asyncio.create_task(self._list_folder(todo.pop(), ready)))
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    todo.extend(task.result())
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            if not asyncio.current_task().cancelling():  # type: ignore[union-attr]
                await ready.put(None)

    async def _list_folder(
        self, folder: _Folder, ready: asyncio.Queue[ListingPage | None]
    ) -> list[_Folder]:
        """List one folder to its end: exactly one scope. Returns the folders in it."""
        inner: list[_Folder] = []
        try:
            async for page in self._folder_pages(folder, inner):
                await ready.put(page)
        except DeniedError:
            scope = Scope(folder.path, ScopeOutcome.DENIED, "denied")
        except _WHOLE_BACKEND:
            raise
        except ListingError:
            raise
        except BackendError as error:
            scope = Scope(folder.path, ScopeOutcome.FAILED, error.code)
        except _VanishedError as gone:
            empty = folder.at_prefix and not gone.mount_missing
            scope = (
                Scope(folder.path, ScopeOutcome.COMPLETE)
                if empty
                else Scope(folder.path, ScopeOutcome.FAILED, "folder_missing")
            )
        else:
            scope = Scope(folder.path, ScopeOutcome.COMPLETE)
        await ready.put(ListingPage(scopes=(scope,)))
        return inner

    async def _folder_pages(
        self, folder: _Folder, inner: list[_Folder]
    ) -> AsyncGenerator[ListingPage]:
        if folder.mount.version == 2 and self._detailed.get(folder.mount, True):
            try:
                async for page in self._detailed_pages(folder, inner):
                    self._detailed[folder.mount] = True
                    yield page
                return
            except _NotDetailedError:
                pass
        async for page in self._plain_pages(folder, inner):
            # An empty folder tells nothing of the mount; this one was not empty.
            if folder.mount.version == 2:
                self._detailed.setdefault(folder.mount, False)
            yield page

    # --- one page, names and tokens together --------------------------------------

    async def _detailed_pages(
        self, folder: _Folder, inner: list[_Folder]
    ) -> AsyncGenerator[ListingPage]:
        # A policy of OpenBao may hide keys, and does so after the page was cut: a
        # short page, or none (404), proves no end. What is left is asked for once
        # more without a limit; where nothing is hidden, that is a quick 404.
        after, limited = "", True
        while True:
            limit = self._page_size if limited else 0
            try:
                answer = await self._detailed_page(folder, after, limit)
            except AnswerTooLargeError:
                if limit <= 1:
                    raise
                # Secrets with many versions make large pages.
                self._page_size = max(1, min(self._page_size, limit // 4))
                continue
            if answer.status == 404 and not limited:
                return
            keys, info = ([], {}) if answer.status == 404 else _listed(answer)
            fresh = [key for key in keys if key > after]
            if keys and not fresh:
                raise _unbounded(folder, "a page repeats what was listed before it")
            if fresh:
                now = server_now(answer)
                yield self._detailed_entries(folder, fresh, info, now, inner)
                after = max(fresh)
            if not limited:
                return
            limited = len(keys) >= limit

    async def _detailed_page(self, folder: _Folder, after: str, limit: int) -> Answer:
        """A page, or 404 after the last one. Raises _NotDetailedError instead of
        a first one where the folder is to be listed the plain way."""
        query = f"&limit={limit}" if limit else ""
        if after:
            query += f"&after={quote(after, safe='')}"
        url = f"{folder.mount.url('detailed-metadata', folder.path)}?list=true{query}"
        try:
            answer = await self.calls.request("list", "GET", url, folder.path)
        except BackendError as error:
            if after or isinstance(error, (*_WHOLE_BACKEND, AnswerTooLargeError)):
                raise
            raise _NotDetailedError from None
        if answer.status == 404 and not after:
            raise _NotDetailedError
        return answer

    def _detailed_entries(
        self,
        folder: _Folder,
        keys: Sequence[str],
        info: Mapping[str, Any],
        now: datetime,
        inner: list[_Folder],
    ) -> ListingPage:
        entries: list[Entry] = []
        rejected: list[tuple[str, str]] = []
        for path, is_folder, key in self._names(folder, keys, rejected):
            if is_folder:
                inner.append(_Folder(folder.mount, path, at_prefix=False))
            else:
                # key_info of a folder `c/` repeats that of the secret `c`.
                entries.append(entry_of(path, info.get(key, {}), now))
        return ListingPage(tuple(entries), rejected=tuple(rejected))

    # --- names first, then each secret's metadata ---------------------------------

    async def _plain_pages(
        self, folder: _Folder, inner: list[_Folder]
    ) -> AsyncGenerator[ListingPage]:
        url = folder.mount.url("metadata", folder.path) + "?list=true"
        answer = await self.calls.request("list", "GET", url, folder.path)
        if answer.status == 404:
            raise _VanishedError(mount_missing=not says_absent(answer))
        rejected: list[tuple[str, str]] = []
        secrets: list[str] = []
        for path, is_folder, _ in self._names(folder, _listed(answer)[0], rejected):
            if is_folder:
                inner.append(_Folder(folder.mount, path, at_prefix=False))
            else:
                secrets.append(path)
        yield ListingPage(rejected=tuple(rejected))
        for start in range(0, len(secrets), _PAGE):
            block = secrets[start : start + _PAGE]
            if folder.mount.version == 2 and self.tokens:
                entries = await run_all(self._entry(folder.mount, path) for path in block)
                yield ListingPage(tuple(entry for entry in entries if entry is not None))
            else:
                yield ListingPage(tuple(Entry(RemotePath(path)) for path in block))

    async def _entry(self, mount: Mount, path: str) -> Entry | None:
        """One secret's entry; without tokens where only a read can tell; None: gone."""
        url = mount.url("metadata", path)
        try:
            answer = await self.calls.request("metadata", "GET", url, path)
        except (DeniedError, AnswerTooLargeError):
            return Entry(RemotePath(path))
        except BackendError as error:
            if not is_of_one_path(error):
                raise
            return Entry(RemotePath(path))
        if answer.status == 404:
            return None
        info = answer.json().get("data")
        return entry_of(path, info if isinstance(info, dict) else {}, server_now(answer))

    # --- names --------------------------------------------------------------------

    def _names(
        self, folder: _Folder, keys: Sequence[str], rejected: list[tuple[str, str]]
    ) -> Iterator[tuple[str, bool, str]]:
        """Path, whether it is a folder, and key, of each name that may be used."""
        self._seen += len(keys)
        if self._seen > self.max_secrets:
            raise _unbounded(folder, f"there are more than max_secrets ({self.max_secrets}) names")
        given: set[str] = set()
        for key in keys:
            if key in given:
                continue
            given.add(key)
            is_folder = key.endswith("/")
            name = key[:-1] if is_folder else key
            if _PLAIN_NAME(key) is None:
                problem = remote_problem(name)
                if problem is not None or "/" in name:
                    code = problem.code if problem is not None else "illegal_path"
                    rejected.append((_shown(folder.path + key), str(code)))
                    continue
            yield folder.path + key, is_folder, key


class _NotDetailedError(Exception):
    """No detailed listing here; the plain one will tell what there is."""


class _VanishedError(Exception):
    """A LIST was answered 404."""

    def __init__(self, *, mount_missing: bool) -> None:
        super().__init__()
        self.mount_missing = mount_missing


def _listed(answer: Answer) -> tuple[list[str], Mapping[str, Any]]:
    """The keys of a listing, and what a detailed one says of each."""
    found = answer.json().get("data")
    data = found if isinstance(found, dict) else {}
    keys, info = data.get("keys"), data.get("key_info")
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ProtocolError("the answer to a listing holds no list of keys", operation="list")
    return keys, info if isinstance(info, dict) else {}


def _unbounded(folder: _Folder, why: str) -> ListingError:
    return ListingError(
        f"the listing of {folder.path} does not end: {why}",
        operation="list",
        path=folder.path,
        code="listing_unbounded",
    )


def _shown(path: str) -> str:
    """A name that may not be used, fit to be printed."""
    return path.encode("unicode_escape").decode()
