"""The protocols between svsync and what it talks to, on one page.

Who retries: only the `CallGuard`, which every backend is handed. A backend, a
client and a key service make each call once. What an error means is written
where it is raised; what is said here is tested, sentence by sentence, by
`svsync.testing.conformance`.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, Protocol, TypeVar, runtime_checkable

from svsync.domain import quotas
from svsync.domain.changes import (
    Entry,
    Folder,
    HistoricVersion,
    ListingPage,
    RemoteRead,
    Tags,
)
from svsync.domain.costs import Terms
from svsync.domain.federation import BackendSpec
from svsync.domain.ids import RemotePath, TenantId
from svsync.domain.inventory import SurveyPage
from svsync.domain.pushes import Landed, Ready, Refused, RemoteWrite
from svsync.domain.readers import LogBlock, Login
from svsync.domain.retirement import Deletion
from svsync.domain.values import Credential

T = TypeVar("T")
Operation = quotas.Operation
_UNTOLD: Final = Terms()


@dataclass(frozen=True, slots=True)
class Features:
    """What a backend can do; declared, never sniffed.

    Attributes:
        batch_read: paths per `read` call; 1 where there is no batch read.
        history: earlier versions can be read.
        history_by_default: they are imported where the configuration does not say.
        ordered_tokens: `Entry.order` is told, so a rollback shows.
        compare_and_set: a write can be made conditional.
        json_doubles: numbers are kept as doubles, so a value whose numbers would come
            back as others is not written (`number_would_change`).
        tags: names have key/value pairs beside their value.
        tags_apart: a change of tags alone leaves the value token.
        push_interval_s: runs write one name no more often than this; 0: as they like.
        consistency_window_s: for so long after a change an answer may be one from before
            it; a backend's own `consistency_window` counts in its place.
        folders: listing goes folder by folder, with an outcome for each.
        segment: characters a path segment may hold, as a regular expression.
        separator: the character between segments, or None for a flat store
            whose names hold no `/`.
        max_name: longest remote path in bytes.
        max_value: largest value in bytes.
        case_sensitive: names that differ in case only are two names.
        terms: the provider's quotas and prices (`domain.published` has those known).
    """

    batch_read: int = 1
    history: bool = False
    history_by_default: bool = True
    ordered_tokens: bool = False
    compare_and_set: bool = False
    json_doubles: bool = False
    tags: bool = False
    tags_apart: bool = True
    push_interval_s: float = 0.0
    consistency_window_s: float = 0.0
    folders: bool = False
    segment: str = r"[^/\x00-\x1f\x7f\\]+"
    separator: str | None = "/"
    max_name: int = 4096
    max_value: int = 1024 * 1024
    case_sensitive: bool = True
    terms: Terms = _UNTOLD


@dataclass(frozen=True, slots=True)
class Check:
    """One permission or condition that a connection test looked at.

    `state` is granted, missing_optional or missing; `hint` is the policy line
    or setting that would grant it, empty when granted.
    """

    name: str
    state: Literal["granted", "missing_optional", "missing"]
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Connection:
    """What a connection test found.

    `identity` names the store behind the endpoint (Vault cluster id, AWS
    account, Azure vault, GCP project number): another one later fails the run.
    `status` is healthy, degraded (part of the mapping is denied), denied.
    """

    identity: str
    status: Literal["healthy", "degraded", "denied"]
    version: str = ""
    latency_ms: float = 0.0
    checks: tuple[Check, ...] = ()
    warnings: tuple[str, ...] = ()


class CallGuard(Protocol):
    """Limits, retries and counts of one backend's outgoing calls."""

    async def call(self, operation: Operation, attempt: Callable[[], Awaitable[T]]) -> T:
        """Run `attempt` under this operation's limits, and count each try.

        Retries BackendUnreachableError and ThrottledError with full jitter and
        the backend's own Retry-After; nothing else, and never without end.
        `attempt` must be safe to run again: a write passes through only once.
        """
        ...


