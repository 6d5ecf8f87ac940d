"""The client of programs that wait.

Calls are made by an event loop in a thread of its own, so that a program may have one
itself, and many threads may share a client. Each method is that of `Client`, with its
arguments, its types and its words.
"""

import asyncio
import os
import ssl
import weakref
from collections.abc import Callable, Coroutine
from functools import wraps
from threading import Thread, current_thread
from types import TracebackType
from typing import Any, Concatenate, Final, Generic, ParamSpec, Self, TypeVar

from svsync.client import access, federation, feeds, keys, policies, secrets, tokens, webhooks
from svsync.client.asynchronous import Client
from svsync.client.calls import TIMEOUT_S, Token
from svsync.client.errors import SvsyncError

P = ParamSpec("P")
T = TypeVar("T")
Noun = TypeVar("Noun")

_CLOSING_S: Final = 5.0


class _Thread:
    """An event loop, and the client that belongs to it."""

    def __init__(self, make: Callable[[], Client]) -> None:
        self.pid = os.getpid()
        self.client = make()
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._run, name="svsync-client", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.close()

    def wait(self, call: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(call, self._loop)
        try:
            return future.result()
        except BaseException:  # Ctrl-C too: what nobody waits for is broken off
            future.cancel()
            raise

    def close(self) -> None:
        if self.pid != os.getpid():
            return  # it is the process that forked which has the connections
        asyncio.run_coroutine_threadsafe(self._end(), self._loop)
        if current_thread() is not self._thread:  # where the collector may come by
            self._thread.join(_CLOSING_S)

    async def _end(self) -> None:
        await self.client.close()
        self._loop.stop()


class _Waiting(Generic[Noun]):
    """A noun of the client whose methods wait."""

    def __init__(self, of: Callable[[], Noun], wait: Callable[[Coroutine[Any, Any, T]], T]) -> None:
        self._of = of
        self._wait: Callable[[Coroutine[Any, Any, Any]], Any] = wait


def _waiting(
    method: Callable[Concatenate[Noun, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[_Waiting[Noun], P], T]:
    """The same method, which waits."""

    @wraps(method)
    def call(noun: _Waiting[Noun], /, *args: P.args, **kwargs: P.kwargs) -> T:
        done: T = noun._wait(method(noun._of(), *args, **kwargs))
        return done

    return call


class SyncSecrets(_Waiting[secrets.Secrets]):
    """`client.secrets`."""

    read = _waiting(secrets.Secrets.read)
    write = _waiting(secrets.Secrets.write)
    delete = _waiting(secrets.Secrets.delete)
    restore = _waiting(secrets.Secrets.restore)
    history = _waiting(secrets.Secrets.history)
    list = _waiting(secrets.Secrets.list)
    page = _waiting(secrets.Secrets.page)


class SyncBackends(_Waiting[federation.Backends]):
    """`client.federation.backends`."""

    list = _waiting(federation.Backends.list)
    get = _waiting(federation.Backends.get)
    create = _waiting(federation.Backends.create)
    patch = _waiting(federation.Backends.patch)
    delete = _waiting(federation.Backends.delete)
    test = _waiting(federation.Backends.test)
    pause = _waiting(federation.Backends.pause)
    resume = _waiting(federation.Backends.resume)


class SyncFeedSecrets(_Waiting[feeds.FeedSecrets]):
    """`client.federation.feed_secrets`."""

    list = _waiting(feeds.FeedSecrets.list)
    create = _waiting(feeds.FeedSecrets.create)
    revoke = _waiting(feeds.FeedSecrets.revoke)


class SyncFederation(_Waiting[federation.Federation]):
    """`client.federation`."""

    def __init__(
        self,
        of: Callable[[], federation.Federation],
        wait: Callable[[Coroutine[Any, Any, Any]], Any],
    ) -> None:
        super().__init__(of, wait)
        self.backends = SyncBackends(lambda: of().backends, wait)
        self.feed_secrets = SyncFeedSecrets(lambda: of().feed_secrets, wait)

    overview = _waiting(federation.Federation.overview)
    status = _waiting(federation.Federation.status)
    sync = _waiting(federation.Federation.sync)
    plan = _waiting(federation.Federation.plan)
    test_mapping = _waiting(federation.Federation.test_mapping)
    migration = _waiting(federation.Federation.migration)
    runs = _waiting(federation.Federation.runs)
    last_runs = _waiting(federation.Federation.last_runs)
    run = _waiting(federation.Federation.run)
    secrets = _waiting(federation.Federation.secrets)
    conflicts = _waiting(federation.Federation.conflicts)
    conflict = _waiting(federation.Federation.conflict)
    resolve = _waiting(federation.Federation.resolve)


class SyncPolicies(_Waiting[policies.Policies]):
    """`client.policies`."""

    list = _waiting(policies.Policies.list)
    get = _waiting(policies.Policies.get)
    create = _waiting(policies.Policies.create)
    patch = _waiting(policies.Policies.patch)
    delete = _waiting(policies.Policies.delete)
    bindings = _waiting(policies.Policies.bindings)
    bind = _waiting(policies.Policies.bind)
    unbind = _waiting(policies.Policies.unbind)
    test = _waiting(policies.Policies.test)


class SyncAudit(_Waiting[access.Audit]):
    """`client.audit`."""

    query = _waiting(access.Audit.query)
    chains = _waiting(access.Audit.chains)


class SyncAuth(_Waiting[access.Auth]):
    """`client.auth`."""

    whoami = _waiting(access.Auth.whoami)


class SyncTokens(_Waiting[tokens.Tokens]):
    """`client.tokens`."""

    list = _waiting(tokens.Tokens.list)
    create = _waiting(tokens.Tokens.create)
    revoke = _waiting(tokens.Tokens.revoke)


class SyncKeys(_Waiting[keys.Keys]):
    """`client.keys`."""

    list = _waiting(keys.Keys.list)


class SyncWebhooks(_Waiting[webhooks.Webhooks]):
    """`client.webhooks`."""

    list = _waiting(webhooks.Webhooks.list)
    get = _waiting(webhooks.Webhooks.get)
    create = _waiting(webhooks.Webhooks.create)
    patch = _waiting(webhooks.Webhooks.patch)
    delete = _waiting(webhooks.Webhooks.delete)
    deliveries = _waiting(webhooks.Webhooks.deliveries)
    test = _waiting(webhooks.Webhooks.test)
    replay = _waiting(webhooks.Webhooks.replay)
    rotate = _waiting(webhooks.Webhooks.rotate)


class SyncClient:
    """svsync's API, for programs that wait.

        with SyncClient("https://svsync.internal:8443", token) as client:
            secret = client.secrets.read("apps/billing/db")

    Threads may share it. Where the process forks, the child makes connections of its own.
    It closes by itself when the program ends.

    Attributes:
        secrets, federation, policies, audit, webhooks, auth, tokens, keys: as of `Client`.
    """

    def __init__(
        self,
        base_url: str,
        token: Token,
        *,
        timeout: float = TIMEOUT_S,
        ca: str | os.PathLike[str] | ssl.SSLContext | None = None,
        allow_http: bool = False,
        request_ids: Callable[[], str] | None = None,
    ) -> None:
        """As `Client`. Raises SvsyncError: `invalid_argument`."""

        def make() -> Client:
            return Client(
                base_url,
                token,
                timeout=timeout,
                ca=ca,
                allow_http=allow_http,
                request_ids=request_ids,
            )

        self._make = make
        self._closed = False
        self._thread = _Thread(make)
        self._at_end = weakref.finalize(self, self._thread.close)
        self.secrets = SyncSecrets(lambda: self._client.secrets, self._wait)
        self.federation = SyncFederation(lambda: self._client.federation, self._wait)
        self.policies = SyncPolicies(lambda: self._client.policies, self._wait)
        self.audit = SyncAudit(lambda: self._client.audit, self._wait)
        self.webhooks = SyncWebhooks(lambda: self._client.webhooks, self._wait)
        self.auth = SyncAuth(lambda: self._client.auth, self._wait)
        self.tokens = SyncTokens(lambda: self._client.tokens, self._wait)
        self.keys = SyncKeys(lambda: self._client.keys, self._wait)

    def __repr__(self) -> str:
        return f"Sync{self._thread.client!r}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. No call can be made any more."""
        self._closed = True
        self._at_end()

    @property
    def _client(self) -> Client:
        if self._closed:
            raise SvsyncError("the client is closed: make another", code="client_closed")
        if self._thread.pid != os.getpid():
            # The thread stayed behind in the process that forked, and the connections are
            # that one's: nothing is said over them from here.
            self._thread.client.abandon()
            self._at_end.detach()
            self._thread = _Thread(self._make)
            self._at_end = weakref.finalize(self, self._thread.close)
        return self._thread.client

    def _wait(self, call: Coroutine[Any, Any, T]) -> T:
        return self._thread.wait(call)
