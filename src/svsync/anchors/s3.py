"""Objects of an S3-compatible store, one for each checkpoint, each written once.

    <prefix>/<tenant's number>/<number of the checkpoint>-<beginning of its hash>.json

Names sort by number. Each object is put on the condition that there is none of its name, so
what was written is never written over; one that is there already is that checkpoint, for its
hash is in the name. Whoever holds svsync's own login needs no more than `s3:PutObject`; with
Object Lock not even the owner of the bucket removes a checkpoint before its time.

Each call of `keep` signs in anew, so a credential that was changed counts from then on. The
SDK (extra `aws`) is loaded with the first call. It makes each call once, follows no redirect,
and connects where the policy for endpoints of the operator's file lets it.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from svsync.config.model import Settings
from svsync.config.references import Reference, resolve
from svsync.domain.audit import Checkpoint, anchored_of
from svsync.domain.errors import AnchorError, ConfigError
from svsync.domain.ids import TenantId
from svsync.domain.values import Credential
from svsync.network import NetworkPolicy, check_url, socket_guard
from svsync.ports import Anchor, Kept

KEPT_S: Final = 30.0
"""Seconds in which so many objects are there, or nobody knows."""
CONNECT_S: Final = 5.0
ANSWER_S: Final = 10.0
AT_ONCE: Final = 8
"""Objects under way at one time."""
MAX_BYTES: Final = 64 * 1024
"""Of one object; what is larger is no checkpoint."""
ANYWHERE: Final = "us-east-1"
"""The region that is signed for where an endpoint of another vendor has none."""

_T = TypeVar("_T")
_DENIED: Final = frozenset(
    [
        "AccessDenied",
        "AllAccessDisabled",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidToken",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
        "401",
        "403",
    ]
)
_ALREADY_THERE: Final = frozenset({"PreconditionFailed", "412"})
_NO_BUCKET: Final = frozenset({"NoSuchBucket", "404"})
_GONE: Final = frozenset({"NoSuchKey", "404"})


def open_anchor(entry: Mapping[str, Any], settings: Settings, environ: Mapping[str, str]) -> Anchor:
    """Raises ConfigError for an endpoint that may not be called."""
    policy = NetworkPolicy(allow_loopback=settings.allow_loopback, file_managed=True)
    if "endpoint_url" in entry:
        check_url(entry["endpoint_url"], policy, where="audit_anchors.endpoint_url")
    named = entry.get("credentials_path")

    def credential() -> Credential | None:
        if named is None:
            return None
        text = resolve(
            Reference.parse(named),
            environ=environ,
            allowed_file_roots=settings.allowed_file_roots,
        )
        return Credential.parse(text.reveal(), named)

    return S3Anchor(entry, policy, credential)


class S3Anchor:
    """One bucket, below one prefix.

    `credential` gives the keys to sign with, read anew at each call; None: those that the
    SDK finds on this machine.
    """

    def __init__(
        self,
        entry: Mapping[str, Any],
        policy: NetworkPolicy,
        credential: Callable[[], Credential | None],
    ) -> None:
        self._bucket: str = entry["bucket"]
        self._prefix: str = entry["prefix"]
        self._endpoint: str | None = entry.get("endpoint_url")
        self._region: str = entry.get("region", ANYWHERE)
        self._ca: str | None = entry.get("ca_file")
        self._lock: str | None = entry.get("lock")
        self._retain_s: int = entry.get("retain", 0)
        self._policy = policy
        self._credential = credential
        self._session: Any = None

    @property
    def place(self) -> str:
        endpoint = "" if self._endpoint is None else f"{self._endpoint}/"
        return f"s3:{endpoint or '//'}{self._bucket}/{self._prefix}"

    async def keep(self, lines: Sequence[str]) -> None:
        async with self._client() as client:
            for some in _several(lines):
                async with asyncio.timeout(KEPT_S):
                    # All are waited for, so that none is cut off when the client is closed.
                    done = await asyncio.gather(
                        *(self._put(client, line) for line in some), return_exceptions=True
                    )
                for failed in filter(None, done):
                    raise failed

    async def kept(self, tenant: TenantId, since: datetime | None = None) -> AsyncGenerator[Kept]:
        folder = f"{self._prefix}/{int(tenant)}/"
        named = re.compile(rf"{re.escape(folder)}([0-9]{{12}})-([0-9a-f]{{16}})\.json")
        async with self._client() as client:
            pages = client.get_paginator("list_objects_v2")
            async for page in pages.paginate(Bucket=self._bucket, Prefix=folder):
                listed = [
                    (found, one)
                    for one in page.get("Contents", ())
                    if (found := named.fullmatch(one["Key"]))
                ]
                for some in _several(listed):
                    async with asyncio.timeout(KEPT_S):
                        read = await asyncio.gather(
                            *(self._read(client, tenant, *one, since) for one in some)
                        )
                    for kept in read:
                        yield kept

    # --- one object -------------------------------------------------------------------

    async def _put(self, client: Any, line: str) -> None:
        from botocore.exceptions import ClientError

        found = anchored_of(line)
        assert found is not None, "only checkpoints are anchored"
        until: dict[str, Any] = {}
        if self._lock is not None:
            until = {
                "ObjectLockMode": self._lock.upper(),
                "ObjectLockRetainUntilDate": datetime.now(UTC) + timedelta(seconds=self._retain_s),
            }
        try:
            await client.put_object(
                Bucket=self._bucket,
                Key=self._name(found.checkpoint),
                Body=f"{line}\n".encode(),
                ContentType="application/json",
                IfNoneMatch="*",
                **until,
            )
        except ClientError as error:
            if _code(error) not in _ALREADY_THERE:
                raise

    def _name(self, made: Checkpoint) -> str:
        return f"{self._prefix}/{made.tenant}/{made.n:012}-{made.hash.hex()[:16]}.json"

    async def _read(
        self,
        client: Any,
        tenant: TenantId,
        named: "re.Match[str]",
        listed: Mapping[str, Any],
        since: datetime | None,
    ) -> Kept:
        n, name = int(named[1]), named[0]
        if since is not None and listed["LastModified"] < since:
            return Kept(name, n, None, believed=True)
        if listed["Size"] > MAX_BYTES:
            return Kept(name, n, None)
        line = await self._line(client, name)
        try:
            found = line and anchored_of(line)
        except ValueError:
            found = None
        if not found or found.checkpoint.tenant != tenant or self._name(found.checkpoint) != name:
            return Kept(name, n, None)
        return Kept(name, n, line)

    async def _line(self, client: Any, name: str) -> str | None:
        from botocore.exceptions import ClientError

        try:
            answer = await client.get_object(Bucket=self._bucket, Key=name)
        except ClientError as error:
            if _code(error) in _GONE:  # removed since it was listed
                return None
            raise
        async with answer["Body"] as body:
            data: bytes = await body.read(MAX_BYTES)
        return data.decode(errors="replace")

    # --- the store --------------------------------------------------------------------

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[Any]:
        """The store, signed in to.

        Raises:
            AnchorError: whatever fails in the block too, as one sentence.
        """
        try:
            sdk = await asyncio.to_thread(_load_sdk)
        except ImportError:
            raise AnchorError(
                f"{self.place} needs the AWS SDK: install svsync with the extra `aws`"
            ) from None
        if self._session is None:
            self._session = sdk.session()
        try:
            async with self._session.create_client("s3", **self._options(sdk)) as client:
                yield client
        except ConfigError as problem:
            raise AnchorError(f"{self.place} takes no checkpoint: {problem}") from None
        except sdk.client_error as error:
            raise self._refused(_code(error)) from None
        except (sdk.sdk_error, OSError, TimeoutError) as error:
            raise self._failed(error) from None

    def _options(self, sdk: Any) -> dict[str, Any]:
        host = "" if self._endpoint is None else check_url(self._endpoint, self._policy).host or ""
        options: dict[str, Any] = {
            "region_name": self._region,
            "endpoint_url": self._endpoint,
            "verify": self._ca or True,
            "config": sdk.config(
                connect_timeout=CONNECT_S,
                read_timeout=ANSWER_S,
                retries={"max_attempts": 0},
                proxies={},
                ignore_configured_endpoint_urls=True,
                max_pool_connections=AT_ONCE,
                s3={"addressing_style": "auto" if self._endpoint is None else "path"},
                connector_args={"socket_factory": socket_guard(self._policy, host)},
                http_session_cls=sdk.straight,
                warm_up_loader_caches=True,
            ),
        }
        credential = self._credential()
        if credential is not None:
            options |= {
                "aws_access_key_id": credential.require("access_key_id").reveal(),
                "aws_secret_access_key": credential.require("secret_access_key").reveal(),
            }
            if credential.get("session_token"):
                options["aws_session_token"] = credential.require("session_token").reveal()
        return options

    # --- what is told -----------------------------------------------------------------

    def _refused(self, code: str) -> AnchorError:
        """By its code, of those that are known: the text is the store's own."""
        if code in _DENIED:
            return AnchorError(
                f"{self.place} denies access: its login needs s3:PutObject there, and to be read"
                " back s3:ListBucket and s3:GetObject; look at credentials_path"
            )
        if code in _NO_BUCKET:
            return AnchorError(
                f"{self.place} is not there: make the bucket, or correct audit_anchors"
            )
        if code in ("InvalidRequest", "ObjectLockConfigurationNotFoundError"):
            return AnchorError(
                f"{self.place} refuses the request: with `lock`, its bucket must be made with"
                " Object Lock"
            )
        if code in ("NotImplemented", "501"):
            return AnchorError(
                f"{self.place} cannot write on a condition: use a store that knows If-None-Match"
            )
        return AnchorError(
            f"{self.place} takes no checkpoint: look at its service, its region and its bucket"
        )

    def _failed(self, error: Exception) -> AnchorError:
        if isinstance(getattr(error, "kwargs", {}).get("error"), _Redirected):
            return AnchorError(
                f"{self.place} sends elsewhere, which is not followed: correct region, or"
                " endpoint_url"
            )
        match type(error).__name__:
            case "NoCredentialsError" | "PartialCredentialsError" | "CredentialRetrievalError":
                what = "has no login: set credentials_path, or give this machine a role"
            case "SSLError":
                what = "shows a certificate that cannot be verified: set ca_file to who signed it"
            case "ReadTimeoutError" | "ConnectTimeoutError" | "TimeoutError":
                what = "does not answer in time: look at its service"
            case _:
                what = "cannot be reached: look at its service, and at the network on the way"
        return AnchorError(f"{self.place} {what}")


