"""Does the audit log tell what the configuration file does to backends, before it is done?"""

import json
import pwd
from dataclasses import replace
from os import getuid
from pathlib import Path
from typing import Any

import pytest
from tests.house import BACKEND, House
from tests.integration.test_cli_recorded import do

from svsync.domain.audit import SVSYNC, Actor, Entry
from svsync.domain.federation import BackendSpec
from svsync.domain.ids import BackendId
from svsync.services.recording import AuditUnavailableError

MADE, CHANGED, LEFT_OUT = "federation.create", "federation.update", "federation.pause"
OTHER = BackendId("fed_other")


def other(house: House) -> BackendSpec:
    rules = tuple(
        replace(rule, local=f"other/{n}/**", remote=f"other/{n}/**")
        for n, rule in enumerate(house.spec.rules)
    )
    return replace(house.spec, id=OTHER, name="other", rules=rules)


async def bring_in(house: House, *specs: BackendSpec, by: Actor = SVSYNC) -> None:
    await house.app.federation.apply(specs, by=by)


async def told(house: House) -> list[tuple[str, str]]:
    rows = await house.admin.fetch(
        "SELECT action, backend_id FROM audit ORDER BY at, chain_id, seq"
    )
    return [tuple(row) for row in rows]


async def test_what_is_made_changed_and_left_out_has_a_row_each(house: House) -> None:
    await bring_in(house, house.spec, other(house))
    assert await told(house) == [(MADE, OTHER)]
    await bring_in(house, replace(house.spec, name="renamed"), other(house))
    assert (await told(house))[1:] == [(CHANGED, BACKEND)]
    await bring_in(house, other(house))
    assert (await told(house))[2:] == [(LEFT_OUT, BACKEND)]
    rows = await house.rows("audit")
    assert {(row["identity_type"], row["identity_id"], row["decision"]) for row in rows} == {
        ("system", "svsync", "allow")
    }
    assert {json.loads(row["detail"])["managed_by"] for row in rows} == {"file"}


async def test_a_file_that_changes_nothing_has_none(house: House) -> None:
    await bring_in(house, house.spec)
    assert await told(house) == []
    await house.admin.execute("UPDATE backends SET state = 'deleting'")
    await bring_in(house, replace(house.spec, name="renamed"))  # left to its removal
    await bring_in(house)
    assert await told(house) == []


async def test_what_cannot_be_recorded_is_not_brought_in(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(self: Any, entry: Entry) -> None:
        raise AuditUnavailableError("not now")

    monkeypatch.setattr("svsync.services.recording.Recorder.record", fail)
    before = await house.dump()
    for specs in ([house.spec, other(house)], [replace(house.spec, name="renamed")], []):
        with pytest.raises(AuditUnavailableError):
            await bring_in(house, *specs)
    assert await house.dump() == before


async def test_what_became_due_while_it_was_told_is_told_too(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bring_in(house, house.spec, other(house))
    recorder = type(house.app.recorder)
    record = recorder.record

    async def meanwhile(self: Any, entry: Entry) -> None:
        monkeypatch.setattr(recorder, "record", record)
        await record(self, entry)
        # Somebody with an older file takes away what is about to be changed.
        await house.app.federation.apply([replace(house.spec, name="older")])

    monkeypatch.setattr(recorder, "record", meanwhile)
    await bring_in(house, house.spec, replace(other(house), name="newer"))
    assert (await told(house))[1:] == [(CHANGED, OTHER), (CHANGED, BACKEND)]
    rows = {row["backend_id"]: (row["name"], row["state"]) for row in await house.rows("backends")}
    assert rows == {BACKEND: (house.spec.name, "active"), OTHER: ("newer", "active")}


async def test_a_command_brings_it_in_as_whoever_runs_it(
    house: House, tmp_path: Path, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "svsync.yaml"
    spec = {
        "id": "fed_file", "name": "file", "type": "hashicorp-vault",
        "config": {
            "endpoint": "https://vault.example:8200", "auth_method": "token",
            "auth_config_path": "infra/token",
        },
        "path_mapping": [{"local": "file/**", "remote": "kv/data/**"}],
    }  # fmt: skip
    file.write_text(json.dumps({"backends": [spec]}))
    url = house.app.settings.database_url
    assert url is not None
    monkeypatch.setenv("DATABASE_URL", url.reveal())
    monkeypatch.setenv("SVSYNC_STATE_DIR", str(state_dir))
    await do(house, ("--config", str(file), "backends", "list"))
    assert await told(house) == [(MADE, "fed_file"), (LEFT_OUT, BACKEND)]
    who = {(row["identity_type"], row["identity_id"]) for row in await house.rows("audit")}
    assert who == {("operator", f"cli:{pwd.getpwuid(getuid()).pw_name}")}
