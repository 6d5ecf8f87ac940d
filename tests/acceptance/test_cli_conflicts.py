"""Can a person look at a conflict and settle it, and is no value shown unasked?"""

import json
from typing import Any

from tests.acceptance.conftest import Desk


async def quarrel(desk: Desk, name: str, *, known: bool, **settings: Any) -> tuple[str, ...]:
    """A path `<name>/a` in an open conflict; the options that every verb takes.

    Both values hold a marker, and differ in the field `k` alone. `known`: both sides
    once agreed; else each has made the path on its own.
    """
    marker = desk.program.canary.marker
    rule = {"local": f"{name}/**", "remote": f"{desk.bao.mount}/data/{name}/**"}
    backend, file = desk.backend(path_mapping=[rule], conflict_resolution="manual", **settings)
    at = ("--backend", backend, "--config", str(file))
    if known:
        await desk.bao.put(f"{name}/a", {"k": "base", "same": marker})
        await desk.program("run-once", *at)
    else:
        await desk.bao.put(f"{name}/a", {"k": f"{marker}-there", "same": marker})
    ours = json.dumps({"k": f"{marker}-here", "same": marker})
    written = await desk.program(
        "secrets", "write", f"{name}/a", "--json-file", "-", "--config", str(file),
        stdin=ours.encode(),
    )  # fmt: skip
    assert written.code == 0
    if known:
        await desk.bao.put(f"{name}/a", {"k": f"{marker}-there", "same": marker})
    said = await desk.program("run-once", "--fail-on-conflicts", *at)
    assert said.code == 4
    return at


async def value(desk: Desk, path: str) -> Any:
    got = await desk.program("secrets", "get", path, "--json", reveals=True)
    return got.json["data"]


async def test_conflict_is_looked_at_without_values_and_with_them_when_asked(desk: Desk) -> None:
    at = await quarrel(desk, "shown", known=True)
    marker = desk.program.canary.marker
    head, row = (await desk.program("conflicts", "list", *at)).out.splitlines()
    assert head.split() == ["PATH", "KIND", "STATE", "HERE", "BACKEND", "FOUND", "CHANGED"]
    assert row.split()[:7] == [
        "shown/a", "modify_modify", "open", "live,", "version", "2", "live",
    ]  # fmt: skip

    told = (await desk.program("conflicts", "show", "shown/a", *at, "--json")).json
    assert {f["name"]: f["compared"] for f in told["fields"]} == {"k": "different", "same": "same"}
    table = await desk.program("conflicts", "show", "shown/a", *at)
    assert (table.code, table.sentences) == (0, [])
    assert "string, " in table.out

    shown = ("conflicts", "show", "shown/a", *at, "--reveal")
    revealed = await desk.program(*shown, "--json", reveals=True)
    assert revealed.sentence == "svsync: the values of both sides are printed"
    assert revealed.json.pop("values") == {
        "local": {"k": f"{marker}-here", "same": marker},
        "remote": {"k": f"{marker}-there", "same": marker},
    }
    table = await desk.program(*shown, reveals=True)
    assert f"{marker}-here" in table.out
    assert f"{marker}-there" in table.out


async def test_remote_side_is_taken_where_it_is_the_conflict_that_was_looked_at(
    desk: Desk,
) -> None:
    at = await quarrel(desk, "taken", known=True)
    resolve = ("conflicts", "resolve", "taken/a", *at, "--use-remote", "--json")
    other = await desk.program(*resolve, "--conflict-id", "cfl_0")
    assert (other.code, other.json["error"]["code"]) == (1, "conflict_changed")
    now = other.json["error"]["conflict"]
    assert (now["path"], now["state"], now["local_version"]) == ("taken/a", "open", 2)

    said = await desk.program(*resolve, "--conflict-id", now["conflict_id"])
    assert (said.code, said.sentences) == (0, [])
    assert (said.json["resolution"], said.json["version"]) == ("use_remote", 3)
    assert said.json["write_through"] == {"state": "not_configured", "push_id": None}
    assert (await value(desk, "taken/a"))["k"].endswith("-there")
    again = await desk.program(*resolve)
    assert (again.code, again.json["error"]["code"]) == (1, "conflict_not_found")
    [settled] = (await desk.program("conflicts", "list", *at, "--all", "--json")).json["conflicts"]
    assert (settled["state"], settled["resolved_by"][:4]) == ("resolved", "cli:")


async def test_value_of_ones_own_reaches_the_backend(desk: Desk) -> None:
    at = await quarrel(desk, "given", known=False, writes="write_through")
    own = json.dumps({"k": f"{desk.program.canary.marker}-both"}).encode()
    said = await desk.program("conflicts", "resolve", "given/a", *at, "--use-value", "-", stdin=own)
    assert said.out.splitlines() == [
        "The conflict of given/a is resolved: it is at version 2 now.",
        f"{at[1]} has the same.",
    ]
    assert await value(desk, "given/a") == json.loads(own)
