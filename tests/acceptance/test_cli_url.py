"""Commands that ask a service: the same words, JSON and exit codes as on the store itself."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.conftest import Desk, Far
from tests.docs.cli_page import commands
from tests.postgres import connected
from tests.program import Program

from svsync.cli.main import build_parser
from svsync.cli.remote import of
from svsync.domain.audit import LOOK

EXACT = '{"n": 1.10, "big": 12345678901234567890123, "s": "\\u00e4"}'
RULE = "apps/**=read,list"


# --- the same as on the store ---------------------------------------------------------


@pytest.mark.asyncio(loop_scope="session")
async def test_secret_goes_in_and_comes_out_as_on_the_store(far: Far) -> None:
    written = await far(
        "secrets", "write", "far/a", "--json-file", "-", "--type", "json", "--tag", "b,a",
        "--owner", "team:x", "--cas", "0", "--json", stdin=EXACT.encode(),
    )  # fmt: skip
    assert (written.code, written.sentences) == (0, [])
    assert written.json["write_through"] == {"state": "not_configured", "push_id": None}
    got = await far("secrets", "get", "far/a", "--json")
    assert f'"data": {EXACT},' in got.out
    assert got.out == (await far.on_the_store("secrets", "get", "far/a", "--json")).out
    assert (await far("secrets", "get", "far/a", "--field", "n")).out == "1.10"
    assert (await far("secrets", "get", "far/a")).out == (
        await far.on_the_store("secrets", "get", "far/a")
    ).out
    again = await far("secrets", "write", "far/a", "k=@-", "--max-versions", "5", stdin=b"2")
    assert again.out == "far/a is at version 2 now.\n"
    stale = await far("secrets", "write", "far/a", "k=@-", "--cas", "1", "--json", stdin=b"3")
    assert (stale.code, stale.json["error"]["code"]) == (1, "version_conflict")
    for words in (("list", "--prefix", "far/"), ("list", "--json"), ("history", "far/a", "--json")):
        said = await far("secrets", *words)
        assert (said.code, said.out) == (0, (await far.on_the_store("secrets", *words)).out)
    deleted = await far("secrets", "delete", "far/a", "--cas", "2", "--json")
    assert deleted.json == {
        "path": "far/a",
        "write_through": {"state": "not_configured", "push_id": None},
    }
    for where in (far, far.on_the_store):
        absent = await where("secrets", "get", "far/a", "--json")
        assert (absent.code, absent.json["error"]["code"]) == (1, "secret_not_found")
    assert (await far("secrets", "restore", "far/a")).out == (
        "far/a is back: it is at version 3 now.\n"
    )
    assert (await far("secrets", "restore", "far/a", "--version", "1", "--json")).json[
        "version"
    ] == 4


@pytest.mark.asyncio(loop_scope="session")
async def test_what_is_copied_and_compared_is_marked_as_a_persons_look(
    far: Far, desk: Desk
) -> None:
    await far("secrets", "write", "looked/a", "k=@-", stdin=b"1")
    file = desk.folder / "looked.yaml"
    file.write_text("paths: {looked/a: new/looked}\n")
    for command in ("copy", "verify"):
        assert (await far(command, "--mapping", str(file))).code == 0
    assert (await far("secrets", "get", "looked/a")).code == 0
    async with connected(desk.database) as admin:
        rows = await admin.fetch(
            "SELECT request_id FROM audit WHERE action = 'secret.read' AND secret_path = 'looked/a'"
        )
    marked = [row["request_id"].startswith(LOOK) for row in rows]
    assert marked.count(False) == 1
    assert marked.count(True) >= 2


@pytest.mark.asyncio(loop_scope="session")
async def test_policies_are_made_bound_and_tested(far: Far) -> None:
    made = await far("policies", "create", "readers", "--rule", RULE, "--json")
    assert (made.code, made.json["created_by"]) == (0, "sa:test")
    again = await far("policies", "create", "readers", "--rule", RULE, "--json")
    assert (again.code, again.json["error"]["code"]) == (1, "policy_exists")
    bound = await far("policies", "bind", "readers", "sa:billing")
    assert bound.out == "readers is bound to sa:billing.\n"
    bound = await far("policies", "bind", "readers", "sa:billing")
    assert bound.out == "readers was bound already to sa:billing.\n"
    for words in (("list",), ("show", "readers", "--json")):
        said = await far("policies", *words)
        assert said.out == (await far.on_the_store("policies", *words)).out
    asked = ("policies", "test", "apps/a", "read", "--identity", "sa:billing")
    allowed = await far(*asked)
    assert (allowed.code, allowed.out) == (0, (await far.on_the_store(*asked)).out)
    assert (await far("policies", "unbind", "readers", "sa:billing")).code == 0
    assert (await far(*asked)).code == 1
    assert (await far("policies", "delete", "readers", "--json")).json["deleted"]
    wrong = await far("policies", "create", "p", "--rule", "/b/**=read")
    assert (wrong.code, wrong.out) == (2, "")
    assert "rules[0].path_pattern" in wrong.sentence


@pytest.mark.asyncio(loop_scope="session")
async def test_backends_and_runs_are_looked_at(far: Far) -> None:
    once = await far.on_the_store("run-once", "--backend", far.backend, "--wait", "--json")
    run = once.json["run_id"]
    name = (await far("backends", "show", far.backend, "--json")).json["name"]
    for words in (
        ("backends", "list"),
        ("backends", "show", name),
        ("runs", "list", "--backend", far.backend),
        ("runs", "show", run),
        ("conflicts", "list", "--backend", far.backend),
    ):
        said, here = await far(*words, "--json"), await far.on_the_store(*words, "--json")
        assert (said.code, here.code) == (0, 0), (words, said.err, here.err)
        assert _still(said.json) == _still(here.json), words
        assert (await far(*words)).code == 0
    assert len(
        (await far("runs", "list", "--backend", name, "--limit", "1", "--json")).json["runs"]
    )
    tested = await far("backends", "test", far.backend, "--json")
    assert (tested.code, tested.json["status"]) == (0, "healthy")
    status = (await far("status", "--backend", name, "--json")).json
    assert (status["id"], status["secrets_synced"], status["tls_verify"]) == (far.backend, 1, True)
    assert [b["id"] for b in (await far("status", "--json")).json["backends"]] == [far.backend]
    assert far.backend in (await far("status")).out
    paused = await far("backends", "pause", name, "--json")
    assert paused.json == {"id": far.backend, "state": "paused"}
    assert "paused" in (await far("status", "--backend", far.backend)).out
    assert (await far("backends", "resume", far.backend)).out == f"{far.backend} is active.\n"
    kept = await far("backends", "remove", far.backend)
    assert (kept.code, kept.out) == (2, "")
    assert "file" in kept.sentence


def _still(told: Any) -> Any:
    """What does not move while somebody looks."""
    if isinstance(told, dict):
        moving = ("staleness_s", "next_sync_at")
        return {name: _still(value) for name, value in told.items() if name not in moving}
    return [_still(one) for one in told] if isinstance(told, list) else told


@pytest.mark.asyncio(loop_scope="session")
async def test_conflict_is_shown_and_settled(far: Far, desk: Desk) -> None:
    path, at = f"{far.backend}/c", ("--backend", far.backend)
    once = ("run-once", *at, "--wait")
    await desk.bao.put("c", {"k": "base"})
    await far.on_the_store(*once)
    await far("secrets", "write", path, "k=@-", stdin=b"here")
    await desk.bao.put("c", {"k": "there"})
    await far.on_the_store(*once)
    for form in ((), ("--json",)):
        listed = await far("conflicts", "list", *at, *form)
        assert (listed.code, path in listed.out) == (0, True)
        shown = await far("conflicts", "show", path, "--reveal", *at, *form)
        here = await far.on_the_store("conflicts", "show", path, "--reveal", *at, *form)
        assert (shown.code, shown.sentences) == (0, here.sentences)
        if form:
            assert shown.json == here.json
        else:  # above are moments, as long ago
            assert shown.out.splitlines()[-2:] == here.out.splitlines()[-2:]
        assert (await far("conflicts", "show", path, *at, *form)).code == 0
    resolved = await far(
        "conflicts", "resolve", path, *at, "--use-value", "-", "--json", stdin=b'{"k": 1.10}'
    )
    assert (resolved.code, resolved.json["resolution"]) == (0, "use_value")
    assert '"data": {"k": 1.10}' in (await far("secrets", "get", path, "--json")).out
    for words in (("resolve", path, "--use-local"), ("show", f"{far.backend}/none")):
        for where in (far, far.on_the_store):
            absent = await where("conflicts", *words, *at, "--json")
            assert (absent.code, absent.json["error"]["code"]) == (1, "conflict_not_found")


@pytest.mark.asyncio(loop_scope="session")
async def test_log_tells_who_asked(far: Far) -> None:
    whoami = await far("auth", "whoami", "--json")
    assert whoami.json["identity_id"] == "sa:test"
    assert (
        whoami.json
        == (await far.on_the_store("auth", "whoami", "--json", SVSYNC_TOKEN=far.token)).json
    )
    await far("secrets", "get", "far/none")
    asked = ("audit", "query", "--secret-path", "far/none", "--start", "1 hour ago")
    [row] = (await far(*asked, "--json")).json["logs"]
    assert (row["action"], row["identity_id"]) == ("secret.read", "sa:test")
    assert (await far(*asked)).out == (await far.on_the_store(*asked)).out
    limited = (await far("audit", "query", "--limit", "1", "--json")).json
    assert (len(limited["logs"]), limited["next_cursor"] is None) == (1, False)
    assert (await far("audit", "query", "--limit", "0")).code == 2


@pytest.mark.asyncio(loop_scope="session")
async def test_tokens_are_made_listed_and_revoked(far: Far) -> None:
    made = await far(
        "tokens", "create", "--identity", "sa:robot", "--scope", "secrets:read", "--expires", "1h",
        "--json",
    )  # fmt: skip
    assert (made.code, made.json["identity_id"]) == (0, "sa:robot")
    token = made.json["token"]
    assert (await far("auth", "whoami", "--json", SVSYNC_TOKEN=token)).json["token_id"] == (
        made.json["token_id"]
    )
    listed = await far("tokens", "list", "--json")
    assert listed.out == (await far.on_the_store("tokens", "list", "--json")).out
    assert "sa:robot" in (await far("tokens", "list")).out
    wrong = await far("tokens", "revoke", token, "--json")
    assert (wrong.code, wrong.json["error"]["code"]) == (1, "token_not_found")
    assert token not in wrong.out + wrong.err
    gone = await far("tokens", "revoke", made.json["token_id"])
    assert gone.out == f"{made.json['token_id']} is revoked.\n"
    assert (await far("auth", "whoami", SVSYNC_TOKEN=token)).code == 1
    long = await far("tokens", "create", "--identity", "sa:a", "--scope", "admin", "--expires", "x")
    assert (long.code, "--expires" in long.sentence) == (2, True)
    little = await far("tokens", "list", "--json", SVSYNC_TOKEN=await _token(far, "secrets:read"))
    assert (little.code, little.json["error"]["code"]) == (1, "forbidden")


async def _token(far: Far, scope: str) -> str:
    made = await far.on_the_store(
        "tokens", "create", "--identity", "sa:little", "--scope", scope, "--json"
    )
    return str(made.json["token"])


@pytest.mark.asyncio(loop_scope="session")
async def test_webhooks_are_looked_after(far: Far) -> None:
    made = await far(
        "webhooks",
        "add",
        "https://hooks.example.com/x",
        "--type",
        "federation.sync.failed",
        "--json",
    )
    assert made.code == 0, made.err
    endpoint = made.json["id"]
    assert made.json["secret"].startswith("whsec_")
    listed = await far("webhooks", "list", "--json")
    assert listed.out == (await far.on_the_store("webhooks", "list", "--json")).out
    assert (await far("webhooks", "deliveries", endpoint, "--json")).json["deliveries"] == []
    assert (await far("webhooks", "replay", endpoint)).out == "Due again: 0.\n"
    turned = await far("webhooks", "rotate", endpoint, "--at-once", "--json")
    assert turned.json["previous_valid_until"] is None
    assert (await far("webhooks", "remove", endpoint)).out == f"{endpoint} is removed.\n"
    gone = await far("webhooks", "test", endpoint, "--json")
    assert (gone.code, gone.json["error"]["code"]) == (1, "webhook_not_found")
    assert (await far("feeds", "list", "--json")).json == {"feed_secrets": []}
    none = await far("feeds", "revoke", f"fds_{'0' * 32}", "--json")
    assert (none.code, none.json["error"]["code"]) == (1, "feed_secret_not_found")


@pytest.mark.asyncio(loop_scope="session")
async def test_watch_gives_each_second_what_the_service_tells(far: Far) -> None:
    process = await far.asking.start("status", "--json", "--watch", "--backend", far.backend)
    assert process.stdout is not None
    looks = [json.loads(await process.stdout.readline()) for _ in range(2)]
    process.send_signal(signal.SIGINT)
    assert await process.wait() == 0
    assert looks[0]["at"] < looks[1]["at"]
    there = (await far.on_the_store("status", "--json")).json
    for look in looks:
        [shown] = look["backends"]
        assert (shown["id"], shown["tls_verify"], shown["rate_per_s"]) == (far.backend, True, None)
        [same] = [b for b in there["backends"] if b["id"] == far.backend]
        assert shown.keys() - {"rate_per_s"} == same.keys()
        assert not look.keys() & {"stopped", "processes", "signals"}  # no tenant is told


@pytest.mark.asyncio(loop_scope="session")
async def test_watch_ends_where_the_token_counts_no_more(far: Far) -> None:
    made = (await far.on_the_store(
        "tokens", "create", "--identity", "sa:watcher", "--scope", "federation:read", "--json"
    )).json  # fmt: skip
    process = await far.asking.start("status", "--json", "--watch", SVSYNC_TOKEN=made["token"])
    assert process.stdout is not None
    assert json.loads(await process.stdout.readline())["backends"]
    assert (await far.on_the_store("tokens", "revoke", made["token_id"])).code == 0
    _, said = await process.communicate()
    assert (process.returncode, b"the token was revoked" in said) == (1, True)


# --- what is asked, and what is not ---------------------------------------------------


@pytest.mark.asyncio(loop_scope="session")
async def test_address_and_token_are_taken_before_and_after_the_verb(far: Far) -> None:
    bare = Program({}, far.asking.folder, far.asking.canary)
    file = far.asking.folder / "token"
    file.write_text(f"{far.token}\n")
    file.chmod(0o600)
    url = ("--url", far.served.url)
    for words in (
        (*url, "--token", far.token, "auth", "whoami", "--json"),
        ("auth", *url, "whoami", "--token", f"file:{file}", "--json"),
        ("auth", "whoami", "--json", *url, "--token", "env:MINE"),
    ):
        said = await bare(*words, MINE=far.token)
        assert (said.code, said.json["identity_id"]) == (0, "sa:test"), said.err
    named = await far("--tenant", "default", "auth", "whoami")
    assert named.code == 0


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("auth", "whoami", "--token", "env:NOT_THERE"), "is not set"),
        (("auth", "whoami", "--token", "file:relative"), "--token takes"),
        (("auth", "whoami", "--tenant", "other"), "the token is of the tenant default"),
        (("backends", "pause", "--all"), "unset SVSYNC_URL and run it"),
        (("backends", "pause", "--all", "--url", "https://a.example"), "leave --url out"),
        (("run-once", "--backend", "a", "--dry-run"), "or unset SVSYNC_URL and run it"),
        (("inventory", "--backend", "a"), "unset SVSYNC_URL and run it"),
        (("verify", "--backend", "a"), "unset SVSYNC_URL and run it"),
        (("secrets", "get", "../a"), "the path cannot be one"),
        (("groups", "list"), "asks no service, unset SVSYNC_URL"),
        (("groups", "list", "--url", "https://a.example"), "leave --url out"),
        (("config", "check", "--url", "https://a.example"), "leave --url out"),
        (("auth", "whoami", "--url", "http://svsync.internal"), "--url must begin with https"),
        (("auth", "whoami", "--url", "https://a.example", "--ca", "/none"), "--ca is no readable"),
    ],
)
async def test_what_cannot_be_asked_is_one_sentence(
    far: Far, words: tuple[str, ...], says: str
) -> None:
    said = await far(*words)
    assert said.code == 2, said.err
    assert says in said.sentence
    assert said.out == ""


@pytest.mark.asyncio(loop_scope="session")
async def test_token_that_does_not_count_is_told(far: Far) -> None:
    said = await far("secrets", "list", "--json", SVSYNC_TOKEN=f"{far.token[:-1]}x")
    assert (said.code, said.json["error"]["code"]) == (1, "unauthenticated")
    assert far.token[:-1] not in said.out + said.err
    without = await far("secrets", "list", SVSYNC_TOKEN="")
    assert (without.code, "SVSYNC_TOKEN" in without.sentence) == (2, True)
    lonely = await far("secrets", "list", "--token", far.token, SVSYNC_URL="")
    assert (lonely.code, "--url" in lonely.sentence) == (2, True)


@pytest.mark.asyncio(loop_scope="session")
async def test_service_that_is_away_is_no_unreachable_backend(far: Far) -> None:
    """3 says that a backend is away; whether one is, nobody was told."""
    said = await far("secrets", "list", "--json", SVSYNC_URL="http://127.0.0.1:9")
    assert (said.code, said.json["error"]["code"]) == (1, "service_unreachable")
    assert said.sentence.endswith("look at --url and the network")


@pytest.mark.asyncio(loop_scope="session")
async def test_commands_that_need_no_store_are_done_here(far: Far) -> None:
    """The address in the environment does not make them ask."""
    checked = await far("config", "check", "--config", str(far.file), BAO_TOKEN="x")
    assert (checked.code, checked.sentences) == (0, [])


def test_page_tells_which_commands_ask_a_service() -> None:
    page = (Path(__file__).parents[2] / "docs/reference/cli.md").read_text("utf-8")
    asking = {
        " ".join(words)
        for words, parser, _ in commands(build_parser())
        if of(parser.get_default("command")) is not None
    }
    assert {"secrets get", "audit query", "policies test", "status"} <= asking
    assert asking.isdisjoint({"retire plan", "keys status", "migrate", "serve"})
    for words, _, _ in commands(build_parser()):
        _, _, section = page.partition(f"\n## svsync {' '.join(words)}\n")
        told = "--url" in section.partition("\n## ")[0]
        assert told is (" ".join(words) in asking), words


@pytest.mark.asyncio(loop_scope="session")
async def test_backend_that_is_away_ends_with_3(far: Far) -> None:
    """The service answers, and says so of the backend."""
    await far("secrets", "write", "infra/token", "token=@-", stdin=b"nobody's")
    document = {
        "id": "fed_away",
        "name": "away",
        "type": "hashicorp-vault",
        "config": {
            "endpoint": "https://127.0.0.1:9",
            "auth_method": "token",
            "auth_config_path": "infra/token",
        },
        "path_mapping": {"away/**": "kv/data/**"},
        "mode": "proxy",
    }
    text = json.dumps(document).encode()
    refused = await far("backends", "add", "-", "--require-healthy", "--json", stdin=text)
    assert (refused.code, refused.json["error"]["code"]) == (1, "backend_not_healthy")
    made = await far("backends", "add", "-", "--json", stdin=text)
    assert (made.code, made.json["status"]) == (0, "unreachable"), made.err
    twice = await far("backends", "add", "-", stdin=text)
    assert (twice.code, twice.out) == (2, "")
    here = await far.on_the_store("backends", "add", "-", stdin=text)
    assert (here.code, "configuration file" in here.sentence) == (2, True)
    for words in (("backends", "test", "away"), ("secrets", "get", "away/a")):
        said = await far(*words, "--json")
        assert (said.code, said.json["error"]["code"]) == (3, "backend_unreachable"), said.err
    removed = await far("backends", "remove", "away", "--json")
    assert (removed.code, removed.json["id"]) == (0, "fed_away")
