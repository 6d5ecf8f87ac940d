"""An error for one name leaves that name out; an error for all of them ends the run."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
from tests.house import TENANT, House, backend, failure, settings_for, skips
from tests.openbao import Bao
from tests.postgres import connected
from tests.servers import Front

from svsync import registry
from svsync.app import open_app
from svsync.backends.guarded import BackendGuard
from svsync.domain.federation import BackendSpec, RuleSpec
from svsync.domain.runs import RunResult
from svsync.testing.memory import MemoryStore

BAD = "/data/bad$"


@dataclass
class Place:
    """A house on a real OpenBao, and the front through which it is reached."""

    house: House
    front: Front


@pytest.fixture
async def place(
    kv2: Bao,
    database_url: str,
    admin_url: str,
    state_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Place]:
    async def no_wait(_: float) -> None:
        """The guard's waits before it tries again."""

    monkeypatch.setattr(registry, "BackendGuard", partial(BackendGuard, sleep=no_wait))
    for name in ("a", "bad", "c", "d"):
        await kv2.put(name, {"k": "1"})
    async with Front(kv2.url) as front:
        config = {"endpoint": front.url, "auth_method": "token", "auth_config_path": "env:TOKEN"}
        rules = (RuleSpec("ext/**", f"{kv2.mount}/data/**"),)
        spec = backend(rules, type="hashicorp-vault", config=config)
        async with house_of(spec, database_url, admin_url, state_dir, kv2.root_token) as house:
            yield Place(house, front)


@asynccontextmanager
async def house_of(
    spec: BackendSpec, database_url: str, admin_url: str, state_dir: Path, token: str
) -> AsyncIterator[House]:
    settings = replace(settings_for(database_url, state_dir, spec), allow_loopback=True)
    async with (
        open_app(settings, environ={"TOKEN": token}, pool=4) as app,
        connected(admin_url) as admin,
    ):
        yield House(app, MemoryStore(), admin, spec)


@pytest.mark.parametrize("status", [400, 500])
async def test_status_for_one_name_leaves_that_name_out_only(
    place: Place, kv2: Bao, status: int
) -> None:
    place.front.refuse(BAD, status)
    ended = await place.house.run()
    assert failure(ended) is None
    assert ended.record.result is RunResult.PARTIAL
    assert skips(ended) == {f"{kv2.mount}/data/bad": "unreadable"}
    assert await place.house.paths() == ["ext/a", "ext/c", "ext/d"]
    place.front.rules.clear()
    await place.house.run()
    assert await place.house.data("ext/bad") == {"k": "1"}


@pytest.mark.parametrize("status", [400, 500])
async def test_status_for_a_known_name_keeps_its_value(place: Place, kv2: Bao, status: int) -> None:
    await place.house.run()
    await kv2.put("bad", {"k": "2"})
    await kv2.put("c", {"k": "2"})
    place.front.refuse(BAD, status)
    assert failure(await place.house.run()) is None
    assert await place.house.data("ext/bad") == {"k": "1"}
    assert await place.house.data("ext/c") == {"k": "2"}


@pytest.mark.parametrize("status", [400, 500])
async def test_history_that_is_refused_costs_the_earlier_versions_only(
    place: Place, kv2: Bao, status: int
) -> None:
    await kv2.put("bad", {"k": "2"})
    place.front.refuse("GET .*/metadata/bad$", status)
    ended = await place.house.run()
    assert failure(ended) is None
    assert await place.house.data("ext/bad") == {"k": "2"}
    assert len(await place.house.paths()) == 4


@pytest.mark.parametrize("status", [400, 500])
async def test_metadata_that_is_refused_for_one_name_blinds_no_listing(
    place: Place, kv2: Bao, status: int
) -> None:
    """HashiCorp Vault tells versions by a call for each name."""
    place.front.refuse("/detailed-metadata/", 405)
    await place.house.run()
    await kv2.put("bad", {"k": "2"})
    await kv2.put("c", {"k": "2"})
    place.front.refuse("GET .*/metadata/bad$", status)
    ended = await place.house.run()
    assert (failure(ended), skips(ended)) == (None, {})
    assert await place.house.data("ext/bad") == {"k": "2"}  # its value still tells
    assert await place.house.data("ext/c") == {"k": "2"}


async def test_outage_is_unreachable_and_leaves_nobody_out(place: Place) -> None:
    place.front.refuse("GET .*/data/", 503)
    ended = await place.house.run()
    assert failure(ended) == "backend_unreachable"
    assert skips(ended) == {}
    assert not await place.house.rows("sync_state")
    status = await place.house.app.federation.status(TENANT, place.house.spec.id)
    assert status["status"] == "unreachable"
