"""How soon the schedule looks again: each look is work that every process does."""

from tests.house import House

from svsync.app import new_id
from svsync.bus.local import LocalSignals
from svsync.services.scheduling import TICK_S, Scheduling


async def test_looks_keep_apart_however_soon_the_next_backend_is_due(house: House) -> None:
    scheduling = Scheduling(house.app.db, LocalSignals(), ids=new_id, health_interval=60)
    await house.admin.execute("UPDATE backend_health SET next_due_at = now()")
    assert 0.2 <= await scheduling.tick() < TICK_S
