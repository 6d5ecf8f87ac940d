"""The identity that a machine gives: an instance's role, a task's, a pod's.

What stands in for each answers as AWS describes it: the instance by a session token that is
asked for first (EC2 User Guide, "Retrieve security credentials from instance metadata" and
"Use the Instance Metadata Service to access instance metadata"), task and pod by an address
and a token that the environment names (SDKs and Tools Reference Guide, "Container
credential provider").
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import web
from tests.aws import LOOPBACK, REGION, Aws, AwsFront, open_aws

from svsync.clients.aws import AwsSession, AwsSettings
from svsync.domain.errors import LoginError
from svsync.domain.values import Credential

SECRET: Final = "canary-of-a-machine"
AMBIENT: Final[dict[str, Any]] = {"credentials_path": None}
_OF_A_MACHINE: Final = (
    "AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_EC2_METADATA_DISABLED", "AWS_EC2_METADATA_V1_DISABLED",
)  # fmt: skip


@dataclass
class Machine:
    """Gives keys, each time others.

    Attributes:
        answers: what the routes of a container answer in place of keys.
        asked: method and path of each request.
        authorizations: what requests for a container's keys were signed with.
    """

    answers: object = None
    role: str = "svsync-role"
    asked: list[str] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    given: int = 0
    url: str = ""

    def _keys(self) -> dict[str, str]:
        self.given += 1
        return {
            "Code": "Success",
            "Type": "AWS-HMAC",
            "AccessKeyId": f"ASIAMACHINE{self.given}",
            "SecretAccessKey": SECRET,
            "Token": f"t{self.given}",
            "Expiration": f"{datetime.now(UTC) + timedelta(hours=6):%Y-%m-%dT%H:%M:%SZ}",
        }

    async def token(self, request: web.Request) -> web.Response:
        """A session of one second to six hours."""
        self.asked.append(f"PUT {request.path}")
        seconds = request.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
        if not seconds.isdigit() or not 1 <= int(seconds) <= 21600:
            return web.Response(status=400)
        return web.Response(text="of-the-session")

    async def instance(self, request: web.Request) -> web.Response:
        """The role's name, or its keys; nothing without the session's token."""
        self.asked.append(f"GET {request.path}")
        if request.headers.get("X-aws-ec2-metadata-token") != "of-the-session":
            return web.Response(status=401)
        name = request.match_info["name"]
        if not self.role or name not in ("", self.role):
            return web.Response(status=404)
        return web.json_response(self._keys()) if name else web.Response(text=self.role)

    async def container(self, request: web.Request) -> web.Response:
        self.asked.append(f"GET {request.path}")
        self.authorizations.append(request.headers.get("Authorization"))
        return web.json_response(self._keys() if self.answers is None else self.answers)


@pytest.fixture
async def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Machine]:
    """A machine that this process runs on, and that gives it nothing yet."""
    for name in _OF_A_MACHINE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    made = Machine()
    app = web.Application()
    app.router.add_put("/latest/api/token", made.token)
    app.router.add_get("/latest/meta-data/iam/security-credentials/{name:.*}", made.instance)
    app.router.add_get("/v2/credentials/task", made.container)
    app.router.add_get("/v1/credentials", made.container)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    made.url = f"http://{host}:{port}"
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", made.url)
    yield made
    await runner.cleanup()


def no_keys() -> str:
    raise AssertionError("no credential is configured, so none is asked for")


def keys_of(front: AwsFront) -> list[str]:
    """By whose keys Secrets Manager is called from here on."""
    found: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        signed = request.headers["Authorization"].split("Credential=")[1].split("/")[0]
        found.append(f"{signed} {request.headers.get('X-Amz-Security-Token')}")
        return await front.forward(request)

    front.answer("", answer)
    return found


async def test_role_of_an_instance_is_asked_for_with_a_session(
    roto: Aws, aws_front: AwsFront, machine: Machine
) -> None:
    keys = keys_of(aws_front)
    async with open_aws(aws_front.url, roto.prefix, config=AMBIENT, keys=no_keys) as aws:
        await aws.listed()
        await aws.listed()
    roles = "/latest/meta-data/iam/security-credentials/"
    assert machine.asked == [
        "PUT /latest/api/token", f"GET {roles}", f"GET {roles}svsync-role",
    ]  # fmt: skip
    assert keys == ["ASIAMACHINE1 t1"] * 2


async def test_keys_of_an_instance_are_replaced_before_they_end(
    roto: Aws, aws_front: AwsFront, machine: Machine
) -> None:
    """The SDK replaces them a quarter of an hour before; it is asked every few minutes."""
    keys = keys_of(aws_front)
    now = 1000.0

    async def credential() -> Credential:
        raise AssertionError

    async def call() -> None:
        await session.call("secretsmanager", "list_secrets", {}, operation="list")

    settings = AwsSettings(REGION, aws_front.url, static=False)
    async with AwsSession(settings, credential, LOOPBACK, clock=lambda: now) as session:
        await call()
        session._machine._expiry_time = datetime.now(UTC) + timedelta(minutes=14)
        now += 300
        await call()
        assert machine.given == 1
        now += 200
        await call()
    assert keys == ["ASIAMACHINE1 t1", "ASIAMACHINE1 t1", "ASIAMACHINE2 t2"]


async def test_instance_without_a_role_is_no_identity(roto: Aws, machine: Machine) -> None:
    machine.role = ""
    async with open_aws(roto.url, roto.prefix, config=AMBIENT, keys=no_keys) as aws:
        with pytest.raises(LoginError, match="credentials_path"):
            await aws.listed()
    assert machine.given == 0


async def test_role_of_a_task_is_asked_for_at_its_address(
    roto: Aws, aws_front: AwsFront, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the instance that the task runs on is asked."""
    keys = keys_of(aws_front)
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{machine.url}/v2/credentials/task")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "Basic of-the-task")
    async with open_aws(aws_front.url, roto.prefix, config=AMBIENT, keys=no_keys) as aws:
        await aws.listed()
    assert machine.asked == ["GET /v2/credentials/task"]
    assert machine.authorizations == ["Basic of-the-task"]
    assert keys == ["ASIAMACHINE1 t1"]


