"""Are checkpoints whole, in order, signed, and kept outside, whatever fails?"""

import asyncio
import json
import socket
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from tests.house import TENANT, House, house
from tests.program import until

from svsync.anchors.file import FileAnchor
from svsync.anchors.syslog import SyslogAnchor
from svsync.config.model import LogFormat, LogLevel
from svsync.domain.audit import FIRST, Checkpoint, Decision, Entry, anchored_of, heads_of, root_of
from svsync.domain.errors import AnchorError, StoreError
from svsync.domain.ids import TenantId
from svsync.observe.logs import configure
from svsync.registry import anchors
from svsync.services import checkpoints, recording
from svsync.services.checkpoints import Checkpoints, keep_checkpoints
from svsync.services.signing import Signing, is_signed
from svsync.store import checkpoints as store

__all__ = ["house"]


async def record(house: House, many: int = 1, tenant: TenantId = TENANT) -> None:
    entry = Entry(tenant, "user", "user:a", "secret.read", Decision.ALLOW)
    for _ in range(many):
        await house.app.recorder.record(entry)


async def kept(house: House) -> Sequence[Any]:
    return await house.admin.fetch("SELECT * FROM audit_checkpoints ORDER BY tenant_id, n")


class Memory:
    """A place outside that can fail."""

    def __init__(self, place: str = "memory") -> None:
        self.place = place
        self.lines: list[str] = []
        self.fails = False

    async def keep(self, lines: Sequence[str]) -> None:
        if self.fails:
            raise AnchorError("it is away")
        self.lines += lines

    @property
    def numbers(self) -> list[int]:
        found = [anchored_of(line) for line in self.lines]
        return [one.checkpoint.n for one in found if one is not None]


def with_anchors(house: House, *anchors: Any, **more: Any) -> Checkpoints:
    return Checkpoints(house.app.db, house.app.signing, anchors, **more)


# --- what is written ----------------------------------------------------------------


async def test_checkpoint_holds_the_heads_of_what_went_on_and_is_signed(house: House) -> None:
    await record(house, 3)
    assert await house.app.checkpoints.run() == 1
    [row] = await kept(house)
    heads = heads_of(row["heads"])
    last = await house.admin.fetch(
        "SELECT DISTINCT ON (chain_id) chain_id, seq, hash FROM audit ORDER BY chain_id, seq DESC"
    )
    assert [(h.chain, h.seq, h.hash) for h in heads] == [tuple(one) for one in last]
    made = Checkpoint(TENANT, 1, row["at"], row["root"], FIRST)
    assert row["root"] == root_of(row["heads"])
    [public] = (await house.app.signing.public_keys(TENANT)).values()
    assert is_signed(public.key, made.signed_text(), row["signature"])
    assert not is_signed(public.key, made.signed_text() + b" ", row["signature"])


async def test_what_stands_still_needs_no_other_checkpoint(house: House) -> None:
    assert await house.app.checkpoints.run() == 0
    await record(house)
    assert await house.app.checkpoints.run() == 1
    assert await house.app.checkpoints.run() == 0
    await record(house)
    assert await house.app.checkpoints.run() == 1
    first, second = await kept(house)
    assert (first["n"], second["n"]) == (1, 2)
    assert second["prev_hash"] == first["hash"]


async def test_each_tenant_has_its_own(house: House) -> None:
    other = TenantId(
        await house.admin.fetchval("INSERT INTO tenants (slug) VALUES ('x') RETURNING tenant_id")
    )
    await record(house)
    await record(house, tenant=other)
    assert await house.app.checkpoints.run() == 2
    mine, theirs = await kept(house)
    assert (mine["n"], theirs["n"]) == (1, 1)
    keys = [await house.app.signing.public_keys(t) for t in (TENANT, other)]
    assert {k.key for k in keys[0].values()}.isdisjoint(k.key for k in keys[1].values())


async def test_two_at_once_write_no_number_twice_and_leave_none_out(house: House) -> None:
    for _ in range(5):
        await record(house, 2)
        await asyncio.gather(*(house.app.checkpoints.run() for _ in range(4)))
    rows = await kept(house)
    assert [row["n"] for row in rows] == list(range(1, len(rows) + 1))
    assert (await house.app.verification.verify(TENANT)).fits


async def test_a_checkpoint_that_was_not_committed_is_made_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await record(house, 2)
    cover = store.cover

    async def dies(*_: Any) -> None:
        raise StoreError("it is gone")

    monkeypatch.setattr(store, "cover", dies)
    with pytest.raises(StoreError):
        await house.app.checkpoints.run()
    assert await kept(house) == []
    monkeypatch.setattr(store, "cover", cover)
    assert await house.app.checkpoints.run() == 1
    assert [row["n"] for row in await kept(house)] == [1]


