"""Listing secrets: a hundred a page, named by the beginnings of the mapping's rules.

AWS has one listing of a whole region, and no permission that would hide some of it. So
there is no folder that fails by itself: a prefix is listed to its end, denied or failed.
"""

import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from svsync.backends.aws.calls import AwsCalls
from svsync.backends.aws.entries import MAX_NAME, SEGMENT, account_of, entry_of
from svsync.clients.aws import AwsRefusedError
from svsync.domain.changes import Entry, Folder, ListingPage, Scope, ScopeOutcome
from svsync.domain.errors import DeniedError, ListingError
from svsync.domain.paths import remote_problem

PAGE: Final = 100
_FRESH_S: Final = 60.0
"""Seconds for which a page that was asked for ahead may begin a listing."""
_MOST_NAMES: Final = 10
"""Values that one filter of a listing takes."""


@dataclass
class AwsListing:
    """Listings of one backend.

    Attributes:
        filters: the backend's own, sent along as they are.
        max_secrets: more names than this in one folder are not listed.
        account: whose secrets these are, once one was seen.
        clock: monotonic seconds.
    """

    calls: AwsCalls
    filters: Mapping[str, Sequence[str]]
    max_secrets: int
    account: str = ""
    clock: Callable[[], float] = time.monotonic
    _ahead: tuple[dict[str, Any], dict[str, Any], float] | None = field(default=None, repr=False)

    async def look(self, prefixes: Sequence[str], *, keep: bool) -> None:
        """Ask for the first page of a listing: it tells the account. With `keep` the
        listing that comes next takes it from here. Raises DeniedError, too.
        """
        asked = self._parameters(prefixes[:_MOST_NAMES])
        answer = await self._request(asked)
        self._ahead = (asked, answer, self.clock()) if keep else None

    async def pages(self, prefixes: Sequence[str]) -> AsyncGenerator[ListingPage]:
        """The pages, in no order; each prefix ends in one scope."""
        for start in range(0, len(prefixes), _MOST_NAMES):
            together = prefixes[start : start + _MOST_NAMES]
            outcome, reason = ScopeOutcome.COMPLETE, ""
            try:
                async for page in self._pages(together):
                    yield page
            except DeniedError:
                outcome, reason = ScopeOutcome.DENIED, "denied"
            except AwsRefusedError as error:
                outcome, reason = ScopeOutcome.FAILED, error.code
            scopes = tuple(Scope(prefix, outcome, reason) for prefix in together)
            yield ListingPage(scopes=scopes)

    async def folder(self, path: str) -> Folder:
        """What stands directly in a folder; all that is below it is looked through.

        Raises ListingError (`listing_unbounded`).
        """
        entries: list[Entry] = []
        folders: dict[str, None] = {}
        scope = Scope(path, ScopeOutcome.COMPLETE)
        async for page in self.pages([path]):
            for entry in page.entries:
                name = entry.remote_path[len(path) :]
                if "/" in name:
                    folders[path + name[: name.index("/") + 1]] = None
                else:
                    entries.append(entry)
            if len(entries) + len(folders) > self.max_secrets:
                raise ListingError(
                    f"the folder {path} holds more than max_secrets ({self.max_secrets}) names",
                    operation="list",
                    path=path,
                    code="listing_unbounded",
                )
            scope = page.scopes[-1] if page.scopes else scope
        return Folder(scope, tuple(entries), tuple(folders))

    async def _pages(self, prefixes: Sequence[str]) -> AsyncGenerator[ListingPage]:
        asked = self._parameters(prefixes)
        seen: set[str] = set()
        while True:
            answer = await self._page(asked)
            rejected: list[tuple[str, str]] = []
            found = answer.get("SecretList") or ()
            entries = tuple(self._entries(found, tuple(prefixes), seen, rejected))
            yield ListingPage(entries, rejected=tuple(rejected))
            following = answer.get("NextToken")
            if not following:
                return
            if following == asked.get("NextToken"):
                raise ListingError(
                    "the listing does not end: a page leads to itself",
                    operation="list",
                    code="listing_unbounded",
                )
            asked["NextToken"] = following

    def _entries(
        self,
        found: Sequence[Mapping[str, Any]],
        prefixes: tuple[str, ...],
        seen: set[str],
        rejected: list[tuple[str, str]],
    ) -> Iterator[Entry]:
        """Those below the prefixes: a filter of AWS may be broader than what was asked."""
        for info in found:
            name = info.get("Name")
            if not isinstance(name, str) or not name.startswith(prefixes) or name in seen:
                continue
            seen.add(name)
            if problem := remote_problem(name, segment=SEGMENT, max_bytes=MAX_NAME):
                rejected.append((name.encode("unicode_escape").decode(), str(problem.code)))
            else:
                yield entry_of(info)

    async def _page(self, asked: dict[str, Any]) -> dict[str, Any]:
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            for_this, answer, since = ahead
            if for_this == asked and self.clock() - since < _FRESH_S:
                return answer
        return await self._request(asked)

    async def _request(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        answer = await self.calls.request("list", "list_secrets", **asked)
        for info in answer.get("SecretList") or ():
            self.account = self.account or account_of(info)
        return answer

    def _parameters(self, prefixes: Sequence[str]) -> dict[str, Any]:
        """With secrets that are scheduled for deletion: that they are is told, too."""
        filters = {key: list(values) for key, values in self.filters.items()}
        if "" not in prefixes:
            filters.setdefault("name", list(prefixes))
        asked: dict[str, Any] = {"MaxResults": PAGE, "IncludePlannedDeletion": True}
        if filters:
            asked["Filters"] = [{"Key": key, "Values": values} for key, values in filters.items()]
        return asked
