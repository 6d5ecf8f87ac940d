"""Change feeds that arrive over HTTP: their secrets, their door, and the runs they ask for."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.api import BACKENDS, Answer, Client, Front, documented, open_front
from tests.house import BACKEND, TENANT, House
from tests.program import Program
from tests.waiting import queued, work_all

from svsync.config.model import LogFormat, LogLevel
from svsync.domain.access import Scope
from svsync.domain.federation import Mode, Overrides, RuleSpec
from svsync.domain.feeds import MOST_PATHS
from svsync.domain.ids import BackendId
from svsync.observe.logs import configure

SECRETS = f"{BACKENDS}/{BACKEND}/feed-secrets"
DOOR = f"/v1/events/http/{BACKEND}"
AZURE = f"/v1/events/azure-eventgrid/{BACKEND}"
BOTH = ({"feed": "http"}, {"feed": "azure-eventgrid"})


@pytest_asyncio.fixture
async def fed(house: House) -> AsyncIterator[Front]:
    """The API of a house whose backend is told of changes over HTTP."""
    await house.configure(events=BOTH)
    async with open_front(house) as opened:
        yield opened


async def made(front: Front, feed: str = "http") -> Any:
    answer = await front.client.post(SECRETS, json={"feed": feed})
    assert answer.status == 201, answer.body
    return answer.body


async def sender(front: Front, feed: str = "http") -> Client:
    return front.client.with_token((await made(front, feed))["secret"])


async def told(client: Client, *paths: str) -> Answer:
    return await client.post(DOOR, json={"paths": list(paths)})


async def named(front: Front) -> set[str]:
    """What a run is still to look at."""
    return {row["remote_path"] for row in await front.house.rows("dirty_paths")}


async def recorded(front: Front, action: str) -> list[Any]:
    rows = await front.house.admin.fetch(
        "SELECT * FROM audit WHERE action = $1 ORDER BY at, chain_id, seq", action
    )
    return [{**row, "detail": json.loads(row["detail"] or "null")} for row in rows]


# --- the secrets ------------------------------------------------------------------


async def test_a_secret_is_shown_once_and_only_its_hash_is_stored(fed: Front) -> None:
    first = await made(fed)
    assert first["path"] == DOOR
    listed = (await fed.client.get(SECRETS)).body["feed_secrets"]
    shown = {name: first[name] for name in ("id", "backend_id", "feed", "created_by", "created_at")}
    assert listed == [shown | {"last_used_on": None}]
    dump = str(await fed.house.dump())
    assert first["id"] in dump
    for text in (first["secret"], first["secret"].rpartition("_")[2]):
        assert text not in dump + json.dumps(listed)


async def test_two_secrets_count_while_one_is_rotated_and_a_revoked_one_never(
    fed: Front,
) -> None:
    first, second = await made(fed), await made(fed)
    clients = [fed.client.with_token(one["secret"]) for one in (first, second)]
    assert [(await told(client, "kv/a")).status for client in clients] == [202, 202]
    used = (await fed.client.get(SECRETS)).body["feed_secrets"]
    assert all(one["last_used_on"] for one in used)
    assert (await fed.client.call("DELETE", f"{SECRETS}/{first['id']}")).status == 204
    assert [(await told(client, "kv/a")).status for client in clients] == [401, 202]
    again = await fed.client.call("DELETE", f"{SECRETS}/{first['id']}")
    assert again.told == (404, "feed_secret_not_found")


async def test_a_feed_has_ten_secrets_at_most(fed: Front) -> None:
    for _ in range(10):
        await made(fed)
    assert (await fed.client.post(SECRETS, json={"feed": "http"})).told == (
        422,
        "too_many_feed_secrets",
    )
    await made(fed, "azure-eventgrid")


@pytest.mark.parametrize("feed", ["vault-audit", "nothing", "svf_1_CANARY", None, 7])
async def test_what_is_no_feed_over_http_has_no_secret(fed: Front, feed: Any) -> None:
    answer = await fed.client.post(SECRETS, json={"feed": feed})
    assert (answer.status, answer.body["error"]["field"]) == (422, "feed")
    assert "CANARY" not in json.dumps(answer.body)


async def test_a_backend_that_names_no_such_feed_has_no_secret_of_it(front: Front) -> None:
    answer = await front.client.post(SECRETS, json={"feed": "http"})
    assert (answer.status, answer.body["error"]["field"]) == (422, "feed")
    assert "events" in answer.body["error"]["message"]
    assert await front.house.rows("feed_secrets") == []


async def test_a_secret_is_made_once_for_a_key_and_not_kept(fed: Front) -> None:
    key = {"Idempotency-Key": "k"}
    first = await fed.client.post(SECRETS, json={"feed": "http"}, headers=key)
    again = await fed.client.post(SECRETS, json={"feed": "http"}, headers=key)
    assert (first.status, again.told) == (201, (409, "idempotency_answer_not_kept"))
    assert len(await fed.house.rows("feed_secrets")) == 1
    assert first.body["secret"] not in str(await fed.house.dump())


async def test_a_secret_goes_with_its_backend(fed: Front) -> None:
    client = await sender(fed)
    await fed.house.admin.execute("DELETE FROM backends")
    assert await fed.house.rows("feed_secrets") == []
    assert (await told(client, "kv/a")).told == (401, "unauthenticated")


async def test_a_secret_of_another_backend_is_not_revoked_in_passing(fed: Front) -> None:
    stranger = fed.client.with_token(await fed.other_tenant())
    first = await made(fed)
    answer = await stranger.call("DELETE", f"{SECRETS}/{first['id']}")
    assert answer.told == (404, "backend_not_found")
    other = replace(
        fed.house.spec, id=BackendId("fed_other"), name="other", rules=(RuleSpec("o/**", "o/**"),)
    )
    await fed.house.app.federation.apply([fed.house.spec, other])
    at = f"{BACKENDS}/fed_other/feed-secrets/{first['id']}"
    assert (await fed.client.call("DELETE", at)).told == (404, "feed_secret_not_found")
    assert len(await fed.house.rows("feed_secrets")) == 1


# --- who gets in, and where else they do not ------------------------------------------


async def test_a_feeds_secret_opens_nothing_but_its_door(fed: Front) -> None:
    client = await sender(fed)
    for method, path in documented():
        if not path.startswith("/v1/") or path.startswith("/v1/events/"):
            continue
        fed.now[0] += 1  # there are more routes than failures that are told why
        filled = path.replace("{id}", BACKEND).replace("{secret_id}", "fds_" + "0" * 32)
        assert (await client.call(method, filled)).told == (401, "unauthenticated")


async def test_no_token_opens_the_door(fed: Front) -> None:
    assert (await told(fed.client, "kv/a")).told == (401, "unauthenticated")
    writer = fed.client.with_token(await fed.token(Scope.FEDERATION_WRITE))
    assert (await told(writer, "kv/a")).told == (401, "unauthenticated")
    assert await queued(fed.house) == []


async def test_a_secret_is_good_for_one_feed_of_one_backend(fed: Front) -> None:
    client = await sender(fed)
    body = {"paths": ["kv/a"]}
    answers = [
        await client.post(path, json=body)
        for path in (
            AZURE,
            "/v1/events/http/fed_other",
            f"/v1/events/aws-sqs/{BACKEND}",
            f"/v1/events/nothing/{BACKEND}",
        )
    ]
    assert {answer.told for answer in answers} == {(404, "feed_not_served")}
    assert len({answer.body["error"]["message"] for answer in answers}) == 1
    assert [row["decision"] for row in await recorded(fed, "feed.notice")] == ["deny"] * 4
    assert await queued(fed.house) == []


async def test_a_feed_that_the_backend_names_no_more_is_not_served(fed: Front) -> None:
    client = await sender(fed)
    await fed.house.configure(events=())
    assert (await told(client, "kv/a")).told == (404, "feed_not_served")


async def test_a_forged_secret_does_not_count(fed: Front) -> None:
    text = (await made(fed))["secret"]
    other = (await fed.other_tenant()).split("_")[1]
    for wrong in (
        text[:-1] + ("0" if text[-1] != "0" else "1"),
        text.replace("svf_1_", f"svf_{other}_"),
        text.replace("svf_1_", "svf_2147483648_"),
        text.replace("svf_", "svt_"),
        "svf_",
    ):
        answer = await told(fed.client.with_token(wrong), "kv/a")
        assert answer.told == (401, "unauthenticated")
        assert wrong not in json.dumps(answer.body)


async def test_a_suspended_tenant_hears_nothing(fed: Front) -> None:
    client = await sender(fed)
    await fed.house.admin.execute("UPDATE tenants SET status = 'suspended' WHERE tenant_id = 1")
    assert (await told(client, "kv/a")).told == (403, "tenant_shut")


async def test_a_secret_in_the_query_is_refused_and_stands_in_no_log(fed: Front) -> None:
    stream = StringIO()
    text = (await made(fed))["secret"]
    configure(LogLevel.DEBUG, LogFormat.JSON, stream)
    try:
        for client in (fed.client.with_token(None), fed.client.with_token(text)):
            answer = await client.post(f"{DOOR}?code={text}", json={"paths": ["kv/a"]})
            assert answer.told == (401, "secret_in_query")
            assert "logged" in answer.body["error"]["message"]
            assert text not in json.dumps(answer.body)
            await client.post(f"/v1/events/http/{text}", json={"paths": ["kv/a"]})
    finally:
        configure(LogLevel.INFO, LogFormat.JSON)
    assert "secret_in_query" in stream.getvalue()
    assert text not in stream.getvalue()
    assert await queued(fed.house) == []


async def test_wrong_secrets_are_limited_by_address_and_told_of_in_the_audit_log(
    fed: Front,
) -> None:
    nobody = fed.client.with_token("svf_1_wrong")
    answers = [await told(nobody, "kv/a") for _ in range(21)]
    assert [answer.status for answer in answers] == [401] * 20 + [429]
    assert (await told(await sender(fed), "kv/a")).status == 202
    await fed.house.app.strangers.record()
    [row] = await recorded(fed, "auth.fail")
    assert row["detail"]["count"] == 21


# --- notices ------------------------------------------------------------------------


async def test_what_is_named_is_read_again_and_nothing_else(fed: Front) -> None:
    for name in "ab":
        fed.house.there.put(f"kv/{name}", {"k": "1"})
    await fed.house.run()
    for name in "ab":
        fed.house.there.put(f"kv/{name}", {"k": "2"})
    answer = await told(await sender(fed), "kv/a")
    assert (answer.status, answer.body) == (202, {"paths": 1, "full_run": False})
    assert await work_all(fed.house) == ["targeted"]
    assert await fed.house.data("ext/a") == {"k": "2"}
    assert await fed.house.data("ext/b") == {"k": "1"}


async def test_a_notice_is_recorded_by_its_feed_and_number(fed: Front) -> None:
    secret = await made(fed)
    await told(fed.client.with_token(secret["secret"]), "kv/a", "other/b")
    [row] = await recorded(fed, "feed.notice")
    assert (row["identity_type"], row["identity_id"]) == ("feed", f"feed:{secret['id']}")
    assert (row["decision"], row["backend_id"]) == ("allow", BACKEND)
    assert row["detail"] == {"feed": "http", "paths": 2}


async def test_notices_wait_as_one_run_with_all_that_they_named(fed: Front) -> None:
    client = await sender(fed)
    for path in ("kv/a", "kv/b", "kv/a"):
        await told(client, path)
    assert await queued(fed.house) == [("targeted", "feed")]
    assert await named(fed) == {"kv/a", "kv/b"}


async def test_runs_of_a_feed_are_no_closer_than_the_backend_says(fed: Front) -> None:
    await fed.house.configure(extra={"feed_min_interval": 3600})
    client = await sender(fed)
    await told(client, "kv/a")
    assert await work_all(fed.house) == ["targeted"]
    await told(client, "kv/a")
    [waits] = await fed.house.rows("runs", state="queued")
    assert (waits["not_before"] - waits["queued_at"]).total_seconds() > 3000


async def test_more_paths_than_a_run_should_be_told_of_are_one_full_run(fed: Front) -> None:
    client = await sender(fed)
    just = await told(client, *(f"kv/{n}" for n in range(MOST_PATHS)))
    assert just.body == {"paths": MOST_PATHS, "full_run": False}
    assert len(await named(fed)) == MOST_PATHS
    assert await queued(fed.house) == [("targeted", "feed")]
    more = await told(client, *(f"kv/{n}" for n in range(MOST_PATHS + 1)))
    assert more.body == {"paths": MOST_PATHS + 1, "full_run": True}
    assert len(await named(fed)) == MOST_PATHS
    assert ("full", "feed") in await queued(fed.house)


async def test_what_the_backend_does_not_sync_is_dropped(fed: Front) -> None:
    rules = (
        RuleSpec("ext/out/**", "kv/out/**", exclude=True),
        RuleSpec("ext/through/**", "kv/through/**", overrides=Overrides(mode=Mode.PROXY)),
        RuleSpec("ext/**", "kv/**"),
    )
    await fed.house.configure(rules=rules)
    client = await sender(fed)
    for path in ("other/a", "kv/out/a", "kv/through/a", "kv/../x", "kv//a", "kv/\x00", ""):
        assert (await told(client, path)).status == 202
    assert await named(fed) == set()
    assert await queued(fed.house) == []
    await told(client, "other/a", "kv/a")
    assert await named(fed) == {"kv/a"}


async def test_a_paused_backend_is_not_run_and_keeps_what_it_was_told(fed: Front) -> None:
    client = await sender(fed)
    await fed.client.post(f"{BACKENDS}/{BACKEND}/pause")
    assert (await told(client, "kv/a")).status == 202
    assert await queued(fed.house) == []
    assert await named(fed) == {"kv/a"}


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"", 400, None),
        (b"{", 400, None),
        (b'{"paths": ["kv/a"], "paths": ["kv/b"]}', 400, "paths"),
        (b"[]", 422, None),
        (b"{}", 422, None),
        (b'{"paths": []}', 422, "paths"),
        (b'{"paths": "kv/a"}', 422, "paths"),
        (b'{"paths": ["kv/a", 7]}', 422, "paths[1]"),
        (b'{"paths": ["kv/a"], "value": "CANARY"}', 422, None),
    ],
)
async def test_what_is_no_notice_is_refused_without_a_word_of_it(
    fed: Front, body: bytes, status: int, field: str | None
) -> None:
    answer = await (await sender(fed)).post(DOOR, data=body)
    assert (answer.status, answer.body["error"].get("field")) == (status, field)
    assert "CANARY" not in json.dumps(answer.body)
    assert await queued(fed.house) == []


async def test_a_notice_is_limited_in_size(fed: Front) -> None:
    client = await sender(fed)
    just = b'{"paths": ["kv/a"]}'.ljust(1024 * 1024)
    assert (await client.post(DOOR, data=BytesIO(just))).status == 202
    assert (await client.post(DOOR, data=BytesIO(just + b" "))).told == (413, "body_too_large")


# --- Event Grid -----------------------------------------------------------------------


def event(name: str = "a", **changes: Any) -> dict[str, Any]:
    """A new version, in the schema of Event Grid."""
    data = {"Id": "https://v/x", "VaultName": "acme", "ObjectType": "Secret", "ObjectName": name}
    return {
        "id": "1",
        "eventType": "Microsoft.KeyVault.SecretNewVersionCreated",
        "data": data | {"Version": "1"} | changes,
    }


def cloud_event(name: str = "a") -> dict[str, Any]:
    """The same as a CloudEvent."""
    made = event(name)
    return {"specversion": "1.0", "id": "1", "type": made["eventType"], "data": made["data"]}


@pytest_asyncio.fixture
async def grid(fed: Front) -> Front:
    """Flat names, as an Azure vault has them."""
    await fed.house.configure(
        rules=(RuleSpec("ext/*", "*"),), config={"vault_url": "https://acme.vault.azure.net"}
    )
    return fed


@pytest.mark.parametrize(
    "body",
    [
        [event("a"), event("b")],
        [cloud_event("a"), cloud_event("b")],
        [event(" a "), event("b", ObjectType="SECRET", VaultName="ACME")],
        [
            {"EVENTTYPE": "microsoft.keyvault.secretnewversioncreated ",
             "Data": {"objectname": name}}
            for name in "ab"
        ],
    ],
)  # fmt: skip
async def test_new_versions_of_either_schema_are_read(grid: Front, body: Any) -> None:
    answer = await (await sender(grid, "azure-eventgrid")).post(AZURE, json=body)
    assert (answer.status, answer.body) == (202, {"paths": 2, "full_run": False})
    assert await named(grid) == {"a", "b"}
    assert {row["feed"] for row in await grid.house.rows("dirty_paths")} == {"azure-eventgrid"}


async def test_one_cloud_event_stands_alone(grid: Front) -> None:
    client = await sender(grid, "azure-eventgrid")
    assert (await client.post(AZURE, json=cloud_event())).status == 202
    assert await named(grid) == {"a"}


async def test_events_of_other_kinds_and_other_vaults_name_nothing(grid: Front) -> None:
    client = await sender(grid, "azure-eventgrid")
    near_expiry = event() | {"eventType": "Microsoft.KeyVault.SecretNearExpiry"}
    for one in (
        near_expiry,
        event(VaultName="foreign"),
        event(ObjectType="Key"),
        event(ObjectName=7),
        event("../x"),
        event("x" * 128),
        {"type": "Microsoft.KeyVault.SecretNewVersionCreated"},
    ):
        assert (await client.post(AZURE, json=[one])).status == 202
    assert await named(grid) == set()
    assert await queued(grid.house) == []


async def test_the_code_of_a_validation_is_given_back_and_its_url_is_not_opened(
    grid: Front,
) -> None:
    code = "512d38b6-c7b8-40c8-89fe-f46f9e9622b6"
    url = f"{grid.listener.url}/v1/any"
    body = {
        "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent",
        "data": {"validationCode": code, "validationUrl": url},
    }
    client = await sender(grid, "azure-eventgrid")
    answer = await client.post(AZURE, json=[body])
    assert (answer.status, answer.body) == (200, {"validationResponse": code})
    await grid.house.app.strangers.record()
    assert await recorded(grid, "auth.fail") == []  # nobody called that url
    assert len(await recorded(grid, "feed.handshake")) == 1
    assert (await client.post(AZURE, json=[body, event()])).status == 422
    assert (await grid.client.with_token(None).post(AZURE, json=[body])).status == 401


async def test_the_question_of_cloud_events_is_answered_to_event_grid_alone(grid: Front) -> None:
    client = await sender(grid, "azure-eventgrid")
    asked = {"WebHook-Request-Origin": "eventgrid.azure.net"}
    answer = await client.call("OPTIONS", AZURE, headers=asked)
    assert answer.status == 200
    assert answer.headers["WebHook-Allowed-Origin"] == "eventgrid.azure.net"
    assert (answer.headers["WebHook-Allowed-Rate"], answer.headers["Allow"]) == ("*", "POST")
    other = await client.call("OPTIONS", AZURE, headers={"WebHook-Request-Origin": "evil.example"})
    assert (other.status, "WebHook-Allowed-Origin" in other.headers) == (422, False)
    nobody = await grid.client.with_token(None).call("OPTIONS", AZURE, headers=asked)
    assert (nobody.status, "WebHook-Allowed-Origin" in nobody.headers) == (401, False)
    http = await (await sender(grid)).call("OPTIONS", DOOR, headers=asked)
    assert (http.status, http.headers["Allow"]) == (405, "POST")


# --- on the command line ----------------------------------------------------------------


@pytest.fixture
def program(database_url: str, state_dir: Path) -> Program:
    file = state_dir / "svsync.yaml"
    file.write_text(
        json.dumps(
            {
                "allow_loopback": True,
                "backends": [
                    {
                        "id": "fed_a",
                        "name": "a",
                        "type": "hashicorp-vault",
                        "config": {
                            "endpoint": "http://127.0.0.1:9",
                            "auth_method": "token",
                            "auth_config_path": "infra/vault",
                        },
                        "path_mapping": [{"local": "ext/**", "remote": "kv/data/**"}],
                        "events": [{"feed": "http"}],
                    }
                ],
            }
        )
    )
    environment = {"DATABASE_URL": database_url, "SVSYNC_STATE_DIR": str(state_dir)}
    return Program(environment, state_dir)


async def test_the_life_of_a_secret_on_the_command_line(program: Program, state_dir: Path) -> None:
    at = ("--config", str(state_dir / "svsync.yaml"))
    added = await program("feeds", "add", "--backend", "fed_a", "--json", *at)
    assert added.code == 0, added.err
    assert added.json["secret"].startswith(f"svf_{TENANT}_")
    assert added.json["path"] == "/v1/events/http/fed_a"
    listed = await program("feeds", "list", "--json", *at)
    [shown] = listed.json["feed_secrets"]
    assert (shown["id"], shown["feed"]) == (added.json["id"], "http")
    assert added.json["secret"] not in listed.out + listed.err
    pasted = await program("feeds", "revoke", added.json["secret"], *at)
    assert pasted.code == 1
    assert added.json["secret"] not in pasted.err
    assert (await program("feeds", "revoke", added.json["id"], *at)).code == 0
    assert "There are no secrets of feeds" in (await program("feeds", "list", *at)).out
    people = await program("feeds", "add", "--backend", "fed_a", *at)
    assert "shown this once" in people.out
    other = await program("feeds", "add", "--backend", "fed_a", "--feed", "azure-eventgrid", *at)
    assert other.code == 2
    assert "events" in other.err