async def test_identity_of_a_pod_is_asked_for_with_the_token_of_its_file(
    roto: Aws,
    aws_front: AwsFront,
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    keys = keys_of(aws_front)
    token = tmp_path / "eks-pod-identity-token"
    token.write_text("header.payload.signature")
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{machine.url}/v1/credentials")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(token))
    async with open_aws(aws_front.url, roto.prefix, config=AMBIENT, keys=no_keys) as aws:
        await aws.listed()
    assert machine.authorizations == ["header.payload.signature"]
    assert keys == ["ASIAMACHINE1 t1"]


async def test_address_of_keys_that_is_not_this_machines_is_not_asked(
    roto: Aws, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://elsewhere.example/{SECRET}")
    async with open_aws(roto.url, roto.prefix, config=AMBIENT, keys=no_keys) as aws:
        with pytest.raises(LoginError, match="credentials_path") as raised:
            await aws.listed()
    assert SECRET not in raised.value.message
    assert machine.asked == []


@pytest.mark.parametrize(
    "answer", [{}, {"AccessKeyId": "ASIA", "SecretAccessKey": SECRET}, [SECRET]]
)
async def test_answer_without_keys_is_no_identity(
    roto: Aws, machine: Machine, monkeypatch: pytest.MonkeyPatch, answer: object
) -> None:
    machine.answers = answer
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{machine.url}/v1/credentials")
    async with open_aws(roto.url, roto.prefix, config=AMBIENT, keys=no_keys) as aws:
        with pytest.raises(LoginError, match="credentials_path") as raised:
            await aws.listed()
    assert SECRET not in raised.value.message


async def test_token_file_that_is_not_there_is_no_identity(
    roto: Aws, machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{machine.url}/v1/credentials")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(tmp_path / "none"))
    async with open_aws(roto.url, roto.prefix, config=AMBIENT, keys=no_keys) as aws:
        with pytest.raises(LoginError, match="credentials_path"):
            await aws.listed()
    assert machine.asked == []
