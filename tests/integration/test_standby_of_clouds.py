"""A second vault, or a second location, stands by for the first; `test_aws_regions` has AWS's."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from tests.api import Answer, Front, open_front
from tests.aws_house import Database
from tests.azure import azure_spec
from tests.azure_fake import AzureFake
from tests.azure_house import house_of as house_of_azure
from tests.azure_vault import Vault
from tests.gcp import LOOPBACK, PLACE, PREFIX, REGIONAL, Gcp, gcp_spec
from tests.house import BACKEND, House, counts, failure, open_house
from tests.waiting import try_once

from svsync.backends.gcp import GcpDriver
from svsync.clients.gcp import Dial
from svsync.domain.errors import BackendUnreachableError
from svsync.domain.federation import Mode, OnRemoteDelete, Writes
from svsync.domain.ids import BackendId

SECOND = BackendId("fed_second")
STANDS_BY: dict[str, Any] = {
    "id": SECOND,
    "name": "second",
    "extra": {"standby_for": BACKEND, "consistency_window": 0},
}
URL = "/v1/secrets/ext/a"


@pytest.fixture(autouse=True)
def _tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    try_once(monkeypatch)


@dataclass
class Two:
    """Both hold `a`; `lose` lets the first be away, `found` brings it back."""

    house: Callable[..., AbstractAsyncContextManager[House]]
    lose: Callable[[], object]
    found: Callable[[], object]
    second: Callable[[], dict[str, str]]
    """The value of `a` in the second one."""


@pytest.fixture(params=["azure", "gcp"])
def two(request: pytest.FixtureRequest) -> Two:
    made: Two = request.getfixturevalue(f"two_of_{request.param}")
    return made


@pytest.fixture
def two_of_azure(azure_fake: AzureFake, vault: Vault, database: Database) -> Two:
    other = azure_fake.vault(f"{vault.name}-second")
    for one, value in ((vault, "1"), (other, "of-the-second")):
        one.put("a", json.dumps({"k": value}))
    host = vault.url.removeprefix("https://")

    @asynccontextmanager
    async def opened(mode: Mode, **settings: Any) -> AsyncIterator[House]:
        async with house_of_azure(azure_fake, vault, database, mode=mode, **settings) as house:
            standby = azure_spec(azure_fake, other, mode=mode, **STANDS_BY)
            await house.app.federation.apply([house.spec, standby])
            yield house

    return Two(
        opened,
        lambda: azure_fake.resolver.unknown.add(host),
        lambda: azure_fake.resolver.unknown.discard(host),
        lambda: json.loads(other.value("a")),
    )


@pytest.fixture
def two_of_gcp(gcp: Gcp, database: Database) -> Two:
    gcp.fake.add(PREFIX + "a", b'{"k": "1"}', PLACE)
    gcp.fake.add(PREFIX + "a", b'{"k": "of-the-second"}')
    lost: set[str] = set()

    async def resolve(host: str, port: int) -> Sequence[tuple[str, int]]:
        if host in lost:
            raise OSError
        return await gcp.dial.resolve(host, port)

    @asynccontextmanager
    async def opened(mode: Mode, **settings: Any) -> AsyncIterator[House]:
        given = {"extra": {"consistency_window": 0}, **settings}
        spec = gcp_spec(
            id=BACKEND, name=str(BACKEND), mode=mode, config={"location": PLACE}, **given
        )
        environ = {"GCP_KEY": gcp.tokens.key.json()}
        driver = GcpDriver(LOOPBACK, Dial(resolve, gcp.roots))
        drivers = {"gcp-secret-manager": driver}
        async with open_house(*database, spec, environ=environ, drivers=drivers) as house:
            await house.app.federation.apply([spec, gcp_spec(mode=mode, **STANDS_BY)])
            yield house

    return Two(
        opened,
        lambda: lost.add(REGIONAL),
        lost.clear,
        lambda: json.loads(gcp.fake.secret(PREFIX + "a").versions[-1].data),
    )


async def read(front: Front, source: str | None = None) -> Answer:
    answer = await front.client.get(URL)
    assert answer.headers.get("X-SVSync-Source") == source, answer.body
    return answer


async def test_second_is_read_through_while_the_first_is_away(two: Two) -> None:
    async with two.house(Mode.PROXY) as house, open_front(house) as front:
        two.lose()
        assert (await read(front, "standby")).body["data"] == {"k": "of-the-second"}


async def test_second_has_no_say_where_the_first_answers(two: Two) -> None:
    async with two.house(Mode.PROXY) as house, open_front(house) as front:
        assert (await read(front, "backend")).body["data"] == {"k": "1"}


async def test_second_is_never_written_and_never_brought_in(two: Two) -> None:
    settings: dict[str, Any] = {
        "writes": Writes.WRITE_THROUGH,
        "on_remote_delete": OnRemoteDelete.SOFT_DELETE,
    }
    async with two.house(Mode.SYNC, **settings) as house, open_front(house) as front:
        await house.run()
        assert counts(await house.run(backend=SECOND)) == {}
        two.lose()
        assert failure(await house.run()) == "backend_unreachable"
        assert (await read(front)).body["data"] == {"k": "1"}, "what is here goes on being read"
        with pytest.raises(BackendUnreachableError):
            await house.write("ext/a", {"k": "2"})
        two.found()
        await house.write("ext/a", {"k": "3"})
        assert failure(await house.run()) is None
        assert (await read(front)).body["data"] == {"k": "3"}
    assert two.second() == {"k": "of-the-second"}