def _several(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for at in range(0, len(items), AT_ONCE):
        yield items[at : at + AT_ONCE]


def _code(error: Any) -> str:
    """The code that the store gave, or the status of its answer."""
    told = error.response.get("Error", {}).get("Code")
    return str(told or error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))


class _Sdk:
    """What is used of the SDK, loaded."""

    def __init__(self) -> None:
        from aiobotocore.config import AioConfig
        from aiobotocore.httpsession import AIOHTTPSession
        from aiobotocore.session import get_session
        from botocore.exceptions import BotoCoreError, ClientError

        class Straight(AIOHTTPSession):  # type: ignore[misc]
            """Follows no redirect. The SDK would, wherever an answer says; or ask the same
            server where the bucket is, and be sent elsewhere, without end."""

            async def _get_session(self, proxy_url: str | None) -> "_NoRedirect":
                return _NoRedirect(await super()._get_session(proxy_url))

        self.session = get_session
        self.config = AioConfig
        self.straight = Straight
        self.client_error = ClientError
        self.sdk_error = BotoCoreError


class _NoRedirect:
    def __init__(self, session: Any) -> None:
        self._session = session

    async def request(self, *args: Any, **more: Any) -> Any:
        answer = await self._session.request(*args, **more, allow_redirects=False)
        if answer.status in (301, 302, 303, 307, 308):
            answer.close()
            raise _Redirected
        return answer


class _Redirected(Exception):
    """The store sends elsewhere; the SDK wraps this in an error of its own."""


_loaded: list[_Sdk] = []


def _load_sdk() -> _Sdk:
    """Raises ImportError where it is not installed."""
    if not _loaded:
        _loaded.append(_Sdk())
    return _loaded[0]
