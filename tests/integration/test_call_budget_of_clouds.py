"""A budget of calls that ends anywhere within a cycle of a cloud: no adapter takes it for an
answer, and nothing is missed, deleted or told to be in sync for it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest
from tests.aws import Aws
from tests.aws_house import Database
from tests.aws_house import house_of as house_of_aws
from tests.azure_fake import AzureFake
from tests.azure_house import house_of as house_of_azure
from tests.azure_vault import Vault
from tests.gcp import PREFIX, Gcp, drivers, gcp_spec
from tests.house import BACKEND, House, failure, open_house

from svsync.domain.federation import Mode, OnRemoteDelete

NAMES = [f"n{number}" for number in range(3)]


@dataclass
class Cloud:
    """One store, and what a person does there."""

    house: Callable[..., AbstractAsyncContextManager[House]]
    put: Callable[[str, str], Awaitable[object]]
    remove: Callable[[str], Awaitable[object]]


@pytest.fixture(params=["aws", "azure", "gcp"])
def cloud(request: pytest.FixtureRequest, database: Database) -> Cloud:
    made: Cloud = request.getfixturevalue(f"cloud_of_{request.param}")
    return made


@pytest.fixture
def cloud_of_aws(roto: Aws, database: Database) -> Cloud:
    return Cloud(
        lambda **settings: house_of_aws(roto.url, roto.prefix, database, **settings),
        lambda name, value: roto.put(name, {"k": value}),
        roto.delete,
    )


@pytest.fixture
def cloud_of_azure(azure_fake: AzureFake, vault: Vault, database: Database) -> Cloud:
    async def put(name: str, value: str) -> None:
        vault.put(name, f'{{"k": "{value}"}}')

    async def remove(name: str) -> None:
        vault.delete(name)

    return Cloud(
        lambda **settings: house_of_azure(azure_fake, vault, database, **settings), put, remove
    )


@pytest.fixture
def cloud_of_gcp(gcp: Gcp, database: Database) -> Cloud:
    @asynccontextmanager
    async def house(**settings: Any) -> AsyncIterator[House]:
        given = {"mode": Mode.SYNC, "extra": {"consistency_window": 0}, **settings}
        spec = gcp_spec(id=BACKEND, name=str(BACKEND), **given)
        environ = {"GCP_KEY": gcp.tokens.key.json()}
        async with open_house(*database, spec, environ=environ, drivers=drivers(gcp)) as opened:
            yield opened

    async def put(name: str, value: str) -> None:
        gcp.put(name, {"k": value})

    async def remove(name: str) -> None:
        gcp.fake.delete(PREFIX + name)

    return Cloud(house, put, remove)


async def test_wherever_it_is_spent_nothing_is_missed_and_nothing_is_told_to_be_fresh(
    cloud: Cloud,
) -> None:
    for name in (*NAMES, "goes"):
        await cloud.put(name, "1")
    async with cloud.house(on_remote_delete=OnRemoteDelete.SOFT_DELETE) as house:
        assert failure(await house.run()) is None
        succeeded = (await house.row("backend_health"))["last_success_at"]
        await cloud.put(NAMES[0], "2")
        await cloud.remove("goes")
        staying = {f"ext/{name}" for name in NAMES}
        for calls in count(1):
            await house.admin.execute("UPDATE runs SET calls = NULL")
            await house.configure(call_budget={"per_day": calls})
            ended = await house.run()
            assert sum(ended.report.api_calls().values()) <= calls
            assert not ended.report.skipped
            assert staying <= set(await house.paths())
            assert {await house.status(path) for path in staying} == {"in_sync"}
            told = (await house.row("backend_health"))["last_success_at"]
            if failure(ended) is None:
                break
            assert (failure(ended), told) == ("call_budget_spent", succeeded)
        assert calls > 2
        assert told > succeeded
        assert set(await house.paths()) == staying
        assert await house.data(f"ext/{NAMES[0]}") == {"k": "2"}
