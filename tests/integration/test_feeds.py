"""From a notice to the backends that federate its path: who hears what, and when."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from tests.patience import PATIENCE_S

from svsync.domain.errors import ConfigError, StoreUnavailableError
from svsync.domain.federation import BackendSpec, Mode, Overrides, RuleSpec
from svsync.domain.feeds import MOST_PATHS
from svsync.domain.ids import BackendId, RemotePath, TenantId
from svsync.domain.mapping import RuleSet
from svsync.ports import Notice, Tell
from svsync.services.feeds import Feeds, Listening

AUDIT = {"feed": "vault-audit", "listen": "unix:/run/svsync/audit.sock"}
GAP = Notice("", None)


def backend(
    id: str = "fed_a", remote: str = "kv/data/**", *, tenant: int = 1, **changes: Any
) -> Listening:
    rules = changes.pop("rules", (RuleSpec("ext/**", remote),))
    namespace = changes.pop("namespace", "")
    spec = BackendSpec(
        BackendId(id),
        id,
        "hashicorp-vault",
        rules,
        config={"namespace": namespace} if namespace else {},
        **({"mode": Mode.SYNC, "events": (AUDIT,)} | changes),
    )
    return Listening(TenantId(tenant), spec, RuleSet.compile(rules))


def notice(path: str, namespace: str = "") -> Notice:
    return Notice(namespace, RemotePath(path))


class Feed:
    """A feed that a test speaks through; `problems` are raised before it listens."""

    def __init__(self, problems: list[ConfigError]) -> None:
        self.problems = problems
        self.tell: Tell
        self.listening = asyncio.Event()
        self.broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.invalid = self.dropped = 0

    async def listen(self, tell: Tell) -> None:
        if self.problems:
            raise self.problems.pop(0)
        self.tell = tell
        self.listening.set()
        try:
            await self.broken
        finally:
            self.listening.clear()


@dataclass
class Desk:
    """Everything around the service: the feeds that it opened, and what it handed over.

    `told` has (backend, paths or None). `failing` are raised by the next handings over.
    Waiting takes as long as the test lets it, for ever after a failure: each wait goes to
    `waits`, and ends when `window` is set.
    """

    opened: dict[str, Feed] = field(default_factory=dict)
    problems: dict[str, list[ConfigError]] = field(default_factory=dict)
    told: asyncio.Queue[tuple[str, list[str] | None]] = field(default_factory=asyncio.Queue)
    failing: list[Exception] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    now: float = 0.0
    window: asyncio.Event = field(default_factory=asyncio.Event)

    def open_feed(self, entry: Mapping[str, object], spec: BackendSpec, tenant: TenantId) -> Feed:
        key = str(entry.get("listen", spec.id))
        self.opened[key] = Feed(self.problems.get(key, []))
        return self.opened[key]

    async def take_notice(
        self,
        tenant: TenantId,
        backend: BackendId,
        paths: Collection[RemotePath] | None,
        feed: str,
    ) -> None:
        if self.failing:
            self.window.clear()
            raise self.failing.pop(0)
        self.told.put_nowait((backend, None if paths is None else sorted(paths)))

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        await self.window.wait()

    async def heard(self) -> tuple[str, list[str] | None]:
        return await asyncio.wait_for(self.told.get(), PATIENCE_S)


@asynccontextmanager
async def running(*backends: Listening, **given: Any) -> AsyncIterator[tuple[Desk, Feeds]]:
    desk = Desk(**given)
    desk.window.set()
    feeds = Feeds(
        desk.open_feed,
        desk.take_notice,
        sleep=desk.sleep,
        spread=lambda: 1.0,
        clock=lambda: desk.now,
    )
    feeds.follow(backends)
    task = asyncio.create_task(feeds.run())
    try:
        await turns()
        yield desk, feeds
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def turns() -> None:
    """Let everything that can go on without waiting do so."""
    for _ in range(20):
        await asyncio.sleep(0)


def audit(desk: Desk) -> Feed:
    return desk.opened[AUDIT["listen"]]


# --- who hears what -----------------------------------------------------------------


async def test_a_path_goes_to_the_backends_that_federate_it_and_to_no_other() -> None:
    mine, other = backend("fed_a", "kv/data/a/**"), backend("fed_b", "kv/data/b/**")
    async with running(mine, other) as (desk, feeds):
        assert list(desk.opened) == [AUDIT["listen"]]
        audit(desk).tell(notice("kv/data/b/x"))
        assert await desk.heard() == ("fed_b", ["kv/data/b/x"])
        audit(desk).tell(notice("kv/data/c/x"))
        audit(desk).tell(notice("other/x"))
        audit(desk).tell(notice("kv/data/a/x"))
        assert await desk.heard() == ("fed_a", ["kv/data/a/x"])
        assert desk.told.empty()
        [state] = feeds.states()
        assert (state.heard, state.unmapped, state.gaps) == (4, 2, 0)
        assert state.backends == ("fed_a", "fed_b")


async def test_a_feed_that_comes_over_http_is_not_listened_for() -> None:
    async with running(backend(events=({"feed": "http"},))) as (desk, feeds):
        assert (desk.opened, feeds.states()) == ({}, ())


async def test_the_namespace_tells_two_mounts_of_one_name_apart() -> None:
    async with running(backend("fed_a"), backend("fed_b", namespace="/acme/fin/")) as (desk, _):
        audit(desk).tell(notice("kv/data/x", "acme/fin"))
        assert await desk.heard() == ("fed_b", ["kv/data/x"])
        audit(desk).tell(notice("kv/data/x"))
        assert await desk.heard() == ("fed_a", ["kv/data/x"])
        audit(desk).tell(notice("kv/data/x", "acme"))
        await turns()
        assert desk.told.empty()


async def test_a_namespace_may_stand_in_the_path_instead() -> None:
    async with running(backend(remote="fin/kv/data/**", namespace="acme")) as (desk, _):
        audit(desk).tell(notice("kv/data/x", "acme/fin"))
        assert await desk.heard() == ("fed_a", ["fin/kv/data/x"])


async def test_the_same_backend_id_of_two_tenants_is_two_backends() -> None:
    async with running(backend(), backend(tenant=2)) as (desk, _):
        audit(desk).tell(notice("kv/data/x"))
        assert [await desk.heard(), await desk.heard()] == [("fed_a", ["kv/data/x"])] * 2


async def test_what_is_proxied_is_not_run_for() -> None:
    rules = (
        RuleSpec("live/**", "kv/data/live/**", overrides=Overrides(mode=Mode.PROXY)),
        RuleSpec("ext/**", "kv/data/**"),
    )
    proxied = backend("fed_p", mode=Mode.PROXY, events=({**AUDIT, "listen": "tcp:127.0.0.1:1"},))
    async with running(backend(rules=rules), proxied) as (desk, _):
        assert list(desk.opened) == [AUDIT["listen"]]
        audit(desk).tell(notice("kv/data/live/x"))
        audit(desk).tell(notice("kv/data/x"))
        assert await desk.heard() == ("fed_a", ["kv/data/x"])


# --- gathering ----------------------------------------------------------------------


async def test_a_burst_is_one_event_after_the_window() -> None:
    async with running(backend()) as (desk, _):
        desk.window.clear()
        for name in "abca":
            audit(desk).tell(notice(f"kv/data/{name}"))
        await turns()
        assert desk.told.empty()
        assert desk.waits == [0.1]
        desk.window.set()
        assert await desk.heard() == ("fed_a", ["kv/data/a", "kv/data/b", "kv/data/c"])
        await turns()
        assert desk.told.empty()


@pytest.mark.parametrize("paths", [MOST_PATHS, MOST_PATHS + 1, 50_000])
async def test_more_paths_than_an_event_holds_are_one_full_run(paths: int) -> None:
    async with running(backend()) as (desk, _):
        for number in range(paths):
            audit(desk).tell(notice(f"kv/data/{number}"))
        _, told = await desk.heard()
        assert (told is None) == (paths > MOST_PATHS)
        assert desk.told.empty()


async def test_a_gap_is_a_full_run_of_each_backend_whatever_else_was_told() -> None:
    async with running(backend("fed_a"), backend("fed_b", "old/**")) as (desk, feeds):
        audit(desk).tell(notice("kv/data/x"))
        audit(desk).tell(GAP)
        audit(desk).tell(GAP)
        assert {await desk.heard(), await desk.heard()} == {("fed_a", None), ("fed_b", None)}
        await turns()
        assert desk.told.empty()
        assert feeds.states()[0].gaps == 2


async def test_what_the_store_did_not_take_is_handed_over_again_with_what_came_since(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with running(backend("fed_a"), backend("fed_b", "old/**")) as (desk, _):
        desk.failing.append(StoreUnavailableError("no connection"))
        audit(desk).tell(notice("kv/data/a"))
        audit(desk).tell(notice("old/x"))
        assert await desk.heard() == ("fed_b", ["old/x"])
        audit(desk).tell(notice("kv/data/b"))
        await turns()
        assert desk.waits[-1] == 1.0
        desk.window.set()
        assert await desk.heard() == ("fed_a", ["kv/data/a", "kv/data/b"])
        assert desk.told.empty()
    assert "change_notice_failed" in capsys.readouterr().err


# --- places that keep what is told --------------------------------------------------

QUEUE = {"feed": "aws-sqs", "queue_url": "https://sqs.us-east-1.amazonaws.com/1/q"}


async def test_kept_is_what_was_handed_over_and_nothing_before(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with running(backend("fed_a"), backend("fed_b", "old/**")) as (desk, _):
        desk.window.clear()
        tell = audit(desk).tell
        tell(notice("kv/data/a"))
        kept = asyncio.create_task(tell.kept())
        await turns()
        assert not kept.done()
        desk.failing.append(StoreUnavailableError("no connection"))
        desk.window.set()
        await turns()
        assert desk.failing == []
        assert not kept.done()  # the store did not take it
        asked_meanwhile = asyncio.create_task(tell.kept())
        desk.window.set()
        assert await desk.heard() == ("fed_a", ["kv/data/a"])
        await asyncio.wait_for(asyncio.gather(kept, asked_meanwhile), PATIENCE_S)
        await asyncio.wait_for(tell.kept(), 5)  # nothing is owed
    assert "change_notice_failed" in capsys.readouterr().err


async def test_kept_waits_for_what_is_being_handed_over() -> None:
    taken, go = asyncio.Event(), asyncio.Event()

    async def take_notice(*_: object) -> None:
        taken.set()
        await go.wait()

    desk = Desk()
    feeds = Feeds(desk.open_feed, take_notice, window_s=0.0)
    feeds.follow([backend()])
    task = asyncio.create_task(feeds.run())
    try:
        await turns()
        audit(desk).tell(notice("kv/data/a"))
        await asyncio.wait_for(taken.wait(), PATIENCE_S)
        kept = asyncio.create_task(audit(desk).tell.kept())
        await turns()
        assert not kept.done()
        go.set()
        await asyncio.wait_for(kept, PATIENCE_S)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_queue_is_looked_behind_once_and_again_only_after_a_long_absence() -> None:
    async with running(backend(events=(QUEUE,))) as (desk, feeds):
        for absent, gaps in ((0.0, 1), (600.0, 1), (601.0, 2)):
            desk.now += absent
            desk.opened["fed_a"].tell.listening()
            desk.opened["fed_a"].tell.listening()
            assert feeds.states()[0].gaps == gaps
            assert feeds.states()[0].problem == ""
            desk.opened["fed_a"].broken.set_exception(ConfigError("broke"))
            await turns()


async def test_backends_of_one_login_share_a_queue_and_others_do_not() -> None:
    mine, twin = (
        backend("fed_a", "a/**", events=(QUEUE,)),
        backend("fed_b", "b/**", events=(QUEUE,)),
    )
    theirs = backend("fed_c", "a/**", tenant=2, events=(QUEUE,))
    other = replace(twin, spec=replace(twin.spec, id=BackendId("fed_d"), config={"region": "x"}))
    async with running(mine, twin, theirs, other) as (desk, _):
        assert sorted(desk.opened) == ["fed_a", "fed_c", "fed_d"]
        desk.opened["fed_a"].tell(notice("b/x"))
        assert await desk.heard() == ("fed_b", ["b/x"])
        assert desk.told.empty()


# --- opening and closing ------------------------------------------------------------


async def test_a_feed_that_cannot_listen_is_told_once_and_tried_again_more_slowly(
    capsys: pytest.CaptureFixture[str],
) -> None:
    problems = {AUDIT["listen"]: [ConfigError("is served by another process")] * 3}
    async with running(backend(), problems=problems) as (desk, feeds):
        assert desk.waits == [1.0, 2.0, 4.0]
        assert "is served by another process" in feeds.states()[0].problem
        audit(desk).tell(GAP)
        assert feeds.states()[0].problem == ""
    assert capsys.readouterr().err.count("change_feed_failed") == 1


async def test_following_others_interrupts_no_feed_that_goes_on() -> None:
    one, two = backend("fed_a"), backend("fed_b", events=({"feed": "vault-events"},))
    async with running(one, two) as (desk, feeds):
        kept, gone = audit(desk), desk.opened["fed_b"]
        joins = backend("fed_c", "old/**")
        feeds.follow([one, joins])
        await turns()
        assert audit(desk) is kept
        assert kept.listening.is_set()
        assert not gone.listening.is_set()
        # It did not hear what was told before it joined.
        assert await desk.heard() == ("fed_c", None)
        kept.tell(notice("old/x"))
        assert await desk.heard() == ("fed_c", ["old/x"])


async def test_another_configuration_of_its_backend_opens_a_feed_anew() -> None:
    events = ({"feed": "vault-events"},)
    before = backend(events=events)
    async with running(before) as (desk, feeds):
        first = desk.opened["fed_a"]
        config = {"endpoint": "https://elsewhere"}
        feeds.follow([replace(before, spec=replace(before.spec, config=config))])
        await turns()
        assert desk.opened["fed_a"] is not first
        assert not first.listening.is_set()
        assert desk.opened["fed_a"].listening.is_set()


async def test_counts_of_what_was_not_usable_outlive_the_feed_that_was_opened_anew() -> None:
    async with running(backend()) as (desk, feeds):
        first = audit(desk)
        first.invalid, first.dropped = 3, 2
        first.broken.set_exception(ConfigError("broke"))
        await turns()
        assert audit(desk) is not first
        audit(desk).invalid = 4
        assert (feeds.states()[0].invalid, feeds.states()[0].dropped) == (7, 2)
