"""The demo's two-way part: what is written here lands in OpenBao, or nothing changes."""

from typing import Final

from svsync.cli import demo_secrets
from svsync.cli.demo_hands import (
    COLUMNS,
    Hands,
    Step,
    Table,
    Told,
    counted,
    expect,
    local_path,
    moved,
    same,
    through,
    unexpected,
)
from svsync.domain.errors import WriteOutcomeUnknownError
from svsync.domain.runs import Count, RunResult
from svsync.services.pushes import HOLD_S

_LOST: Final = "newsletter/db"


async def write_through(hands: Hands) -> Told:
    mount, estate = hands.estate.shared, hands.estate
    await hands.run(mount)
    await hands.expect_served(mount)
    mine, theirs = local_path(mount, "checkout/db"), local_path(mount, "search/db")

    written = await hands.write(
        mine,
        demo_secrets.database("checkout/db#new"),
        tags=("env=prod", "rotated=monthly"),
        custom={"env": "prod", "ticket": "OPS-1742"},
    )
    expect(written["state"] == "applied", f"OpenBao took the write of {mine}")
    version, held = await hands.sides(mount, "checkout/db")
    tags = held.tags
    expect(held.version == 2, f"{mine} is a new version in OpenBao")
    expect(tags["rotated"] == "monthly", "its tag came along")
    expect(tags["ticket"] == "OPS-1742", "its custom metadata came along")
    rows = [("checkout/db is written here", "applied", f"v{version}", same(held))]

    changed = demo_secrets.database("search/db#theirs")
    await hands.change_there(mount, "search/db", changed)
    rows.append(("search/db is changed in OpenBao", "", "v1", "v2, theirs"))
    refusal = await hands.refused(theirs, demo_secrets.database("search/db#unaware"))
    expect(refusal.code == "remote_changed", "a write over a change that nobody saw is refused")
    expect(await hands.version(theirs) == 1, f"{theirs} is as it was here")
    held = await estate.held(mount, "search/db")
    expect((held.version, held.value) == (2, changed), f"{theirs} is as it was in OpenBao")
    rows.append(("search/db is written here", refusal.code, "v1, as before", "v2, theirs"))
    ran = await hands.run(mount)
    expect(counted(ran, Count.UPDATED) == 1, "the run brings their change in")
    version, held = await hands.sides(mount, "search/db")
    rows.append(("a run", "1 updated", f"v{version}, theirs", f"v{held.version}, theirs"))
    again = await hands.write(theirs, demo_secrets.database("search/db#aware"))
    expect(again["state"] == "applied", "who saw their change may write")
    version, held = await hands.sides(mount, "search/db")
    rows.append(("search/db is written here again", "applied", f"v{version}", same(held)))
    return Told(
        [
            Table(COLUMNS, rows, title="Below external/shared/:"),
            Table(
                ("custom metadata", "value"),
                sorted(tags.items()),
                title="What checkout/db carries in OpenBao now:",
            ),
        ],
        "A write over a change that nobody here had seen is refused, and changes nothing. (Each"
        " side counts its own versions; here v2 of search/db was the refused write, and no number"
        " is used twice.)",
        {"write": written, "refused": refusal.code, "again": again},
    )


async def lost_answer(hands: Hands) -> Told:
    mount, estate = hands.estate.shared, hands.estate
    path = local_path(mount, _LOST)

    async def has_landed() -> bool:
        return (await estate.held(mount, _LOST)).version == 2

    hands.cable.cut_when = has_landed
    value = demo_secrets.database(f"{_LOST}#lost")
    lost = await hands.refused(path, value)
    if not isinstance(lost, WriteOutcomeUnknownError):
        raise unexpected(f"the answer to the write of {path} is lost, not {lost.code}")
    held = await estate.held(mount, _LOST)
    expect((held.version, held.value) == (2, value), "OpenBao has taken the write")
    expect(await hands.version(path) == 1, "nobody here claims that it has")
    second = await hands.refused(path, demo_secrets.database(f"{_LOST}#second"))
    expect(second.code == "write_in_progress", "a second write waits for the first one's end")
    expect((await estate.held(mount, _LOST)).version == 2, "nothing more was sent")
    expect(await hands.open_writes(mount) == 1, "status tells of the open write")
    rows = [
        (f"{_LOST} is written here", lost.code, "v1, as before", "v2, new"),
        ("it is written once more", second.code, "v1, as before", "v2, new"),
    ]
    return Told(
        [Table(COLUMNS, rows, title="Below external/shared/:")],
        "svsync does not guess, and sends nothing twice. The write is on record, and the first"
        f" run that comes {HOLD_S:.0f} s after it was sent asks OpenBao about it: a later step"
        " tells how it ended.",
        {"code": lost.code, "second": second.code, "pending_pushes": 1},
    )