class Backend(Protocol):
    """One remote store, already signed in or able to sign in by itself.

    Every method raises BackendError and its kin for what concerns the backend
    as a whole (unreachable, login refused, not this API); what concerns one
    secret comes back as a value. CancelledError passes through; a cancelled
    read has no effect.
    """

    @property
    def features(self) -> Features: ...

    async def connect(self, prefixes: Sequence[str], *, probe: bool = True) -> Connection:
        """Sign in and look: identity, permissions below the rules' prefixes; those to write too,
        where local writes go through, as far as they can be told without writing.

        Without `probe`, as a run does it, no permission is tried and `checks` is
        empty: what is denied shows where it is used. No value is read for it.
        """
        ...

    def list_entries(self, prefixes: Sequence[str], *, tokens: bool) -> AsyncGenerator[ListingPage]:
        """All entries below the literal prefixes, page by page, in no order.

        No name is given twice. Each folder visited ends in exactly one Scope; a
        folder that is missing ends `failed` below a prefix and `complete` at a
        prefix whose store the backend confirms. With `tokens` false a backend
        that would need one call an entry for them may leave them None (a first
        sync reads every value anyway). Closing the generator ends its calls.
        """
        ...

    async def list_folder(self, folder: str) -> Folder:
        """What stands directly in a folder (ends with `/`; empty: of a store without folders,
        the whole). Its entries need not have tokens. One that is not there is empty.
        """
        ...

    async def look_up(self, path: RemotePath) -> Entry | RemoteRead:
        """Ask for one name, without its value where the backend can.

        Entry: it is there (or its `gone` says not). RemoteGone: the backend
        says that it is not. RemoteUnknown: denied or unreadable.
        """
        ...

    async def read(self, paths: Sequence[RemotePath]) -> Sequence[RemoteRead]:
        """Point reads, one answer a path, in order; at most `batch_read` paths.

        Value and tokens of one answer are of one moment. A batch may leave tags out
        (None): those that the listing told beside the same value token count then.
        """
        ...

    async def read_history(
        self, path: RemotePath, *, above: int, below: int, limit: int
    ) -> Sequence[HistoricVersion]:
        """Readable versions with above < number < below, oldest first.

        At most the `limit` newest of them. Deleted ones are left out.
        """
        ...

    async def check(self, order: RemoteWrite) -> Ready | Refused:
        """Does the expected state still stand? Reads only, and is not counted as a write.

        Refused `remote_changed` where another value token stands; with a skip reason
        where such a write cannot be made at all (`denied`, `value_too_large`,
        `name_not_allowed`, `delete_not_recoverable`, `blind_push`).
        """
        ...

    async def write(self, order: RemoteWrite, ready: Ready, tags: Tags | None) -> Landed | Refused:
        """Write the value, or delete it recoverably, and then set the raw pairs.

        One call, never repeated, on the condition of `ready`; `tags` (all the pairs
        the name is to hold, None to leave them) may take a second one, whose failure
        does not undo the first. Refused: surely nothing was written. An error with
        `sent` true leaves open whether it was; so does being cancelled.
        """
        ...

    async def find_delete(self, order: RemoteWrite) -> Landed | Refused | None:
        """What became of a delete whose answer was lost, where something newer stands?

        Landed: the version that it expected was deleted before the next one was made.
        Refused: it was not; where it was deleted later, that is undone, as `write` does.
        None: the store does not tell. Raises with `sent` true where undoing is left open.
        """
        ...

    async def aclose(self) -> None:
        """Revoke the login where that is possible, and close connections."""
        ...


@runtime_checkable
class SurveyableBackend(Backend, Protocol):
    """A backend that tells more of what it holds than a listing does, for who moves off it."""

    @property
    def tells_reads(self) -> bool:
        """A survey tells on which day each secret was last read."""
        ...

    def survey(self) -> AsyncGenerator[SurveyPage]:
        """All that the login sees, whatever the rules say, page by page. No value is read."""
        ...

    async def own_login(self) -> Login | None:
        """Who we are in the store's own log; None: nobody tells."""
        ...

    async def deletion(self, path: RemotePath) -> Deletion | None:
        """How a person deletes a secret there, recoverably where the store can; nothing is
        changed by asking. None: this login cannot tell."""
        ...


class AccessLog(Protocol):
    """The log in which a type of backend tells who read what; read once, to its end."""

    @property
    def kind(self) -> str:
        """The type of backend whose log it is."""
        ...

    def blocks(self) -> Iterator[LogBlock]:
        """Raises UsageError for what is no such log."""
        ...


class CredentialSource(Protocol):
    """Where a backend's credential comes from; asked again at each login."""

    async def __call__(self) -> Credential: ...


class Attestor(Protocol):
    """Proves to somebody else who svsync is in a cloud."""

    async def attest(self, role: str, credential: Credential | None) -> Credential:
        """A proof for one login as `role`, good for minutes: the fields that the login takes.

        Made with a credential, or as this process's own identity where that is None.

        Raises:
            ConfigError: the credential is none that can sign.
            LoginError: this process has no identity, or it may not sign.
            BackendUnreachableError: whoever tells or signs it does not answer.
        """
        ...


class BackendDriver(Protocol):
    """A type of backend: checks its own configuration and opens one."""

    features: Features

    def check_config(self, spec: BackendSpec) -> None:
        """Raise ConfigError for a key, value or rule this type cannot use."""
        ...

    def open(
        self, spec: BackendSpec, credential: CredentialSource, guard: CallGuard
    ) -> AbstractAsyncContextManager[Backend]:
        """A backend that is closed (login revoked) when the block ends."""
        ...


class KeyService(Protocol):
    """Wraps and unwraps the root key; holds a key that never leaves it."""

    @property
    def reference(self) -> str:
        """Names provider and key (`local:/var/lib/svsync/kms.key`), no secret."""
        ...

    async def wrap(self, plaintext: bytes, context: Mapping[str, str]) -> bytes:
        """Seal a 32-byte key; `context` is bound and must be given again."""
        ...

    async def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        """The key again. Raises KeyServiceError when it does not open."""
        ...


