"""The audit feed with a real OpenBao that writes to it, and with files that rotate."""

import asyncio
import http.client
import json
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.openbao import Bao, new_mount
from tests.patience import PATIENCE_S

from svsync.domain.errors import ConfigError
from svsync.domain.federation import BackendSpec, Mode, RuleSpec
from svsync.domain.ids import BackendId, RemotePath, TenantId
from svsync.domain.mapping import RuleSet
from svsync.embedded.openbao import OpenBaoServer
from svsync.embedded.processes import free_port
from svsync.feeds.vault_audit import VaultAuditFeed
from svsync.ports import Notice
from svsync.services.feeds import Feeds, Listening

GAP = Notice("", None)
ENTRY = (
    b'{"type":"response","request":{"operation":"update","mount_type":"kv",'
    b'"mount_point":"kv/","path":"kv/data/%d","namespace":{"id":"root"}}}\n'
)


class _Audited(OpenBaoServer):
    """A server with a file device and two of sockets, one that nobody has to listen on."""

    unix: Path
    tcp: int

    def _write_config(self) -> Path:
        config = super()._write_config()
        devices = [("file", "main", f'file_path = "{self.folder}/audit.log"')]
        for kind, address in (("unix", self.unix), ("tcp", f"127.0.0.1:{self.tcp}")):
            options = f'address = "{address}"\n socket_type = "{kind}"\n skip_test = "true"'
            devices.append(("socket", kind, f'{options}\n write_timeout = "2s"'))
        stanzas = [f'audit "{t}" "{n}" {{\n options {{\n {o}\n }}\n}}\n' for t, n, o in devices]
        config.write_text(config.read_text() + "".join(stanzas))
        return config


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def audited(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[_Audited]:
    folder = tmp_path_factory.mktemp("audited")
    server = _Audited(folder, "inmem", None)
    server.unix, server.tcp = folder / "audit.sock", free_port()
    try:
        await server.start()
        await server.initialise()
        yield server
    finally:
        await server.stop()


class Heard:
    """What a feed told, in order, to be waited for."""

    def __init__(self) -> None:
        self.notices: list[Notice] = []
        self._more = asyncio.Event()

    def __call__(self, notice: Notice) -> None:
        self.notices.append(notice)
        self._more.set()

    @property
    def paths(self) -> list[str | None]:
        return [notice.path for notice in self.notices]

    async def until(self, reached: Callable[[], bool]) -> None:
        async def wait() -> None:
            while not reached():
                self._more.clear()
                await self._more.wait()

        await asyncio.wait_for(wait(), PATIENCE_S)


@asynccontextmanager
async def listening(listen: str, **options: Any) -> AsyncIterator[tuple[VaultAuditFeed, Heard]]:
    """A feed that listens, and has told that anything may have changed before."""
    feed, heard = VaultAuditFeed(listen, **({"first_s": 0.0, "poll_s": 0.01} | options)), Heard()
    task = asyncio.create_task(feed.listen(heard))
    try:
        await heard.until(lambda: bool(heard.notices) or task.done())
        if task.done():
            await task
        yield feed, heard
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def kv(audited: _Audited) -> Bao:
    return await new_mount(audited)


# --- a real server ------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["unix", "tcp"])
async def test_what_is_done_to_a_secret_is_told_by_its_path(
    audited: _Audited, kv: Bao, kind: str
) -> None:
    listen = f"unix:{audited.unix}" if kind == "unix" else f"tcp:127.0.0.1:{audited.tcp}"
    steps: dict[str, Callable[[], Awaitable[object]]] = {
        "put": lambda: kv.put("team/db", {"a": "1"}),
        "tag": lambda: kv.tag("team/db", {"owner": "a"}),
        "delete": lambda: kv.delete("team/db"),
        "undelete": lambda: kv.undelete("team/db", [1]),
        "destroy": lambda: kv.destroy("team/db", [1]),
        "remove": lambda: kv.remove("team/db"),
    }
    path = f"{kv.mount}/data/team/db"
    async with listening(listen) as (feed, heard):
        for name, step in steps.items():
            heard.notices.clear()
            await step()
            await heard.until(lambda: path in heard.paths)
            assert set(heard.paths) <= {None, path, f"{kv.mount}/metadata/team/db"} | {
                f"{kv.mount}/{verb}/team/db" for verb in ("undelete", "destroy")
            }, name
        assert feed.counts.invalid == 0


async def test_reads_and_refused_writes_are_not_told(audited: _Audited, kv: Bao) -> None:
    async with listening(f"unix:{audited.unix}") as (_, heard):
        await kv.put("a", {"a": "1"})
        await kv.request("GET", f"{kv.mount}/data/a")
        await kv.request("GET", f"{kv.mount}/metadata?list=true")
        for token, options in (("wrong", {}), (None, {"cas": 7})):
            with pytest.raises(Exception, match="answers 40"):
                await kv.request(
                    "POST", f"{kv.mount}/data/b", {"data": {}, "options": options}, token=token
                )
        await kv.put("c", {"a": "1"})
        await heard.until(lambda: f"{kv.mount}/data/c" in heard.paths)
        assert [path for path in heard.paths if path] == [f"{kv.mount}/data/{n}" for n in "ac"]


async def test_a_secret_within_a_namespace_is_told_with_it(audited: _Audited) -> None:
    await audited.request("POST", "sys/namespaces/acme", {})
    await audited.request("POST", "sys/namespaces/finance", {}, namespace="acme")
    inner = await new_mount(audited, version=1, namespace="acme/finance")
    async with listening(f"unix:{audited.unix}") as (_, heard):
        await inner.put("x", {"a": "1"})
        told = Notice("acme/finance", f"{inner.mount}/x")  # type: ignore[arg-type]
        await heard.until(lambda: told in heard.notices)


async def test_backend_in_the_namespace_root_hears_what_is_told_of_none(
    audited: _Audited, kv: Bao
) -> None:
    """To the server `root` is the outermost namespace, of which its log gives no name."""
    told: asyncio.Queue[list[RemotePath] | None] = asyncio.Queue()

    async def take(
        _tenant: TenantId, _backend: BackendId, paths: Collection[RemotePath] | None, _feed: str
    ) -> None:
        told.put_nowait(None if paths is None else sorted(paths))

    rules = (RuleSpec("ext/**", f"{kv.mount}/data/**"),)
    spec = BackendSpec(
        BackendId("fed_a"), "a", "hashicorp-vault", rules, {"namespace": "root"}, mode=Mode.SYNC,
        events=({"feed": "vault-audit", "listen": f"unix:{audited.unix}"},),
    )  # fmt: skip
    feeds = Feeds(
        lambda entry, _spec, _tenant: VaultAuditFeed(
            str(entry["listen"]), first_s=0.0, poll_s=0.01
        ),
        take,
        window_s=0.0,
    )
    feeds.follow([Listening(TenantId(1), spec, RuleSet.compile(rules))])
    task = asyncio.create_task(feeds.run())
    try:
        assert await asyncio.wait_for(told.get(), PATIENCE_S) is None  # it begins: anything may be
        await kv.put("connects", {"k": "1"})
        # Likewise, once the server connects.
        assert await asyncio.wait_for(told.get(), PATIENCE_S) is None
        await kv.request("POST", f"{kv.mount}/data/x", {"data": {"k": "1"}}, namespace="root")
        while await asyncio.wait_for(told.get(), PATIENCE_S) != [f"{kv.mount}/data/x"]:
            pass
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_the_server_goes_on_while_nobody_listens_and_a_gap_is_told_after(
    audited: _Audited, kv: Bao
) -> None:
    listen = f"unix:{audited.unix}"
    async with listening(listen) as (_, heard):
        await kv.put("before", {"a": "1"})
        await heard.until(lambda: f"{kv.mount}/data/before" in heard.paths)
    assert not audited.unix.exists()
    await kv.put("meanwhile", {"a": "1"})
    async with listening(listen) as (_, heard):
        assert heard.notices == [GAP]
        await kv.put("after", {"a": "1"})
        await heard.until(lambda: f"{kv.mount}/data/after" in heard.paths)
        # The connection is a gap of its own: what was written to the broken one is lost.
        assert heard.paths == [None, None, f"{kv.mount}/data/after"]


async def test_a_server_that_connects_soon_is_the_only_gap_of_the_start(
    audited: _Audited, kv: Bao, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    call_later, timers = loop.call_later, []

    def noted(delay: float, *call: Any, **context: Any) -> asyncio.TimerHandle:
        timer = call_later(delay, *call, **context)
        timers.extend([timer] if delay == 3600 else [])
        return timer

    monkeypatch.setattr(loop, "call_later", noted)
    heard = Heard()
    task = asyncio.create_task(VaultAuditFeed(f"unix:{audited.unix}", first_s=3600).listen(heard))
    try:
        await asyncio.sleep(0)  # it binds before it waits for anything
        await kv.put("x", {"a": "1"})
        await heard.until(lambda: f"{kv.mount}/data/x" in heard.paths)
        assert heard.paths == [None, f"{kv.mount}/data/x"]
        assert [timer.cancelled() for timer in timers] == [True]
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _write_200(server: OpenBaoServer, mount: str) -> list[float]:
    """Seconds that each of 200 writes took, from a thread with its own connection."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    took = []
    for number in range(200):
        body = json.dumps({"data": {"n": str(number)}})
        began = time.monotonic()
        connection.request(
            "POST", f"/v1/{mount}/data/{number}", body, {"X-Vault-Token": server.root_token}
        )
        answer = connection.getresponse()
        answer.read()
        took.append(time.monotonic() - began)
        assert answer.status == 200
    connection.close()
    return took


@pytest.mark.parametrize("most_bytes", [64 * 1024 * 1024, 64 * 1024])
async def test_a_stuck_event_loop_never_holds_up_the_server(
    audited: _Audited, kv: Bao, most_bytes: int
) -> None:
    """The whole loop stands still while 200 writes are made: the thread drains alone."""
    async with listening(f"unix:{audited.unix}", most_bytes=most_bytes) as (feed, heard):
        await kv.put("first", {"a": "1"})
        await heard.until(lambda: f"{kv.mount}/data/first" in heard.paths)
        heard.notices.clear()
        took: list[float] = []
        writer = threading.Thread(target=lambda: took.extend(_write_200(audited, kv.mount)))
        writer.start()
        writer.join(20)  # this is the loop's own thread: nothing else runs in it
        assert len(took) == 200
        assert max(took) < 1.0  # the device's write_timeout is 2 s
        await kv.put("last", {"a": "1"})
        await heard.until(lambda: f"{kv.mount}/data/last" in heard.paths)
        numbers = [f"{kv.mount}/data/{n}" for n in range(200)]
        if feed.counts.overflowed:
            assert most_bytes == 64 * 1024
            assert heard.paths[0] is None
        else:
            assert most_bytes > 64 * 1024
            assert [path for path in heard.paths if path in numbers] == numbers


# --- what else may be sent there ----------------------------------------------------


async def _send(path: Path, *parts: bytes) -> None:
    """One connection that sends these and closes."""
    _, writer = await asyncio.open_unix_connection(str(path))
    for part in parts:
        writer.write(part)
        await writer.drain()
    writer.close()
    await writer.wait_closed()


async def test_a_line_of_two_mebibytes_is_a_gap_and_the_next_one_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    async with listening(f"unix:{path}") as (feed, heard):
        heard.notices.clear()
        await _send(path, b'{"x":"', b"y" * (2 * 1024 * 1024), b'"}\n', ENTRY % 1)
        await heard.until(lambda: "kv/data/1" in heard.paths)
        assert None in heard.paths
        assert feed.counts.too_long == 1
        assert feed.counts.lines == 1


async def test_garbage_is_counted_and_tells_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.sock"
    async with listening(f"unix:{path}") as (feed, heard):
        heard.notices.clear()
        await _send(path, b"GET /c4n4ry HTTP/1.1\r\n\xff\x00\n", os.urandom(5000), b"\n")
        await _send(path, ENTRY % 1)
        await heard.until(lambda: "kv/data/1" in heard.paths)
        assert heard.paths == [None, "kv/data/1"]  # the gap is the second connection's
        assert feed.counts.invalid > 1
    logged = capsys.readouterr().err
    assert logged.count("change_feed_unreadable") == 1
    assert "c4n4ry" not in logged


async def test_several_servers_write_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    async with listening(f"unix:{path}") as (_, heard):
        first, second = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        with first, second:
            for connection in (first, second):
                connection.connect(str(path))
            entry = ENTRY % 1
            first.sendall(entry[:50])
            second.sendall(ENTRY % 2)
            await heard.until(lambda: "kv/data/2" in heard.paths)
            first.sendall(entry[50:])
            await heard.until(lambda: "kv/data/1" in heard.paths)


# --- the socket itself --------------------------------------------------------------


async def test_the_socket_is_for_its_group_and_goes_with_the_feed(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    async with listening(f"unix:{path}"):
        assert path.stat().st_mode & 0o777 == 0o660
        with pytest.raises(ConfigError, match="is served by another process"):
            async with listening(f"unix:{path}"):
                pass
        assert path.exists()
    assert not path.exists()


async def test_what_a_dead_process_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with listening(f"unix:{path}") as (_, heard):
        await _send(path, ENTRY % 1)
        await heard.until(lambda: "kv/data/1" in heard.paths)


async def test_an_address_that_cannot_be_had_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("keep me")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for listen, sentence in (
            (f"unix:{tmp_path}/no/a.sock", "needs the folder"),
            (f"unix:{tmp_path}/file", "is no socket"),
            (f"unix:/{'x' * 120}", "is longer than"),
            (f"tcp:127.0.0.1:{taken.getsockname()[1]}", "cannot be listened on"),
            (f"file:{tmp_path}", "is no regular file"),
        ):
            with pytest.raises(ConfigError, match=sentence):
                async with listening(listen):
                    pass
    assert (tmp_path / "file").read_text() == "keep me"


# --- files --------------------------------------------------------------------------


def _append(path: Path, *parts: bytes) -> None:
    with path.open("ab") as file:
        file.write(b"".join(parts))


async def test_a_file_is_followed_from_its_end_over_partial_lines(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    _append(log, ENTRY % 1, (ENTRY % 2)[:20])
    async with listening(f"file:{log}") as (feed, heard):
        assert heard.notices == [GAP]
        _append(log, (ENTRY % 2)[20:], ENTRY % 3, (ENTRY % 4)[:-9])
        await heard.until(lambda: "kv/data/3" in heard.paths)
        _append(log, (ENTRY % 4)[-9:])
        await heard.until(lambda: "kv/data/4" in heard.paths)
        assert heard.paths == [None, "kv/data/3", "kv/data/4"]
        assert feed.counts.invalid == 0


async def test_a_renamed_file_is_read_until_the_new_one_has_begun(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.touch()
    async with listening(f"file:{log}") as (_, heard):
        log.rename(tmp_path / "audit.log.1")
        log.touch()
        # The server has not been told to reopen yet.
        _append(tmp_path / "audit.log.1", ENTRY % 1)
        await heard.until(lambda: "kv/data/1" in heard.paths)
        _append(tmp_path / "audit.log.1", ENTRY % 2)
        _append(log, ENTRY % 3)
        await heard.until(lambda: "kv/data/3" in heard.paths)
        assert heard.paths == [None, "kv/data/1", "kv/data/2", "kv/data/3"]


@pytest.mark.parametrize("later", [1, 3], ids=["shorter", "longer than before"])
async def test_a_truncated_file_is_read_from_its_beginning_with_a_gap(
    tmp_path: Path, later: int
) -> None:
    log = tmp_path / "audit.log"
    log.touch()
    async with listening(f"file:{log}") as (_, heard):
        _append(log, ENTRY % 1, ENTRY % 2)
        await heard.until(lambda: "kv/data/2" in heard.paths)
        heard.notices.clear()
        log.write_bytes(b"".join(ENTRY % (7 + n) for n in range(later)))
        await heard.until(lambda: f"kv/data/{6 + later}" in heard.paths)
        assert heard.paths == [None, *(f"kv/data/{7 + n}" for n in range(later))]


async def test_a_file_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    async with listening(f"file:{log}") as (_, heard):
        assert heard.notices == [GAP]
        _append(log, ENTRY % 1)
        await heard.until(lambda: "kv/data/1" in heard.paths)
        log.unlink()
        _append(log, ENTRY % 2)
        await heard.until(lambda: "kv/data/2" in heard.paths)
