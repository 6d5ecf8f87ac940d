"""The demo's two-way part, where both sides differ: a person decides, or the primary wins."""

import json
import time
from typing import Any, Final

from svsync.cli import demo_secrets
from svsync.cli.demo_hands import (
    COLUMNS,
    Hands,
    Step,
    Table,
    Told,
    below_external,
    counted,
    expect,
    local_path,
    moved,
    same,
)
from svsync.cli.demo_secrets import Data
from svsync.domain.resolutions import Resolution
from svsync.domain.runs import Count
from svsync.domain.values import Payload

_KEPT: Final = "erp/db"
"""The secret below primary/ that the backup is to have."""
_COMPARED: Final = {
    "same": "same",
    "different": "different",
    "only_local": "only here",
    "only_remote": "only there",
}


async def resolve(hands: Hands) -> Told:
    mount = hands.estate.handover
    chosen = {
        "crm/db": Resolution.USE_LOCAL,
        "erp/db": Resolution.USE_REMOTE,
        "wiki/db": Resolution.USE_VALUE,
    }
    ours = {path: demo_secrets.database(f"{path}#ours") for path in chosen}
    theirs = {path: demo_secrets.database(f"{path}#theirs") for path in chosen}
    for path in chosen:
        theirs[path]["pool"] = "5"
        await hands.change_there(mount, path, theirs[path])
        await hands.write(local_path(mount, path), ours[path])
    found = await hands.run(mount)
    expect(counted(found, Count.CONFLICTS) == 3, "three conflicts are found")
    fields: list[tuple[object, ...]] = []
    decided: list[tuple[object, ...]] = []
    for path, resolution in chosen.items():
        local = local_path(mount, path)
        shown = await hands.app.conflicts.show(hands.tenant, "fed_handover", local)
        about: Any = shown.about
        fields = [
            (f["name"], _COMPARED[f["compared"]], _shape(f["local"]), _shape(f["remote"]))
            for f in about["fields"]
        ]
        agreed: Data = demo_secrets.database(f"{path}#agreed")
        payload = None
        if resolution is Resolution.USE_VALUE:
            payload = Payload.from_json_text(json.dumps(agreed))
            hands.written.append(agreed)
        done = await hands.app.conflicts.resolve(
            hands.tenant,
            "fed_handover",
            local,
            resolution,
            payload=payload,
            conflict_id=about["conflict_id"],
            local_version=about["local_version"],
            remote_token=about["remote_token"],
            by="demo",
        )
        version, held = await hands.sides(mount, path)
        wanted = {
            Resolution.USE_LOCAL: ours[path],
            Resolution.USE_REMOTE: theirs[path],
            Resolution.USE_VALUE: agreed,
        }[resolution]
        expect(held.value == wanted, f"{resolution} of {local} is what both sides have")
        kept = await hands.app.conflicts.show(hands.tenant, "fed_handover", local)
        expect(kept.remote is not None, "the record keeps the other side's value")
        decided.append(
            (
                below_external(local),
                done["kind"],
                str(resolution),
                f"v{version}",
                same(held),
            )
        )
    quiet = await hands.run(mount)
    expect(not moved(quiet) and not counted(quiet, Count.PUSHED), "nothing is left to do")
    waiting = await hands.app.conflicts.list_conflicts(hands.tenant, "fed_handover")
    expect(waiting["conflicts"] == [], "no conflict waits any more")
    last = below_external(local_path(mount, "wiki/db"))
    return Told(
        [
            Table(
                ("field", "is", "here", "OpenBao"),
                fields,
                title=f"`conflicts show` of {last}, side by side:",
            ),
            Table(("below external/", "kind", "decision", "here", "OpenBao"), decided),
        ],
        "No value had to be printed to decide. Both sides are equal again, and the record of each"
        " conflict keeps what gave way.",
        {"found": found.to_json(), "after": quiet.to_json()},
    )


def _shape(shape: dict[str, Any] | None) -> str:
    return "" if shape is None else f"{shape['type']}, {shape['bytes']} B"


