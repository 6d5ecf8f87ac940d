"""Webhooks without the network: what an endpoint asked for, how a message is signed, and
when what failed is tried again.

Signatures follow the Standard Webhooks specification: `webhook-signature` holds, for each
valid secret, `v1,` and the base64 of HMAC-SHA256 over `webhook-id.webhook-timestamp.body`.
"""

import base64
import binascii
import difflib
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from svsync.domain.errors import ConfigError
from svsync.domain.globs import Glob
from svsync.domain.ids import EndpointId
from svsync.domain.patterns import Pattern, PatternError

SECRET_PREFIX: Final = "whsec_"
SECRET_BYTES: Final = 32
LEAST_SECRET_BYTES: Final = 24

GIVE_UP_S: Final = 24 * 3600.0
"""For so long a delivery is tried."""
OVERLAP_S: Final = 24 * 3600.0
"""For so long after a rotation the secret before it signs as well."""
LONGEST_RETRY_AFTER_S: Final = 3600.0
OUTAGE_AFTER: Final = 3
"""Failures in a row after which an endpoint counts as down."""

MAX_PATTERNS: Final = 100

_FIRST_DELAY_S: Final = 5.0
_LONGEST_DELAY_S: Final = 3600.0
_LONGEST_HOLD_S: Final = 60.0


class EventType(StrEnum):
    """What svsync tells of."""

    COMPLETED = "federation.sync.completed"
    FAILED = "federation.sync.failed"
    UNREACHABLE = "federation.backend.unreachable"
    RECOVERED = "federation.backend.recovered"
    STALE = "federation.backend.stale"
    CONFLICT_DETECTED = "federation.conflict.detected"
    CONFLICT_RESOLVED = "federation.conflict.resolved"
    SECRET_CHANGED = "federation.secret.changed"


NAMING: Final = frozenset(
    {EventType.SECRET_CHANGED, EventType.CONFLICT_DETECTED, EventType.CONFLICT_RESOLVED}
)
"""Those that name secrets."""

TEST_TYPE: Final = "federation.webhook.test"
"""Sent when a person asks for it, to any endpoint; nobody subscribes to it."""


class Failure(StrEnum):
    """Why a delivery did not arrive; published as `error_code`."""

    REFUSED = "refused"
    RECEIVER_FAILED = "receiver_failed"
    REDIRECTED = "redirected"
    GONE = "gone"
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    CONNECTION_LOST = "connection_lost"
    NAME_NOT_FOUND = "name_not_found"
    TLS_FAILED = "tls_failed"
    TARGET_REFUSED = "target_refused"
    ENDPOINT_DISABLED = "endpoint_disabled"
    EXPIRED = "expired"


_CHANGES: Final = ("created", "updated", "pushed", "deleted", "conflicts")


# --- what an endpoint asked for ---------------------------------------------------


@dataclass(frozen=True, slots=True)
class Subscription:
    """Which events go to an endpoint.

    Attributes:
        types: none: all of them.
        path_patterns: local paths, as globs; none: all. Of what names paths only those
            that match are told; what names none is told in any case.
        only_if_changed: of cycles that completed only those that changed something.
    """

    types: tuple[str, ...] = ()
    path_patterns: tuple[str, ...] = ()
    only_if_changed: bool = False

    def check(self) -> None:
        """Raises ConfigError, naming the field: no such type, no pattern, or too many."""
        known = [str(kind) for kind in EventType]
        for n, kind in enumerate(self.types):
            if kind not in known:
                near = difflib.get_close_matches(kind, known, n=1)
                meant = f"the nearest is {near[0]}" if near else f"there are {', '.join(known)}"
                raise ConfigError(f"there is no such event type, {meant}", where=f"types[{n}]")
        if len(self.path_patterns) > MAX_PATTERNS:
            raise ConfigError(f"holds {MAX_PATTERNS} patterns at most", where="path_patterns")
        for n, pattern in enumerate(self.path_patterns):
            try:
                Pattern.parse(pattern)
            except PatternError as problem:
                raise ConfigError(str(problem), where=f"path_patterns[{n}]") from None


@dataclass(frozen=True, slots=True)
class Wanted:
    """An event goes to an endpoint. `payload` is the part of its data that was asked for, as
    JSON text; None: all of it."""

    payload: str | None = None


def wanted_by(wants: Subscription) -> Callable[[str, str], Wanted | None]:
    """What becomes of an event of a type and with a payload (JSON text); None: it is not
    wanted. The patterns are compiled once, and a payload is read only where it decides."""
    globs = [Glob(text) for text in wants.path_patterns]

    def judge(kind: str, payload: str) -> Wanted | None:
        if wants.types and kind not in wants.types:
            return None
        if kind == EventType.COMPLETED and wants.only_if_changed:
            counts = json.loads(payload)["counts"]
            return Wanted() if any(counts.get(name) for name in _CHANGES) else None
        return _of_paths(globs, payload) if globs else Wanted()

    return judge


