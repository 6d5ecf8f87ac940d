"""Where svsync may connect to: the rule against request forgery, in one place.

An endpoint is a name that somebody configured, and a name may be made to point
anywhere. So the address is judged when a socket is about to be connected to
it, at every connect, not when the name was first looked up.
"""

import ipaddress
import os
import re
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

import aiohttp
from yarl import URL

from svsync.domain.errors import ConfigError

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_SHARED: Final = ipaddress.ip_network("100.64.0.0/10")
_THIS_NETWORK: Final = ipaddress.ip_network("0.0.0.0/8")
_METADATA: Final = frozenset(
    ipaddress.ip_address(text)
    for text in (
        "169.254.169.254",  # AWS, Azure, GCP, OpenStack
        "169.254.170.2",  # AWS container credentials
        "fd00:ec2::254",  # AWS over IPv6
        "100.100.100.200",  # Alibaba
        "168.63.129.16",  # Azure's host agent, a public address
        "192.0.0.192",  # Oracle
    )
)


@dataclass(frozen=True, slots=True)
class NetworkPolicy:
    """What one kind of outgoing connection may reach.

    Attributes:
        allow_loopback: loopback too, and there plain http. Operator's file only.
        allowed_hosts: host names, and networks in CIDR form, whose private
            addresses may be reached even where `file_managed` is false.
        file_managed: configured in the operator's file: private addresses are fine.
        own_listeners: (address, port) this process listens on; never reached.
    """

    allow_loopback: bool = False
    allowed_hosts: tuple[str, ...] = ()
    file_managed: bool = False
    own_listeners: frozenset[tuple[str, int]] = frozenset()


def refuse_reason(
    address: IpAddress, policy: NetworkPolicy, *, host: str = "", port: int | None = None
) -> str | None:
    """Why this address may not be connected to, or None. `host` is the name it came from.

    An IPv4 address inside an IPv6 one (mapped, NAT64, 6to4, Teredo) is judged
    as what it is.
    """
    address = _plain(address)
    if address in _METADATA:
        return "is a cloud metadata address"
    if address.is_link_local:
        return "is a link-local address"
    if address.is_multicast:
        return "is a multicast address"
    if address.is_unspecified or (address.version == 4 and address in _THIS_NETWORK):
        return "is an unspecified address"
    if port is not None and _is_own(address, port, policy):
        return "is svsync's own listener"
    if address.is_loopback:
        return None if policy.allow_loopback else "is a loopback address (allow_loopback is off)"
    if address.is_reserved:
        return "is a reserved address"
    if address.is_global or policy.file_managed or _is_allowed(address, host, policy):
        return None
    return "is a private address that allowed_backend_hosts does not name"


def _plain(address: IpAddress) -> IpAddress:
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        teredo = address.teredo
        inner = address.ipv4_mapped or address.sixtofour or (teredo and teredo[1])
        if inner:
            return inner
    return address


def _is_own(address: IpAddress, port: int, policy: NetworkPolicy) -> bool:
    if (str(address), port) in policy.own_listeners:
        return True
    there = [_literal(own) for own, at in policy.own_listeners if at == port]
    anywhere = any(own is not None and own.is_unspecified for own in there)
    return anywhere and _is_of_this_machine(address)


