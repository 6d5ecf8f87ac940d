"""Webhooks: where events are told, and what became of them."""

from collections.abc import Sequence
from typing import Any, Final, Literal

from svsync.client.calls import Calls, at_revision, new_key, segment
from svsync.client.federation import every
from svsync.client.records import (
    DeliveryPage,
    MadeWebhook,
    Replayed,
    RotatedSecret,
    TriedWebhook,
    Webhook,
)

_WEBHOOKS: Final = "/v1/webhooks"


class Webhooks:
    """`client.webhooks`. Each method raises SvsyncError, `webhook_not_found` among others."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def list(self) -> tuple[Webhook, ...]:
        """Every endpoint, oldest first, without its secret."""
        return tuple(await every(self._calls, _WEBHOOKS, "webhooks"))

    async def get(self, endpoint: str) -> Webhook:
        found: Webhook = await self._calls.get(_one(endpoint))
        return found

    async def create(
        self,
        url: str,
        *,
        types: Sequence[str] = (),
        path_patterns: Sequence[str] = (),
        only_if_changed: bool = False,
    ) -> MadeWebhook:
        """Make an endpoint; its `secret` is shown this once.

        Args:
            types: events that it is told, as `federation.sync.failed`; none: all.
            path_patterns: local paths: of events that name secrets these alone; none: all.
            only_if_changed: of completed cycles only those that changed something.

        Raises:
            SvsyncError: `forbidden` where the caller may not list what would be told;
                `idempotency_answer_not_kept`: it was made, and the answer with the secret was
                lost on the way: `rotate` makes another.
        """
        body = {"url": url, "types": list(types), "path_patterns": list(path_patterns)}
        made: MadeWebhook = await self._calls.send(
            "POST", _WEBHOOKS, {**body, "only_if_changed": only_if_changed}, key=new_key()
        )
        return made

    async def patch(
        self,
        endpoint: str,
        *,
        url: str | None = None,
        types: Sequence[str] | None = None,
        path_patterns: Sequence[str] | None = None,
        only_if_changed: bool | None = None,
        state: Literal["active", "disabled"] | None = None,
        rev: int | None = None,
    ) -> Webhook:
        """Change what is given; a list takes the place of the one that there was.

        `rev`: only if it is at this revision; else `version_conflict`.
        """
        body: dict[str, Any] = {"url": url, "only_if_changed": only_if_changed, "state": state}
        body["types"] = None if types is None else list(types)
        body["path_patterns"] = None if path_patterns is None else list(path_patterns)
        given = {name: value for name, value in body.items() if value is not None}
        changed: Webhook = await self._calls.send(
            "PATCH", _one(endpoint), given, headers=at_revision(rev)
        )
        return changed

    async def delete(self, endpoint: str, *, rev: int | None = None) -> None:
        """Let go of an endpoint and its deliveries; `rev`: only if it is at this revision."""
        await self._calls.send("DELETE", _one(endpoint), headers=at_revision(rev))

    async def deliveries(
        self,
        endpoint: str,
        *,
        state: Literal["due", "delivered", "dead"] | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> DeliveryPage:
        """A page of what was sent to an endpoint, and is to be, newest first."""
        page: DeliveryPage = await self._calls.get(
            f"{_one(endpoint)}/deliveries", state=state, limit=limit, cursor=cursor
        )
        return page

    async def test(self, endpoint: str) -> TriedWebhook:
        """Send one message now, and tell what came of it."""
        told: TriedWebhook = await self._calls.send("POST", f"{_one(endpoint)}/test", key=new_key())
        return told

    async def replay(self, endpoint: str, *, event: str | None = None) -> Replayed:
        """Send again what is dead, or this event, also where it was delivered."""
        body = {} if event is None else {"event_id": event}
        done: Replayed = await self._calls.send(
            "POST", f"{_one(endpoint)}/replay", body, key=new_key()
        )
        return done

    async def rotate(self, endpoint: str, *, at_once: bool = False) -> RotatedSecret:
        """A new `secret`, shown this once; the one before signs as well for a day.

        `at_once`: it signs no more, since it leaked.
        """
        made: RotatedSecret = await self._calls.send(
            "POST", f"{_one(endpoint)}/rotate", {"at_once": at_once}, key=new_key()
        )
        return made


def _one(endpoint: str) -> str:
    return f"{_WEBHOOKS}/{segment(endpoint, 'the endpoint')}"
