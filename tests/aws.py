"""Fixtures with servers that stand in for AWS: one of each a test worker, a prefix a test.

Hands are those of a person with another client: their requests are made here, not by
the SDK that svsync uses. Neither server looks at a signature.
"""

import asyncio
import json
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from tests.patience import PATIENCE_S
from tests.servers import Front

from svsync.backends.aws import AwsDriver
from svsync.domain.changes import RemoteRead
from svsync.domain.federation import BackendSpec, RuleSpec
from svsync.domain.ids import BackendId, RemotePath
from svsync.domain.values import Credential
from svsync.embedded.processes import end_process, free_port
from svsync.network import NetworkPolicy
from svsync.ports import Backend
from svsync.testing.conformance import CountingGuard, Listed, list_all

REGION: Final = "us-east-1"
ACCOUNT: Final = "123456789012"
KEYS: Final = '{"access_key_id": "AKIAEXAMPLE", "secret_access_key": "of-nobody"}'
LOOPBACK: Final = NetworkPolicy(allow_loopback=True)
_NUMBERS = count(1)


class AwsCallRefused(Exception):
    """AWS's own word for why."""


@dataclass
class Aws:
    """One server, and what a person does below a prefix there."""

    url: str
    prefix: str = ""
    region: str = REGION

    async def call(self, operation: str, **body: Any) -> dict[str, Any]:
        """One call to Secrets Manager; raises AwsCallRefused."""
        headers = {
            "X-Amz-Target": f"secretsmanager.{operation}",
            "Content-Type": "application/x-amz-json-1.1",
            "Authorization": (
                "AWS4-HMAC-SHA256"
                f" Credential=AKIA/20261123/{self.region}/secretsmanager/aws4_request,"
                " SignedHeaders=host, Signature=00"
            ),
        }
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self.url}/", data=json.dumps(body), headers=headers) as answer,
        ):
            told: dict[str, Any] = json.loads(await answer.read())
            if answer.status != 200:
                raise AwsCallRefused(str(told.get("__type")))
            return told

    async def put(self, name: str, value: object, **tags: str) -> str:
        """A new version with this value, made whatever stands there; its id."""
        text = value if isinstance(value, str) else json.dumps(value)
        return await self.put_raw(name, tags, SecretString=text)

    async def put_raw(self, name: str, tags: Mapping[str, str], **value: str) -> str:
        version, path = uuid.uuid4().hex, self.prefix + name
        try:
            await self.call(
                "CreateSecret", Name=path, ClientRequestToken=version, Tags=_listed(tags), **value
            )
        except AwsCallRefused:
            pass
        else:
            return version
        stages = await self.stages(name)
        if (await self.describe(name)).get("DeletedDate"):
            await self.call("RestoreSecret", SecretId=path)
        await self.call(
            "PutSecretValue",
            SecretId=path,
            ClientRequestToken=version,
            VersionStages=["BY_HAND"],
            **value,
        )
        # Moved, not put: that is told right by both servers.
        await self.move(name, version, stages["AWSCURRENT"])
        return version

    async def move(self, name: str, version: str, current: str, label: str = "AWSCURRENT") -> None:
        await self.call(
            "UpdateSecretVersionStage",
            SecretId=self.prefix + name,
            VersionStage=label,
            MoveToVersionId=version,
            RemoveFromVersionId=current,
        )

    async def describe(self, name: str) -> dict[str, Any]:
        return await self.call("DescribeSecret", SecretId=self.prefix + name)

    async def stages(self, name: str) -> dict[str, str]:
        """The version of each label."""
        told = (await self.describe(name)).get("VersionIdsToStages") or {}
        return {label: version for version, labels in told.items() for label in labels}

    async def value(self, name: str, label: str = "AWSCURRENT") -> str:
        told = await self.call("GetSecretValue", SecretId=self.prefix + name, VersionStage=label)
        return str(told["SecretString"])

    async def tags(self, name: str) -> dict[str, str]:
        return {tag["Key"]: tag["Value"] for tag in (await self.describe(name)).get("Tags") or ()}

    async def tag(self, name: str, tags: Mapping[str, str]) -> None:
        await self.call("TagResource", SecretId=self.prefix + name, Tags=_listed(tags))

    async def delete(self, name: str, **how: Any) -> None:
        how = how or {"RecoveryWindowInDays": 30}
        await self.call("DeleteSecret", SecretId=self.prefix + name, **how)

    async def remove(self, name: str) -> None:
        """For good."""
        await self.delete(name, ForceDeleteWithoutRecovery=True)

    async def restore(self, name: str) -> None:
        await self.call("RestoreSecret", SecretId=self.prefix + name)

    async def versions(self, name: str) -> set[str]:
        """Ids of all versions, those without a label too."""
        told = await self.call(
            "ListSecretVersionIds", SecretId=self.prefix + name, IncludeDeprecated=True
        )
        return {version["VersionId"] for version in told["Versions"]}

    async def listed(self) -> list[dict[str, Any]]:
        """What a listing says of each secret below the prefix."""
        found: list[dict[str, Any]] = []
        following: dict[str, str] = {}
        while True:
            told = await self.call(
                "ListSecrets",
                IncludePlannedDeletion=True,
                Filters=[{"Key": "name", "Values": [self.prefix]}],
                **following,
            )
            found += told["SecretList"]
            if not told.get("NextToken"):
                return found
            following = {"NextToken": told["NextToken"]}