def _is_of_this_machine(address: IpAddress) -> bool:
    """Only an address of its own can a machine bind a socket to."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True


def _is_allowed(address: IpAddress, host: str, policy: NetworkPolicy) -> bool:
    for allowed in policy.allowed_hosts:
        try:
            network = ipaddress.ip_network(allowed, strict=False)
        except ValueError:
            if allowed.rstrip(".").lower() == host.rstrip(".").lower():
                return True
        else:
            if address.version == network.version and address in network:
                return True
    return False


def check_url(text: str, policy: NetworkPolicy, *, where: str = "") -> URL:
    """The URL of an endpoint. `where` names the setting in messages.

    Raises ConfigError: not https (http only on loopback with allow_loopback),
    with user or password, query or fragment, or with an address that no name
    hides and that may not be reached.
    """
    try:
        url = URL(text)
        host, port = url.host, url.port
    except ValueError:
        raise ConfigError("is not a URL", where=where) from None
    if not host:
        raise ConfigError("is not a URL with a host (https://host:port)", where=where)
    if url.user is not None or url.password is not None or url.query_string or url.fragment:
        raise ConfigError("may hold no user, password, query or fragment", where=where)
    address = _literal(host)
    on_loopback = host == "localhost" or (address is not None and _plain(address).is_loopback)
    if url.scheme != "https" and not (
        url.scheme == "http" and on_loopback and policy.allow_loopback
    ):
        raise ConfigError(
            "must be an https URL (http only on loopback with allow_loopback: true)", where=where
        )
    if address is not None and (reason := refuse_reason(address, policy, host=host, port=port)):
        raise ConfigError(reason, where=where, code="endpoint_refused")
    return url


def _literal(host: str) -> IpAddress | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


class AddressRefusedError(OSError):
    """The name points to an address that may not be connected to."""


AddressInfo = tuple[int, int, int, str, Sequence[str | int | bytes]]


def socket_guard(policy: NetworkPolicy, host: str) -> Callable[..., socket.socket]:
    """A socket factory that refuses the address about to be connected to.

    aiohttp calls it for each connect with the very address it will use, for
    names and for addresses in the URL alike, so nothing can change in between.
    """

    def make(info: AddressInfo) -> socket.socket:
        family, kind, protocol, _, target = info
        address = ipaddress.ip_address(str(target[0]).partition("%")[0])
        if reason := refuse_reason(address, policy, host=host, port=int(target[1])):
            raise AddressRefusedError(reason)
        return socket.socket(family, kind, protocol)

    return make


def guarded_connector(
    policy: NetworkPolicy, host: str, *, tls: ssl.SSLContext | None, limit: int
) -> aiohttp.TCPConnector:
    """A connector for one host; a refused address raises ClientConnectorError,
    whose `os_error` is an AddressRefusedError.

    Args:
        tls: the context for https; None where the endpoint is http.
        limit: connections at one time.
    """
    return aiohttp.TCPConnector(
        ssl=True if tls is None else tls,
        limit=limit,
        limit_per_host=limit,
        socket_factory=socket_guard(policy, host),
    )


class BoundedAnswer(aiohttp.ClientResponse):
    """An answer that is counted while it is read; each client's own class says how far.

    Attributes:
        most: bytes, unpacked.
        too_large: raised beyond them.
    """

    most: ClassVar[int]
    too_large: ClassVar[type[Exception]]

    async def read(self) -> bytes:
        if self._body is None:
            raw = bytearray()
            try:
                while block := await self.content.readany():
                    raw += block
                    if len(raw) > self.most:
                        raise self.too_large
            except BaseException:
                self.close()  # who is cancelled leaves no connection open
                raise
            self._body = bytes(raw)
        return self._body


_contexts: dict[tuple[object, ...], ssl.SSLContext] = {}
"""By whose authorities they trust. To read the system's takes ten milliseconds, in which nothing
else is done, and each cycle of each backend needs a context."""
_MOST_CONTEXTS: Final = 256


def _context(key: tuple[object, ...], make: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    found = _contexts.get(key)
    if found is None:
        found = make()
        # One that holds nobody was quick to make, and OpenSSL says of no file that it could not
        # be read: with too few descriptors for a moment, nobody would be trusted from then on.
        if found.cert_store_stats()["x509"]:
            if len(_contexts) >= _MOST_CONTEXTS:
                _contexts.clear()
            _contexts[key] = found
    return found


_HASHED: Final = re.compile(r"[0-9a-f]{8}\.[0-9]+")
"""How OpenSSL finds an authority in a directory."""


def _system_authorities() -> list[object]:
    """What changes when the system's authorities do: the file's, and those in directories, of
    which one may be changed where it lies, or where a link leads."""
    known = ssl.get_default_verify_paths()
    places = [os.environ.get(known.openssl_cafile_env, known.openssl_cafile)]
    folders = os.environ.get(known.openssl_capath_env, known.openssl_capath)
    for folder in folders.split(os.pathsep):
        with suppress(OSError):
            names = sorted(filter(_HASHED.fullmatch, os.listdir(folder)))
            places += [os.path.join(folder, name) for name in names]
    told: list[object] = []
    for place in places:
        with suppress(OSError):
            seen = os.stat(place)
            told += (place, seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns)
            told.append(seen.st_ctime_ns)  # whatever a copy made of the others
    return told


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def tls_context(
    verify: object, policy: NetworkPolicy, *, where: str = "tls_verify"
) -> ssl.SSLContext:
    """The TLS context that a `tls_verify` setting asks for. It is shared: never change it.

    True: the system's authorities. A PEM text: those authorities. A path: the
    file's, and False: nobody's, both in the operator's file only.

    Raises ConfigError, naming `where`.
    """
    if verify is True:
        return _context(("system", *_system_authorities()), ssl.create_default_context)
    if verify is False:
        if not policy.file_managed:
            raise ConfigError("may be off in the operator's file only", where=where)
        return _context(("nobody",), _unverified)
    if not isinstance(verify, str):
        raise ConfigError("is true, false, a PEM text or a path", where=where)
    try:
        pem = verify
        if "-----BEGIN" not in verify:
            if not policy.file_managed:
                raise ConfigError("takes a path in the operator's file only: give PEM", where=where)
            pem = Path(verify).read_text(encoding="ascii")
            if "-----BEGIN" not in pem:
                raise ValueError  # of an empty text the system's authorities would be made
        return _context(("pem", pem), lambda: ssl.create_default_context(cadata=pem))
    except (OSError, ValueError):
        # ssl.SSLError is an OSError.
        raise ConfigError("holds no certificate authority that can be read", where=where) from None