async def test_the_signing_key_is_one_for_all_processes_and_does_not_age(house: House) -> None:
    app = house.app
    both = [Signing(app.db, app.sealing) for _ in range(2)]
    first, second = await asyncio.gather(*(one.signer(TENANT) for one in both))
    assert first.key_id == second.key_id
    await house.admin.execute("UPDATE data_keys SET created_at = now() - interval '5 years'")
    third = await Signing(app.db, app.sealing).signer(TENANT)
    assert third.key_id == first.key_id
    assert len(await app.signing.public_keys(TENANT)) == 1


async def test_the_private_half_is_stored_wrapped_only(house: House) -> None:
    signer = await house.app.signing.signer(TENANT)
    raw = signer._key.private_bytes_raw()
    assert all(raw not in (row["wrapped"] or b"") for row in await house.rows("data_keys"))
    assert raw.hex() not in repr(signer)


# --- which chains are looked at -------------------------------------------------------


async def test_chains_that_are_over_rest_and_late_rows_wake_them(house: House) -> None:
    await record(house, 4)
    await house.app.checkpoints.run()
    assert {row["at_rest"] for row in await house.rows("audit_chains")} == {False}
    for slot in house.app.recorder._slots:
        await slot.close()
    await record(house)
    await house.app.checkpoints.run()
    states = {row["end_reason"]: row["at_rest"] for row in await house.rows("audit_chains")}
    assert states == {"closed": True, None: False}
    # Of a writer that stood still for days: its chain rests, and its rows come all the same.
    await house.admin.execute(
        "UPDATE audit_chains SET covered_at = now() - interval '2 days' WHERE end_reason IS NULL"
    )
    open_chain = (await house.rows("audit_chains", end_reason="closed"))[0]["chain_id"]
    await house.admin.execute(
        "UPDATE audit_chains SET ended_seq = NULL, ended_hash = NULL, end_reason = NULL,"
        " covered_seq = covered_seq - 1 WHERE chain_id = $1",
        open_chain,
    )
    assert await house.app.checkpoints.run() == 0
    await house.app.checkpoints.wake()
    assert await house.app.checkpoints.run() == 1
    [head] = heads_of((await kept(house))[-1]["heads"])
    assert head.chain == open_chain


async def test_chain_of_a_commit_without_an_outcome_is_looked_at_for_a_day(house: House) -> None:
    """Its last rows may come after its end was told."""
    await record(house, 2)
    slot = next(slot for slot in house.app.recorder._slots if slot._chains)
    slot._give_up([TENANT])
    await slot.tell_ends()
    await house.app.checkpoints.run()
    [row] = await house.rows("audit_chains", end_reason="outcome_unknown")
    assert not row["at_rest"]
    await house.admin.execute("UPDATE audit_chains SET covered_at = now() - interval '2 days'")
    await record(house)
    await house.app.checkpoints.run()
    [row] = await house.rows("audit_chains", end_reason="outcome_unknown")
    assert row["at_rest"]


# --- when -----------------------------------------------------------------------------


async def test_many_rows_do_not_wait_for_the_time_of_a_checkpoint(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "MANY", 5)
    monkeypatch.setattr(checkpoints, "EVERY_S", 3600.0)

    async def is_kept() -> bool:
        return bool(await kept(house))

    keeping = asyncio.create_task(
        keep_checkpoints(house.app.db, house.app.checkpoints, house.app.recorder, "test")
    )
    try:
        await record(house, 5)
        await until(is_kept)
    finally:
        keeping.cancel()
    assert len(await house.rows("leases", backend_id="audit-checkpoints")) == 1


async def test_rows_are_counted_anew_after_each_wait(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "MANY", 3)
    await record(house, 3)
    assert await house.app.recorder.wait_for_rows(0.01)
    assert not await house.app.recorder.wait_for_rows(0.01)
    await record(house, 2)
    assert not await house.app.recorder.wait_for_rows(0.01)


# --- outside --------------------------------------------------------------------------


async def test_place_is_given_each_checkpoint_in_order_after_its_commit(house: House) -> None:
    place = Memory()
    checkpoints = with_anchors(house, place)
    for _ in range(3):
        await record(house)
        await checkpoints.run()
    assert place.numbers == [1, 2, 3]
    assert len(await kept(house)) == 3
    [row] = await house.rows("audit_anchors")
    assert (row["place"], row["first_n"], row["last_n"]) == ("memory", 1, 3)
    told = json.loads(place.lines[0])
    assert told["tenant"] == "default"


