"""A service that signs in and does not answer, while what it gave is still good."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import pytest
from tests.aws import KEYS as AWS_KEYS
from tests.aws import LOOPBACK, REGION, Aws
from tests.azure import KEYS as AZURE_KEYS
from tests.azure_fake import AzureFake
from tests.azure_vault import Vault
from tests.gcp import Gcp, gcp_spec
from tests.patience import PATIENCE_S

from svsync.backends.gcp.driver import _service
from svsync.clients.aws import AwsSession, AwsSettings
from svsync.clients.azure import AzureSession, AzureSettings
from svsync.clients.gcp import GcpSession, GcpSettings
from svsync.domain.errors import BackendUnreachableError
from svsync.domain.values import Credential

T = TypeVar("T")


@dataclass
class Login:
    """A session, and how signing in goes.

    Attributes:
        now: monotonic seconds; a token lasts for an hour.
        tries: sign-ins that were begun.
        is_away: nobody answers them.
        answers: they wait until it is set.
    """

    now: float = 1000.0
    tries: int = 0
    is_away: bool = False
    answers: asyncio.Event = field(default_factory=asyncio.Event)
    call: Callable[[], Awaitable[object]] = field(init=False)

    def __post_init__(self) -> None:
        self.answers.set()

    def clock(self) -> float:
        return self.now

    async def sign_in(self, attempt: Callable[[], Awaitable[T]], /) -> T:
        self.tries += 1
        await self.answers.wait()
        if self.is_away:
            raise BackendUnreachableError("nobody answers", operation="login", sent=False)
        return await attempt()


@pytest.fixture
async def aws_login(roto: Aws) -> AsyncIterator[Login]:
    made = Login()
    role = "arn:aws:iam::123456789012:role/svsync"
    async with AwsSession(
        AwsSettings(REGION, roto.url, role_arn=role),
        _giving(AWS_KEYS),
        LOOPBACK,
        login_call=made.sign_in,
        clock=made.clock,
    ) as session:
        made.call = partial(session.call, "secretsmanager", "list_secrets", {}, operation="list")
        yield made


@pytest.fixture
async def azure_login(azure_fake: AzureFake, vault: Vault) -> AsyncIterator[Login]:
    made = Login()
    async with AzureSession(
        AzureSettings(vault.url, "client_secret", tls_verify=azure_fake.pem),
        _giving(AZURE_KEYS),
        LOOPBACK,
        login_call=made.sign_in,
        clock=made.clock,
        resolver=azure_fake.resolver,
    ) as session:
        made.call = partial(session.call, "GET", "/secrets", operation="list")
        yield made


@pytest.fixture
async def gcp_login(gcp: Gcp) -> AsyncIterator[Login]:
    made = Login()
    async with GcpSession(
        GcpSettings(),
        _service(gcp_spec()),
        _giving(gcp.tokens.key.json()),
        LOOPBACK,
        dial=gcp.dial,
        login_call=made.sign_in,
        clock=made.clock,
    ) as session:
        asked = {"parent": "projects/acme"}
        made.call = partial(session.call, "list_secrets", asked, operation="list")
        yield made


@pytest.fixture(params=["aws_login", "azure_login", "gcp_login"])
def login(request: pytest.FixtureRequest) -> Login:
    found: Login = request.getfixturevalue(request.param)
    return found


def _giving(text: str) -> Callable[[], Awaitable[Credential]]:
    async def credential() -> Credential:
        return Credential.parse(text, "test")

    return credential


async def test_nobody_waits_for_a_renewal_while_the_login_is_good(login: Login) -> None:
    await login.call()
    login.now += 2500
    login.answers.clear()
    renews = asyncio.ensure_future(login.call())
    try:
        async with asyncio.timeout(PATIENCE_S):
            while login.tries < 2:  # noqa: ASYNC110 - as it is
                await asyncio.sleep(0)
            await login.call()
        assert not renews.done()
        login.answers.set()
        await renews
        await login.call()
    finally:
        renews.cancel()
    assert login.tries == 2


async def test_renewal_that_failed_is_tried_again_a_minute_later(login: Login) -> None:
    await login.call()
    login.now += 2500
    login.is_away = True
    for _ in range(3):
        await login.call()
    assert login.tries == 2
    login.now += 61
    await login.call()
    assert login.tries == 3
    login.now += 1100
    for _ in range(2):
        with pytest.raises(BackendUnreachableError):
            await login.call()
    assert login.tries == 5, "what is over is not used"
