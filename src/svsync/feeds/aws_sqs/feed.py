"""The feed: waits for messages, tells what they name, and deletes them last.

The queue keeps what comes while nobody listens, so a connection that breaks is no gap.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final

from svsync.clients.aws import AwsSession, AwsSettings
from svsync.domain.errors import SvsyncError
from svsync.domain.federation import BackendSpec, ManagedBy
from svsync.domain.feeds import MOST_PATHS
from svsync.feeds.aws_sqs.events import names_of
from svsync.feeds.aws_sqs.queue import BATCH, LONGEST_WAIT_S, Message, Queue
from svsync.network import NetworkPolicy
from svsync.observe.logs import get_logger
from svsync.ports import CallGuard, CredentialSource, Notice, Tell

_HIDDEN_S: Final = 60
_HIDE_AGAIN_S: Final = 20.0
_PAUSE_S: Final = 1.0
"""Between two batches that hold nothing of ours, which are not deleted."""


class SqsFeed:
    """See `ports.ChangeFeed`. One for each queue and login.

    Args:
        credential: asked at each login.
        policy: where it may connect to.
        guard: what every call passes.
        hidden_s: seconds for which a message that was received is hidden from others,
            whatever the queue's own setting.
        hide_again_s: how long one is held before it is hidden anew.

    Attributes:
        invalid: messages that are no event of Secrets Manager; they stay in the queue, and
            count each time that they come.
    """

    dropped = 0

    def __init__(
        self,
        queue_url: str,
        settings: AwsSettings,
        credential: CredentialSource,
        policy: NetworkPolicy,
        guard: CallGuard,
        *,
        hidden_s: int = _HIDDEN_S,
        hide_again_s: float = _HIDE_AGAIN_S,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        settings.check(policy)
        self._url = queue_url
        self._settings = settings
        self._credential = credential
        self._policy = policy
        self._guard = guard
        self._hidden_s = hidden_s
        self._hide_again_s = hide_again_s
        self._sleep = sleep
        self.invalid = 0

    async def listen(self, tell: Tell) -> None:
        """See `ports.ChangeFeed`.

        Raises:
            ConfigError: there is no such queue, or no right to it.
            BackendError: AWS does not answer, or refuses the login.
        """
        login_call = partial(self._guard.call, "login")
        async with AwsSession(
            self._settings, self._credential, self._policy, login_call=login_call
        ) as session:
            queue = Queue(self._url, self._settings.region, session, self._guard)
            # The first answer does not wait: it says that the queue is there.
            wait_s = 0
            while True:
                messages = await self._received(queue, wait_s)
                tell.listening()
                wait_s = LONGEST_WAIT_S
                ours = [one.receipt for one in messages if self._look_at(one, tell)]
                if ours:
                    await self._until_kept(queue, ours, tell)
                    await queue.delete(ours)
                elif messages:
                    await self._sleep(_PAUSE_S)

    async def _received(self, queue: Queue, wait_s: int) -> list[Message]:
        """What is there now, up to the paths of one event."""
        last = found = await queue.receive(wait_s, self._hidden_s)
        while len(last) == BATCH and len(found) < MOST_PATHS:
            last = await queue.receive(0, self._hidden_s)
            found = found + last
        return found

    def _look_at(self, message: Message, tell: Tell) -> bool:
        """Tell what a message says; whether it may be deleted then."""
        try:
            names = names_of(message.body, self._settings.region)
        except ValueError:
            self._tell_unreadable()
            return False
        for name in names:
            tell(Notice("", name))
        return True

    def _tell_unreadable(self) -> None:
        """Logged once, and nothing of the message: who knows what it holds."""
        if not self.invalid:
            get_logger().warning(
                "change_feed_unreadable",
                feed="aws-sqs",
                listen=self._url,
                detail="the queue holds messages that are no events of Secrets Manager, which"
                " stay in it: let one rule of EventBridge send to it, and give it a dead-letter"
                " queue",
            )
        self.invalid += 1

    async def _until_kept(self, queue: Queue, receipts: Sequence[str], tell: Tell) -> None:
        """Until what was told is written down, however long the store is away."""
        kept = asyncio.ensure_future(tell.kept())
        try:
            while not (await asyncio.wait({kept}, timeout=self._hide_again_s))[0]:
                # Where that fails, they are told twice.
                with suppress(SvsyncError):
                    await queue.hide(receipts, self._hidden_s)
        finally:
            kept.cancel()


def open_feed(
    entry: Mapping[str, object],
    spec: BackendSpec,
    credential: CredentialSource,
    network: NetworkPolicy,
    guard: CallGuard,
) -> SqsFeed:
    """The feed of one entry of `events`; region, address and login are the backend's.

    Raises ConfigError for settings that the backend itself could not use.
    """
    policy = replace(network, file_managed=spec.managed_by is ManagedBy.FILE)
    return SqsFeed(str(entry.get("queue_url", "")), AwsSettings.of(spec), credential, policy, guard)