@dataclass(frozen=True, slots=True)
class KeyServices:
    """What wraps the root key. One of the two may be missing, with the reason among
    `problems`; svsync goes on by the other and says so."""

    primary: KeyService | None
    secondary: KeyService | None = None
    problems: tuple[str, ...] = ()


# --- between processes --------------------------------------------------------------


class Waker(Protocol):
    """One listener's ear on a topic."""

    async def wait(self, seconds: float) -> bool:
        """Until somebody woke the topic (True), or so many seconds passed (False).

        A wake-up that came since the last wait, or since listening began, counts.
        """
        ...


class Signals(Protocol):
    """Hints between the processes of one installation.

    Never truth: any of them may be lost at any time, and nothing but latency, or a
    rate limit that is divided instead of shared, may depend on it. No method raises
    because the other side is away.
    """

    @property
    def shared(self) -> bool:
        """Do other processes hear now? False also where there is nobody to ask."""
        ...

    async def wake(self, topic: str) -> None:
        """Wake every listener of a topic, in this process at once."""
        ...

    def listen(self, topic: str) -> AbstractContextManager[Waker]: ...

    async def turn(self, key: str, per_second: float) -> float:
        """Take the next turn of a rate that all processes share; seconds until it is due.

        Exact where processes are joined; else each takes its part of `per_second`, by
        the number last given to `divide_by`.
        """
        ...

    def divide_by(self, replicas: int) -> None:
        """How many processes are up, this one included."""
        ...


# --- change feeds -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Notice:
    """A backend's own word that something changed: a hint, and no more.

    Attributes:
        namespace: where the backend has such; without slashes at its ends.
        path: the remote path as listings name it; None: unknown, anything may have
            changed (a gap), so everything is to be looked at.
    """

    namespace: str
    path: RemotePath | None


class Tell(Protocol):
    """Who is told what a feed hears. None of it raises."""

    def __call__(self, notice: Notice, /) -> None:
        """Take a notice; does not block."""
        ...

    def listening(self) -> None:
        """It listens, at a place that keeps messages while nobody does. Only after a long
        time, in which they may have been thrown away, is that a gap."""
        ...

    async def kept(self) -> None:
        """Until all that was told so far is written down; only then may a message that
        told it be taken from where it is kept."""
        ...


class ChangeFeed(Protocol):
    """Where a type of backend tells what changed in it."""

    async def listen(self, tell: Tell) -> None:
        """Tell each notice until cancelled.

        After a time in which notices may have been missed, a notice without a path. What
        cannot be read is dropped unseen, or left where it is kept for others to look at.

        Raises:
            ConfigError: it cannot listen as configured.
            BackendError: the connection that it listens on broke, or cannot be made; it
                is opened anew by whoever opened it.
        """
        ...

    @property
    def invalid(self) -> int:
        """How much of what it heard was no notice of the form expected."""
        ...

    @property
    def dropped(self) -> int:
        """How much was dropped unseen; each time a gap was told."""
        ...


@dataclass(frozen=True, slots=True)
class Arrived:
    """What one request to a change feed says.

    Attributes:
        paths: remote paths that it names, fit to be a listing's; one may stand twice.
        unusable: how many it names that are none of this backend's.
        reply: what its sender is to be answered, where it only asks whether it may send.
    """

    paths: tuple[RemotePath, ...]
    unusable: int = 0
    reply: Mapping[str, str] | None = None


class ArrivingFeed(Protocol):
    """Reads what a sender tells over HTTP. Nothing that it names is ever called."""

    @property
    def origin(self) -> str:
        """Who asks by OPTIONS whether it may send, as it names itself; empty: nobody does."""
        ...

    def read(self, said: object, config: Mapping[str, object]) -> Arrived:
        """
        Args:
            said: the body, as JSON.
            config: of the backend that it is for.

        Raises:
            ConfigError: it has not the feed's form; nothing of it is repeated.
        """
        ...


# --- the audit log, outside -----------------------------------------------------------


class Anchor(Protocol):
    """A place outside the database that keeps checkpoints of the audit log.

    Whoever can write the database must not be able to write there what was written before.
    """

    @property
    def place(self) -> str:
        """What it is called, the same at each start: what it has is remembered by it."""
        ...

    async def keep(self, lines: Sequence[str]) -> None:
        """Keep lines, in their order; they are there for good when this returns.

        A line may be given again after an error, so one may stand there twice. Called by
        one process at a time.

        Raises:
            AnchorError: some may not be there.
        """
        ...


@dataclass(frozen=True, slots=True)
class Kept:
    """One checkpoint of a place that has each under a name of its own.

    Attributes:
        name: what it is called there.
        n: the number of the checkpoint that it is named after.
        line: what it holds; None: not that checkpoint, or it was not looked at.
        believed: it was not looked at.
    """

    name: str
    n: int
    line: str | None
    believed: bool = False


@runtime_checkable
class ReadableAnchor(Anchor, Protocol):
    """A place whose checkpoints can be fetched from here."""

    def kept(self, tenant: TenantId, since: datetime | None = None) -> AsyncGenerator[Kept]:
        """Those of a tenant, by their numbers; what was written before `since` is believed.

        Raises:
            AnchorError: it cannot be read.
        """
        ...
