"""Signals between processes, over Redis or Valkey: hints that may be lost at any time.

One task keeps two connections, one to speak and one to hear; all that this process
says goes through it, several things a round trip. Wake-ups are published under
`svsync:wake:TOPIC`; a rate is one key, `svsync:{turn}:KEY`, booked by a script on
the server's clock. Topics and keys carry the tenant where they are of one.

Once a second the task publishes to itself and books a turn of its own. That is how
`shared` knows: this process is heard and hears, and may write. If anything fails, both
connections are closed and made anew, with a growing pause, for ever. Meanwhile nothing
is asked of the server, rates are divided, and topics to wake are kept until somebody
can be told. Whenever the others are found again, every topic here is woken once.
"""

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from svsync.bus.address import Host, RedisAddress, parse_address
from svsync.bus.local import LocalSignals, LocalWaker, SignalCounts, checked_rate
from svsync.bus.redis import Command, Link, LostError, Pace, Servers, booking, reason_of
from svsync.domain.values import SecretValue
from svsync.observe.logs import get_logger
from svsync.ports import Waker

_WAKE: Final = "svsync:wake:"
_BEAT: Final = "svsync:beat:"
_EVERY_TOPIC: Final = "*"
_MOST_OWED: Final = 1000


@dataclass(slots=True)
class _Ask:
    """A turn somebody waits for; its answer is None where nobody could be asked."""

    key: str
    per_second: float
    answer: asyncio.Future[float | None]


