"""The client of programs that await."""

import os
import ssl
from collections.abc import Callable
from types import TracebackType
from typing import Self

from svsync.client.access import Audit, Auth
from svsync.client.calls import TIMEOUT_S, Calls, Token
from svsync.client.federation import Federation
from svsync.client.keys import Keys
from svsync.client.policies import Policies
from svsync.client.secrets import Secrets
from svsync.client.tokens import Tokens
from svsync.client.webhooks import Webhooks


class Client:
    """svsync's API, to be awaited.

        async with Client("https://svsync.internal:8443", token) as client:
            secret = await client.secrets.read("apps/billing/db")

    It belongs to the event loop in which its first call is made; `SyncClient` is for
    programs without one.

    Attributes:
        secrets, federation, policies, audit, webhooks, auth, tokens, keys: what can be called.
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
        """
        Args:
            base_url: where the service is, as `https://svsync.internal:8443`.
            token: the token, or a function that gives the one to use now.
            timeout: seconds that one call may take, whatever is made again within it.
            ca: a file of CA certificates in PEM that are trusted in place of the system's; or
                a context of `ssl`, where the service asks for a client certificate.
            allow_http: allow plain HTTP to hosts other than loopback.
            request_ids: names each request in the service's logs, by at most 128 letters,
                digits and `._-`; None: the service does.

        Raises:
            SvsyncError: `invalid_argument`.
        """
        self._calls = Calls(
            base_url, token, timeout=timeout, ca=ca, allow_http=allow_http, request_ids=request_ids
        )
        self.secrets = Secrets(self._calls)
        self.federation = Federation(self._calls)
        self.policies = Policies(self._calls)
        self.audit = Audit(self._calls)
        self.webhooks = Webhooks(self._calls)
        self.auth = Auth(self._calls)
        self.tokens = Tokens(self._calls)
        self.keys = Keys(self._calls)

    def __repr__(self) -> str:
        return f"Client({self._calls.base_url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections. No call can be made any more."""
        await self._calls.close()

    def abandon(self) -> None:
        """Leave the connections to the process that this one was forked from."""
        self._calls.abandon()
