"""A stand-in for Secret Manager below the SDK's real asynchronous client: gRPC over TLS.

Each rule is Google's, and names its page; those of the reference are of
docs.cloud.google.com/secret-manager/docs/reference/rpc/google.cloud.secretmanager.v1. It
is strongly consistent where Google is not; what lags is set by a test. One project, with
the secrets of the project itself and those of its locations side by side.
"""

import asyncio
import re
import unicodedata
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Final, NoReturn

import google_crc32c
import grpc
from google.cloud.secretmanager_v1.types import resources, service
from google.iam.v1 import iam_policy_pb2
from google.protobuf import any_pb2, duration_pb2, empty_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode, aio

PROJECT: Final = "acme"
NUMBER: Final = "123456789012"
CANARY: Final = "canary-of-gcp"
MAX_PAYLOAD: Final = 65_536
SERVICE: Final = "google.cloud.secretmanager.v1.SecretManagerService"

_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,255}")
_ANNOTATION: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_LABEL_TERM: Final = re.compile(r"labels\.([^\s=:]+)=([^\s=:]+)")
_NAME: Final = re.compile(
    r"projects/(?P<project>[^/]+)(/locations/(?P<place>[^/]+))?"
    r"(/secrets/(?P<id>[^/]+)(/versions/(?P<version>[^/]+))?)?"
)
State = resources.SecretVersion.State


@dataclass
class Version:
    number: int
    data: bytes
    etag: str
    created: datetime
    state: Any = State.ENABLED


@dataclass
class Held:
    """One secret. `replication` and `key` are what it was made with."""

    id: str
    place: str
    etag: str
    created: datetime
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    versions: list[Version] = field(default_factory=list)
    replication: dict[str, Any] = field(default_factory=dict)
    key: str = ""


class _Abort(Exception):
    """An answer that is an error."""

    def __init__(
        self, code: StatusCode, message: str, reason: str = "", pause: float | None = None
    ) -> None:
        super().__init__(message)
        self.code, self.message, self.reason, self.pause = code, message, reason, pause


