"""One subscription of Pub/Sub, by the login of a backend.

Rules of the service are those of the Pub/Sub RPC reference (google.pubsub.v1, Subscriber:
Pull, ModifyAckDeadline, Acknowledge). A pull waits at the server until there is a message.
Where none comes within the call's time, the call ends with DEADLINE_EXCEEDED, which says
nothing else (python-pubsub issue 343).
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from svsync.clients.gcp import GcpRefusedError, GcpSession, OutOfTimeError, Service
from svsync.domain.errors import ConfigError, DeniedError
from svsync.domain.feeds import MOST_PATHS
from svsync.ports import CallGuard, Operation

PUBSUB: Final = Service(
    "pubsub.googleapis.com",
    "google.pubsub_v1:SubscriberAsyncClient",
    "google.pubsub_v1.services.subscriber.transports:SubscriberGrpcAsyncIOTransport",
)


@dataclass(frozen=True, slots=True)
class Message:
    """What a message says beside its body, and what it is acknowledged by."""

    attributes: Mapping[str, str]
    ack_id: str


class Subscription:
    """Calls to one subscription, `projects/P/subscriptions/S`.

    Raises what `GcpSession.call` does, and ConfigError for what a person has to change.
    """

    def __init__(self, name: str, session: GcpSession, guard: CallGuard) -> None:
        self._name = name
        self._session = session
        self._guard = guard

    async def pull(self) -> list[Message]:
        """Up to the paths of one event, as soon as there is a message; none where none came
        in time. Nobody else gets them until their deadline."""
        answer = await self._call("read", "pull", waits=True, max_messages=MOST_PATHS)
        found = () if answer is None else answer.received_messages
        return [Message(dict(one.message.attributes), str(one.ack_id)) for one in found]

    async def hold(self, ack_ids: Sequence[str], seconds: int) -> None:
        """Put the deadline of these messages off: so long from now."""
        await self._call(
            "write", "modify_ack_deadline", ack_ids=list(ack_ids), ack_deadline_seconds=seconds
        )

    async def acknowledge(self, ack_ids: Sequence[str]) -> None:
        """They do not come again. Where their deadline is over, they may, and that is told
        as an error by some subscriptions only."""
        with suppress(GcpRefusedError):
            await self._call("delete", "acknowledge", ack_ids=list(ack_ids))

    async def _call(
        self, operation: Operation, method: str, *, waits: bool = False, **request: Any
    ) -> Any:
        async def attempt() -> Any:
            try:
                return await self._session.call(
                    method,
                    {"subscription": self._name, **request},
                    operation=operation,
                    shown="the subscription",
                )
            except OutOfTimeError:
                if not waits:
                    raise
                return None

        try:
            return await self._guard.call(operation, attempt)
        except DeniedError:
            raise ConfigError(
                f"Google does not let the backend's identity pull from {self._name}: grant"
                " roles/pubsub.subscriber on it",
                where="events.subscription",
                code="denied",
            ) from None
        except GcpRefusedError as refused:
            if refused.reason == "NOT_FOUND":
                raise ConfigError(
                    f"there is no subscription {self._name}: make it, or name the one to the"
                    " topic that the secrets tell",
                    where="events.subscription",
                ) from None
            if refused.reason == "FAILED_PRECONDITION" and method == "pull":
                raise ConfigError(
                    f"{self._name} cannot be pulled from: it must be a pull subscription that is"
                    " not detached",
                    where="events.subscription",
                ) from None
            raise
