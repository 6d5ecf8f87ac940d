"""As whom svsync calls AWS, and what it does when the keys end."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from aiohttp import web
from botocore.exceptions import BotoCoreError
from tests.aws import KEYS, LOOPBACK, REGION, Aws, AwsFront, open_aws

from svsync.clients.aws import AwsSession, AwsSettings
from svsync.clients.aws.sdk import keys_of_machine, sdk
from svsync.domain.changes import RemoteValue
from svsync.domain.errors import BackendError, ConfigError, LoginError
from svsync.domain.federation import ManagedBy
from svsync.domain.values import Credential

ROLE = "arn:aws:iam::123456789012:role/svsync"
SECRET = "canary-of-aws-keys"


class Asked:
    """Notes what STS was asked for and as whom Secrets Manager was called."""

    def __init__(self, front: AwsFront, *, lasts: timedelta = timedelta(hours=1)) -> None:
        self.forms: list[dict[str, str]] = []
        self.keys: list[str] = []
        self.lasts = lasts
        self.status = 200
        self._front = front
        front.answer("^AssumeRole", self._sts)
        front.answer("", self._other)

    async def _sts(self, request: web.Request) -> web.StreamResponse:
        form = {key: texts[0] for key, texts in parse_qs((await request.read()).decode()).items()}
        self.forms.append(form)
        if self.status != 200:
            return web.Response(status=self.status, text="<ErrorResponse/>")
        action, ends = form["Action"], datetime.now(UTC) + self.lasts
        number = len(self.forms)
        text = (
            f'<{action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
            f"<{action}Result><Credentials><AccessKeyId>ASIA{number}</AccessKeyId>"
            f"<SecretAccessKey>{SECRET}</SecretAccessKey><SessionToken>t{number}</SessionToken>"
            f"<Expiration>{ends:%Y-%m-%dT%H:%M:%SZ}</Expiration></Credentials></{action}Result>"
            f"</{action}Response>"
        )
        return web.Response(text=text, content_type="text/xml")

    async def _other(self, request: web.Request) -> web.StreamResponse:
        self.keys.append(request.headers["Authorization"].split("Credential=")[1].split("/")[0])
        return await self._front.forward(request)


async def test_role_is_assumed_within_the_region_and_under_its_external_id(
    roto: Aws, aws_front: AwsFront
) -> None:
    asked = Asked(aws_front)
    config = {"role_arn": ROLE, "external_id": "acme-1"}
    async with open_aws(aws_front.url, roto.prefix, config=config) as aws:
        await aws.listed()
        await aws.listed()
        assert aws.guard.calls.count("login") == 1
    [form] = asked.forms
    assert (form["RoleArn"], form["ExternalId"]) == (ROLE, "acme-1")
    assert form["RoleSessionName"] == "svsync-fed_aws", "so AWS's own log tells which backend"
    assert asked.keys == ["ASIA1", "ASIA1"]


async def test_role_of_a_backend_of_the_api_has_an_external_id_of_its_own(
    roto: Aws, aws_front: AwsFront
) -> None:
    asked = Asked(aws_front)
    about: dict[str, Any] = {"config": {"role_arn": ROLE}, "name": "aws-prod", "tenant": "acme"}
    async with open_aws(aws_front.url, roto.prefix, managed_by=ManagedBy.API, **about) as aws:
        await aws.listed()
    assert asked.forms[0]["ExternalId"] == "svsync:acme:aws-prod"


async def test_role_that_may_not_be_assumed_is_named(roto: Aws, aws_front: AwsFront) -> None:
    asked = Asked(aws_front)
    asked.status = 403
    async with open_aws(aws_front.url, roto.prefix, config={"role_arn": ROLE}) as aws:
        with pytest.raises(LoginError, match=f"assume {ROLE}") as raised:
            await aws.listed()
    assert not raised.value.sent
    assert asked.keys == []


async def test_keys_are_replaced_at_two_thirds_of_their_life(
    roto: Aws, aws_front: AwsFront
) -> None:
    asked = Asked(aws_front)
    now = 1000.0

    async def credential() -> Credential:
        return Credential.parse(KEYS, "test")

    async def call() -> None:
        await session.call("secretsmanager", "list_secrets", {}, operation="list")

    settings = AwsSettings(REGION, aws_front.url, role_arn=ROLE)
    async with AwsSession(settings, credential, LOOPBACK, clock=lambda: now) as session:
        await call()
        now += 2300
        await call()
        assert len(asked.forms) == 1
        now += 200
        await call()
        assert len(asked.forms) == 2
        now += 2500
        asked.status = 503
        await call()
        assert asked.keys == ["ASIA1", "ASIA1", "ASIA2", "ASIA2"], "what is good is used"
        now += 1200
        with pytest.raises(BackendError):
            await call()


async def test_keys_that_aws_refuses_are_asked_for_once_more(
    roto: Aws, aws_front: AwsFront
) -> None:
    await roto.put("a", {"k": "v"})
    keys = [KEYS, KEYS.replace("AKIAEXAMPLE", "AKIANEW")]

    def refuse_the_old(request: web.Request) -> web.Response | None:
        old = "AKIAEXAMPLE" in request.headers["Authorization"]
        body = {"__type": "ExpiredTokenException", "Message": SECRET}
        return web.json_response(body, status=400) if old else None

    async def answer(request: web.Request) -> web.StreamResponse:
        return refuse_the_old(request) or await aws_front.forward(request)

    aws_front.answer("", answer)
    async with open_aws(aws_front.url, roto.prefix, keys=lambda: keys.pop(0)) as aws:
        [read] = await aws.read("a")
    assert isinstance(read, RemoteValue)
    assert keys == []


@pytest.mark.parametrize(
    "code", ["UnrecognizedClientException", "InvalidClientTokenId", "ExpiredTokenException"]
)
async def test_keys_that_stay_refused_end_it_with_the_place_of_the_keys(
    roto: Aws, aws_front: AwsFront, code: str
) -> None:
    aws_front.refuse_as("", code, message=SECRET)
    async with open_aws(aws_front.url, roto.prefix) as aws:
        with pytest.raises(LoginError, match="env:AWS_KEYS") as raised:
            await aws.listed()
    assert SECRET not in raised.value.message
    assert len(aws_front.seen) == 1


async def test_clock_that_is_wrong_is_named(roto: Aws, aws_front: AwsFront) -> None:
    said = "Signature expired: 20261129T080000Z is now earlier than 20261129T085500Z"
    aws_front.refuse_as("", "InvalidSignatureException", message=said)
    async with open_aws(aws_front.url, roto.prefix) as aws:
        with pytest.raises(LoginError, match="clock") as raised:
            await aws.listed()
    assert raised.value.code == "clock_skew"
    assert len(aws_front.seen) == 1


@pytest.mark.parametrize("missing", ["access_key_id", "secret_access_key"])
async def test_credential_that_lacks_a_field_is_told(roto: Aws, missing: str) -> None:
    keys = json.loads(KEYS)
    del keys[missing]
    async with open_aws(roto.url, roto.prefix, keys=lambda: json.dumps(keys)) as aws:
        with pytest.raises(ConfigError, match=missing):
            await aws.listed()


async def test_profile_of_the_environment_is_nothing_to_given_keys(
    roto: Aws, aws_front: AwsFront, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config").write_text("[default\nnothing that can be read")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "of-somebody")
    asked = Asked(aws_front)
    async with open_aws(aws_front.url, roto.prefix, config={"role_arn": ROLE}) as aws:
        await aws.listed()
    assert asked.keys == ["ASIA1"]


# --- the identity of this process ---------------------------------------------------


def no_keys() -> str:
    raise AssertionError("no credential is configured, so none is asked for")


@pytest.mark.usefixtures("bare_machine")
async def test_machine_without_identity_is_told_what_to_do(roto: Aws) -> None:
    config = {"credentials_path": None}
    async with open_aws(roto.url, roto.prefix, config=config, keys=no_keys) as aws:
        with pytest.raises(LoginError, match="credentials_path"):
            await aws.listed()


@pytest.mark.usefixtures("bare_machine")
async def test_profile_that_is_not_there_is_no_identity(
    roto: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "of-somebody")
    config = {"credentials_path": None}
    async with open_aws(roto.url, roto.prefix, config=config, keys=no_keys) as aws:
        with pytest.raises(LoginError):
            await aws.listed()


@pytest.mark.usefixtures("bare_machine")
async def test_nothing_in_the_sdks_chain_calls_a_service_of_aws() -> None:
    session = sdk({})
    with pytest.raises(BotoCoreError):
        await keys_of_machine(session)
    asked = {one.METHOD for one in session.get_component("credential_provider").providers}
    assert not asked & {"assume-role", "assume-role-with-web-identity", "sso", "login"}
    assert asked >= {"env", "shared-credentials-file", "container-role", "iam-role"}


async def test_address_in_the_environment_is_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SECRETS_MANAGER"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    async def credential() -> Credential:
        return Credential.parse(KEYS, "test")

    async with AwsSession(AwsSettings("eu-central-1"), credential, LOOPBACK) as session:
        await session.sign_in("secretsmanager")
        [(client, _)] = session._clients.values()
    assert client.meta.endpoint_url == "https://secretsmanager.eu-central-1.amazonaws.com"


@pytest.mark.usefixtures("bare_machine")
async def test_keys_of_the_environment_are_used(
    roto: Aws, aws_front: AwsFront, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    asked = Asked(aws_front)
    config = {"credentials_path": None}
    async with open_aws(aws_front.url, roto.prefix, config=config, keys=no_keys) as aws:
        await aws.listed()
    assert (asked.keys, asked.forms) == (["AKIAENV"], [])


@pytest.mark.usefixtures("bare_machine")
async def test_keys_of_the_container_are_used_to_assume_a_role(
    roto: Aws, aws_front: AwsFront, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    given = {
        "AccessKeyId": "ASIACONTAINER",
        "SecretAccessKey": SECRET,
        "Token": "t",
        "Expiration": ends,
    }

    async def keys(_: web.Request) -> web.Response:
        return web.json_response(given)

    app = web.Application()
    app.router.add_get("/keys", keys)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://{host}:{port}/keys")
    asked = Asked(aws_front)
    config = {"credentials_path": None, "role_arn": ROLE}
    try:
        async with open_aws(aws_front.url, roto.prefix, config=config, keys=no_keys) as aws:
            await aws.listed()
    finally:
        await runner.cleanup()
    assert [form["RoleArn"] for form in asked.forms] == [ROLE]
    assert asked.keys == ["ASIA1"]


@pytest.mark.usefixtures("bare_machine")
async def test_web_identity_is_exchanged_at_the_configured_endpoint(
    aws_front: AwsFront, tmp_path: Path
) -> None:
    asked = Asked(aws_front)
    token = tmp_path / "token"
    token.write_text("header.payload.signature\n")
    environ = {"AWS_WEB_IDENTITY_TOKEN_FILE": str(token), "AWS_ROLE_ARN": ROLE}

    async def credential() -> Credential:
        raise AssertionError

    settings = AwsSettings(REGION, aws_front.url, static=False)
    async with AwsSession(settings, credential, LOOPBACK, environ=environ) as session:
        await session.call("secretsmanager", "list_secrets", {}, operation="list")
    [form] = asked.forms
    assert form["Action"] == "AssumeRoleWithWebIdentity"
    assert (form["RoleArn"], form["WebIdentityToken"]) == (ROLE, "header.payload.signature")
    assert asked.keys == ["ASIA1"]


async def test_web_identity_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    environ = {"AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "none"), "AWS_ROLE_ARN": ROLE}

    async def credential() -> Credential:
        raise AssertionError

    settings = AwsSettings(REGION, "http://127.0.0.1:9", static=False)
    async with AwsSession(settings, credential, LOOPBACK, environ=environ) as session:
        with pytest.raises(LoginError, match="cannot be read"):
            await session.sign_in("secretsmanager")
