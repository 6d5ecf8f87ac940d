"""Listing a vault: the secrets that are there, and then those that are deleted.

A vault has one listing of all of it, twenty-five a page, without any choice and without
folders. Whoever may list sees every name, so it ends complete, denied or failed as a whole.
What is deleted is listed as gone; where that may not be seen, it is asked for by name.
"""

import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from svsync.backends.azure.calls import PAGE, AzureCalls
from svsync.backends.azure.entries import MAX_NAME, SEGMENT, Version, entry_of, version_of
from svsync.clients.azure import Answer, AzureRefusedError
from svsync.clients.azure.refusals import AddressDeniedError
from svsync.domain.changes import Entry, Folder, ListingPage, Scope, ScopeOutcome
from svsync.domain.errors import DeniedError, ListingError
from svsync.domain.paths import remote_problem

SECRETS: Final = "/secrets"
DELETED_SECRETS: Final = "/deletedsecrets"
_FRESH_S: Final = 60.0
"""Seconds for which a page that was asked for ahead may begin a listing."""


@dataclass
class AzureListing:
    """Listings of one backend.

    Attributes:
        tags: only secrets that have all of these are listed.
        max_secrets: more names than this are not listed.
        clock: monotonic seconds.
    """

    calls: AzureCalls
    tags: Mapping[str, str]
    max_secrets: int
    clock: Callable[[], float] = time.monotonic
    _ahead: tuple[Answer, float] | None = field(default=None, repr=False)

    async def look(self, *, keep: bool) -> None:
        """Ask for the first page of a listing. With `keep` the listing that comes next takes
        it from here. Raises DeniedError, too.
        """
        query = {"maxresults": str(PAGE)}
        answer = await self.calls.request("list", "GET", SECRETS, query=query, told="value")
        self._ahead = (answer, self.clock()) if keep else None

    async def pages(self, prefixes: Sequence[str]) -> AsyncGenerator[ListingPage]:
        """The pages, in no order; each prefix ends in one scope."""
        seen: set[str] = set()
        outcome, reason = ScopeOutcome.COMPLETE, ""
        try:
            async for answer in self._answers():
                yield self._page(answer, tuple(prefixes), seen, deleted=False)
        except AddressDeniedError:
            raise  # a firewall shuts the whole vault off, not a listing of it
        except DeniedError:
            outcome, reason = ScopeOutcome.DENIED, "denied"
        except AzureRefusedError as error:
            outcome, reason = ScopeOutcome.FAILED, error.code
        else:
            try:
                async for answer in self.calls.pages("list", DELETED_SECRETS):
                    yield self._page(answer, tuple(prefixes), seen, deleted=True)
            except (DeniedError, AzureRefusedError):
                pass  # they are asked for by name
        yield ListingPage(scopes=tuple(Scope(prefix, outcome, reason) for prefix in prefixes))

    async def folder(self, path: str) -> Folder:
        """What begins with a text: a vault has no folders.

        Raises ListingError (`listing_unbounded`).
        """
        entries: list[Entry] = []
        scope = Scope(path, ScopeOutcome.COMPLETE)
        async for page in self.pages([path]):
            entries.extend(page.entries)
            scope = page.scopes[-1] if page.scopes else scope
        return Folder(scope, tuple(entries))

    async def _answers(self) -> AsyncGenerator[Answer]:
        ahead, self._ahead = self._ahead, None
        if ahead is None or self.clock() - ahead[1] >= _FRESH_S:
            async for answer in self.calls.pages("list", SECRETS):
                yield answer
            return
        yield ahead[0]
        async for answer in self.calls.pages("list", SECRETS, after=ahead[0]):
            yield answer

    def _page(
        self, answer: Answer, prefixes: tuple[str, ...], seen: set[str], *, deleted: bool
    ) -> ListingPage:
        rejected: list[tuple[str, str]] = []
        entries = []
        for version in self._versions(answer, prefixes, seen, deleted=deleted):
            if problem := remote_problem(
                version.name, separator=None, segment=SEGMENT, max_bytes=MAX_NAME
            ):
                shown = version.name.encode("unicode_escape").decode()
                rejected.append((shown, str(problem.code)))
            else:
                entries.append(entry_of(version, answer.moment))
        if len(seen) > self.max_secrets:
            raise ListingError(
                f"the vault holds more than max_secrets ({self.max_secrets}) names",
                operation="list",
                code="listing_unbounded",
            )
        given = len(answer.body["value"] or ())
        passed_over = given - len(entries) - len(rejected)
        return ListingPage(tuple(entries), (), tuple(rejected), passed_over)

    def _versions(
        self, answer: Answer, prefixes: tuple[str, ...], seen: set[str], *, deleted: bool
    ) -> Iterator[Version]:
        """Those that are asked for, each name once: one that is deleted or recovered
        meanwhile may stand in both listings."""
        for item in answer.body["value"] or ():
            version = version_of(item, answer.moment, deleted=deleted)
            if version is None or not version.name.startswith(prefixes):
                continue
            if any(version.raw_tags.get(key) != text for key, text in self.tags.items()):
                continue
            if (key := version.name.lower()) not in seen:
                seen.add(key)
                yield version
