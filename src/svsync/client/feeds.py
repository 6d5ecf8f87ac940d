"""The secrets with which senders tell of changes over HTTP."""

from typing import Literal

from svsync.client.calls import Calls, new_key, segment
from svsync.client.records import FeedSecret, MadeFeedSecret


class FeedSecrets:
    """`client.federation.feed_secrets`. Each method raises SvsyncError, `backend_not_found`
    among others."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def list(self, backend: str) -> tuple[FeedSecret, ...]:
        """Those of a backend, oldest first, without their text."""
        return tuple((await self._calls.get(_of(backend)))["feed_secrets"])

    async def create(
        self, backend: str, feed: Literal["http", "azure-eventgrid"] = "http"
    ) -> MadeFeedSecret:
        """Make a secret, for a feed that the backend names; its text is shown this once.

        Raises SvsyncError: as the API says of the feed; `idempotency_answer_not_kept`: it was
        made, and the answer with it was lost on the way: revoke it, and make another.
        """
        made: MadeFeedSecret = await self._calls.send(
            "POST", _of(backend), {"feed": feed}, key=new_key()
        )
        return made

    async def revoke(self, backend: str, secret_id: str) -> None:
        """Let a secret count no more, from the next request on."""
        await self._calls.send("DELETE", f"{_of(backend)}/{segment(secret_id, 'the secret')}")


def _of(backend: str) -> str:
    return f"/v1/federation/backends/{segment(backend, 'the backend')}/feed-secrets"
