"""The error tree. A class exists where a caller does something different.

    SvsyncError                     one sentence, one code; the CLI and the API print it
    ├── UsageError                  wrong arguments                          exit 2
    ├── ConfigError                 file, environment, mapping               exit 2
    │   └── MappingError            a rule that cannot be configured
    ├── NotFoundError               no such secret, backend, run             exit 1
    ├── UndecodableError            one value that cannot be taken in: skipped   exit 1
    ├── VersionConflictError        a compare-and-set that did not match     exit 1
    ├── ConflictChangedError        not the conflict that was looked at      exit 1
    ├── WriteOutcomeUnknownError    a write without an answer: asked for later   exit 1
    ├── BackendBusyError            somebody else runs this backend          exit 75
    ├── BackendError                the remote store, as a whole
    │   ├── BackendUnreachableError no connection, no answer, 5xx: retried   exit 3
    │   │   └── BackendTimeoutError no answer as long as somebody would wait for it
    │   ├── ThrottledError          429 and its kin: retried after a pause; a spent call
    │   │                           budget is a kind of it, and never retried
    │   ├── LoginError              credentials refused: never retried       exit 1
    │   ├── DeniedError             403 on one operation: never retried
    │   ├── ProtocolError           an answer that is not this API's         exit 1
    │   └── ListingError            a listing that failed or does not end    exit 1
    ├── GuardError                  a guard stopped the run                  exit 1
    ├── StoreError                  Postgres                                 exit 1
    │   ├── StoreUnavailableError   no connection: pause, then go on
    │   ├── SchemaError             too new, too old, or a role that may not
    │   └── FenceLostError          the run is somebody else's now: stop writing
    ├── KeyServiceError             no key, wrong key, a value that does not open
    ├── AnchorError                 a place outside took no checkpoint: tried again
    └── SetupError                  state folder, embedded servers, disk     exit 1

A message is composed from codes and names, never from a remote's response
text: it may hold a token or a value. The class docstring is the sentence's
pattern where a class has only one.
"""

from collections.abc import Mapping
from datetime import datetime


class SvsyncError(Exception):
    """Something went wrong; `code` is from the closed, published list."""

    code = "internal"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code


class UsageError(SvsyncError):
    """The command line asks for something that does not exist."""

    code = "usage"


class ConfigError(SvsyncError):
    """A file, variable or setting that cannot be used.

    `where` names it as a person finds it: `svsync.yaml:12: backends[0].config.endpoint`.
    """

    code = "invalid_configuration"

    def __init__(self, message: str, *, where: str = "", code: str | None = None) -> None:
        super().__init__(f"{where}: {message}" if where else message, code=code)
        self.where = where


class MappingError(ConfigError):
    """A mapping rule that cannot be inverted, or that another one contradicts."""

    code = "invalid_mapping"


class NotFoundError(SvsyncError):
    """There is no such thing, or the caller may not know of it."""

    code = "not_found"


class UndecodableError(SvsyncError):
    """One value cannot be taken in; its secret is skipped, the others go on.

    `code` is a published skip reason: `undecodable` or `too_deep`.
    """

    code = "undecodable"


class VersionConflictError(SvsyncError):
    """The secret is at another version than the caller expected."""

    code = "version_conflict"


class ConflictChangedError(SvsyncError):
    """A side of the conflict moved since somebody looked at it.

    `conflict` is how it stands now, as `conflicts list` gives it; no value is in it.
    """

    code = "conflict_changed"

    def __init__(self, message: str, *, conflict: Mapping[str, object]) -> None:
        super().__init__(message)
        self.conflict = dict(conflict)


class WriteOutcomeUnknownError(SvsyncError):
    """A write went out and was not answered; what became of it is found out later."""

    code = "write_outcome_unknown"

    def __init__(self, message: str, *, push_id: str) -> None:
        super().__init__(message)
        self.push_id = push_id


class BackendBusyError(SvsyncError):
    """Somebody else is running this backend now."""

    code = "backend_busy"

    def __init__(self, message: str, *, holder: str, expires_at: datetime | None) -> None:
        super().__init__(message)
        self.holder = holder
        self.expires_at = expires_at


class BackendError(SvsyncError):
    """The remote store did not do what was asked.

    Attributes:
        operation: list, metadata, read, write, delete, login or connect.
        path: the remote path asked for, where there was one.
        status: the HTTP status, where there was one.
        retry_after: seconds the backend asked us to wait, where it did.
        sent: the request may have reached the backend, so a write may have been
            made; False where nothing left this process, or it was turned away.
    """

    code = "backend_error"

    def __init__(
        self,
        message: str,
        *,
        operation: str,
        path: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
        code: str | None = None,
        sent: bool = True,
    ) -> None:
        super().__init__(message, code=code)
        self.operation = operation
        self.path = path
        self.status = status
        self.retry_after = retry_after
        self.sent = sent


class BackendUnreachableError(BackendError):
    """No connection, no answer in time, or a server-side failure."""

    code = "backend_unreachable"


class BackendTimeoutError(BackendUnreachableError):
    """Whoever asked waits no longer for the backend's answer."""


class ThrottledError(BackendError):
    """The backend asks us to slow down."""

    code = "throttled"


class LoginError(BackendError):
    """The backend refused our credentials."""

    code = "login_failed"


class DeniedError(BackendError):
    """The backend refused this operation with the credentials it accepted."""

    code = "backend_denied"


class ProtocolError(BackendError):
    """The endpoint answers, but not as this kind of backend does."""

    code = "protocol_error"


class ListingError(BackendError):
    """The listing failed as a whole, or does not end (`listing_unbounded`)."""

    code = "listing_failed"


class GuardError(SvsyncError):
    """A guard stopped the run before its first write.

    `plan` holds the numbers that made it stop, for the report.
    """

    code = "guard"

    def __init__(self, message: str, *, code: str, plan: Mapping[str, int | float]) -> None:
        super().__init__(message, code=code)
        self.plan = dict(plan)


class StoreError(SvsyncError):
    """Postgres refused or failed a statement."""

    code = "store_error"


class StoreUnavailableError(StoreError):
    """Postgres cannot be reached."""

    code = "store_unavailable"


class SchemaError(StoreError):
    """The database and this program do not fit together."""

    code = "schema_mismatch"


class FenceLostError(StoreError):
    """The lease changed hands or the backend was reconfigured; the run is over."""

    code = "fence_lost"


class HandedOverError(SvsyncError):
    """This process is to end: the run waits again, and another worker goes on with it."""

    code = "handed_over"


class KeyServiceError(SvsyncError):
    """A key cannot be had, or a sealed value does not open with it."""

    code = "key_unavailable"

    @property
    def may_pass(self) -> bool:
        """The root key is out of reach, and with it everything: it says nothing of the value."""
        return self.code == "root_key_unavailable"


class KeyServiceAwayError(KeyServiceError):
    """A key service does not answer; whether it would open the key is not known."""


class AnchorError(SvsyncError):
    """A place outside did not take a checkpoint of the audit log, or nobody knows."""

    code = "anchor_failed"


class SetupError(SvsyncError):
    """This machine lacks something: a writable folder, a server, disk space."""

    code = "setup"
