"""A rate of calls is of all processes together where Redis joins them: no one is faster alone."""

import asyncio
from itertools import pairwise

from tests.valkey import QUICK, shared_valkey

from svsync.app import new_id
from svsync.backends.guarded import BackendGuard
from svsync.bus.joined import redis_signals
from svsync.domain.quotas import Limit
from svsync.embedded.valkey import ValkeyServer
from svsync.ports import Operation, Signals

__all__ = ["shared_valkey"]

A_MINUTE_APART = 1 / 60


async def test_processes_that_hear_each_other_share_a_rate(shared_valkey: ValkeyServer) -> None:
    waits: list[float] = []
    key = new_id("rate")  # nobody else's

    async def noted(seconds: float) -> None:
        waits.append(seconds)

    def process(signals: Signals) -> BackendGuard:
        async def turn(operation: Operation, per_second: float) -> float:
            return await signals.turn(f"{key}:{operation}", per_second)

        limits: dict[Operation, Limit] = {"read": Limit(per_second=A_MINUTE_APART)}
        return BackendGuard(limits, turn=turn, sleep=noted)

    async def call() -> None: ...

    async with (
        redis_signals(shared_valkey.url, pace=QUICK) as one,
        redis_signals(shared_valkey.url, pace=QUICK) as other,
    ):
        assert one.shared
        assert other.shared
        guards = [process(one), process(other)]
        await asyncio.gather(*(guards[n % 2].call("read", call) for n in range(8)))
    assert len(waits) == 7, "the first waits for nobody"
    gaps = [later - earlier for earlier, later in pairwise(sorted(waits))]
    assert all(50 < gap < 70 for gap in gaps), gaps