async def found_out(hands: Hands) -> Told:
    mount = hands.estate.shared
    path = local_path(mount, _LOST)
    ran = await hands.run_when_settled(mount, path)
    expect(ran.record.result is RunResult.OK, "the run after a lost answer ends well")
    expect(counted(ran, Count.PUSHED) == 1, "it finds that the write landed")
    version, held = await hands.sides(mount, _LOST)
    expect((version, held.version) == (2, 2), "it was written once, on both sides")
    again = await hands.run(mount)
    expect(not moved(again) and not counted(again, Count.PUSHED), "and then nothing is left to do")
    rows = [
        ("a run asks about newsletter/db", "it landed", f"v{version}", same(held)),
        ("one more run", "nothing to do", f"v{version}", same(held)),
    ]
    return Told(
        [Table(COLUMNS, rows, title="Below external/shared/:")],
        "The write that nobody had answered for is current on both sides, and was made once.",
        {"found": ran.to_json(), "again": again.to_json()},
    )


async def delete_both(hands: Hands) -> Told:
    mount, estate = hands.estate.shared, hands.estate
    path = local_path(mount, "returns/db")
    before = await hands.value(path)
    answer = through(await hands.app.writes.delete(hands.tenant, path, by="demo"))
    expect(answer["state"] == "applied", "OpenBao took the deletion")
    expect(not await hands.is_served(path), f"{path} is not served any more")
    expect(await hands.value(path, 1) == before, "its history can be read here")
    deleted = await estate.held(mount, "returns/db")
    expect((deleted.version, deleted.value) == (1, None), "it is deleted there too, recoverably")
    restored = through(await hands.app.writes.restore(hands.tenant, path, by="demo"))
    expect(restored["state"] == "applied", "OpenBao took the restored value")
    version, held = await hands.sides(mount, "returns/db")
    expect(held.value == before, "both sides have the value of before")
    rows = [
        ("returns/db is deleted here", "applied", "deleted, history kept", "v1, deleted"),
        ("it is restored here", "applied", f"v{version}, the value of v1", same(held)),
    ]
    return Told(
        [Table(COLUMNS, rows, title="Below external/shared/:")],
        "svsync deletes in OpenBao only where `propagate_deletes` says so, only what is still"
        " there as it was last seen, and only so that it can be undone.",
        {"delete": answer, "restore": restored},
    )


WRITE_THROUGH: Final = Step(
    "write_through",
    "Writes go both ways",
    "A fourth mount, shared/, is joined with `writes: write_through`: what is written here goes"
    " to OpenBao first, and counts only if OpenBao takes it.",
    write_through,
)
LOST_ANSWER: Final = Step(
    "lost_answer",
    "An answer is lost",
    "OpenBao takes a write, and the connection breaks before it can say so. Was it made or"
    " not? From here nobody can tell.",
    lost_answer,
)
FOUND_OUT: Final = Step(
    "found_out",
    "What became of the lost answer",
    "The write whose answer was lost is still open. The next run finds out before it does"
    " anything else.",
    found_out,
)
DELETE_BOTH: Final = Step(
    "delete_both",
    "Deleted and restored on both sides",
    "In the shared mount a deletion made here is made in OpenBao as well.",
    delete_both,
)
