"""Plain reads that are answered without the application around them: the same answers, the same
decisions, the same rows in the log. Of what form they are: see `test_plain_reads`."""

import asyncio
import gc
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import trustme
from tests.api import Front, front, open_front
from tests.house import BACKEND, TENANT, House, Pause, house
from tests.integration.test_conflicts import disagree
from tests.integration.test_reading import allow, logs
from tests.patience import PATIENCE_S
from tests.rawhttp import RawAnswer, answers_of, request_of
from tests.waiting import somebody_waits_for_a_lock, until

from svsync.domain.access import Call, Scope
from svsync.domain.changes import RemoteValue
from svsync.domain.errors import DeniedError
from svsync.domain.federation import ConflictPolicy, Mode
from svsync.domain.ids import LocalPath
from svsync.domain.limits import BURST_S, ApiRates
from svsync.http import connections
from svsync.http.connections import MAX_HEAD, Connections
from svsync.http.short_way import ShortWay
from svsync.services.answers import Secret
from svsync.services.authority import Authority
from svsync.services.reading import Glance
from svsync.services.recording import Access

__all__ = ["front", "house"]

A: Final = b"/v1/secrets/app/a"
EXT: Final = b"/v1/secrets/ext/a"


@dataclass
class Line:
    """One connection. Its first request has gone the long way, as on any connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, sent: bytes) -> RawAnswer:
        self.writer.write(sent)
        return await self.next()

    async def next(self) -> RawAnswer:
        async with asyncio.timeout(PATIENCE_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            size = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            body = await self.reader.readexactly(size)
        [answer] = answers_of(head + body)
        return answer


async def connected(front: Front) -> Line:
    """With a first read of app/a behind it, after which all that a read takes is at hand."""
    found = Line(*await asyncio.open_connection("127.0.0.1", front.listener.port))
    await found.ask(request_of(front, "GET", A))
    return found


@asynccontextmanager
async def slow_log(house: House) -> AsyncIterator[None]:
    """Nothing is recorded until the block ends."""
    async with house.admin.transaction():
        await house.admin.execute("LOCK TABLE audit IN ACCESS EXCLUSIVE MODE")
        yield


@asynccontextmanager
async def line(front: Front) -> AsyncIterator[Line]:
    found = await connected(front)
    try:
        yield found
    finally:
        found.writer.close()


def let_in(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Connections of listeners as they come."""
    opened: list[Any] = []
    usual = Connections.let_in

    def let(door: Connections, connection: Any) -> bool:
        opened.append(connection)
        return usual(door, connection)

    monkeypatch.setattr(Connections, "let_in", let)
    return opened


@dataclass
class Glances:
    """Those that were begun, as the way that a request took shows by nothing else."""

    begun: list[Glance] = field(default_factory=list)

    @property
    def answered(self) -> int:
        return sum(glance.secret is not None for glance in self.begun)


@pytest.fixture
def glances(house: House, monkeypatch: pytest.MonkeyPatch) -> Glances:
    made, reading = Glances(), house.app.reading
    glance = reading.glance

    def begin(*args: Any) -> Glance | None:
        begun = glance(*args)
        if begun is not None:
            made.begun.append(begun)
        return begun

    monkeypatch.setattr(reading, "glance", begin)
    return made


async def test_both_ways_give_the_same_answer(front: Front, glances: Glances) -> None:
    await front.house.write("app/a", {"k": "1"})
    async with line(front) as one:
        long = await one.ask(request_of(front, "GET", A, b"Accept-Charset: utf-8"))
        assert not glances.begun
        short = await one.ask(request_of(front, "GET", A))
    assert glances.answered == 1
    passing = {"x-request-id", "date"}
    assert {k: v for k, v in long.headers.items() if k not in passing} == {
        k: v for k, v in short.headers.items() if k not in passing
    }
    assert (long.status, long.body) == (short.status, short.body)
    assert short.headers.keys() == long.headers.keys()


