"""Addresses that svsync is told to call.

What is checked here is the text. The address that a name resolves to is checked
when it is connected to, every time; this only says early, with the line, what
could never pass.
"""

import ipaddress
import re
from urllib.parse import SplitResult, urlsplit

from svsync.config.document import Node
from svsync.config.kinds import HOST_NAME, Kind, text_of

KEY_VAULT_SUFFIXES = (
    ".vault.azure.net",
    ".vault.azure.cn",
    ".vault.usgovcloudapi.net",
    ".vault.microsoftazure.de",
)
"""Public, China, US Government, Germany."""

_VISIBLE = re.compile(r"[!-~]+")


def split_endpoint(url: str) -> SplitResult | str:
    """The parts of a usable URL, or the sentence that says why it is none."""
    if not _VISIBLE.fullmatch(url) or "\\" in url or len(url) > 2048:
        return "must be a URL of visible ASCII characters, such as https://vault.internal:8200"
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError:
        return "must be a URL with a valid host and port, such as https://vault.internal:8200"
    if parts.scheme not in ("http", "https") or not host:
        return "must be a URL such as https://vault.internal:8200"
    if "@" in parts.netloc:
        return "must not hold a user or password; credentials have a reference of their own"
    if "?" in url or "#" in url:
        return "must not hold a query or fragment"
    if ip_of(host) is None and not HOST_NAME.fullmatch(host):
        return "must be a URL with a valid host name"
    return parts


def endpoint_problem(url: str, *, allow_loopback: bool) -> str | None:
    """Why svsync would never call this address, or None.

    Only https, but for loopback where `allow_loopback` is set; never a
    link-local, multicast, unspecified or reserved address.
    """
    parts = split_endpoint(url)
    if isinstance(parts, str):
        return parts
    host = parts.hostname or ""
    if is_loopback(host):
        if not allow_loopback:
            return "is on loopback; set allow_loopback: true in the configuration file to allow it"
        return None
    address = ip_of(host)
    if address is not None and (
        address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or address.is_reserved
    ):
        return "is a link-local, multicast, unspecified or reserved address, which is never called"
    if parts.scheme != "https":
        return "must begin with https://"
    return None


def is_loopback(host: str) -> bool:
    """Whether a URL's host is loopback by name or literal address."""
    address = ip_of(host)
    return host.lower() == "localhost" if address is None else address.is_loopback


def ip_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The literal address, an IPv4-mapped one as IPv4; None for a name."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address


def _read_url(node: Node, *, path: bool) -> str:
    url = text_of(node, "a URL")
    parts = split_endpoint(url)
    if isinstance(parts, str):
        raise node.error(parts)
    if not path and parts.path not in ("", "/"):
        raise node.error("must end after host and port; it takes no path")
    return url if path else url.removesuffix("/")


ORIGIN = Kind(
    lambda node: _read_url(node, path=False),
    {"type": "string", "pattern": "^https?://[^/?#@]+/?$"},
    "a URL without path, such as `https://vault.internal:8200`",
)

URL = Kind(
    lambda node: _read_url(node, path=True),
    {"type": "string", "pattern": "^https?://[^?#@]+$"},
    "a URL",
)


def _read_vault_url(node: Node) -> str:
    url = str(ORIGIN.read(node))
    host = urlsplit(url).hostname or ""
    if not host.endswith(KEY_VAULT_SUFFIXES) and not is_loopback(host):
        raise node.error(
            f"must be a Key Vault's address, ending in {', '.join(KEY_VAULT_SUFFIXES)}"
        )
    return url


VAULT_URL = Kind(
    _read_vault_url,
    ORIGIN.schema,
    "a Key Vault's URL, such as `https://acme.vault.azure.net`",
)
