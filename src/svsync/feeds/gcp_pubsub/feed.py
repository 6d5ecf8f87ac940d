"""The feed: waits for messages, tells what they name, and acknowledges them last.

The subscription keeps what comes while nobody listens, so a connection that breaks is no
gap.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final

from svsync.clients.gcp import Dial, GcpSession, GcpSettings
from svsync.domain.errors import SvsyncError
from svsync.domain.federation import BackendSpec, ManagedBy
from svsync.feeds.gcp_pubsub.events import Place, name_of
from svsync.feeds.gcp_pubsub.subscription import PUBSUB, Message, Subscription
from svsync.network import NetworkPolicy
from svsync.observe.logs import get_logger
from svsync.ports import CallGuard, CredentialSource, Notice, Tell

_HELD_S: Final = 60
_HOLD_AGAIN_S: Final = 5.0
"""Half of the shortest deadline that a subscription may have."""
_PAUSE_S: Final = 1.0
"""After a pull that brought nothing of ours: what is not ours stays there, and an answer that
holds nothing may come at once."""


class PubSubFeed:
    """See `ports.ChangeFeed`. One for each subscription and login.

    Args:
        place: whose secrets are meant.
        credential: asked at each login.
        policy: where it may connect to.
        guard: what every call passes.
        dial: how Google's names become addresses.
        hold_again_s: how long messages are held before their deadline is put off anew.

    Attributes:
        invalid: messages that are no notice of Secret Manager; they stay in the
            subscription, and count each time that they come.
    """

    dropped = 0

    def __init__(
        self,
        subscription: str,
        place: Place,
        settings: GcpSettings,
        credential: CredentialSource,
        policy: NetworkPolicy,
        guard: CallGuard,
        *,
        dial: Dial | None = None,
        hold_again_s: float = _HOLD_AGAIN_S,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._name = subscription
        self._place = place
        self._settings = settings
        self._credential = credential
        self._policy = policy
        self._guard = guard
        self._dial = dial
        self._hold_again_s = hold_again_s
        self._sleep = sleep
        self.invalid = 0

    async def listen(self, tell: Tell) -> None:
        """See `ports.ChangeFeed`. A quiet subscription is known to be there once the first
        pull had its time.

        Raises:
            ConfigError: there is no such subscription, or no right to it.
            BackendError: Google does not answer, or refuses the login.
        """
        async with GcpSession(
            self._settings,
            PUBSUB,
            self._credential,
            self._policy,
            dial=self._dial,
            login_call=partial(self._guard.call, "login"),
        ) as session:
            subscription = Subscription(self._name, session, self._guard)
            while True:
                messages = await subscription.pull()
                tell.listening()
                ours = [one.ack_id for one in messages if self._look_at(one, tell)]
                if ours:
                    await self._until_kept(subscription, ours, tell)
                    await subscription.acknowledge(ours)
                else:
                    await self._sleep(_PAUSE_S)

    def _look_at(self, message: Message, tell: Tell) -> bool:
        """Tell what a message says; whether it may be acknowledged then."""
        try:
            name = name_of(message.attributes, self._place)
        except ValueError:
            self._tell_unreadable()
            return False
        if name is not None:
            tell(Notice("", name))
        return True

    def _tell_unreadable(self) -> None:
        """Logged once, and nothing of the message: who knows what it holds."""
        if not self.invalid:
            get_logger().warning(
                "change_feed_unreadable",
                feed="gcp-pubsub",
                listen=self._name,
                detail="the subscription holds messages that are no notices of Secret Manager,"
                " which stay in it: let nobody else publish to its topic, and give it a"
                " dead-letter topic",
            )
        self.invalid += 1

    async def _until_kept(
        self, subscription: Subscription, ack_ids: Sequence[str], tell: Tell
    ) -> None:
        """Until what was told is written down, however long the store is away."""
        kept = asyncio.ensure_future(tell.kept())
        try:
            while not (await asyncio.wait({kept}, timeout=self._hold_again_s))[0]:
                # Where that fails, they are told twice.
                with suppress(SvsyncError):
                    await subscription.hold(ack_ids, _HELD_S)
        finally:
            kept.cancel()


def open_feed(
    entry: Mapping[str, object],
    spec: BackendSpec,
    credential: CredentialSource,
    network: NetworkPolicy,
    guard: CallGuard,
) -> PubSubFeed:
    """The feed of one entry of `events`; the login is the backend's."""
    file_managed = spec.managed_by is ManagedBy.FILE
    return PubSubFeed(
        str(entry.get("subscription", "")),
        Place(str(spec.config.get("project_id", "")), str(spec.config.get("location", ""))),
        GcpSettings(static=bool(spec.config.get("credentials_path")), federated=file_managed),
        credential,
        replace(network, file_managed=file_managed),
        guard,
    )
