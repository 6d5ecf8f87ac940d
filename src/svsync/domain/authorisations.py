"""What somebody allowed a backend of the API to be used for: one credential, sent to one
endpoint, for one mapping.

Whoever makes a backend is asked for the right to use its credential and to write where its
mapping writes. What they were asked about is remembered, and compared each time that the
backend is opened, so that no later change makes their right serve something else.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from svsync.domain.federation import BackendSpec

ENDPOINTS_FIELD: Final = "svsync_endpoints"
"""Field of a credential's custom metadata: the only origins to which it may be sent."""
_CREDENTIALS: Final = ("auth_config_path", "credentials_path")
_ENDPOINTS: Final = ("endpoint", "endpoint_url", "vault_url")
_PORTS: Final = {"https": 443, "http": 80}
_RULE: Final = ("local", "remote", "exclude", "separator", "escape")


@dataclass(frozen=True, slots=True)
class Authorised:
    """What is bound.

    Attributes:
        credential: the path of the credential; empty: it has none of its own.
        origin: scheme, host and port of the endpoint; empty: that of its type.
        mapping: hash of the type, its configuration, the rules and the filters.
    """

    credential: str
    origin: str
    mapping: str


def authorised_of(spec: BackendSpec) -> Authorised:
    """What a backend's configuration has to be authorised for."""
    rules = [[asdict(rule)[name] for name in _RULE] for rule in spec.rules]
    about = [spec.type, dict(spec.config), rules, dict(spec.filters)]
    text = json.dumps(about, sort_keys=True, ensure_ascii=True)
    mapping = "1:" + hashlib.sha256(text.encode()).hexdigest()
    return Authorised(_first(spec, _CREDENTIALS), origin_of(_first(spec, _ENDPOINTS)), mapping)


def _first(spec: BackendSpec, names: tuple[str, ...]) -> str:
    given = (spec.config.get(name) for name in names)
    return next((value for value in given if isinstance(value, str) and value), "")


def origin_of(url: str) -> str:
    """Scheme, host and port of a URL, written in one way; empty where it has none."""
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname, parts.port
    except ValueError:
        return ""
    if parts.scheme not in _PORTS or not host:
        return ""
    named = f"[{host}]" if ":" in host else host.rstrip(".")
    return f"{parts.scheme}://{named}:{port or _PORTS[parts.scheme]}"


def may_be_sent(custom: Mapping[str, Any], origin: str) -> bool:
    """May a credential with this custom metadata be sent to an origin?

    Without the field it may be sent anywhere. With it, only where it says: text with origins
    between blanks or commas, or a list of them. What cannot be read there allows nothing.
    """
    if ENDPOINTS_FIELD not in custom:
        return True
    given = custom[ENDPOINTS_FIELD]
    if isinstance(given, str):
        given = re.split(r"[\s,]+", given.strip())
    if not isinstance(given, list):
        return False
    allowed = {origin_of(item) for item in given if isinstance(item, str)}
    return bool(origin) and origin in allowed