async def test_place_that_was_away_is_given_all_it_lacks_and_the_others_do_not_wait(
    house: House,
) -> None:
    away, there = Memory("away"), Memory("there")
    now = [0.0]
    checkpoints = with_anchors(house, away, there, clock=lambda: now[0])
    stream = StringIO()
    configure(LogLevel.INFO, LogFormat.JSON, stream)
    try:
        await record(house)
        await checkpoints.run()
        away.fails = True
        for _ in range(3):
            await record(house)
            await checkpoints.run()
        assert (away.numbers, there.numbers) == ([1], [1, 2, 3, 4])
        now[0] += 601
        await checkpoints.run()
        away.fails = False
        await checkpoints.run()
    finally:
        configure(LogLevel.INFO, LogFormat.JSON)
    assert away.numbers == [1, 2, 3, 4]
    events = [json.loads(line)["event"] for line in stream.getvalue().splitlines()]
    assert events == ["audit_anchor_failed"] * 2 + ["audit_anchor_answers"]


async def test_place_that_is_new_begins_with_the_newest(house: House) -> None:
    for _ in range(3):
        await record(house)
        await house.app.checkpoints.run()
    place = Memory()
    await with_anchors(house, place).run()
    assert place.numbers == [3]


async def test_a_place_whose_answer_was_lost_has_a_line_twice_which_fits(
    house: House, tmp_path: Path
) -> None:
    file = tmp_path / "anchor"
    checkpoints = with_anchors(house, FileAnchor(str(file)))
    await record(house)
    await checkpoints.run()
    await house.admin.execute("DELETE FROM audit_anchors")
    await checkpoints.run()
    lines = file.read_text().splitlines()
    assert lines == [lines[0]] * 2
    assert (await house.app.verification.verify(TENANT, [lines])).fits


async def test_doctor_tells_of_a_place_that_lacks_checkpoints(house: House) -> None:
    place = Memory()
    place.fails = True
    await record(house)
    await with_anchors(house, place).run()
    async with house.app.db.transaction_of([TENANT], read_only=True) as tx:
        assert await store.late(tx, [TENANT], ["memory"], 120) == []
        [late] = await store.late(tx, [TENANT], ["memory", "other"][:1], 0)
    assert late["place"] == "memory"
    place.fails = False
    await with_anchors(house, place).run()
    async with house.app.db.transaction_of([TENANT], read_only=True) as tx:
        assert await store.late(tx, [TENANT], ["memory"], 0) == []


# --- file and syslog --------------------------------------------------------------------


async def test_file_is_appended_to_and_outlives_rotation_and_a_torn_line(tmp_path: Path) -> None:
    file = tmp_path / "anchor"
    anchor = FileAnchor(str(file))
    await anchor.keep(["one", "two"])
    assert file.read_text() == "one\ntwo\n"
    with file.open("a") as torn:
        torn.write("thr")
    await anchor.keep(["three"])
    assert file.read_text() == "one\ntwo\nthr\nthree\n"
    file.rename(tmp_path / "anchor.1")
    await anchor.keep(["four"])
    assert file.read_text() == "four\n"
    assert file.stat().st_mode & 0o027 == 0


async def test_file_that_cannot_be_written_says_why(tmp_path: Path) -> None:
    with pytest.raises(AnchorError, match="No such file or directory"):
        await FileAnchor(str(tmp_path / "none" / "anchor")).keep(["one"])
    with pytest.raises(AnchorError, match="Is a directory"):
        await FileAnchor(str(tmp_path)).keep(["one"])


async def test_syslog_gets_lines_of_rfc_5424(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as unix:
        unix.bind(str(path))
        await SyslogAnchor(f"unix:{path}").keep(["one", "two"])
        lines = [unix.recv(65536).decode() for _ in range(2)]
    assert lines[0].startswith("<109>1 ")
    assert [line.rpartition(" - ")[2] for line in lines] == ["one", "two"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        await SyslogAnchor(f"udp:127.0.0.1:{udp.getsockname()[1]}").keep(["three"])
        assert udp.recv(65536).decode().endswith(" audit - three")


async def test_syslog_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(AnchorError, match="takes no line"):
        await SyslogAnchor(f"unix:{tmp_path / 'none'}").keep(["one"])


async def test_standard_error_gets_the_line_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    await SyslogAnchor("stderr").keep(['{"a":1}'])
    assert capsys.readouterr().err == '{"a":1}\n'


async def test_places_are_opened_as_configured(house: House, tmp_path: Path) -> None:
    entries = (
        {"anchor": "file", "path": str(tmp_path / "a")},
        {"anchor": "syslog", "address": "udp:siem:514"},
    )
    opened = anchors(replace(house.app.settings, audit_anchors=entries), {})
    assert [type(anchor) for anchor in opened] == [FileAnchor, SyslogAnchor]
    assert [a.place for a in opened] == [
        f"file:{tmp_path}/a",
        "syslog:udp:siem:514",
    ]
    assert not (tmp_path / "a").exists()
