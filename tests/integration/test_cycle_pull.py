"""What a run brings from a backend into the store, and what it leaves alone."""

import json
from pathlib import Path

import pytest
from tests.house import ENDINGS, TENANT, WORK, House, backend, counts, open_house

from svsync.domain.federation import HistoryMode, RuleSpec
from svsync.domain.ids import LocalPath
from svsync.domain.runs import RunResult
from svsync.domain.values import Payload


async def test_secrets_there_are_created_here(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    house.there.put("kv/b/c", {"k": "2"})
    ended = await house.run()
    assert ended.record.result is RunResult.OK
    assert counts(ended) == {"listed": 2, "created": 2}
    assert await house.paths() == ["ext/a", "ext/b/c"]
    assert await house.data("ext/b/c") == {"k": "2"}
    assert await house.status("ext/a") == "in_sync"


async def test_new_value_is_a_new_version_and_the_old_one_stays(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    house.there.put("kv/a", {"k": "2"})
    assert counts(await house.run()) == {"listed": 1, "updated": 1}
    assert await house.versions("ext/a") == [{"k": "1"}, {"k": "2"}]


async def test_second_run_reads_no_value_and_writes_only_its_end(house: House) -> None:
    for n in range(3):
        house.there.put(f"kv/{n}", {"k": str(n)})
    house.there.tag("kv/0", {"team": "a"})
    await house.run()
    before, read = await house.dump(without=WORK | ENDINGS), house.there.calls["read"]
    assert counts(await house.run()) == {"listed": 3, "unchanged": 3}
    assert await house.dump(without=WORK | ENDINGS) == before
    assert house.there.calls["read"] == read


async def test_equal_local_secret_is_adopted_without_a_new_version(house: House) -> None:
    await house.write("ext/a", Payload.from_json_text('{"n": 1.10}'))
    house.there.put("kv/a", Payload.from_json_text('{ "n":1.1 }'))
    assert counts(await house.run()) == {"listed": 1, "attached": 1}
    assert await house.versions("ext/a") == [{"n": 1.1}]
    assert await house.status("ext/a") == "in_sync"


async def test_equal_writes_on_both_sides_converge(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    house.there.put("kv/a", {"k": "2"})
    await house.write("ext/a", {"k": "2"})
    assert counts(await house.run()) == {"listed": 1, "unchanged": 1}
    assert await house.versions("ext/a") == [{"k": "1"}, {"k": "2"}]
    assert not await house.rows("conflicts")
    house.there.put("kv/a", {"k": "3"})
    await house.run()
    assert await house.data("ext/a") == {"k": "3"}


async def test_equal_value_under_a_new_token_moves_the_token_only(house: House) -> None:
    house.there.put("kv/a", Payload.from_json_text('{"k":1}'))
    await house.run()
    house.there.put("kv/a", Payload.from_json_text('{ "k" : 1 }'))
    before = await house.row("sync_state")
    assert counts(await house.run()) == {"listed": 1, "unchanged": 1, "retokened": 1}
    after = await house.row("sync_state")
    assert after["base_value_token"] != before["base_value_token"]
    assert after["base_raw_sealed"] is not None
    assert "federation.secret.changed" not in (await house.events())[2:]
    read = house.there.calls["read"]
    assert counts(await house.run()) == {"listed": 1, "unchanged": 1}
    assert house.there.calls["read"] == read


async def test_change_of_tags_alone_makes_no_version_and_reads_no_value(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    house.there.tag("kv/a", {"team": "a", "env": "prod"})
    await house.run()
    read = house.there.calls["read"]
    house.there.tag("kv/a", {"team": "b"})
    ended = await house.run()
    assert counts(ended) == {"listed": 1, "unchanged": 1, "metadata_updated": 1}
    row = await house.row("secrets")
    assert (row["tags"], json.loads(row["custom"])) == (["team=b"], {"team": "b"})
    assert row["current_version"] == 1
    assert house.there.calls["read"] == read


async def test_number_text_is_kept_to_the_byte(house: House) -> None:
    text = '{"a":1.10,  "b":1e40, "c":-0, "d":12345678901234567890123, "e":1E5}'
    house.there.put("kv/a", Payload.from_json_text(text))
    await house.run()
    _, data = await house.app.secrets.get(TENANT, LocalPath("ext/a"))
    assert data.decode() == text


@pytest.mark.parametrize(
    ("payload", "shown"),
    [
        (Payload.from_json_text('{"a": 1, "a": 2}'), {"value": '{"a": 1, "a": 2}'}),
        (Payload.from_text("plain\ntext"), {"value": "plain\ntext"}),
        (Payload.from_bytes(b"\xff\x00\xfe"), {"value_base64": "/wD+"}),
        (Payload.from_json_text("{}"), {}),
        (Payload.from_text(""), {"value": ""}),
    ],
    ids=["double key", "text", "bytes", "empty object", "empty text"],
)
async def test_values_of_every_encoding_arrive(
    house: House, payload: Payload, shown: object
) -> None:
    house.there.put("kv/a", payload)
    await house.run()
    assert await house.data("ext/a") == shown


async def test_first_import_brings_earlier_versions_in_order_with_their_times(
    house: House,
) -> None:
    for n in range(1, 5):
        house.there.put("kv/a", {"k": str(n)})
    house.there.delete("kv/a", 2)
    ended = await house.run()
    assert counts(ended) == {"listed": 1, "created": 1, "imported_versions": 2}
    assert await house.versions("ext/a") == [{"k": "1"}, {"k": "3"}, {"k": "4"}]
    rows = await house.admin.fetch("SELECT * FROM versions ORDER BY version")
    assert [(r["origin"], r["remote_version"]) for r in rows] == [
        ("import", "1"), ("import", "3"), ("pull", "4"),
    ]  # fmt: skip
    there = house.there.secret("kv/a")
    assert there is not None
    assert [r["created_at"] for r in rows] == [there.versions[n].created_at for n in (1, 3, 4)]


async def test_versions_between_two_cycles_are_imported(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    for n in (2, 3, 4):
        house.there.put("kv/a", {"k": str(n)})
    assert counts(await house.run()) == {"listed": 1, "updated": 1, "imported_versions": 2}
    assert await house.versions("ext/a") == [{"k": str(n)} for n in (1, 2, 3, 4)]


async def test_import_takes_no_more_than_max_versions(
    database_url: str, admin_url: str, state_dir: Path
) -> None:
    async with open_house(database_url, admin_url, state_dir, backend(max_versions=3)) as house:
        for n in range(1, 8):
            house.there.put("kv/a", {"k": str(n)})
        await house.run()
        assert await house.versions("ext/a") == [{"k": "5"}, {"k": "6"}, {"k": "7"}]


async def test_current_history_brings_the_current_version_only(house: House) -> None:
    await house.configure(history=HistoryMode.CURRENT)
    house.there.put("kv/a", {"k": "1"})
    house.there.put("kv/a", {"k": "2"})
    await house.run()
    assert await house.versions("ext/a") == [{"k": "2"}]
    assert (await house.row("versions"))["remote_version"] == "2"


async def test_rollback_there_is_a_new_higher_version_here(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    house.there.put("kv/a", {"k": "2"})
    await house.run()
    house.there.rollback("kv/a", 1)
    assert counts(await house.run()) == {"listed": 1, "updated": 1, "rolled_back": 1}
    assert await house.versions("ext/a") == [{"k": "1"}, {"k": "2"}, {"k": "1"}]


async def test_two_names_of_different_case_are_two_secrets(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    house.there.put("kv/A", {"k": "2"})
    await house.run()
    assert await house.data("ext/a") == {"k": "1"}
    assert await house.data("ext/A") == {"k": "2"}


async def test_value_written_between_listing_and_read_is_pulled_once(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    house.there.lag()
    house.there.put("kv/b", {"k": "1"})
    house.there.put("kv/a", {"k": "2"})
    house.there.catch_up()

    async def overtake(operation: str, path: str) -> None:
        if operation == "read" and path == "kv/a":
            house.there.before = None
            house.there.put("kv/a", {"k": "3"})

    house.there.before = overtake
    await house.run()
    assert await house.data("ext/a") == {"k": "3"}
    read = house.there.calls["read"]
    await house.run()
    assert house.there.calls["read"] == read


async def test_names_outside_the_mapping_stay_outside(house: House) -> None:
    await house.configure(
        rules=(RuleSpec("x", "kv/private/**", exclude=True), RuleSpec("ext/**", "kv/**"))
    )
    house.there.put("kv/private/a", {"k": "1"})
    house.there.put("kv/b", {"k": "1"})
    house.there.put("other/c", {"k": "1"})
    ended = await house.run()
    assert ended.record.result is RunResult.OK
    assert await house.paths() == ["ext/b"]


async def test_large_backend_arrives_whole_over_several_batches(house: House) -> None:
    made = house.there.generate("kv/", 1_201)
    assert counts(await house.run()) == {"listed": 1201, "created": 1201}
    for n in (0, 700, 1200):
        house.there.put(made.path(n), {})
    assert counts(await house.run()) == {"listed": 1201, "updated": 3, "unchanged": 1198}
    [changed] = await house.admin.fetch(
        "SELECT count(*) AS n, max(version) AS v FROM versions WHERE version = 2"
    )
    assert (changed["n"], changed["v"]) == (3, 2)
