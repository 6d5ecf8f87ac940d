"""The secrets of the demo's imaginary shop: the same in every run, and nobody's.

They look as such secrets look, and are made when they are needed, by hashing their
names: there is no password in this file.
"""

import base64
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

Data = dict[str, object]
Maker = Callable[[str], Data]

SERVICES: Final = (
    "orders", "billing", "search", "identity", "inventory", "mail", "shipping", "reports",
)  # fmt: skip
ENVIRONMENTS: Final = ("prod", "staging", "dev")
_VENDORS: Final = ("maps", "sms", "tax", "geo", "crm", "analytics", "cdn", "translate")
_PROVIDERS: Final = ("northpay", "cardia", "swiftly", "eurogate", "paylane")
_BANKS: Final = ("first-national", "harbour", "alpine", "union", "meridian", "coastal")
_APPS: Final = (
    "intranet", "wiki", "helpdesk", "payroll", "fax", "archive", "forum", "survey", "crm", "erp",
)  # fmt: skip
_DENIED_FOLDER: Final = "security/breakglass"
_DENIED: Final = ("root-account", "dns-registrar", "cloud-owner", "hsm-officer", "vpn", "safe")
_ILLEGAL: Final = ("databases/prod/orders (old)", "tls/*.shop.example")
_BODY: Final = 64


@dataclass(frozen=True, slots=True)
class DemoSecret:
    """One secret as it stands in OpenBao before the demo begins.

    Attributes:
        path: below its mount.
        versions: its values, oldest first.
        denied: lies in the folder that svsync may not read.
        illegal: has a name that no local path can have.
    """

    path: str
    versions: tuple[Data, ...]
    tags: Mapping[str, str]
    denied: bool = False
    illegal: bool = False

    @property
    def carried(self) -> bool:
        """Whether svsync should carry it over."""
        return not (self.denied or self.illegal)


def platform() -> list[DemoSecret]:
    """Databases, caches, queues, keys, certificates: KV version 2."""
    made = []
    for env in ENVIRONMENTS:
        for service in SERVICES:
            tags = {"env": env, "service": service}
            rotated = 3 if env == "prod" else 1
            made.append(_secret("platform", f"databases/{env}/{service}", database, tags, rotated))
            made.append(_secret("platform", f"caches/{env}/{service}", _cache, tags))
            made.append(_secret("platform", f"queues/{env}/{service}", _queue, {}))
        for vendor in _VENDORS:
            path = f"api-keys/{vendor}/{env}"
            made.append(_secret("platform", path, _api_key, {"env": env, "vendor": vendor}))
    for service in SERVICES:
        for number in (1, 2):
            path = f"tls/{service}-{number}.shop.example"
            made.append(_secret("platform", path, _certificate, {"renew": "yearly"}))
        made.append(_secret("platform", f"tokens/ci/{service}", _token, {}))
        made.append(_secret("platform", f"tokens/deploy/{service}", _token, {"owner": "sre"}))
    for service in SERVICES[:4]:
        made.append(_secret("platform", f"keystores/{service}", _keystore, {"format": "pkcs12"}))
    for name in _DENIED:
        made.append(_secret("platform", f"{_DENIED_FOLDER}/{name}", _token, {}, denied=True))
    for path in _ILLEGAL:
        made.append(_secret("platform", path, database, {}, illegal=True))
    return made


def payments() -> list[DemoSecret]:
    """What the payments team keeps for itself: KV version 2."""
    made = []
    for env in ENVIRONMENTS:
        for provider in _PROVIDERS:
            tags = {"env": env, "pci": "yes"}
            folder = f"gateways/{provider}/{env}"
            made.append(_secret("payments", f"{folder}/api-key", _api_key, tags, 2))
            made.append(_secret("payments", f"{folder}/webhook", _token, tags))
            made.append(_secret("payments", f"{folder}/merchant", database, tags))
        for model in ("cards", "logins", "refunds", "velocity"):
            made.append(_secret("payments", f"fraud/{model}/{env}", _api_key, {"env": env}))
        for ledger in ("accounts", "journal", "settlement"):
            made.append(_secret("payments", f"ledger/{env}/{ledger}", database, {"env": env}))
    for bank in _BANKS:
        for kind in ("sftp", "signing", "statement"):
            made.append(_secret("payments", f"banks/{bank}/{kind}", _token, {"pci": "yes"}))
        made.append(_secret("payments", f"banks/{bank}/client-cert", _certificate, {}))
    for number in range(8):
        made.append(_secret("payments", f"hsm/partition-{number}", _token, {"pci": "yes"}))
    return made


