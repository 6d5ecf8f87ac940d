"""Is a backend paused, resumed, flipped and removed by name, and a restored store by flag?"""

import json
from pathlib import Path

from tests.acceptance.conftest import Desk


def _file_of(desk: Desk, file: Path, **changes: object) -> Path:
    """The same file with the backend changed; without it where nothing is said."""
    document = json.loads(file.read_text())
    if changes:
        document["backends"][0].update(changes)
    else:
        document["backends"] = []
    return desk.file(document)


async def test_the_life_of_a_backend(desk: Desk) -> None:
    await desk.bao.put("apps/db", {"password": desk.program.canary.value()})
    backend, file = desk.backend()
    at = ("--config", str(file), "--json")

    paused = await desk.program("backends", "pause", backend, *at)
    assert paused.json == {"id": backend, "state": "paused"}
    assert (await desk.program("run-once", "--backend", backend, *at)).code == 2
    resumed = await desk.program("backends", "resume", backend, *at)
    assert resumed.json == {"id": backend, "state": "active"}
    assert (await desk.program("run-once", "--backend", backend, *at)).code == 0

    path = f"{backend}/apps/db"
    await desk.program("secrets", "write", path, "password=mine", *at)
    proxied = ("--config", str(_file_of(desk, file, mode="proxy")), "--json")
    for command in (("status",), ("backends", "apply"), ("backends", "apply", "--force", "other")):
        refused = await desk.program(*command, *proxied)
        assert refused.code == 2
        assert path in refused.sentence
        assert f"--force {backend}" in refused.sentence
    forced = await desk.program("backends", "apply", "--force", backend, *proxied)
    assert forced.json == {"changed": [backend]}
    shown = await desk.program("backends", "show", backend, *proxied)
    assert shown.json["hidden_copies"] == 1
    assert (await desk.program("secrets", "get", path, *proxied, reveals=True)).code == 1

    named = await desk.program("backends", "remove", backend, *proxied)
    assert named.code == 2
    assert "take it out of the file" in named.sentence
    without = ("--config", str(_file_of(desk, file)), "--json")
    removed = await desk.program("backends", "remove", backend, *without)
    assert removed.json == {
        "id": backend,
        "secrets_kept": 1,
        "copies_destroyed": 0,
        "conflicts_closed": 0,
        "pushes_withdrawn": 0,
    }
    kept = await desk.program("secrets", "get", path, *without, reveals=True)
    assert kept.json["data"] == {"password": "mine"}
    assert (await desk.program("backends", "remove", backend, *without)).code == 1


async def test_a_restored_store_is_made_safe_by_a_flag(desk: Desk) -> None:
    backend, file = desk.backend()
    at = ("--config", str(file), "--json")
    await desk.program("run-once", "--backend", backend, *at)
    done = await desk.program("migrate", "--after-restore", *at)
    assert done.code == 0
    assert done.json["applied"] == []
    restored = done.json["restored"]
    assert restored["fences_raised"] >= 1
    assert (restored["runs_ended"], restored["pushes_to_ask_about"]) == (0, 0)
    assert "restored" not in (await desk.program("migrate", *at)).json
    assert (await desk.program("run-once", "--backend", backend, *at)).code == 0