class RedisSignals:
    """The `Signals` of processes joined by Redis; opened by `redis_signals`."""

    def __init__(
        self,
        address: RedisAddress,
        *,
        here: LocalSignals | None = None,
        pace: Pace | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._servers = Servers(address, pace or Pace())
        self._here = here or LocalSignals()
        self._pace = pace or Pace()
        self._chance = chance
        self._me = secrets.token_hex(8)
        self._shared = False
        self._reason = ""  # why the others are away, as it was last logged
        self._owed: set[str] = set()  # topics that others are still to be told of
        self._asked: list[_Ask] = []
        self._beat = self._heard = 0  # the last beat that was sent, and that came back
        self._stir, self._echo, self._said, self._tried = (LocalWaker() for _ in range(4))

    @property
    def shared(self) -> bool:
        return self._shared

    @property
    def counts(self) -> SignalCounts:
        return self._here.counts

    async def wake(self, topic: str) -> None:
        self._here.wake_here(topic)
        if len(self._owed) >= _MOST_OWED:
            self._owed = {_EVERY_TOPIC}
        self._owed.add(topic)
        self._stir.wake()

    def listen(self, topic: str) -> AbstractContextManager[Waker]:
        return self._here.listen(topic)

    async def turn(self, key: str, per_second: float) -> float:
        checked_rate(per_second)
        if self._shared:
            ask = _Ask(key, per_second, asyncio.get_running_loop().create_future())
            self._asked.append(ask)
            self._stir.wake()
            if (due := await ask.answer) is not None:
                return due
        return self._here.take_part(key, per_second)

    def divide_by(self, replicas: int) -> None:
        self._here.divide_by(replicas)

    async def wait_for_first_attempt(self) -> None:
        await self._tried.wait(self._pace.start)

    async def say_the_rest(self) -> None:
        """Tell the others what they are owed, if they can be told at once."""
        while self._owed and self._shared and await self._said.wait(self._pace.answer):
            pass

    async def keep_joined(self) -> None:
        """Join the others, and again whenever they are lost, until cancelled."""
        task = asyncio.current_task()
        assert task is not None
        failures = 0
        while True:
            joined = self.counts.joined
            try:
                await self._stay_joined()
            except Exception as e:  # noqa: BLE001 - whatever went wrong, no more than hints are lost
                if task.cancelling():
                    raise asyncio.CancelledError from None  # closing failed while being cancelled
                self._part(e)
            finally:
                self._let_go()
            failures = 0 if self.counts.joined > joined else failures + 1
            pause = min(self._pace.longest, self._pace.first * 2 ** min(failures, 16))
            await asyncio.sleep(pause * (0.5 + self._chance() / 2))

    async def _stay_joined(self) -> None:
        """Be joined until something fails, which is raised."""
        host = await self._servers.find()
        async with AsyncExitStack() as stack:
            speaking = await stack.enter_async_context(self._servers.linked(host))
            hearing = await stack.enter_async_context(self._servers.linked(host))
            await hearing.ask([("SUBSCRIBE", _BEAT + self._me), ("PSUBSCRIBE", _WAKE + "*")])
            await _until_one_fails(
                self._hear(hearing), self._speak(speaking, host), self._servers.confirm(host)
            )

    async def _hear(self, link: Link) -> None:
        while True:
            match await link.next_message():
                case [b"pmessage", _, bytes(channel), bytes(sender)]:
                    if sender != self._me.encode():
                        self.counts.heard += 1
                        self._wake_heard(channel.decode("utf-8", "replace").removeprefix(_WAKE))
                case [b"message", _, bytes(beat)]:
                    self._heard = int(beat)
                    self._echo.wake()

    def _wake_heard(self, topic: str) -> None:
        if topic == _EVERY_TOPIC:
            self._here.wake_all()
        else:
            self._here.wake_here(topic)

    async def _speak(self, link: Link, host: Host) -> None:
        loop = asyncio.get_running_loop()
        while True:
            next_beat = loop.time() + self._pace.beat
            self._beat += 1
            await self._exchange(link, beat=True)
            if not self._shared:
                while self._heard < self._beat and await self._echo.wait(next_beat - loop.time()):
                    pass
                if self._heard == self._beat:
                    self._join(host)
            while (left := next_beat - loop.time()) > 0:
                if await self._stir.wait(left):
                    await self._exchange(link)
            if self._heard < self._beat:
                raise LostError("not_heard")

    async def _exchange(self, link: Link, *, beat: bool = False) -> None:
        """Say in one round trip what there is to say; before joining only the beat."""
        owed: set[str] = set()
        asked: list[_Ask] = []
        if self._shared:
            owed, self._owed = self._owed, owed
            asked, self._asked = self._asked, asked
        commands: list[Command] = []
        if beat:
            commands += [("PUBLISH", _BEAT + self._me, self._beat), booking(self._me, 1e6)]
        commands += [("PUBLISH", _WAKE + topic, self._me) for topic in owed]
        commands += [
            booking(ask.key, ask.per_second, self._here.booked_alone(ask.key)) for ask in asked
        ]
        try:
            answers = await link.ask(commands)
        except BaseException:
            self._owed |= owed
            self._asked += asked
            raise
        self.counts.sent += len(owed)
        self._said.wake()
        for ask, answer in zip(asked, answers[len(commands) - len(asked) :], strict=True):
            due = int(answer) / 1e6
            self._here.agree(ask.key, due, ask.per_second)
            if not ask.answer.done():
                ask.answer.set_result(due)

    def _join(self, host: Host) -> None:
        self._shared = True
        self._reason = ""
        self.counts.joined += 1
        get_logger().info("signals_shared", address=str(host))
        self._tried.wake()
        self._here.wake_all()
        self._stir.wake()

    def _part(self, error: Exception) -> None:
        """Count and say that the others are away, and why; once for each reason in a row."""
        reason = reason_of(error)
        self.counts.lost += self._shared
        if self._shared or reason != self._reason:
            unexpected = {"error": error} if reason == "unexpected" else {}
            get_logger().warning(
                "signals_lost",
                reason=reason,
                hint="until Redis answers, wake-ups take longer and replicas divide their rates",
                **unexpected,
            )
        self._reason = reason

    def _let_go(self) -> None:
        """Whoever waits for an answer from the others goes on without."""
        self._shared = False
        self._tried.wake()
        self._said.wake()
        asked, self._asked = self._asked, []
        for ask in asked:
            if not ask.answer.done():
                ask.answer.set_result(None)


async def _until_one_fails(*parts: Coroutine[None, None, None]) -> None:
    """Run all; raise what the first that fails raises, once the others have ended.

    A TaskGroup of Python 3.11 would leave the caller marked as cancelled after a failure,
    and could hide that it is cancelled indeed.
    """
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def redis_signals(
    url: SecretValue,
    *,
    here: LocalSignals | None = None,
    pace: Pace | None = None,
    chance: Callable[[], float] = random.random,
) -> AsyncIterator[RedisSignals]:
    """Signals over Redis while the block lasts. Raises ConfigError for an unusable URL."""
    signals = RedisSignals(parse_address(url), here=here, pace=pace, chance=chance)
    keeper = asyncio.create_task(signals.keep_joined(), name="signals")
    try:
        await signals.wait_for_first_attempt()
        yield signals
    finally:
        try:
            await signals.say_the_rest()
        finally:
            keeper.cancel()
            await asyncio.wait({keeper})
