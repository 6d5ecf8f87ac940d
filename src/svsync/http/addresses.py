"""Where a request comes from: the connection's other end, or what trusted proxies say.

`X-Forwarded-For` is read from its end, as each proxy appends whom it saw, and only as far
as the one who wrote an entry is in `trusted_proxies`. Anybody may send the rest.
"""

import ipaddress
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from aiohttp import web

_IPV6_SITE: Final = 64


class Addresses:
    """Tells addresses of requests, believing these proxies."""

    def __init__(self, trusted_proxies: Sequence[str]) -> None:
        self._trusted = [ipaddress.ip_network(text) for text in trusted_proxies]
        # One connection asks many times.
        self._told = lru_cache(maxsize=4096)(self._believed)

    def of(self, request: web.Request) -> str:
        """The address, `unknown` where there is none (a unix socket)."""
        peer = request.transport and request.transport.get_extra_info("peername")
        return self.told(peer, request.headers.getall("X-Forwarded-For", ()))

    def told(self, peer: object, forwarded: Sequence[str]) -> str:
        """The same of a connection's other end, and what stands in `X-Forwarded-For`."""
        if not isinstance(peer, tuple):
            return "unknown"
        return self._told(str(peer[0]), ",".join(forwarded) if self._trusted else "")

    def _believed(self, peer: str, told: str) -> str:
        at = _parsed(peer)
        if at is None:
            return "unknown"
        for entry in reversed(told.split(",") if told else []):
            before = _parsed(entry.strip())
            if before is None or not any(at in network for network in self._trusted):
                break
            at = before
        return str(at)


def site_of(address: str) -> str:
    """What failures are counted by: an IPv6 address stands for its network of 64 bits,
    all of which one host may have."""
    found = _parsed(address)
    if not isinstance(found, ipaddress.IPv6Address):
        return address
    return str(ipaddress.ip_network((found, _IPV6_SITE), strict=False))


@lru_cache(maxsize=4096)
def _parsed(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found