class _Quick:
    """A transport to a client that asks again as soon as it is answered, before the server has
    had another turn of its loop; `then` is called after that, and before that turn.

    Attributes:
        told: what reading was told to do meanwhile.
    """

    def __init__(
        self, connection: Any, *sent: bytes, then: Callable[[], None] = lambda: None
    ) -> None:
        self._connection, self._sent, self._then = connection, sent, then
        self._transport = connection.transport
        self._quick = True
        self.told: list[str] = []
        connection.transport = self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        self._transport.write(data)
        if self._quick:
            self._quick = False
            loop = asyncio.get_running_loop()
            for piece in self._sent:
                loop.call_soon(self._connection.data_received, piece)
            loop.call_soon(self._then)

    def pause_reading(self) -> None:
        self.told.append("pause")

    def resume_reading(self) -> None:
        self.told.append("resume")


def long(front: Front) -> bytes:
    """A read that goes the long way."""
    return request_of(front, "GET", A, b"Accept-Charset: utf-8")


async def test_a_client_may_be_quicker_than_the_server(
    front: Front, glances: Glances, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would go the long way for as long as it is."""
    opened = let_in(monkeypatch)
    await front.house.write("app/a", {"k": "1"})
    async with line(front) as one:
        _Quick(opened[-1], request_of(front, "GET", A))
        before = await one.ask(long(front))
        short = await one.next()
        assert glances.answered == 1
        assert (before.status, before.body) == (short.status, short.body)
        await one.ask(request_of(front, "GET", A))
    assert glances.answered == 2


async def test_who_is_quicker_does_not_fill_the_memory(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = let_in(monkeypatch)
    await front.house.write("app/a", {"k": "1"})
    piece, before = request_of(front, "GET", A) * (MAX_HEAD // 100), list[str]()
    async with line(front) as one:
        quick = _Quick(opened[-1], piece, piece, then=lambda: before.extend(quick.told))
        await one.ask(long(front))
        for _ in range(2 * (MAX_HEAD // 100)):
            assert (await one.next()).status == 200
    assert "pause" in before
    assert quick.told[-1] == "resume"


async def test_what_came_before_the_end_is_answered(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = let_in(monkeypatch)
    await front.house.write("app/a", {"k": "1"})
    async with line(front) as one:
        _Quick(opened[-1], request_of(front, "GET", A), then=opened[-1].close)
        assert (await one.ask(long(front))).status == 200
        assert (await one.next()).status == 200


async def test_a_head_that_begins_in_that_turn_has_its_time(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would have that of a connection at rest."""
    monkeypatch.setattr(connections, "HEAD_S", 0.05)
    opened = let_in(monkeypatch)
    await front.house.write("app/a", {"k": "1"})
    async with line(front) as one:
        opened[-1].data_received(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        asyncio.get_running_loop().call_soon(opened[-1].data_received, b"GET /v1")
        async with asyncio.timeout(PATIENCE_S):
            told = await one.reader.read()
    assert b" 408 " in told


async def test_a_mistake_in_that_turn_ends_the_connection(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mistaken(*_given: Any) -> None:
        raise RuntimeError

    opened = let_in(monkeypatch)
    await front.house.write("app/a", {"k": "1"})
    async with line(front) as one:
        _Quick(opened[-1], request_of(front, "GET", A))
        monkeypatch.setattr(ShortWay, "_keep", mistaken)
        assert (await one.ask(long(front))).status == 200
        async with asyncio.timeout(PATIENCE_S):
            assert await one.reader.read() == b""


async def test_both_tell_of_the_backend_and_of_a_conflict(front: Front, glances: Glances) -> None:
    await front.house.configure(conflict_resolution=ConflictPolicy.MANUAL)
    await disagree(front.house, "modify_modify")
    told = []
    async with line(front) as one:
        for _ in range(2):  # before the run that finds it, and after
            found = [await one.ask(request_of(front, "GET", EXT)) for _ in range(3)]
            assert len({answer.body for answer in found}) == 1
            told.append((found[-1].json()["federation"]["status"], glances.answered))
            assert len({answer.headers.get("x-svsync-conflict") for answer in found}) == 1
            await front.house.run()
    assert told == [("diverged", 2), ("conflict", 5)]
    assert found[-1].headers["x-svsync-conflict"] == "true"


async def test_each_has_one_row_with_its_own_id_and_address(front: Front, glances: Glances) -> None:
    await front.house.write("app/a", {"k": "1"})
    async with line(front) as one:
        first = await one.ask(request_of(front, "GET", A))
        given = await one.ask(request_of(front, "GET", A, b"X-Request-Id: mine-1"))
        drawn = await one.ask(request_of(front, "GET", A))
    assert glances.answered == 3
    rows = [row for row in await logs(front) if row["secret_path"] == "app/a"]
    ids = [row["request_id"] for row in rows]
    assert len(ids) == len({*ids}) == 4  # one of them that of the read before
    assert {first.id, "mine-1", drawn.id} < {*ids}
    assert given.id == "mine-1"
    assert {(row["decision"], row["version"], row["source_ip"]) for row in rows} == {
        ("allow", 1, "127.0.0.1")
    }


async def test_a_new_version_is_the_next_answer(front: Front, glances: Glances) -> None:
    await front.house.write("app/a", {"k": "1"})
    async with line(front) as one:
        for n in range(1, 5):
            answer = await one.ask(request_of(front, "GET", A))
            assert answer.json()["data"] == {"k": str(n)}
            assert answer.headers["etag"] == f'"v{n}"'
            await front.house.write("app/a", {"k": str(n + 1)})
    assert glances.answered == 4


async def test_what_was_deleted_is_one_404_with_one_row(front: Front, glances: Glances) -> None:
    await front.house.write("app/a", {"k": "1"})
    async with line(front) as one:
        assert (await front.client.call("DELETE", A.decode())).status == 204
        answer = await one.ask(request_of(front, "GET", A))
        again = await one.ask(request_of(front, "GET", A))
    assert (answer.status, answer.code) == (404, "secret_not_found")
    assert (again.status, again.code) == (404, "secret_not_found")
    assert (len(glances.begun), glances.answered) == (1, 0)  # it is known now to be gone
    [row] = [row for row in await logs(front) if row["request_id"] == answer.id]
    assert (row["action"], row["secret_path"]) == ("secret.read", "app/a")


async def test_what_may_not_be_read_is_refused_with_one_row(front: Front, glances: Glances) -> None:
    await front.house.write("app/a", {"k": "1"})
    assert (await front.client.get("/v1/secrets/app/a")).status == 200
    await allow(front, "other/**", "read")
    client = front.client.with_token(await front.token(Scope.SECRETS_READ))
    for _ in range(2):  # the second is of somebody who is known
        assert (await client.get("/v1/secrets/app/a")).told == (404, "secret_not_found")
    assert not glances.begun  # nor is it told by how long it took that somebody else read it
    decided = [row["decision"] for row in await logs(front) if row["action"] == "secret.read"]
    assert sorted(decided) == ["allow", "deny", "deny"]


async def test_rights_that_were_taken_away_hold_for_the_next_read(
    front: Front, glances: Glances
) -> None:
    await front.house.write("app/a", {"k": "1"})
    await allow(front, "app/**", "read")
    client = front.client.with_token(await front.token(Scope.SECRETS_READ))
    for _ in range(2):
        assert (await client.get("/v1/secrets/app/a")).status == 200
    assert glances.answered == 1
    async with front.house.admin.transaction():
        await front.house.admin.execute("DELETE FROM bindings")
        await front.house.admin.execute("UPDATE tenants SET auth_epoch = auth_epoch + 1")
    assert (await client.get("/v1/secrets/app/a")).status == 404
    assert (len(glances.begun), glances.answered) == (2, 1)


async def test_what_is_not_recorded_is_not_answered(front: Front, glances: Glances) -> None:
    await front.house.write("app/a", {"k": "1"})
    async with line(front) as one:
        await one.ask(request_of(front, "GET", A))
        await front.house.admin.execute("ALTER TABLE audit RENAME TO audit_away")
        try:
            answer = await one.ask(request_of(front, "GET", A))
        finally:
            await front.house.admin.execute("ALTER TABLE audit_away RENAME TO audit")
    assert (answer.status, answer.code) == (503, "audit_unavailable")
    assert len(glances.begun) == 2


async def test_requests_sent_behind_are_answered_in_their_order(
    front: Front, glances: Glances
) -> None:
    await front.house.write("app/a", {"k": "1"})
    sent = [request_of(front, "GET", A, b"X-Request-Id: id-%d" % n) for n in range(6)]
    async with line(front) as one:
        async with slow_log(front.house):
            one.writer.write(sent[0])
            await until(partial(somebody_waits_for_a_lock, front.house))
            half = len(sent[4]) // 2
            one.writer.write(b"".join(sent[1:4]) + sent[4][:half])
            await one.writer.drain()
        answers = [await one.next() for _ in range(4)]
        one.writer.write(sent[4][half:])
        answers.append(await one.next())
        answers.append(await one.ask(sent[5]))
    assert [answer.id for answer in answers] == [f"id-{n}" for n in range(6)]
    assert {answer.status for answer in answers} == {200}
    assert glances.answered == 2  # those that came alone


async def test_what_goes_on_with_a_request_is_none(front: Front, glances: Glances) -> None:
    """The beginning of one came behind another; the rest of it reads as a plain read."""
    await front.house.write("app/a", {"k": "1"})
    begun = request_of(front, "GET", b"/healthz") + b"GET /v1/secrets/app/b HTTP/1.1\r\nX: "
    async with line(front) as one:
        assert (await one.ask(begun)).status == 200
        answer = await one.ask(request_of(front, "GET", A))
        assert (answer.status, answer.code) == (404, "secret_not_found")
        assert not glances.begun
        assert (await one.ask(request_of(front, "GET", A))).status == 200
    assert glances.answered == 1


async def test_behind_a_body_one_read_goes_the_long_way(front: Front, glances: Glances) -> None:
    """Where a body ends is known to who reads it, and not to who sees it go by."""
    await front.house.write("app/a", {"k": "1"})
    put = request_of(front, "PUT", A, body=b'{"data": {"k": "2"}}')
    async with line(front) as one:
        assert (await one.ask(put)).status == 200
        for many in (0, 1):
            assert (await one.ask(request_of(front, "GET", A))).json()["data"] == {"k": "2"}
            assert glances.answered == many


async def test_what_was_not_recorded_is_not_tried_again(
    front: Front, glances: Glances, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its client would wait twice as long as a row may take."""
    await front.house.write("app/a", {"k": "1"})
    recorder = front.house.app.recorder
    taken: list[Access] = []
    take_in = recorder.take_in
    async with line(front) as one:

        def take(access: Access, done: Any) -> None:
            taken.append(access)
            take_in(access, done)

        monkeypatch.setattr(recorder, "take_in", take)
        await front.house.admin.execute("ALTER TABLE audit RENAME TO audit_away")
        try:
            answer = await one.ask(request_of(front, "GET", A))
        finally:
            await front.house.admin.execute("ALTER TABLE audit_away RENAME TO audit")
        assert (answer.status, answer.code) == (503, "audit_unavailable")
        assert taken == glances.begun
        assert (await one.ask(request_of(front, "GET", A))).status == 200


async def test_time_without_a_request_does_not_end_one_under_way(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = let_in(monkeypatch)
    await front.house.write("app/a", {"k": "1"})

    def time_is_over() -> None:
        opened[-1]._next_keepalive_close_time = 0.0
        opened[-1]._process_keepalive()

    async with line(front) as one:
        async with slow_log(front.house):
            one.writer.write(request_of(front, "GET", A))
            await until(partial(somebody_waits_for_a_lock, front.house))
            time_is_over()
        assert (await one.next()).status == 200
        time_is_over()
        assert await one.reader.read() == b""


# --- what is read through -----------------------------------------------------------


@pytest.fixture
async def through(front: Front) -> Front:
    """A front whose house reads `kv/**` through, and knows where to ask."""
    await front.house.configure(mode=Mode.PROXY)
    front.house.there.put("kv/a", {"k": "1"})
    assert (await front.client.get(EXT.decode())).status == 200
    return front


async def reads_of(front: Front) -> list[tuple[str, str | None, int | None]]:
    rows = [row for row in await logs(front) if row["action"] == "secret.read"]
    return [(row["decision"], row["backend_id"], row["version"]) for row in rows]


async def test_both_ways_read_through_alike(through: Front, glances: Glances) -> None:
    async with line(through) as one:
        long = await one.ask(request_of(through, "GET", EXT, b"Accept-Charset: utf-8"))
        assert not glances.begun
        short = await one.ask(request_of(through, "GET", EXT))
    assert glances.answered == 1
    passing = {"x-request-id", "date"}
    assert {k: v for k, v in long.headers.items() if k not in passing} == {
        k: v for k, v in short.headers.items() if k not in passing
    }
    assert short.headers["x-svsync-source"] == "backend"
    assert (long.status, long.body) == (short.status, short.body)
    assert through.house.there.calls["read"] == 3
    assert [row for row in await reads_of(through) if row[1]] == [("allow", BACKEND, 1)] * 3


async def test_rights_that_go_while_a_backend_is_asked_are_not_answered_by(
    through: Front, glances: Glances
) -> None:
    await allow(through, "ext/**", "read")
    client = through.client.with_token(await through.token(Scope.SECRETS_READ))
    assert (await client.get(EXT.decode())).status == 200
    pause = Pause(through.house.there, "read")
    asked = asyncio.create_task(client.get(EXT.decode()))
    await pause.reached.wait()
    async with through.house.admin.transaction():
        await through.house.admin.execute("DELETE FROM bindings")
        await through.house.admin.execute("UPDATE tenants SET auth_epoch = auth_epoch + 1")
    pause.let_go()
    assert (await asked).told == (404, "secret_not_found")
    assert (len(glances.begun), glances.answered) == (1, 0)
    assert (await reads_of(through))[-1] == ("deny", None, None)
    assert through.house.there.calls["read"] == 3


@pytest.mark.parametrize(
    ("shut", "told"),
    [
        ("UPDATE tokens SET revoked_at = now()", (401, "unauthenticated")),
        ("UPDATE tenants SET status = 'suspended'", (403, "tenant_shut")),
    ],
)
async def test_for_whom_nobody_vouches_a_backend_is_asked_once_at_most(
    through: Front, shut: str, told: tuple[int, str]
) -> None:
    for _ in range(2):
        assert (await through.client.get(EXT.decode())).status == 200
    async with through.house.admin.transaction():
        await through.house.admin.execute(shut)
        if "tokens" in shut:
            await through.house.admin.execute("UPDATE tenants SET auth_epoch = auth_epoch + 1")
    asked = through.house.there.calls["read"]
    for _ in range(3):
        assert (await through.client.get(EXT.decode())).told == told
    assert through.house.there.calls["read"] <= asked + 1


async def test_a_backend_that_changes_while_it_is_asked_is_not_answered_by(
    through: Front, glances: Glances
) -> None:
    pause = Pause(through.house.there, "read")
    asked = asyncio.create_task(through.client.get(EXT.decode()))
    await pause.reached.wait()
    await through.house.app.removal.pause(TENANT, BACKEND)
    pause.let_go()
    assert (await asked).told == (409, "backend_paused")
    assert (len(glances.begun), glances.answered) == (1, 0)


async def test_what_came_to_be_here_while_a_backend_was_asked_is_read_here(
    through: Front, glances: Glances
) -> None:
    through.house.there.put("kv/b", {"k": "there"})
    async with line(through) as one:
        pause = Pause(through.house.there, "read")
        one.writer.write(request_of(through, "GET", b"/v1/secrets/ext/b"))
        await pause.reached.wait()
        # As a replica would have brought it in. Its value was sealed for another path.
        await through.house.write("own/b", {"k": "here"})
        await through.house.admin.execute("UPDATE secrets SET path = 'ext/b' WHERE path = 'own/b'")
        pause.let_go()
        assert (await one.next()).code == "value_unreadable"
        assert glances.answered == 0
        calls = through.house.there.calls["read"]
        await one.ask(request_of(through, "GET", b"/v1/secrets/ext/b"))
        assert through.house.there.calls["read"] == calls
        await through.house.admin.execute("UPDATE secrets SET path = 'own/b' WHERE path = 'ext/b'")
        for _ in range(2):  # the first finds that it is not here any more
            assert (await one.ask(request_of(through, "GET", b"/v1/secrets/ext/b"))).status == 200
        assert glances.answered == 1


async def test_what_is_here_by_now_is_asked_for_once_of_who_had_it_before(
    through: Front, glances: Glances
) -> None:
    """One answer tells that backends changed, whatever path it is of."""
    for name in "bcd":
        through.house.there.put(f"kv/{name}", {"k": name})
    await through.house.configure(mode=Mode.SYNC)
    await through.house.run()
    calls = through.house.there.calls["read"]
    for name in "bcd":
        answer = await through.client.get(f"/v1/secrets/ext/{name}")
        assert (answer.status, answer.body["federation"]["mode"]) == (200, "sync")
    assert through.house.there.calls["read"] <= calls + 1


@pytest.mark.parametrize(
    ("problem", "told"),
    [
        (None, (404, "secret_not_found")),
        (DeniedError("no", operation="read"), (502, "backend_denied")),
        (ValueError("a bug"), (500, "internal")),
    ],
)
async def test_what_gives_no_value_is_asked_once_and_recorded_once(
    through: Front, glances: Glances, problem: Exception | None, told: tuple[int, str]
) -> None:
    if problem is None:
        through.house.there.delete("kv/a")
    else:
        through.house.there.fail("read", problem)
    assert (await through.client.get(EXT.decode())).told == told
    assert (len(glances.begun), glances.answered) == (1, 0)
    assert through.house.there.calls["read"] == 2
    assert [row[:2] for row in await reads_of(through)] == [("allow", BACKEND)] * 2


async def test_who_goes_takes_the_call_along(through: Front, glances: Glances) -> None:
    flights = through.house.app.proxying.flights
    one = Line(*await asyncio.open_connection("127.0.0.1", through.listener.port))
    pause = Pause(through.house.there, "read")
    one.writer.write(request_of(through, "GET", EXT))
    await pause.reached.wait()
    assert flights.waiting == 1
    one.writer.close()

    async def ended() -> bool:
        return not flights.under_way

    await until(ended)  # though nobody let it go
    assert (len(glances.begun), glances.answered) == (1, 0)
    assert len(await reads_of(through)) == 1


async def test_a_backend_that_does_not_answer_is_waited_for_once(
    through: Front, glances: Glances, monkeypatch: pytest.MonkeyPatch
) -> None:
    Pause(through.house.there, "read")
    monkeypatch.setattr(through.house.app.proxying.flights, "_patience", 0.0)
    assert (await through.client.get(EXT.decode())).told == (504, "backend_unreachable")
    assert through.house.there.calls["read"] == 2


@pytest.mark.parametrize("path", [A, EXT])
@pytest.mark.parametrize("recorded", [True, False])
async def test_nothing_of_a_value_is_held_behind_its_answer(
    through: Front, path: bytes, recorded: bool
) -> None:
    """Nor is it left to Python's search for cycles, which may be long in coming."""
    await through.house.write("app/a", {"k": "1"})
    admin = through.house.admin

    def values() -> list[Any]:
        return [held for held in gc.get_objects() if isinstance(held, Secret | RemoteValue)]

    async with line(through) as one:
        await one.ask(request_of(through, "GET", path))
        gc.collect()
        before = values()  # of other tests

        async def nothing() -> bool:
            return not [held for held in values() if not any(held is old for old in before)]

        gc.disable()
        try:
            if not recorded:
                await admin.execute("ALTER TABLE audit RENAME TO audit_away")
            answer = await one.ask(request_of(through, "GET", path))
            await until(nothing)
        finally:
            gc.enable()
            if not recorded:
                await admin.execute("ALTER TABLE audit_away RENAME TO audit")
    assert answer.status == (200 if recorded else 503)


# --- many on one connection, and beside each other ----------------------------------


async def test_each_request_on_a_connection_is_of_whoever_sent_it(
    front: Front, glances: Glances
) -> None:
    """What its headers said before is looked at again only where they are the same."""
    await front.house.write("app/a", {"k": "1"})
    own = request_of(front, "GET", A)
    token = (await front.token(Scope.SECRETS_READ)).encode()  # no policy lets it read anything
    other = own.replace(f"{front.client.token}".encode(), token)
    async with line(front) as one:
        statuses = [(await one.ask(sent)).status for sent in (own, other, own, other, own)]
        named = await one.ask(request_of(front, "GET", A, b"X-Request-Id: one"))
        again = [await one.ask(own), await one.ask(own)]
    assert statuses == [200, 404, 200, 404, 200]
    ids = [answer.headers["x-request-id"] for answer in (named, *again)]
    assert ids[0] == "one"
    assert len(set(ids)) == 3
    rows = await front.house.rows("audit", action="secret.read")
    by = [row["decision"] for row in sorted(rows, key=lambda row: row["at"])]
    assert by == ["allow", "allow", "deny", "allow", "deny", *["allow"] * 4]
    assert glances.answered == 6


async def test_who_sends_no_headers_is_nobody(front: Front, glances: Glances) -> None:
    """Behind one whose headers are not to be known again, none are not the same."""
    await front.house.write("app/a", {"k": "1"})
    async with line(front) as one:
        named = await one.ask(request_of(front, "GET", A, b"X-Request-Id: one"))
        bare = await one.ask(b"GET %s HTTP/1.1\r\n\r\n" % A)
    assert (named.status, bare.status, bare.code) == (200, 400, "malformed_request")
    assert glances.answered == len(glances.begun) == 1


async def test_what_goes_wrong_with_one_is_no_matter_of_those_beside_it(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in ("app/a", "app/b"):
        await front.house.write(path, {"k": "1"})
        assert (await front.client.get(f"/v1/secrets/{path}")).status == 200
    assert front.client.token is not None
    reading, at_hand = front.house.app.reading, front.house.app.reading._at_hand

    def broken(tenant: Any, path: LocalPath, *given: Any) -> Any:
        if path == "app/a":
            raise RuntimeError
        return at_hand(tenant, path, *given)

    monkeypatch.setattr(reading, "_at_hand", broken)
    authority = Authority(front.house.app.db, front.access, clock=time.monotonic)
    rights = await authority.verify(front.client.token)
    call = Call(rights.caller, "req_1", "127.0.0.1")
    found: dict[str, bool] = {}

    def tell(glance: Glance) -> None:
        found[glance.path] = glance.secret is not None

    for path in ("app/a", "app/b"):
        assert reading.glance(call, LocalPath(path), tell) is not None

    async def both() -> bool:
        return len(found) == 2

    await until(both)
    assert found == {"app/a": False, "app/b": True}


async def test_a_mistake_behind_a_read_ends_its_connection_and_no_other(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client whose answer never comes would wait for ever."""
    await front.house.write("app/a", {"k": "1"})
    async with line(front) as wrong, line(front) as right:
        with monkeypatch.context() as patched:

            def mistaken(*_given: Any) -> None:
                raise RuntimeError

            patched.setattr(connections._Connection, "_go_on", mistaken)
            wrong.writer.write(request_of(front, "GET", A))
            async with asyncio.timeout(PATIENCE_S):
                with suppress(ConnectionResetError):
                    assert await wrong.reader.read() == b""
        assert (await right.ask(request_of(front, "GET", A))).status == 200


async def test_who_stops_answers_what_is_under_way(house: House) -> None:
    """The listener ends while the log is slow: the answer comes, and then the end."""
    await house.write("app/a", {"k": "1"})

    async def end_of(one: Line, log: AsyncExitStack) -> RawAnswer:
        await asyncio.sleep(0.05)  # in which the listener begins to end
        await log.aclose()
        answer = await one.next()
        assert await one.reader.read() == b""
        one.writer.close()
        return answer

    async with AsyncExitStack() as log:
        async with open_front(house) as front:
            one = await connected(front)
            await log.enter_async_context(slow_log(house))
            one.writer.write(request_of(front, "GET", A))
            await until(partial(somebody_waits_for_a_lock, house))
            seen = asyncio.create_task(end_of(one, log))
        assert (await seen).status == 200


async def test_who_goes_while_the_listener_ends_is_not_waited_for(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = let_in(monkeypatch)
    await front.house.write("app/a", {"k": "1"})
    one = await connected(front)
    async with slow_log(front.house):
        one.writer.write(request_of(front, "GET", A))
        await until(partial(somebody_waits_for_a_lock, front.house))
        ending = asyncio.create_task(opened[-1].shutdown(None))
        await asyncio.sleep(0)  # it waits for the read
        one.writer.close()
        async with asyncio.timeout(PATIENCE_S):
            await ending


async def test_over_tls_it_is_as_short(house: House, glances: Glances, tmp_path: Path) -> None:
    authority, (cert, key) = trustme.CA(), (tmp_path / "cert.pem", tmp_path / "key.pem")
    made = authority.issue_cert("127.0.0.1")
    made.private_key_pem.write_to_path(str(key))
    made.cert_chain_pems[0].write_to_path(str(cert))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with open_front(house, tls_cert_file=str(cert), tls_key_file=str(key)) as front:
        await house.write("app/a", {"k": "1"})
        one = Line(*await asyncio.open_connection("127.0.0.1", front.listener.port, ssl=context))
        for many in range(3):
            assert (await one.ask(request_of(front, "GET", A))).status == 200
            assert glances.answered == many
        one.writer.close()


async def test_who_is_gone_keeps_nobody(front: Front, glances: Glances) -> None:
    await front.house.write("app/a", {"k": "1"})
    async with line(front) as one:
        one.writer.write(request_of(front, "GET", A))
        one.writer.transport.abort()
    async with line(front) as other:
        assert (await other.ask(request_of(front, "GET", A))).status == 200


async def test_who_goes_away_has_made_a_call_all_the_same(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates, ended, forget = ApiRates(secrets_read=1.0), asyncio.Event(), Connections.forget

    def forgotten(door: Connections, connection: Any) -> None:
        ended.set()
        forget(door, connection)

    monkeypatch.setattr(Connections, "forget", forgotten)
    async with open_front(house, rates=rates) as front:
        await front.house.write("app/a", {"k": "1"})
        async with line(front) as gone, slow_log(house):
            gone.writer.write(request_of(front, "GET", A))
            await until(partial(somebody_waits_for_a_lock, house))
            gone.writer.transport.abort()
            await ended.wait()
        async with line(front) as one:
            found = [(await one.ask(request_of(front, "GET", A))).status for _ in range(60)]
    assert found.index(429) == int(BURST_S) - 3  # two connections began with one, and one is gone


async def test_each_read_counts_once_against_the_rate(house: House) -> None:
    rates = ApiRates(secrets_read=1.0)
    async with open_front(house, rates=rates) as front:
        await front.house.write("app/a", {"k": "1"})
        async with line(front) as one:
            found = [
                (await one.ask(request_of(front, "GET", path))).status
                for path in [A, b"/v1/secrets/app/none"] * 30
            ]
    burst = found.index(429)
    assert set(found[burst:]) == {429}
    assert burst == sum(status != 429 for status in found)
    assert found[:burst] == ([200, 404] * 30)[:burst]


async def test_a_handler_that_ends_as_its_time_is_up_meets_nothing_cancelled(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = let_in(monkeypatch)
    await front.house.write("app/a", {"k": "1"})
    loop, told = asyncio.get_running_loop(), list[bool]()

    def ends() -> None:
        """As aiohttp's `_handle_request` does last."""
        connection._handler_waiter.set_result(None)
        told.append(True)

    async def at_work() -> bool:
        return bool(connection._request_in_progress)

    async with line(front) as one, slow_log(front.house):
        connection = opened[-1]
        one.writer.write(long(front))
        await until(at_work)
        stopping = asyncio.create_task(connection.shutdown(0.05))
        await asyncio.sleep(0)
        loop.call_later(0.051, ends)
        # Both times come in one turn of the loop, one after the other.
        time.sleep(0.1)  # noqa: ASYNC251
        await asyncio.gather(stopping, return_exceptions=True)
    assert told
