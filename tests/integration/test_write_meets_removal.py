"""A write that looked at its backend just before that is removed, or configured otherwise."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
from tests.house import BACKEND, EVERYTHING, TENANT, House
from tests.integration.test_fence import somebody_waits_for_a_lock, until
from tests.integration.test_removal import remove

from svsync.domain.errors import ConfigError, NotFoundError, SvsyncError
from svsync.domain.federation import Mode, RuleSpec, Writes
from svsync.services import write_rows, write_through
from svsync.services.removal import Removal
from svsync.store import federation, outbox
from svsync.store import secrets as store
from svsync.store.outbox import Event


class Gate:
    """Holds up who comes first through a function, before or after its work, until it is left."""

    def __init__(
        self,
        patch: pytest.MonkeyPatch,
        where: Any,
        name: str,
        *,
        after: bool = False,
        those: int = 1,
    ) -> None:
        self.reached = asyncio.Event()
        self._go = asyncio.Event()
        self._left = those
        self._after = after
        patch.setattr(where, name, self._through(getattr(where, name)))

    def _through(self, real: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def gated(*args: Any, **how: Any) -> Any:
            if self._after:
                answer = await real(*args, **how)
                await self._wait()
                return answer
            await self._wait()
            return await real(*args, **how)

        return gated

    async def _wait(self) -> None:
        if self._left > 0:
            self._left -= 1
            if self._left == 0:
                self.reached.set()
            await self._go.wait()

    def __enter__(self) -> "Gate":
        return self

    def __exit__(self, *_: object) -> None:
        """Lets them go, also where the test has failed: nobody is left who waits."""
        self._go.set()


async def filled(house: House, **settings: Any) -> None:
    await house.configure(**settings)
    house.there.put("kv/a", {"k": "1"})
    await house.run()


@pytest.mark.parametrize("purge", [False, True])
async def test_removal_waits_for_a_write_that_looked_before_it(
    house: House, monkeypatch: pytest.MonkeyPatch, purge: bool
) -> None:
    await filled(house, writes=Writes.WRITE_THROUGH)
    with Gate(monkeypatch, write_rows, "plan") as gate:
        writing = asyncio.create_task(house.write("ext/a", {"k": "2"}))
        await gate.reached.wait()
        removing = asyncio.create_task(remove(house, purge=purge))
        await until(partial(somebody_waits_for_a_lock, house))
    assert await writing == 2
    await asyncio.wait([removing])
    if removing.exception() is not None:  # it met the push on its way
        await remove(house, purge=purge)
    assert {row["state"] for row in await house.rows("pushes")} == {"landed"}
    assert {row["status"] for row in await house.rows("sync_state")} <= {"detached"}
    assert await house.write("ext/a", {"k": "3"}) == 3


async def test_write_that_a_removal_overtook_is_an_ordinary_one(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(house, writes=Writes.WRITE_THROUGH)
    with Gate(monkeypatch, write_through, "owner_of", after=True) as gate:
        writing = asyncio.create_task(house.write("ext/a", {"k": "2"}))
        await gate.reached.wait()
        await remove(house)
    assert await writing == 2
    assert await house.rows("pushes") == []
    assert await house.data("ext/a") == {"k": "2"}


async def test_flip_to_proxy_sees_the_new_path_of_a_write_that_looked_before_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(house, writes=Writes.LOCAL)
    with Gate(monkeypatch, store, "add_versions") as gate:
        writing = asyncio.create_task(house.write("ext/new", {"k": "2"}))
        await gate.reached.wait()
        flipping = asyncio.create_task(house.configure(mode=Mode.PROXY))
        await until(partial(somebody_waits_for_a_lock, house))
    assert await writing == 1
    with pytest.raises(ConfigError) as refused:
        await flipping
    assert refused.value.code == "hides_local_secrets"
    assert "ext/new" in await house.paths()


async def test_writes_that_leave_an_old_mapping_and_a_new_configuration_do_not_lock_each_other_out(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(house, writes=Writes.WRITE_THROUGH)
    house.there.put("kv/b", {"k": "1"})
    await house.run()
    await house.configure(rules=(*EVERYTHING, RuleSpec("more/**", "more/**")))
    with Gate(monkeypatch, federation, "forget_applied", those=2) as gate:
        writes = [asyncio.create_task(house.write(f"ext/{n}", {"k": "2"})) for n in "ab"]
        await gate.reached.wait()
        applying = asyncio.create_task(house.configure(sync_interval=77.0))
        await until(partial(somebody_waits_for_a_lock, house))
    assert await asyncio.gather(*writes) == [2, 2]
    await applying
    assert (await house.row("backends"))["applied_hash"] is None


ON_ITS_WAY = """INSERT INTO pushes (tenant_id, push_id, backend_id, path, remote_path, kind,
  secret_id, version, row_rev, state, deadline, created_by)
SELECT 1, 'psh_late', $1, path, 'kv/a', 'put', secret_id, 1, row_rev, 'sent',
  now() + interval '1 min', 'sa:test' FROM secrets WHERE path = 'ext/a'"""


@pytest.mark.parametrize("step", ["_ask", "_close_conflicts", "_settle_hidden"])
async def test_removal_does_not_end_while_a_push_is_on_its_way(
    house: House, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    await filled(house, writes=Writes.WRITE_THROUGH)
    await house.admin.execute(ON_ITS_WAY.replace("'psh_late'", "'psh_old'"), BACKEND)
    await house.admin.execute("UPDATE pushes SET deadline = now() - interval '1 min'")
    real = getattr(Removal, step)

    async def meanwhile(*args: Any, **how: Any) -> Any:
        await house.admin.execute("UPDATE pushes SET state = 'withdrawn', ended_at = now()")
        await house.admin.execute(ON_ITS_WAY, BACKEND)
        return await real(*args, **how)

    monkeypatch.setattr(Removal, step, meanwhile)
    with pytest.raises(SvsyncError) as busy:
        await remove(house)
    assert busy.value.code == "write_in_progress"
    assert (await house.row("pushes", push_id="psh_late"))["state"] == "sent"
    assert (await house.row("backends"))["state"] == "deleting"
    monkeypatch.undo()
    await house.admin.execute("UPDATE pushes SET deadline = now() - interval '1 min'")
    await remove(house)
    assert not await house.rows("backends")


async def test_event_of_a_removed_backend_is_refused_in_words(house: House) -> None:
    await remove(house)
    event = Event("federation.secret.changed", {})
    with pytest.raises(NotFoundError) as refused:
        async with house.app.db.transaction(TENANT) as tx:
            await outbox.add(tx, BACKEND, [event], event_ids=lambda: "evt_1")
    assert refused.value.code == "backend_not_found"