def legacy() -> list[DemoSecret]:
    """What nobody has moved yet: KV version 1, without versions and tags."""
    made = []
    for app in _APPS:
        for kind, make in (("db", database), ("smtp", _cache), ("ldap", _queue), ("api", _token)):
            made.append(_secret("legacy", f"apps/{app}/{kind}", make, {}))
    for number in range(20):
        made.append(_secret("legacy", f"jobs/nightly-{number:02d}", _token, {}))
    return made


def shared() -> list[DemoSecret]:
    """What is kept in OpenBao and changed from both sides: KV version 2."""
    names = ("checkout", "search", "newsletter", "returns", "loyalty", "catalog")
    return [_secret("shared", f"{name}/db", database, {"env": "prod"}) for name in names]


def arrivals(count: int) -> list[DemoSecret]:
    """Keys of new customers, who all arrive on one day."""
    regions = ("eu-west", "us-east", "ap-south", "sa-east")
    return [
        _secret("platform", f"customers/{regions[n % 4]}/customer-{n:04d}", _token, {})
        for n in range(count)
    ]


def database(name: str) -> Data:
    """A login at a database, another one for each `name`."""
    service = name.rpartition("/")[2].partition("#")[0].replace(" ", "-")
    host = f"{service}.db.shop.example"
    return {"host": host, "port": 5432, "username": service, "password": _random(name, 40)}


def needle(data: Mapping[str, object]) -> str:
    """The part of a value that can be nothing else: its longest line."""
    lines = (line for text in data.values() for line in str(text).splitlines())
    return max(lines, key=len)


# --- what values look like --------------------------------------------------------


def _cache(name: str) -> Data:
    return {"url": "rediss://cache.shop.example:6380/0", "auth": _random(name, 44)}


def _queue(name: str) -> Data:
    return {"vhost": "/shop", "user": "worker", "pass": _random(name, 36)}


def _api_key(name: str) -> Data:
    return {"key_id": _random(f"{name} id", 12), "key": _random(name, 48)}


def _token(name: str) -> Data:
    return {"token": _random(name, 52)}


def _certificate(name: str) -> Data:
    return {
        "certificate": _pem("CERTIFICATE", f"{name} public", 12),
        "private_key": _pem("PRIVATE KEY", f"{name} private", 4),
    }


def _keystore(name: str) -> Data:
    """Bytes, as a KV store holds them: base64 in JSON."""
    return {"value_base64": base64.b64encode(_bytes(name, 1500)).decode()}


def _pem(label: str, name: str, lines: int) -> str:
    body = _random(name, lines * _BODY)
    rows = [body[at : at + _BODY] for at in range(0, len(body), _BODY)]
    return "\n".join([f"-----BEGIN {label}-----", *rows, f"-----END {label}-----", ""])


def _secret(
    mount: str,
    path: str,
    make: Maker,
    tags: Mapping[str, str],
    versions: int = 1,
    *,
    denied: bool = False,
    illegal: bool = False,
) -> DemoSecret:
    values = tuple(make(f"{mount}/{path}#{n}") for n in range(1, versions + 1))
    return DemoSecret(path, values, tags, denied=denied, illegal=illegal)


def _random(name: str, length: int) -> str:
    """Letters and digits that follow from the name alone."""
    text = base64.b64encode(_bytes(name, length * 2), altchars=b"xy").decode()
    return text.rstrip("=")[:length]


def _bytes(name: str, length: int) -> bytes:
    return b"".join(_blocks(name, -(-length // 32)))[:length]


def _blocks(name: str, count: int) -> Iterator[bytes]:
    return (hashlib.sha256(f"svsync demo {name} {n}".encode()).digest() for n in range(count))


def total_versions(secrets: Sequence[DemoSecret]) -> int:
    return sum(len(secret.versions) for secret in secrets)