async def backup(hands: Hands) -> Told:
    estate, mount = hands.estate, hands.estate.backup
    path = local_path(mount, _KEPT)
    await hands.run(mount)
    first = await hands.write(path, demo_secrets.database("backup/erp#1"))
    expect(first["state"] == "applied", "the backup took the first write")
    version, held = await hands.sides(mount, _KEPT)
    new = demo_secrets.database("backup/erp#2")
    await estate.server.seal()
    away = await hands.write(path, new)
    took = time.monotonic() - hands.began[path]
    expect(away["state"] == "pending", "an outage of the backup does not stop a write")
    expect(await hands.value(path) == new, "the new value is served")
    expect(await hands.open_writes(mount) == 1, "status tells that the backup lacks it")
    await estate.server.unseal()
    expect((await estate.held(mount, _KEPT)).version == 1, "the backup has the old value still")
    rows = [
        ("erp/db is written here", "applied", f"v{version}", same(held)),
        ("OpenBao is sealed; it is written", "pending", "v2, served", "cannot be reached"),
        ("OpenBao is unsealed", "", "v2, served", "v1, behind"),
    ]
    return Told(
        [Table(COLUMNS, rows, title="Below primary/:")],
        f"The write stood here at once; its caller was told `pending` after {took:.0f} s of trying"
        " OpenBao. That the backup is behind is on record, and a later step tells what a run"
        " makes of it.",
        {"outage": away},
    )


async def drift(hands: Hands) -> Told:
    mount = hands.estate.backup
    path = local_path(mount, _KEPT)
    pushed = await hands.run_when_settled(mount, path)
    expect(counted(pushed, Count.PUSHED) == 1, "the next run pushes what waited")
    version, held = await hands.sides(mount, _KEPT)
    wanted, theirs = await hands.value(path), demo_secrets.database("backup/erp#theirs")
    rows = [("the next run", "1 pushed", f"v{version}", same(held))]
    await hands.change_there(mount, _KEPT, theirs)
    rows.append(("somebody edits the backup", "", f"v{version}", "v3, theirs"))
    drifted = await hands.run(mount)
    expect(counted(drifted, Count.PUSHED) == 1, "the backup gets the primary's value again")
    version, held = await hands.sides(mount, _KEPT)
    expect((version, held.value) == (2, wanted), "the primary is as it was")
    rows.append(("the next run", "drift, 1 pushed", f"v{version}", same(held)))
    shown = await hands.app.conflicts.show(hands.tenant, "fed_backup", path)
    expect(shown.about["kind"] == "drift", "it is recorded as drift")
    expect(_is(shown.remote, theirs) and _is(shown.local, wanted), "both values are kept")
    return Told(
        [
            Table(COLUMNS, rows, title="Below primary/:"),
            Table(
                ("path", "kind", "state", "here", "OpenBao"),
                [(path, shown.about["kind"], shown.about["state"], "v2", "v3, theirs")],
                title="Recorded, with both values sealed:",
            ),
        ],
        "The backup has the primary's value again, the edit can still be read, and nothing that"
        " is done to the backup changes the primary.",
        {"pushed": pushed.to_json(), "drift": drifted.to_json()},
    )


def _is(kept: Payload | None, value: Data) -> bool:
    return kept is not None and json.loads(kept.data_text()) == value


RESOLVE: Final = Step(
    "resolve",
    "A person decides",
    "In a mount with `conflict_resolution: manual` three names are created on both sides on one"
    " day. Each side keeps its own until somebody has looked.",
    resolve,
)
BACKUP: Final = Step(
    "backup",
    "svsync is the primary, OpenBao its backup",
    "Once applications write here, OpenBao may stay as a warm copy: `local_wins` and"
    " `write_through`, for the secrets below primary/.",
    backup,
)
DRIFT: Final = Step(
    "drift",
    "The backup catches up, and is edited by somebody",
    "OpenBao lacks the write that was made while it was sealed. Then somebody changes the"
    " backup by hand, which must not reach the primary.",
    drift,
)