def _listed(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


class AwsFront(Front):
    """A front whose lines are `Operation name`, such as `GetSecretValue app/db`; a batch is
    told with its first name, a call to STS as `AssumeRole`."""

    def refuse_as(self, pattern: str, code: str, status: int = 400, message: str = "") -> None:
        """Answer with an error of AWS."""
        body = json.dumps({"__type": code, "Message": message})
        kind = "application/x-amz-json-1.1"
        self.answer(pattern, lambda _: web.Response(status=status, text=body, content_type=kind))

    def refuse_first(self, pattern: str, code: str, status: int = 400, *, times: int) -> None:
        """Refuse so many of these calls, and let later ones through."""
        body = {"__type": code}
        left = [times]

        async def answer(request: web.Request) -> web.StreamResponse:
            left[0] -= 1
            if left[0] >= 0:
                return web.json_response(body, status=status)
            return await self.forward(request)

        self.answer(pattern, answer)

    def lose(self, pattern: str) -> None:
        """These calls are made, and nobody is told so."""

        async def answer(request: web.Request) -> web.StreamResponse:
            await self.forward(request)
            return web.json_response({"__type": "InternalServiceError"}, status=500)

        self.answer(pattern, answer)

    async def lag(self, aws: Aws) -> None:
        """Listings show what is below the prefix now, whatever changes there later. AWS's may
        be five minutes behind (API reference, ListSecrets)."""
        page = {"SecretList": await aws.listed()}
        self.answer("^ListSecrets", lambda _: web.json_response(page))

    def cannot_decrypt(self, name: str) -> None:
        """The key of one secret in KMS is of no use (API reference, GetSecretValue and
        BatchGetSecretValue, DecryptionFailure)."""
        failure = {"SecretId": name, "ErrorCode": "DecryptionFailure", "Message": ""}

        async def batch(request: web.Request) -> web.StreamResponse:
            answer = await self.forward(request)
            assert isinstance(answer, web.Response)
            assert isinstance(answer.body, bytes)
            told = json.loads(answer.body)
            told["SecretValues"] = [v for v in told["SecretValues"] if v["Name"] != name]
            if name in json.loads(await request.read())["SecretIdList"]:
                told["Errors"] = [*(told.get("Errors") or ()), failure]
            return web.json_response(told)

        self.answer("^BatchGetSecretValue", batch)
        self.refuse_as(f"^GetSecretValue {name}$", "DecryptionFailure")

    def calls(self, operation: str) -> int:
        return sum(line.split(" ")[0] == operation for line in self.seen)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        operation = request.headers.get("X-Amz-Target", "").rpartition(".")[2]
        name = ""
        if operation:
            body = json.loads(raw)
            name = body.get("SecretId") or body.get("Name") or (body.get("SecretIdList") or [""])[0]
        else:
            form = await request.post()
            operation = str(form.get("Action", ""))
        line = f"{operation} {name}"
        self.seen.append(line)
        for pattern, answer in self.rules:
            if pattern.search(line):
                made = answer(request)
                return made if isinstance(made, web.StreamResponse) else await made
        return await self.forward(request)

    async def forward(self, request: web.Request) -> web.StreamResponse:
        assert self._session is not None
        kept = ("x-amz", "authorization", "content-type")
        headers = {k: v for k, v in request.headers.items() if k.lower().startswith(kept)}
        async with self._session.post(
            f"{self.target}/", data=await request.read(), headers=headers
        ) as answer:
            kind = {"Content-Type": answer.headers.get("Content-Type", "")}
            return web.Response(status=answer.status, body=await answer.read(), headers=kind)


@asynccontextmanager
async def server(program: str, *arguments: str) -> AsyncIterator[Aws]:
    """A server on loopback, ended with the block."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name(program),
        *arguments,
        str(port),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    found = Aws(f"http://127.0.0.1:{port}")
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not await _listens(found):  # noqa: ASYNC110 - a server tells nobody
                await asyncio.sleep(0.02)
        yield found
    finally:
        await end_process(process, 5)


async def _listens(aws: Aws) -> bool:
    try:
        await aws.call("ListSecrets")
    except aiohttp.ClientConnectionError:
        return False
    return True


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def roto_server() -> AsyncIterator[Aws]:
    async with server("roto-server", "--ephemeral", "--port") as found:
        yield found


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def moto_server() -> AsyncIterator[Aws]:
    async with server("moto_server", "-H", "127.0.0.1", "-p") as found:
        yield found


@pytest.fixture
def roto(roto_server: Aws) -> Aws:
    """An empty prefix on the worker's shared server."""
    return Aws(roto_server.url, f"t{next(_NUMBERS)}/")


@pytest.fixture
def moto(moto_server: Aws) -> Aws:
    """The same on the second opinion."""
    return Aws(moto_server.url, f"t{next(_NUMBERS)}/")


@pytest.fixture
async def aws_front(roto: Aws) -> AsyncIterator[AwsFront]:
    async with AwsFront(roto.url) as found:
        yield found


def aws_spec(url: str, prefix: str, **settings: Any) -> BackendSpec:
    """A backend onto everything below a prefix; `config` is merged into its own."""
    config = {
        "region": REGION,
        "endpoint_url": url,
        "credentials_path": "env:AWS_KEYS",
        **settings.pop("config", {}),
    }
    given = {
        "id": BackendId("fed_aws"),
        "name": "aws",
        "rules": (RuleSpec("ext/**", f"{prefix}**"),),
        **settings,
    }
    kept = {key: value for key, value in config.items() if value is not None}
    return BackendSpec(type="aws-secrets-manager", config=kept, **given)


@dataclass
class Opened:
    """A backend, and the guard that its calls passed."""

    backend: Backend
    guard: CountingGuard
    prefix: str

    def path(self, name: str) -> RemotePath:
        return RemotePath(self.prefix + name)

    async def read(self, *names: str) -> list[RemoteRead]:
        return list(await self.backend.read([self.path(name) for name in names]))

    async def listed(self, *prefixes: str) -> Listed:
        return await list_all(self.backend, prefixes or [self.prefix])


@asynccontextmanager
async def open_aws(
    url: str,
    prefix: str,
    *,
    keys: Callable[[], str] = lambda: KEYS,
    policy: NetworkPolicy = LOOPBACK,
    **settings: Any,
) -> AsyncIterator[Opened]:
    """A backend of one's own; `keys` gives what stands at its credential's path."""

    async def credential() -> Credential:
        return Credential.parse(keys(), "env:AWS_KEYS")

    guard = CountingGuard()
    spec = aws_spec(url, prefix, **settings)
    async with AwsDriver(policy).open(spec, credential, guard) as backend:
        yield Opened(backend, guard, prefix)


@pytest.fixture
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine that gives this process nothing."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