@dataclass
class FakeSecretManager:
    """What is held, who may do what, and what goes wrong.

    Attributes:
        tokens: access tokens that are taken.
        seen: calls as `Method id`, a listing as `ListSecrets`.
        lag: for a secret the number that `latest` gives, where it is not the newest.
        unlisted: secrets that listings do not show yet.
        page: at most so many a page.
    """

    tokens: set[str] = field(default_factory=set)
    secrets: dict[tuple[str, str], Held] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    lag: dict[str, int] = field(default_factory=dict)
    unlisted: set[str] = field(default_factory=set)
    page: int = 25_000
    _denied: list[tuple[re.Pattern[str], re.Pattern[str]]] = field(default_factory=list)
    _rules: list[tuple[re.Pattern[str], Callable[[], Any]]] = field(default_factory=list)
    _etags: Any = field(default_factory=lambda: count(1))
    _moments: Any = field(default_factory=lambda: count(1))

    # --- what a test arranges -------------------------------------------------------

    def deny(self, permission: str, id: str = "") -> None:
        """Take permissions away, by patterns of permission and id."""
        self._denied.append((re.compile(permission), re.compile(id)))

    def fail(
        self,
        pattern: str,
        code: StatusCode,
        *,
        reason: str = "",
        pause: float | None = None,
        says: str = CANARY,
        after: bool = False,
        times: float = float("inf"),
    ) -> None:
        """Calls whose line matches end so: before they do anything or, `after`, once done."""
        left = [times]

        def strike() -> tuple[_Abort, bool] | None:
            left[0] -= 1
            return (_Abort(code, says, reason, pause), after) if left[0] >= 0 else None

        self._rules.append((re.compile(pattern), strike))

    def meanwhile(self, pattern: str, do: Callable[[], Any]) -> None:
        """Once, before the next call whose line matches, somebody does this."""
        left = [1]

        def strike() -> None:
            if left.pop() if left else 0:
                do()

        self._rules.append((re.compile(pattern), strike))

    def heal(self) -> None:
        """Nothing fails and nothing is denied any more."""
        self._rules.clear()
        self._denied.clear()

    def calls(self, method: str) -> int:
        return sum(line.split(" ")[0] == method for line in self.seen)

    # --- what a person does -----------------------------------------------------------

    def secret(self, id: str, place: str = "") -> Held:
        return self.secrets[place, id]

    def make(self, id: str, place: str = "", **labels: str) -> Held:
        made = Held(id, place, self._etag(), self._now(), dict(labels))
        self.secrets[place, id] = made
        return made

    def add(self, id: str, data: bytes, place: str = "") -> int:
        """A new version, and the secret if there is none; its number."""
        held = self.secrets.get((place, id)) or self.make(id, place)
        version = Version(len(held.versions) + 1, data, self._etag(), self._now())
        held.versions.append(version)
        return version.number

    def set_state(self, id: str, state: Any, number: int | None = None, place: str = "") -> None:
        held = self.secret(id, place)
        version = held.versions[(number or len(held.versions)) - 1]
        version.state, version.etag = state, self._etag()
        if state == State.DESTROYED:
            version.data = b""

    def label(self, id: str, labels: Mapping[str, str], place: str = "") -> None:
        held = self.secret(id, place)
        held.labels, held.etag = {**held.labels, **labels}, self._etag()

    def delete(self, id: str, place: str = "") -> None:
        """For good: there is no other way ("Delete a secret")."""
        del self.secrets[place, id]

    def _etag(self) -> str:
        return f'"{next(self._etags):x}"'

    def _now(self) -> datetime:
        return datetime(2026, 11, 1, tzinfo=UTC) + timedelta(seconds=next(self._moments))

    # --- the service ------------------------------------------------------------------

    async def serve(self, method: str, request: Any, context: Any) -> Any:
        name = (
            getattr(request, "resource", "")
            or getattr(request, "name", "")
            or getattr(request, "parent", "")
            or request.secret.name
        )
        id = getattr(request, "secret_id", "") or (_NAME.fullmatch(name) or {"id": ""})["id"] or ""
        line = f"{method} {id}".strip()
        self.seen.append(line)
        try:
            self._authenticate(context)
            after = None
            for pattern, strike in list(self._rules):
                found = strike() if pattern.search(line) else None
                if found is not None and not found[1]:
                    raise found[0]
                after = found[0] if found is not None else after
            answer = getattr(self, f"_{_snake(method)}")(request, name, id)
            if after is not None:
                raise after
        except _Abort as abort:
            await _end(context, abort)
        return answer

    def _authenticate(self, context: Any) -> None:
        """UNAUTHENTICATED, with a reason (google.api.ErrorReason), before anything is done."""
        given = dict(context.invocation_metadata()).get("authorization", "")
        if not given:
            raise _Abort(StatusCode.UNAUTHENTICATED, CANARY, "CREDENTIALS_MISSING")
        if given.removeprefix("Bearer ") not in self.tokens:
            raise _Abort(StatusCode.UNAUTHENTICATED, CANARY, "ACCESS_TOKEN_EXPIRED")

    def _named(self, name: str, permission: str) -> tuple[str, str, str]:
        """Location, id and version of a resource that may be asked for.

        A project that this identity may not use, or that is not there: PERMISSION_DENIED
        with CONSUMER_INVALID (google.api.ErrorReason). A role that is missing, for what is
        there and for what is not: IAM_PERMISSION_DENIED ("Troubleshoot permission errors").
        """
        parts = _NAME.fullmatch(name)
        if parts is None:
            raise _Abort(StatusCode.INVALID_ARGUMENT, CANARY)
        if parts["project"] not in (PROJECT, NUMBER):
            raise _Abort(StatusCode.PERMISSION_DENIED, CANARY, "CONSUMER_INVALID")
        id = parts["id"] or ""
        if self._is_denied(permission, id):
            raise _Abort(StatusCode.PERMISSION_DENIED, CANARY, "IAM_PERMISSION_DENIED")
        return parts["place"] or "", id, parts["version"] or ""

    def _is_denied(self, permission: str, id: str) -> bool:
        return any(what.search(permission) and who.search(id) for what, who in self._denied)

    def _find(self, name: str, permission: str) -> Held:
        place, id, _ = self._named(name, permission)
        held = self.secrets.get((place, id))
        if held is None:
            raise _Abort(StatusCode.NOT_FOUND, CANARY)
        return held

    def _find_version(self, name: str, permission: str) -> tuple[Held, Version]:
        """`latest` is the version that was made last, whatever its state (GetSecretVersion;
        seen in external-secrets issue 4042); without any it is NOT_FOUND."""
        held = self._find(name, permission)
        _, _, version = self._named(name, permission)
        newest = self.lag.get(held.id, len(held.versions))
        number = newest if version == "latest" else int(version) if version.isdigit() else 0
        if not 1 <= number <= len(held.versions):
            raise _Abort(StatusCode.NOT_FOUND, CANARY)
        return held, held.versions[number - 1]

    def _list_secrets(self, request: Any, name: str, id: str) -> Any:
        """Newest first; at most 25,000 a page; `filter` of labels joined by AND, or
        INVALID_ARGUMENT ("Filter lists of secrets and secret versions", ListSecrets)."""
        place, _, _ = self._named(name, "secretmanager.secrets.list")
        wanted = []
        for term in request.filter.split(" AND ") if request.filter else ():
            found = _LABEL_TERM.fullmatch(term)
            if found is None:
                raise _Abort(StatusCode.INVALID_ARGUMENT, CANARY)
            wanted.append((found[1], found[2]))
        held = [
            self._told(one)
            for (where, key), one in reversed(self.secrets.items())
            if where == place
            and key not in self.unlisted
            and all(one.labels.get(label) == text for label, text in wanted)
        ]
        page, following = self._page(held, request)
        return service.ListSecretsResponse(
            secrets=page, next_page_token=following, total_size=len(held)
        )

    def _list_secret_versions(self, request: Any, name: str, id: str) -> Any:
        """All of them with their states, newest first (ListSecretVersions)."""
        held = self._find(name, "secretmanager.versions.list")
        told = [self._told_version(held, one) for one in reversed(held.versions)]
        page, following = self._page(told, request)
        return service.ListSecretVersionsResponse(versions=page, next_page_token=following)

    def _page(self, found: list[Any], request: Any) -> tuple[list[Any], str]:
        start = int(request.page_token or 0)
        size = min(request.page_size or self.page, self.page, 25_000)
        end = start + size
        return found[start:end], str(end) if end < len(found) else ""

    def _get_secret(self, request: Any, name: str, id: str) -> Any:
        return self._told(self._find(name, "secretmanager.secrets.get"))

    def _get_secret_version(self, request: Any, name: str, id: str) -> Any:
        return self._told_version(*self._find_version(name, "secretmanager.versions.get"))

    def _access_secret_version(self, request: Any, name: str, id: str) -> Any:
        """FAILED_PRECONDITION for a version that is disabled or destroyed ("Disable a secret
        version"); with the checksum of its data ("Data integrity assurance")."""
        held, version = self._find_version(name, "secretmanager.versions.access")
        if version.state != State.ENABLED:
            raise _Abort(StatusCode.FAILED_PRECONDITION, CANARY)
        return service.AccessSecretVersionResponse(
            name=self._name(held, version),
            payload={"data": version.data, "data_crc32c": google_crc32c.value(version.data)},
        )

    def _create_secret(self, request: Any, name: str, id: str) -> Any:
        """An id of 1 to 255 letters, digits, - and _ (CreateSecretRequest); replication for
        one of the project, and none for one of a location ("Create a regional secret")."""
        place, _, _ = self._named(name, "secretmanager.secrets.create")
        given = resources.Secret.to_dict(request.secret)
        replication = given.get("replication") or {}
        chosen = {key: how for key, how in replication.items() if how is not None}
        if not _ID.fullmatch(id) or bool(chosen) == bool(place):
            raise _Abort(StatusCode.INVALID_ARGUMENT, CANARY)
        if (place, id) in self.secrets:
            raise _Abort(StatusCode.ALREADY_EXISTS, CANARY)
        _check_pairs(request.secret)
        made = self.make(id, place, **dict(request.secret.labels))
        made.annotations = dict(request.secret.annotations)
        made.replication = chosen
        made.key = request.secret.customer_managed_encryption.kms_key_name
        return self._told(made)

    def _update_secret(self, request: Any, name: str, id: str) -> Any:
        """What `update_mask` names; a stale etag is FAILED_PRECONDITION, and each update
        makes a new one ("Use entity tags for optimistic concurrency control")."""
        held = self._find(name, "secretmanager.secrets.update")
        paths = list(request.update_mask.paths)
        if not paths:
            raise _Abort(StatusCode.INVALID_ARGUMENT, CANARY)
        _match(request.secret.etag, held.etag)
        _check_pairs(request.secret)
        if "labels" in paths:
            held.labels = dict(request.secret.labels)
        if "annotations" in paths:
            held.annotations = dict(request.secret.annotations)
        held.etag = self._etag()
        return self._told(held)

    def _add_secret_version(self, request: Any, name: str, id: str) -> Any:
        """At most 64 KiB ("Secret Manager quotas and limits"), and not nothing; a checksum
        that does not fit is INVALID_ARGUMENT ("Data integrity assurance"). Takes no etag and
        does not change the secret's ("Use entity tags")."""
        held = self._find(name, "secretmanager.versions.add")
        data = bytes(request.payload.data)
        told = "data_crc32c" in request.payload
        wrong = told and request.payload.data_crc32c != google_crc32c.value(data)
        if not 0 < len(data) <= MAX_PAYLOAD or wrong:
            raise _Abort(StatusCode.INVALID_ARGUMENT, CANARY)
        self.add(held.id, data, held.place)
        return self._told_version(held, held.versions[-1])

    def _change(self, request: Any, name: str, permission: str, state: Any) -> Any:
        """A stale etag is FAILED_PRECONDITION; each change makes a new one, also one that
        changes nothing ("Use entity tags"). What is destroyed stays so (SecretVersion.State)."""
        held, version = self._find_version(name, permission)
        _match(request.etag, version.etag)
        if version.state == State.DESTROYED and state != State.DESTROYED:
            raise _Abort(StatusCode.FAILED_PRECONDITION, CANARY)
        self.set_state(held.id, state, version.number, held.place)
        return self._told_version(held, version)

    def _disable_secret_version(self, request: Any, name: str, id: str) -> Any:
        return self._change(request, name, "secretmanager.versions.disable", State.DISABLED)

    def _enable_secret_version(self, request: Any, name: str, id: str) -> Any:
        return self._change(request, name, "secretmanager.versions.enable", State.ENABLED)

    def _destroy_secret_version(self, request: Any, name: str, id: str) -> Any:
        return self._change(request, name, "secretmanager.versions.destroy", State.DESTROYED)

    def _delete_secret(self, request: Any, name: str, id: str) -> Any:
        held = self._find(name, "secretmanager.secrets.delete")
        _match(request.etag, held.etag)
        self.delete(held.id, held.place)
        return empty_pb2.Empty()

    def _test_iam_permissions(self, request: Any, name: str, id: str) -> Any:
        """Those that are held; of a secret that is not there none, and no error
        (TestIamPermissions)."""
        place, _, _ = self._named(name, "")
        there = (place, id) in self.secrets
        held = [one for one in request.permissions if there and not self._is_denied(one, id)]
        return iam_policy_pb2.TestIamPermissionsResponse(permissions=held)

    # --- how things are told ------------------------------------------------------------

    def _name(self, held: Held, version: Version | None = None) -> str:
        """Resources name their project by its number."""
        place = f"/locations/{held.place}" if held.place else ""
        name = f"projects/{NUMBER}{place}/secrets/{held.id}"
        return name if version is None else f"{name}/versions/{version.number}"

    def _told(self, held: Held) -> Any:
        return resources.Secret(
            name=self._name(held),
            labels=held.labels,
            annotations=held.annotations,
            etag=held.etag,
            create_time=held.created,
        )

    def _told_version(self, held: Held, version: Version) -> Any:
        return resources.SecretVersion(
            name=self._name(held, version),
            state=version.state,
            etag=version.etag,
            create_time=version.created,
            client_specified_payload_checksum=True,
        )


