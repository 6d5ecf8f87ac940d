"""Runs that a service works, and readers that its log tells of, as on the store itself."""

import signal

import pytest
from tests.acceptance.conftest import Desk, Far
from tests.postgres import connected
from tests.program import until

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_run_is_worked_by_the_service_and_its_report_is_printed(far: Far, desk: Desk) -> None:
    await desk.bao.put("run/a", {"k": "1"})
    at = ("--backend", far.backend, "--wait")
    said = await far("run-once", *at, "--json")
    assert (said.code, said.sentences) == (0, [])
    told = said.json
    assert (told["trigger"], told["state"], told["result"]) == ("api", "completed", "ok")
    assert told["counts"]["listed"] >= 1
    assert told == (await far.on_the_store("runs", "show", told["run_id"], "--json")).json
    some = await far("run-once", *at, "--path", f"{far.backend}/run/*", "--json")
    assert (some.code, some.json["kind"]) == (0, "targeted")
    assert f"{far.backend}: ok" in (await far("run-once", *at)).out


async def test_plan_is_told_as_on_the_store(far: Far, desk: Desk) -> None:
    assert (await far("run-once", "--backend", far.backend, "--wait")).code == 0
    await desk.bao.put("planned/a", {"k": "1"})
    at = ("--backend", far.backend, "--path", f"{far.backend}/planned/a")
    said = await far("plan", *at, "--json")
    here = await far.on_the_store("plan", *at, "--json")
    assert (said.code, here.code) == (0, 0)
    assert [one["action"] for one in said.json["plan"]] == ["create"]
    for name in ("plan", "planned", "hidden", "guards", "result", "counts", "calls_per_cycle"):
        assert said.json[name] == here.json[name], name
    token = (await far.on_the_store(
        "tokens", "create", "--identity", "sa:blind", "--scope", "federation:write",
        "federation:read", "--json",
    )).json["token"]  # fmt: skip
    blind = await far("plan", *at, SVSYNC_TOKEN=token)
    assert "And 1 at paths that the token may not list.\n" in blind.out
    assert "planned/a" not in blind.out


async def test_exit_codes_of_a_run_are_those_of_the_store(far: Far, desk: Desk) -> None:
    path, at = f"{far.backend}/clash", ("--backend", far.backend, "--wait")
    await desk.bao.put("clash", {"k": "base"})
    assert (await far("run-once", *at)).code == 0
    await far("secrets", "write", path, "k=@-", stdin=b"here")
    await desk.bao.put("clash", {"k": "there"})
    waiting = await far("run-once", *at, "--fail-on-conflicts")
    assert (waiting.code, waiting.sentence) == (
        4, "svsync: 1 conflicts wait: `svsync conflicts list` shows them"
    )  # fmt: skip
    await far("conflicts", "resolve", path, "--backend", far.backend, "--use-local")
    unknown = await far("run-once", "--backend", "fed_none", "--json")
    assert (unknown.code, unknown.json["run_id"]) == (1, None)
    dry = await far("run-once", *at, "--dry-run")
    assert (dry.code, dry.out) == (2, "")
    assert "`svsync plan` does" in dry.sentence


async def test_what_a_guard_stops_ends_with_1_and_its_report(far: Far, desk: Desk) -> None:
    at = ("--backend", far.backend, "--wait")
    names = [f"many/{n}" for n in range(30)]
    for name in names:
        await desk.bao.put(name, {"k": "1"})
    assert (await far("run-once", *at)).code == 0
    for name in names:
        await desk.bao.delete(name)
    stopped = await far("run-once", *at, "--json")
    assert (stopped.code, stopped.json["error"]["code"]) == (1, "mass_delete_guard")
    allowed = await far("run-once", *at, "--allow-mass-delete", "--json")
    assert (allowed.code, allowed.json["counts"]["retained"]) == (0, len(names))


async def test_who_leaves_leaves_the_run_to_the_service(far: Far, desk: Desk) -> None:
    assert (await far.on_the_store("backends", "pause", "--all")).code == 0
    process = await far.asking.start("run-once", "--backend", far.backend, "--json")
    await until(lambda: _waits(desk))
    said = await far.asking.interrupted(process, signal.SIGINT)
    assert said.code == 130
    run = said.json["run_id"]
    assert said.sentences[0] == (
        f"svsync: the run goes on without us: `svsync runs show {run}` tells of it"
    )
    assert (await far.on_the_store("backends", "resume", "--all")).code == 0
    ended = await far("run-once", "--backend", far.backend, "--wait")
    assert ended.code == 0
    assert (await far("runs", "show", run, "--json")).json["state"] == "completed"


