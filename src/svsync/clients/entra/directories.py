"""The keys by which the directories of Microsoft Entra ID sign their tokens.

Each directory says where its keys are [Access tokens in the Microsoft identity platform,
identity-platform/access-tokens]; all its versions of tokens are signed by them. Where a key
says whose tokens it is for, it counts for no others.
"""

import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any

from svsync.clients.scaikey.documents import Documents
from svsync.clients.scaikey.keys import IssuerKeys
from svsync.domain.entra import AUTHORITY
from svsync.network import NetworkPolicy


class Directories:
    """Those whose tokens open a feed. Only the operator's file names any, so they are few."""

    def __init__(
        self,
        policy: NetworkPolicy,
        *,
        authority: str = AUTHORITY,
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`authority`: the address below which each has its own; `clock` gives seconds that
        never go back."""
        self._policy = policy
        self._authority = authority
        self._tls = tls
        self._clock = clock
        self._known: dict[str, IssuerKeys] = {}

    async def payload_of(self, directory: str, text: str) -> bytes:
        """The claims of a token, as they were signed.

        Raises UnauthenticatedError: none of the directory's keys has signed it, or that
        cannot be told now.
        """
        keys = self._known.get(directory)
        if keys is None:
            keys = self._known[directory] = self._keys(directory)
        await keys.refresh_old()
        return await keys.payload_of(text)

    def _keys(self, directory: str) -> IssuerKeys:
        issuer = f"{self._authority}/{directory}/v2.0"
        documents = Documents(issuer, None, self._policy, tls=self._tls)

        async def fetch() -> Mapping[str, Any]:
            published = await documents.keys()
            entries = published.get("keys")
            if not isinstance(entries, list):
                return published
            return {"keys": [one for one in entries if _is_for(one, directory, issuer)]}

        return IssuerKeys(fetch, clock=self._clock, name="Entra")


def _is_for(entry: object, directory: str, issuer: str) -> bool:
    said = entry.get("issuer") if isinstance(entry, dict) else None
    return said is None or (
        isinstance(said, str) and said.replace("{tenantid}", directory) == issuer
    )