def _match(given: str, held: str) -> None:
    if given and given != held:
        raise _Abort(StatusCode.FAILED_PRECONDITION, CANARY)


def _check_pairs(secret: Any) -> None:
    """Secret.labels and Secret.annotations of the reference."""
    size = sum(len(k.encode()) + len(v.encode()) for k, v in secret.annotations.items())
    fits = (
        len(secret.labels) <= 64
        and size < 16 * 1024
        and all(_ANNOTATION.fullmatch(key) for key in secret.annotations)
        and all(_is_label(key, text) for key, text in secret.labels.items())
    )
    if not fits:
        raise _Abort(StatusCode.INVALID_ARGUMENT, CANARY)


def _is_label(key: str, text: str) -> bool:
    def plain(one: str) -> bool:
        kind = unicodedata.category(one)
        return one in "-_" or kind in ("Ll", "Lo") or kind.startswith("N")

    begins = key[:1] and unicodedata.category(key[0]) in ("Ll", "Lo")
    return bool(begins) and len(key) <= 63 and len(text) <= 63 and all(map(plain, key + text))


async def _end(context: Any, abort: _Abort) -> NoReturn:
    """An error with its details in the trailers, as Google's are (google.rpc.Status)."""
    details = []
    if abort.reason:
        info = error_details_pb2.ErrorInfo(reason=abort.reason, domain="googleapis.com")
        details.append(info)
    if abort.pause is not None:
        whole = int(abort.pause)
        delay = duration_pb2.Duration(seconds=whole, nanos=int((abort.pause - whole) * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    status = status_pb2.Status(code=abort.code.value[0], message=abort.message)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    trailers = (("grpc-status-details-bin", status.SerializeToString()),)
    await context.abort(abort.code, abort.message, trailers if details else ())
    raise AssertionError


def _snake(method: str) -> str:
    return re.sub(r"(?<!^)([A-Z])", r"_\1", method).lower()


_REQUESTS: Final[Mapping[str, Any]] = {
    "ListSecrets": service.ListSecretsRequest,
    "CreateSecret": service.CreateSecretRequest,
    "AddSecretVersion": service.AddSecretVersionRequest,
    "GetSecret": service.GetSecretRequest,
    "UpdateSecret": service.UpdateSecretRequest,
    "DeleteSecret": service.DeleteSecretRequest,
    "ListSecretVersions": service.ListSecretVersionsRequest,
    "GetSecretVersion": service.GetSecretVersionRequest,
    "AccessSecretVersion": service.AccessSecretVersionRequest,
    "DisableSecretVersion": service.DisableSecretVersionRequest,
    "EnableSecretVersion": service.EnableSecretVersionRequest,
    "DestroySecretVersion": service.DestroySecretVersionRequest,
}


def _serialize(message: Any) -> bytes:
    raw: bytes
    if hasattr(message, "SerializeToString"):
        raw = message.SerializeToString()
    else:
        raw = type(message).serialize(message)
    return raw


def _handlers(fake: FakeSecretManager) -> Any:
    def handler(method: str, read: Callable[[bytes], Any]) -> Any:
        async def serve(request: Any, context: Any) -> Any:
            return await fake.serve(method, request, context)

        return grpc.unary_unary_rpc_method_handler(serve, read, _serialize)

    served = {name: handler(name, kind.deserialize) for name, kind in _REQUESTS.items()}
    read = iam_policy_pb2.TestIamPermissionsRequest.FromString
    served["TestIamPermissions"] = handler("TestIamPermissions", read)
    return grpc.method_handlers_generic_handler(SERVICE, served)


@asynccontextmanager
async def serving(
    fake: FakeSecretManager, key: bytes, chain: bytes
) -> AsyncIterator[tuple[int, Any]]:
    """The fake on a port of loopback, and its server, which a test may stop."""
    server = aio.server()
    server.add_generic_rpc_handlers((_handlers(fake),))
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, chain)]))
    await server.start()
    try:
        yield port, server
    finally:
        await server.stop(None)
        await asyncio.sleep(0)