async def test_run_that_came_to_nothing_is_not_told_as_done(far: Far, desk: Desk) -> None:
    """As where the backend is configured anew before it began."""
    assert (await far.on_the_store("backends", "pause", "--all")).code == 0
    process = await far.asking.start("run-once", "--backend", far.backend, "--json")
    await until(lambda: _waits(desk))
    async with connected(desk.database) as admin:
        await admin.execute(
            "UPDATE runs SET state = 'superseded', ended_at = now() WHERE state = 'queued'"
        )
    said = await far.asking.ended(process)
    assert (said.code, said.json["state"]) == (1, "superseded")
    assert said.sentence.endswith("the backend was changed meanwhile: run it again")
    assert (await far.on_the_store("backends", "resume", "--all")).code == 0


async def _waits(desk: Desk) -> bool:
    async with connected(desk.database) as admin:
        return bool(await admin.fetchval("SELECT count(*) FROM runs WHERE state = 'queued'"))


async def test_backend_that_somebody_runs_now_is_left_to_them(far: Far, desk: Desk) -> None:
    async with connected(desk.database) as admin:
        await admin.execute(
            "INSERT INTO leases (tenant_id, backend_id, holder, fence, expires_at)"
            " SELECT tenant_id, backend_id, 'host:1', 1, now() + interval '1 hour' FROM backends"
            " WHERE backend_id = $1 ON CONFLICT (tenant_id, backend_id) DO UPDATE"
            " SET holder = excluded.holder, expires_at = excluded.expires_at",
            far.backend,
        )
        said = await far("run-once", "--backend", far.backend, "--json")
        await admin.execute(
            "UPDATE leases SET expires_at = now() WHERE backend_id = $1", far.backend
        )
    assert (said.code, said.json["run_id"]) == (75, None)
    assert said.json["error"]["holder"] == "host:1"


async def test_mapping_in_force_is_tried_as_that_of_the_file_is(far: Far, desk: Desk) -> None:
    paths = (f"{far.backend}/a", f"{desk.bao.mount}/data/b", "elsewhere/c")
    asked = ("map", "test", "--backend", far.backend, *paths)
    at = ("--url", far.served.url)
    said, here = await far(*asked, "--json", *at), await far.on_the_store(*asked, "--json")
    assert (said.code, said.json) == (1, here.json)
    assert (await far(*asked[:-1], *at)).out == (await far.on_the_store(*asked[:-1])).out
    mine = await far(*asked[:-1], "--config", str(far.file))  # the environment alone asks nobody
    assert (mine.code, mine.out) == (0, (await far.on_the_store(*asked[:-1])).out)
    token = (await far.on_the_store(
        "tokens", "create", "--identity", "sa:blind", "--scope", "federation:read", "--json"
    )).json["token"]  # fmt: skip
    blind = await far(*asked[:5], *at, SVSYNC_TOKEN=token)
    assert (blind.code, "elsewhere" in blind.out) == (1, False)
    assert "may not list what it may be" in blind.out


# --- readers --------------------------------------------------------------------------


async def test_readers_are_told_as_on_the_store(far: Far, desk: Desk) -> None:
    for name in ("x/a", "x/ab", "y"):
        await far("secrets", "write", f"readers/{name}", "k=@-", stdin=b"1")
        await far("secrets", "get", f"readers/{name}")
    await far("secrets", "get", "readers/x/a")
    await far.on_the_store("secrets", "get", "readers/x/a")
    file = desk.folder / "looks.yaml"
    file.write_text("paths: {readers/y: readers/copy}\n")
    assert (await far("copy", "--mapping", str(file), "--dry-run")).code == 0
    for words in (
        ("--prefix", "readers/x/a"),
        ("--prefix", "readers/", "--limit", "2"),
        ("--prefix", "readers", "--start", "1 hour ago"),
        ("--prefix", "none"),
    ):
        said = await far("inventory", "readers", *words, "--json")
        here = await far.on_the_store("inventory", "readers", *words, "--json")
        assert (said.code, said.json) == (0, here.json)
    plain = await far("inventory", "readers", "--prefix", "readers/x/a")
    rows = [line.split()[:3] for line in plain.out.splitlines()[1:]]
    assert rows == [["readers/x/a", "sa:test", "2"], ["readers/x/ab", "sa:test", "1"]]


@pytest.mark.parametrize(
    ("words", "needs"),
    [
        (("inventory", "--backend", "fed_a"), "run it on the machine of the store"),
        (("inventory", "--vault-addr", "http://127.0.0.1:1"), "leave --url out and"),
        (("inventory", "readers", "--audit-log", "audit.log"), "leave --url out"),
        (("retire", "plan", "a/**", "--idle", "7d"), "logins that a service lends to nobody"),
        (("tenants", "list"), "a token is of one tenant"),
    ],
)
async def test_what_no_service_can_do_says_what_to_do_instead(
    far: Far, words: tuple[str, ...], needs: str
) -> None:
    said = await far(*words, "--url", far.served.url)
    assert (said.code, said.out) == (2, "")
    assert needs in said.sentence


async def test_what_needs_no_store_is_done_where_only_the_environment_has_an_address(
    far: Far,
) -> None:
    said = await far("inventory", "readers", "--audit-log", "no-such-file")
    assert (said.code, "no-such-file cannot be read" in said.sentence) == (2, True)
