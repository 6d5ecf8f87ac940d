"""The calls of one Azure backend: through the guard, to Key Vault."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl

from svsync.clients.azure import Answer, AzureRefusedError, AzureSession
from svsync.clients.azure.refusals import no_answer
from svsync.domain.errors import DeniedError, ListingError
from svsync.domain.ids import RemotePath
from svsync.domain.pushes import REMOTE_CHANGED, Refused
from svsync.ports import CallGuard, Operation

PAGE: Final = 25
"""Items a page, the most that Key Vault gives [Get Secrets, rest/api/keyvault/secrets]."""
NOT_FOUND: Final = "SecretNotFound"
IN_TRANSIT: Final = ("ObjectIsBeingDeleted", "ObjectIsBeingRecovered")

_WAITS: Final = 16
_WAIT_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class AzureCalls:
    """Each passes the guard and makes one call. Raises as `AzureSession.call`.

    Attributes:
        sleep: between two looks at a deletion or a recovery that is under way.
    """

    session: AzureSession
    guard: CallGuard
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep

    async def request(
        self,
        operation: Operation,
        method: str,
        path: str,
        shown: str | None = None,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        told: str = "",
    ) -> Answer:
        """One call. Raises ProtocolError, too, for an answer without the member `told`."""

        async def attempt() -> Answer:
            answer = await self.session.call(
                method, path, operation=operation, shown=shown, query=query, body=body
            )
            if told and not _tells(answer, told):
                raise no_answer(operation, shown)
            return answer

        return await self.guard.call(operation, attempt)

    async def pages(
        self,
        operation: Operation,
        path: str,
        shown: str | None = None,
        *,
        after: Answer | None = None,
    ) -> AsyncGenerator[Answer]:
        """The pages of a listing, or those after one of them. Raises ListingError where it
        does not end."""
        query: dict[str, str] = {"maxresults": str(PAGE)}
        seen: set[str] = set()
        answer = after
        while True:
            if answer is not None:
                following = answer.body.get("nextLink")
                if not following:
                    return
                if not isinstance(following, str):
                    raise no_answer(operation, None)
                if following in seen:
                    raise ListingError(
                        "the listing does not end: a page leads to one that was there before",
                        operation=operation,
                        code="listing_unbounded",
                    )
                seen.add(following)
                query = self._of_link(following, path, operation)
            answer = await self.request(operation, "GET", path, shown, query=query, told="value")
            yield answer

    async def send(
        self,
        operation: Operation,
        method: str,
        path: str,
        name: RemotePath,
        *,
        needs: str,
        body: Mapping[str, Any] | None = None,
        told: str = "id",
    ) -> Answer | Refused:
        """One call that writes. Refused: Key Vault says that nothing was written.

        Args:
            needs: the permission, for a person.

        Raises what leaves that open, or speaks of the backend as a whole.
        """
        try:
            return await self.request(operation, method, path, name, body=body, told=told)
        except DeniedError as error:
            return Refused("denied", f"{needs}: {error.message}")
        except AzureRefusedError as error:
            if error.reason == NOT_FOUND:
                return Refused(REMOTE_CHANGED)
            if error.reason in IN_TRANSIT:
                return Refused(REMOTE_CHANGED, error.reason)
            return Refused("push_refused", error.reason or f"status {error.status}")

    async def wait_for(self, path: str, name: RemotePath) -> Answer | None:
        """Until something is there, as after a deletion or a recovery, which take a moment;
        None: it is not there yet."""
        for turn in range(_WAITS):
            if turn:
                await self.sleep(_WAIT_S)
            try:
                answer = await self.request("metadata", "GET", path, name)
            except AzureRefusedError as error:
                if error.reason not in (NOT_FOUND, *IN_TRANSIT):
                    raise
            else:
                if answer.body.get("value") != []:
                    return answer
        return None

    def _of_link(self, link: str, path: str, operation: Operation) -> dict[str, str]:
        """The query of a link to the next page, which must lead to the same listing."""
        own = f"{self.session.settings.vault_url}{path}?".lower()
        # A port that goes without saying may be said.
        address, _, query = link.partition("?")
        plain = f"{address.lower().replace(':443/', '/', 1)}?"
        if plain != own.replace(":443/", "/", 1):
            raise no_answer(operation, None)
        return {key: text for key, text in parse_qsl(query) if key != "api-version"}


def _tells(answer: Answer, member: str) -> bool:
    """Is it there, and are the items of a listing objects?"""
    if member != "value":
        return member in answer.body
    items = answer.body.get("value", "")
    return items is None or (
        isinstance(items, list) and all(isinstance(item, dict) for item in items)
    )
