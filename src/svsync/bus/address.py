"""What a `REDIS_URL` means: which servers, which login, which certificates.

    redis://[USER:PASSWORD@]HOST[:6379][/DB]                  also valkey://
    rediss://…                                                with TLS, also valkeys://
    unix://[USER:PASSWORD@]/PATH[?db=DB]
    redis+sentinel://[USER:PASSWORD@]HOST[:26379],…/MASTER[/DB]   rediss+sentinel:// with TLS
    redis+cluster://[USER:PASSWORD@]HOST[:6379],…             rediss+cluster:// with TLS

Options behind `?`: `db`; with TLS `ssl_ca_certs` (a PEM file, beside the system's
authorities), `ssl_certfile` and `ssl_keyfile` (a client certificate); for sentinels
`sentinel_username` and `sentinel_password` (user and password before the `@` are the
servers' own). Names of schemes and options are those of the Python programs that know
such URLs. Special characters of a password are percent-encoded.

No sentence about a URL quotes any of it: what looks like a host may be half a password.
"""

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final
from urllib.parse import parse_qsl, unquote

from svsync.domain.errors import ConfigError
from svsync.domain.values import SecretValue

WHERE: Final = "REDIS_URL"

_URL = re.compile(
    r"(?P<scheme>[a-z+]+)://(?:(?P<login>[^/?]*)@)?(?P<hosts>[^/?@]*)(?P<path>/[^?]*)?(?:\?(?P<query>.*))?"
)
_HOST = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::(?P<port>\d+))?")
_MASTER = re.compile(r"[A-Za-z0-9._-]+")
_TLS_OPTIONS: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_SENTINEL_OPTIONS: Final = ("sentinel_username", "sentinel_password")


class Shape(StrEnum):
    """How the servers stand to each other."""

    SINGLE = "single"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


_SCHEMES: Final[Mapping[str, tuple[Shape, bool]]] = {
    "redis": (Shape.SINGLE, False),
    "valkey": (Shape.SINGLE, False),
    "rediss": (Shape.SINGLE, True),
    "valkeys": (Shape.SINGLE, True),
    "unix": (Shape.SINGLE, False),
    "redis+sentinel": (Shape.SENTINEL, False),
    "rediss+sentinel": (Shape.SENTINEL, True),
    "redis+cluster": (Shape.CLUSTER, False),
    "rediss+cluster": (Shape.CLUSTER, True),
}


@dataclass(frozen=True, slots=True)
class Host:
    """A server's name and port; or the path of its socket, and port 0."""

    name: str
    port: int

    def __str__(self) -> str:
        return f"{self.name}:{self.port}" if self.port else self.name


@dataclass(frozen=True, slots=True)
class Login:
    """User and password; each may be missing."""

    user: str | None = None
    password: SecretValue | None = None


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """A parsed URL.

    Attributes:
        hosts: one where single; else those to ask, in this order.
        database: number of the database, 0 in a cluster.
        master: the name under which sentinels know the master, else empty.
        sentinel_login: for the sentinels; `login` is for the servers that hold data.
        tls: files of the TLS options by name; None: no TLS.
    """

    shape: Shape
    hosts: tuple[Host, ...]
    database: int = 0
    login: Login = Login()
    master: str = ""
    sentinel_login: Login = Login()
    tls: Mapping[str, str] | None = field(default=None)


def parse_address(url: SecretValue) -> RedisAddress:
    """Read a URL of the forms above. Raises ConfigError, which quotes none of it."""
    found = _URL.fullmatch(url.reveal())
    if found is None or found["scheme"] not in _SCHEMES:
        raise _error(f"must begin with one of {', '.join(f'{name}://' for name in _SCHEMES)}")
    shape, secure = _SCHEMES[found["scheme"]]
    options = _options(found["query"] or "", shape, secure)
    path = found["path"] or ""
    if found["scheme"] == "unix":
        if found["hosts"] or path in ("", "/"):
            raise _error("must name the socket by its whole path, as in unix:///run/redis.sock")
        hosts: tuple[Host, ...] = (Host(unquote(path), 0),)
        master, database = "", ""
    else:
        hosts = _hosts(found["hosts"], shape)
        master, database = _master_and_database(path, shape)
    return RedisAddress(
        shape,
        hosts,
        _database(options.get("db", database), shape),
        _login(found["login"]),
        master,
        Login(options.get("sentinel_username"), _secret(options.get("sentinel_password"))),
        _tls(options) if secure else None,
    )


def _options(query: str, shape: Shape, secure: bool) -> dict[str, str]:
    allowed = ["db", *(_TLS_OPTIONS if secure else ())]
    if shape is Shape.SENTINEL:
        allowed += _SENTINEL_OPTIONS
    options = dict(parse_qsl(query, keep_blank_values=True))
    if not options.keys() <= set(allowed):
        raise _error(f"has an option that is none of: {', '.join(allowed)}")
    return options


def _hosts(text: str, shape: Shape) -> tuple[Host, ...]:
    default = 26379 if shape is Shape.SENTINEL else 6379
    hosts = []
    for part in text.split(","):
        match = _HOST.fullmatch(part)
        port = int(match["port"] or default) if match else 0
        if match is None or not 1 <= port <= 65535:
            raise _error(
                "has no usable host and port: write HOST:PORT, several with commas between, "
                "and percent-encode the special characters of a password"
            )
        hosts.append(Host(match["six"] or match["name"], port))
    if shape is Shape.SINGLE and len(hosts) > 1:
        raise _error(
            "names several hosts: begin it with redis+sentinel:// or redis+cluster:// for those"
        )
    return tuple(hosts)


def _master_and_database(path: str, shape: Shape) -> tuple[str, str]:
    if shape is not Shape.SENTINEL:
        return "", path.removeprefix("/")
    master, _, database = path.removeprefix("/").partition("/")
    if not _MASTER.fullmatch(master):
        raise _error("must name the master behind the hosts, as in …:26379/mymaster")
    return master, database


def _database(text: str, shape: Shape) -> int:
    if not re.fullmatch(r"[0-9]{0,5}", text):
        raise _error("must name the database by its number")
    number = int(text or 0)
    if number and shape is Shape.CLUSTER:
        raise _error("must not name a database: a cluster has one only")
    return number


def _login(text: str | None) -> Login:
    user, _, password = (text or "").partition(":")
    return Login(unquote(user) or None, _secret(unquote(password)))


def _secret(text: str | None) -> SecretValue | None:
    return SecretValue(text) if text else None


def _tls(options: Mapping[str, str]) -> Mapping[str, str]:
    """The files, once they were seen to be usable."""
    files = {name: options[name] for name in _TLS_OPTIONS if name in options}
    context = ssl.create_default_context()
    try:
        if "ssl_ca_certs" in files:
            context.load_verify_locations(files["ssl_ca_certs"])
    except (OSError, ValueError):
        raise _error("names a file as ssl_ca_certs that holds no readable certificates") from None
    if ("ssl_certfile" in files) != ("ssl_keyfile" in files):
        raise _error("must name both ssl_certfile and ssl_keyfile, or neither")
    try:
        if "ssl_certfile" in files:
            # A key that is locked would otherwise be asked for on the terminal.
            context.load_cert_chain(files["ssl_certfile"], files["ssl_keyfile"], password="")
    except (OSError, ValueError):
        raise _error("names ssl_certfile and ssl_keyfile, which are no readable pair") from None
    return files


def _error(sentence: str) -> ConfigError:
    return ConfigError(sentence, where=WHERE)