def _of_paths(globs: Sequence[Glob], payload: str) -> Wanted | None:
    def matches(path: str) -> bool:
        return any(glob(path) for glob in globs)

    data: dict[str, Any] = json.loads(payload)
    if "path" in data:
        return Wanted() if matches(data["path"]) else None
    if "secrets" not in data:
        return Wanted()
    left = [secret for secret in data["secrets"] if matches(secret["path"])]
    if len(left) == len(data["secrets"]):
        return Wanted()
    return Wanted(json.dumps({**data, "secrets": left}, ensure_ascii=False)) if left else None


# --- signing ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SigningSecrets:
    """The secret of an endpoint, and the one before it while both are valid."""

    current: str = field(repr=False)
    previous: str | None = field(default=None, repr=False)

    def to_bytes(self) -> bytes:
        """As they are sealed."""
        return json.dumps([self.current, self.previous]).encode()

    @classmethod
    def from_bytes(cls, text: bytes) -> "SigningSecrets":
        return cls(*json.loads(text))

    def rotated(self, new: str, *, keep: bool) -> "SigningSecrets":
        """`new` is the current one; the one that was is valid beside it, if `keep`."""
        return SigningSecrets(new, self.current if keep else None)


def make_secret(entropy: Callable[[int], bytes]) -> str:
    """A signing secret of 32 bytes."""
    return SECRET_PREFIX + base64.b64encode(entropy(SECRET_BYTES)).decode()


def key_of(secret: str) -> bytes:
    """The key that a secret's text stands for.

    Raises ConfigError for a text that is no secret, or a short one, without quoting it.
    """
    try:
        if not secret.startswith(SECRET_PREFIX):
            raise ValueError
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ConfigError(f"is not {SECRET_PREFIX} with base64 behind it", where="secret") from None
    if len(key) < LEAST_SECRET_BYTES:
        raise ConfigError(f"has fewer than {LEAST_SECRET_BYTES} bytes", where="secret")
    return key


def message_id(event: str, endpoint: EndpointId) -> str:
    """`webhook-id` of an event for an endpoint: the same however often it is sent, and another
    for each endpoint, since two of them may lead to one receiver and say different things."""
    return f"{event}_{endpoint.rpartition('_')[2]}"


def body_of(kind: str, moment: datetime, payload: str) -> bytes:
    """The body of a message; `payload` is JSON text already."""
    told = moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return f'{{"type": {json.dumps(kind)}, "timestamp": "{told}", "data": {payload}}}'.encode()


def signed_headers(
    message: str, timestamp: int, body: bytes, secrets: Sequence[str]
) -> Mapping[str, str]:
    """The three headers of a message sent at `timestamp` (Unix seconds), signed with each of
    the secrets."""
    content = f"{message}.{timestamp}.".encode() + body
    signatures = (hmac.digest(key_of(secret), content, hashlib.sha256) for secret in secrets)
    return {
        "webhook-id": message,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(
            f"v1,{base64.b64encode(signature).decode()}" for signature in signatures
        ),
    }


# --- what a receiver answered -----------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """How one attempt ended.

    Attributes:
        status: the HTTP status, where there was one.
        error: None where the receiver took it.
        retry_after: seconds that the receiver asked us to wait.
    """

    status: int | None
    error: Failure | None
    retry_after: float | None = None

    @property
    def gone(self) -> bool:
        """The receiver wants nothing any more."""
        return self.status == 410


def answer_of(status: int, retry_after: float | None = None) -> Answer:
    """What a status means. Only 2xx is a delivery; a redirect is not followed."""
    if 200 <= status < 300:
        return Answer(status, None)
    if status == 410:
        return Answer(status, Failure.GONE)
    if 300 <= status < 400:
        return Answer(status, Failure.REDIRECTED)
    failure = Failure.REFUSED if status < 500 else Failure.RECEIVER_FAILED
    return Answer(status, failure, retry_after)


def retry_delay(failures: int, jitter: float, retry_after: float | None = None) -> float:
    """Seconds until a delivery that failed so often is tried again.

    5 s, doubled with each failure, an hour at most. `jitter`, from 0 up to 1, shortens this
    by up to a fifth, so that what failed together is not tried together. A receiver may ask
    for more, up to an hour.
    """
    delay = min(_FIRST_DELAY_S * 2.0 ** min(failures - 1, 20), _LONGEST_DELAY_S)
    return max(delay * (1 - jitter / 5), min(retry_after or 0.0, LONGEST_RETRY_AFTER_S))


def hold_time(failures: int, retry_after: float | None = None) -> float | None:
    """Seconds for which an endpoint is left alone whose deliveries failed so often in a row.

    None below three: it may have been the one message. Then a second, doubled, a minute at
    most. What a receiver that is asked too much, or is being repaired, asks for itself (429
    and 503 have `Retry-After`) holds for all of its deliveries.
    """
    asked = min(retry_after, LONGEST_RETRY_AFTER_S) if retry_after else 0.0
    if failures < OUTAGE_AFTER:
        return asked or None
    return max(min(2.0 ** min(failures - OUTAGE_AFTER, 20), _LONGEST_HOLD_S), asked)
