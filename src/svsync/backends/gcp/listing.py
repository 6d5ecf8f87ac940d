"""Listing secrets: 500 a page, all of a project or a location.

Google has one listing of a whole project, and no permission that would hide some of it.
So there is no folder that fails by itself: all prefixes are listed to their end, denied
or failed together. Its filter by name finds parts of names and is not used: a name that
it left out would be missed by nobody. The labels of the backend's own filter are sent.
"""

import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from svsync.backends.gcp.calls import GcpCalls
from svsync.backends.gcp.entries import MAX_NAME, SEGMENT, id_of, listed_entry, project_of
from svsync.clients.gcp import GcpRefusedError
from svsync.domain.changes import Entry, Folder, ListingPage, Scope, ScopeOutcome
from svsync.domain.errors import DeniedError, ListingError
from svsync.domain.paths import remote_problem

PAGE: Final = 500
_FRESH_S: Final = 60.0
"""Seconds for which a page that was asked for ahead may begin a listing."""


@dataclass
class GcpListing:
    """Listings of one backend.

    Attributes:
        labels: only secrets with all of these are listed.
        max_secrets: more names than this in one folder are not listed.
        project: the number of the project whose secrets these are, once one was seen.
        clock: monotonic seconds.
    """

    calls: GcpCalls
    labels: Mapping[str, str]
    max_secrets: int
    project: str = ""
    clock: Callable[[], float] = time.monotonic
    _ahead: tuple[Any, float] | None = field(default=None, repr=False)

    async def look(self, *, keep: bool) -> list[str]:
        """Ask for the first page of a listing: it tells the project. With `keep` the listing
        that comes next takes it from here.

        Returns the names on it. Raises DeniedError, too.
        """
        answer = await self._request("")
        self._ahead = (answer, self.clock()) if keep else None
        if not self.project and self.labels:
            # Secrets outside of the filter are of the same project.
            parent = self.calls.parent
            any_one = await self.calls.request("list", "list_secrets", parent=parent, page_size=1)
            self._know_project(any_one)
        return [id_of(secret.name) for secret in answer.secrets]

    async def pages(self, prefixes: Sequence[str]) -> AsyncGenerator[ListingPage]:
        """The pages, in no order; each prefix ends in one scope."""
        outcome, reason = ScopeOutcome.COMPLETE, ""
        try:
            async for page in self._pages(tuple(prefixes)):
                yield page
        except DeniedError:
            outcome, reason = ScopeOutcome.DENIED, "denied"
        except GcpRefusedError as error:
            outcome, reason = ScopeOutcome.FAILED, error.code
        yield ListingPage(scopes=tuple(Scope(prefix, outcome, reason) for prefix in prefixes))

    async def folder(self, path: str) -> Folder:
        """All that begins with `path`: names here have no folders.

        Raises ListingError (`listing_unbounded`).
        """
        entries: list[Entry] = []
        scope = Scope(path, ScopeOutcome.COMPLETE)
        async for page in self.pages([path]):
            entries.extend(page.entries)
            if len(entries) > self.max_secrets:
                raise _unbounded(f"more than max_secrets ({self.max_secrets}) names are there")
            scope = page.scopes[-1] if page.scopes else scope
        return Folder(scope, tuple(entries))

    async def _pages(self, prefixes: tuple[str, ...]) -> AsyncGenerator[ListingPage]:
        seen: set[str] = set()
        followed: set[str] = set()
        token = ""
        while True:
            answer = await self._page(token)
            rejected: list[tuple[str, str]] = []
            entries = tuple(self._entries(answer.secrets, prefixes, seen, rejected))
            yield ListingPage(entries, rejected=tuple(rejected))
            following = str(answer.next_page_token)
            if not following:
                return
            if following in followed:
                raise _unbounded("a page leads to one that was there before")
            followed.add(following)
            token = following

    def _entries(
        self,
        found: Sequence[Any],
        prefixes: tuple[str, ...],
        seen: set[str],
        rejected: list[tuple[str, str]],
    ) -> Iterator[Entry]:
        for secret in found:
            name = id_of(secret.name)
            if not name.startswith(prefixes) or name in seen:
                continue
            seen.add(name)
            problem = remote_problem(name, separator=None, segment=SEGMENT, max_bytes=MAX_NAME)
            if problem:
                rejected.append((name.encode("unicode_escape").decode(), str(problem.code)))
            else:
                yield listed_entry(secret)

    async def _page(self, token: str) -> Any:
        ahead, self._ahead = self._ahead, None
        if ahead is not None and not token and self.clock() - ahead[1] < _FRESH_S:
            return ahead[0]
        return await self._request(token)

    async def _request(self, token: str) -> Any:
        asked: dict[str, Any] = {"parent": self.calls.parent, "page_size": PAGE}
        if token:
            asked["page_token"] = token
        if self.labels:
            # "Filter lists of secrets and secret versions"
            terms = (f"labels.{key}={text}" for key, text in self.labels.items())
            asked["filter"] = " AND ".join(terms)
        answer = await self.calls.request("list", "list_secrets", **asked)
        self._know_project(answer)
        return answer

    def _know_project(self, answer: Any) -> None:
        if not self.project and answer.secrets:
            self.project = project_of(answer.secrets[0].name)


def _unbounded(why: str) -> ListingError:
    return ListingError(
        f"the listing does not end: {why}", operation="list", code="listing_unbounded"
    )
