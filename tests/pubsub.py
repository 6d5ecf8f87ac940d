"""A Pub/Sub below the real client: gRPC over TLS, with tokens and with deadlines that expire.

Its rules are those of the vendor's pages, named beside each. Its clock stands still until a
test moves it.
"""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

import grpc
import trustme
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from google.protobuf.empty_pb2 import Empty
from google.pubsub_v1.types import (
    AcknowledgeRequest,
    ModifyAckDeadlineRequest,
    PubsubMessage,
    PullRequest,
    PullResponse,
    ReceivedMessage,
)
from grpc import StatusCode, aio
from tests.patience import PATIENCE_S

from svsync.backends.guarded import BackendGuard, RetryPolicy
from svsync.clients.gcp import Dial, GcpSettings
from svsync.domain.values import Credential
from svsync.feeds.gcp_pubsub import PubSubFeed
from svsync.feeds.gcp_pubsub.events import Place
from svsync.network import NetworkPolicy

NAME: Final = "projects/acme/subscriptions/svsync"
HOST: Final = "pubsub.googleapis.com"
ACME: Final = Place("acme")
LONGEST_DEADLINE: Final = 600


@cache
def authority() -> trustme.CA:
    return trustme.CA()


@cache
def key_in_pem() -> str:
    """Of a service account; any will do, and making one takes a while."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@dataclass(eq=False)
class Kept:
    """A message that nobody acknowledged; it is not given again before `hidden_until`."""

    message: PubsubMessage
    hidden_until: float = 0.0
    ack_id: str = ""


@dataclass(eq=False)
class PubSub:
    """One subscription, and the endpoint that gives tokens for it.

    Attributes:
        deadline: of the subscription, in seconds ("Subscription", `ack_deadline_seconds`:
            ten at least).
        patience_s: real seconds for which a pull waits for a message before its answer is
            empty; None: for ever, so that the client's own time ends it.
        failures: statuses that the next calls of a method end with.
        calls: methods called, in order.
    """

    deadline: float = 10.0
    patience_s: float | None = 0.05
    now: float = 0.0
    messages: list[Kept] = field(default_factory=list)
    failures: dict[str, list[StatusCode]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    good: set[str] = field(default_factory=set)
    address: tuple[str, int] = ("", 0)
    token_url: str = ""
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    _ids: Any = field(default_factory=lambda: itertools.count(1))

    async def publish(self, **attributes: str) -> None:
        """A message without a body, which nobody here looks at."""
        message = PubsubMessage(message_id=str(next(self._ids)), attributes=attributes)
        async with self.changed:
            self.messages.append(Kept(message))
            self.changed.notify_all()

    async def pass_time(self, seconds: float) -> None:
        async with self.changed:
            self.now += seconds
            self.changed.notify_all()

    async def until(self, reached: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S), self.changed:
            await self.changed.wait_for(reached)

    async def called(self, method: str, *, times: int) -> None:
        """Until a method is called so many times more."""
        wanted = self.calls.count(method) + times
        await self.until(lambda: self.calls.count(method) >= wanted)

    @property
    def left(self) -> int:
        return len(self.messages)

    # --- the service ----------------------------------------------------------------

    async def pull(self, request: PullRequest, context: Any) -> PullResponse:
        """Waits until there is a message, and gives up to so many; "Pull" (google.pubsub.v1)."""
        await self._admit("Pull", request.subscription, context)
        if request.max_messages <= 0:
            await context.abort(StatusCode.INVALID_ARGUMENT, "max_messages")
        try:
            async with asyncio.timeout(self.patience_s), self.changed:
                await self.changed.wait_for(lambda: any(self._free()))
                return PullResponse(
                    received_messages=[
                        self._give(one)
                        for one in itertools.islice(list(self._free()), request.max_messages)
                    ]
                )
        except TimeoutError:
            return PullResponse()

    async def acknowledge(self, request: AcknowledgeRequest, context: Any) -> Empty:
        """Removes messages; one whose deadline is over "may succeed", and does not here
        ("Acknowledge", google.pubsub.v1)."""
        await self._admit("Acknowledge", request.subscription, context)
        async with self.changed:
            self.messages = [
                one
                for one in self.messages
                if one.ack_id not in request.ack_ids or one.hidden_until <= self.now
            ]
            self.changed.notify_all()
        return Empty()

    async def modify_ack_deadline(self, request: ModifyAckDeadlineRequest, context: Any) -> Empty:
        """From now on, up to ten minutes; zero gives the message back
        ("ModifyAckDeadlineRequest", `ack_deadline_seconds`)."""
        await self._admit("ModifyAckDeadline", request.subscription, context)
        if not 0 <= request.ack_deadline_seconds <= LONGEST_DEADLINE:
            await context.abort(StatusCode.INVALID_ARGUMENT, "ack_deadline_seconds")
        async with self.changed:
            for one in self.messages:
                if one.ack_id in request.ack_ids and one.hidden_until > self.now:
                    one.hidden_until = self.now + request.ack_deadline_seconds
            self.changed.notify_all()
        return Empty()

    def _free(self) -> list[Kept]:
        return [one for one in self.messages if one.hidden_until <= self.now]

    def _give(self, one: Kept) -> ReceivedMessage:
        """Each delivery has an id of its own ("ReceivedMessage", `ack_id`)."""
        one.ack_id, one.hidden_until = f"ack-{next(self._ids)}", self.now + self.deadline
        return ReceivedMessage(ack_id=one.ack_id, message=one.message)

    async def _admit(self, method: str, subscription: str, context: Any) -> None:
        metadata = dict(context.invocation_metadata())
        async with self.changed:
            self.calls.append(method)
            self.changed.notify_all()
        if metadata.get("authorization", "").removeprefix("Bearer ") not in self.good:
            await context.abort(StatusCode.UNAUTHENTICATED, "c4n4ry")
        if self.failures.get(method):
            await context.abort(self.failures[method].pop(0), "c4n4ry")
        if subscription != NAME:
            await context.abort(StatusCode.NOT_FOUND, "c4n4ry")

    async def give_token(self, _: web.Request) -> web.Response:
        """As an OAuth 2.0 server answers an assertion."""
        self.tokens.append(f"t{len(self.tokens)}")
        self.good.add(self.tokens[-1])
        return web.json_response(
            {"access_token": self.tokens[-1], "expires_in": 3600, "token_type": "Bearer"}
        )

    # --- who calls it ---------------------------------------------------------------

    async def credential(self) -> Credential:
        info = {
            "type": "service_account",
            "client_email": "svsync@acme.iam.gserviceaccount.com",
            "private_key": key_in_pem(),
            "token_uri": self.token_url,
        }
        return Credential.parse(json.dumps(info), "env:GCP_KEY")

    async def resolve(self, host: str, port: int) -> list[tuple[str, int]]:
        return [self.address if host == HOST else (host, port)]

    @property
    def dial(self) -> Dial:
        return Dial(self.resolve, authority().cert_pem.bytes())

    def feed(
        self,
        name: str = NAME,
        *,
        place: Place = ACME,
        guard: BackendGuard | None = None,
        timeout: float = 30.0,
        **options: Any,
    ) -> PubSubFeed:
        """A feed at it; a call that fails is not made again, unless by a guard given. It pauses
        no longer than this server waits."""

        async def pause(_seconds: float) -> None:
            await asyncio.sleep(self.patience_s or 0)

        return PubSubFeed(
            name,
            place,
            GcpSettings(timeout=timeout),
            self.credential,
            NetworkPolicy(allow_loopback=True),
            guard or BackendGuard(retry=RetryPolicy(attempts=1)),
            dial=options.pop("dial", self.dial),
            **{"sleep": pause, **options},
        )


def _handlers(there: PubSub) -> grpc.GenericRpcHandler:
    def unary(
        handle: Callable[..., Awaitable[Any]], request: Any, answer: Callable[[Any], bytes]
    ) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(
            handle, request_deserializer=request.deserialize, response_serializer=answer
        )

    methods: Mapping[str, grpc.RpcMethodHandler] = {
        "Pull": unary(there.pull, PullRequest, PullResponse.serialize),
        "Acknowledge": unary(there.acknowledge, AcknowledgeRequest, Empty.SerializeToString),
        "ModifyAckDeadline": unary(
            there.modify_ack_deadline, ModifyAckDeadlineRequest, Empty.SerializeToString
        ),
    }
    return grpc.method_handlers_generic_handler("google.pubsub.v1.Subscriber", dict(methods))


@asynccontextmanager
async def serving(there: PubSub, host: str = HOST) -> AsyncIterator[PubSub]:
    """Both endpoints, on loopback, with a certificate for `host`."""
    certificate = authority().issue_cert(host)
    pair = (certificate.private_key_pem.bytes(), certificate.cert_chain_pems[0].bytes())
    server = aio.server()
    server.add_generic_rpc_handlers((_handlers(there),))
    there.address = (
        "127.0.0.1",
        server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair])),
    )
    app = web.Application()
    app.router.add_post("/token", there.give_token)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    there.token_url = f"http://127.0.0.1:{runner.addresses[0][1]}/token"
    await server.start()
    try:
        yield there
    finally:
        await server.stop(None)
        await runner.cleanup()


def notice(secret: str, kind: str = "SECRET_VERSION_ADD", **more: str) -> dict[str, str]:
    """The attributes of a message of Secret Manager ("Set up notifications on a secret")."""
    return {
        "eventType": kind,
        "secretId": f"projects/123456789012/secrets/{secret}",
        "dataFormat": "JSON_API_V1",
        "timestamp": "2026-11-23T10:00:00.000000Z",
        **more,
    }
