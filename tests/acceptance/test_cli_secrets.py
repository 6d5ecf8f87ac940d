"""Do secrets go in and come out as they are, and show themselves nowhere else?"""

import json
from pathlib import Path

import pytest
from tests.acceptance.conftest import Desk

EXACT = '{"n": 1.10, "big": 12345678901234567890123, "e": 1E5, "s": "\\u00e4"}'


async def test_data_comes_back_byte_for_byte(desk: Desk) -> None:
    written = await desk.program(
        "secrets", "write", "exact/a", "--json-file", "-", "--type", "json", "--json",
        stdin=f"{EXACT}\n".encode(),
    )  # fmt: skip
    assert (written.code, written.sentences) == (0, [])
    assert written.json["write_through"] == {"state": "not_configured", "push_id": None}
    got = await desk.program("secrets", "get", "exact/a", "--json")
    assert f'"data": {EXACT},' in got.out
    assert got.json["path"] == "exact/a"
    assert set(got.json) == {
        "path", "data", "secret_type", "version", "created_at", "metadata", "federation",
    }  # fmt: skip
    assert got.json["federation"] is None
    field = await desk.program("secrets", "get", "exact/a", "--field", "big")
    assert field.out == "12345678901234567890123"


async def test_the_commands_of_the_guide_work_as_printed(desk: Desk) -> None:
    marker = desk.program.canary.value()
    prefix = "environments/production/billing/"
    written = await desk.program(
        "secrets", "write", f"{prefix}stripe", f"secret_key={marker}",
        "--type", "api_key", "--tag", "billing,stripe,production",
    )  # fmt: skip
    assert written.code == 0
    assert "history" in written.sentence
    listed = await desk.program("secrets", "list", "--prefix", prefix, "--json")
    [secret] = listed.json["secrets"]
    assert (secret["path"], secret["secret_type"]) == (f"{prefix}stripe", "api_key")
    assert secret["metadata"]["tags"] == ["billing", "production", "stripe"]
    got = await desk.program("secrets", "get", f"{prefix}stripe", "--field", "secret_key",
                             reveals=True)  # fmt: skip
    assert got.out == marker


async def test_a_write_keeps_what_it_does_not_set_and_history_tells_all(desk: Desk) -> None:
    value = desk.folder / "value"
    value.write_text(desk.program.canary.value())
    first = await desk.program(
        "secrets", "write", "kept/a", f"k=@{value}", "--owner", "team:x", "--description", "d",
        "--tag", "a", "--cas", "0",
    )  # fmt: skip
    assert (first.code, first.sentences) == (0, [])
    again = await desk.program("secrets", "write", "kept/a", "--tag", "", "k=@-", stdin=b"two")
    assert again.code == 0
    history = await desk.program("secrets", "history", "kept/a", "--json")
    assert [v["version"] for v in history.json["versions"]] == [2, 1]
    assert history.json["next_cursor"] is None
    assert history.json["versions"][0]["created_by"].startswith("cli:")
    got = await desk.program("secrets", "get", "kept/a", "--version", "1", "--json", reveals=True)
    assert got.json["data"] == {"k": value.read_text()}
    assert got.json["metadata"]["owner"] == "team:x"
    assert got.json["metadata"]["tags"] == []
    stale = await desk.program("secrets", "write", "kept/a", "k=@-", "--cas", "1", "--json",
                               stdin=b"three")  # fmt: skip
    assert (stale.code, stale.json["error"]["code"]) == (1, "version_conflict")


async def test_an_absent_secret_is_secret_not_found(desk: Desk) -> None:
    for verb in ("get", "history"):
        said = await desk.program("secrets", verb, "absent/a", "--json")
        assert (said.code, said.json["error"]["code"]) == (1, "secret_not_found")
        assert said.sentence == "svsync: there is no secret at absent/a"


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b'{"a": "MARK", "a": 2}', "same name"),
        (b'{"a": "MARK", "b": NaN}', "NaN"),
        (b'{"a": "MARK", "b": 1e400}', "too large for most readers"),
        (b'{"a": "MARK\\ud800"}', "surrogate"),
        (b'["MARK"]', "not an object"),
        (b'{"a":\n "MARK', "line 2"),
        (b'{"a": "MARK\xff"}', "UTF-8"),
        (b'{"a": ' + b"[" * 70 + b"]" * 70 + b', "b": "MARK"}', "deeper than 64"),
        (b'{"a": "MARK' + b"x" * (1 << 20) + b'"}', "larger than 1 MiB"),
    ],
    ids=["twins", "nan", "inf", "surrogate", "list", "cut", "bytes", "deep", "large"],
)
async def test_a_value_that_is_no_json_object_is_refused_unseen(
    desk: Desk, raw: bytes, says: str
) -> None:
    marked = raw.replace(b"MARK", desk.program.canary.marker.encode())
    said = await desk.program("secrets", "write", "bad/a", "--json-file", "-", stdin=marked)
    assert (said.code, said.out) == (2, "")
    assert said.sentence.startswith("svsync: --json-file: ")
    assert says in said.sentence


async def test_words_that_are_not_understood_are_not_repeated(desk: Desk) -> None:
    marker = desk.program.canary.marker
    said = await desk.program("secrets", "write", "bad/a", f"--jsonfile={marker}", marker)
    assert said.code == 2
    assert "--jsonfile" in said.sentence
    said = await desk.program("secrets", "write", "bad/a", marker)
    assert said.code == 2
    assert "K=V" in said.sentence


async def test_a_federated_secret_that_may_not_be_written_here_says_where_to(desk: Desk) -> None:
    await desk.bao.put("readonly/a", {"v": 1})
    rule = {"local": "readonly/**", "remote": f"{desk.bao.mount}/data/readonly/**"}
    backend, file = desk.backend(path_mapping=[rule], writes="disabled")
    at = ("--config", str(file), "--json")
    await desk.program("run-once", "--backend", backend, *at)
    said = await desk.program("secrets", "write", "readonly/a", "v=@-", *at, stdin=b"2")
    assert (said.code, said.json["error"]["code"]) == (1, "federated_path_read_only")
    got = await desk.program("secrets", "get", "readonly/a", *at)
    assert json.loads(got.out)["federation"]["backend_id"] == backend


async def test_the_fields_of_a_write_may_come_after_its_options(desk: Desk, tmp_path: Path) -> None:
    value = tmp_path / "v"
    value.write_text("1")
    said = await desk.program(
        "secrets", "write", "order/a", f"a=@{value}", "--type", "kv", f"b=@{value}"
    )
    assert said.code == 0
    got = await desk.program("secrets", "get", "order/a", "--json")
    assert got.json["data"] == {"a": "1", "b": "1"}


# --- delete, restore, and what goes -----------------------------------------------


async def test_a_deleted_secret_is_not_there_until_it_is_restored(desk: Desk) -> None:
    for text in (b"one", b"two"):
        await desk.program("secrets", "write", "gone/a", "k=@-", stdin=text)
    stale = await desk.program("secrets", "delete", "gone/a", "--cas", "1", "--json")
    assert (stale.code, stale.json["error"]["code"]) == (1, "version_conflict")
    deleted = await desk.program("secrets", "delete", "gone/a", "--cas", "2", "--json")
    assert deleted.json == {
        "path": "gone/a",
        "write_through": {"state": "not_configured", "push_id": None},
    }
    for verb in ("get", "delete"):
        said = await desk.program("secrets", verb, "gone/a", "--json")
        assert (said.code, said.json["error"]["code"]) == (1, "secret_not_found")
    back = await desk.program("secrets", "restore", "gone/a")
    assert (back.code, back.out) == (0, "gone/a is back: it is at version 3 now.\n")
    earlier = await desk.program("secrets", "restore", "gone/a", "--version", "1", "--json")
    assert earlier.json["version"] == 4
    assert (await desk.program("secrets", "get", "gone/a", "--field", "k")).out == "one"
    said = await desk.program("secrets", "restore", "gone/a", "--json")
    assert (said.code, said.json["error"]["code"]) == (1, "not_deleted")


async def test_a_write_of_the_same_value_makes_no_version_where_that_is_asked(desk: Desk) -> None:
    write = ("secrets", "write", "same/a", "k=@-", "--skip-if-equal", "--max-versions", "3")
    assert (await desk.program(*write, stdin=b"v")).out == "same/a is at version 1 now.\n"
    assert (await desk.program(*write, stdin=b"v")).out == "same/a is at version 1 now.\n"
    assert (await desk.program(*write, stdin=b"w")).out == "same/a is at version 2 now.\n"
    said = await desk.program("secrets", "write", "same/a", "k=@-", "--max-versions", "0")
    assert (said.code, said.sentence) == (
        2,
        "svsync: --max-versions takes a number from 1 to 10,000",
    )


async def test_a_write_that_its_backend_takes_says_so_and_one_that_it_does_not_names_it(
    desk: Desk,
) -> None:
    await desk.bao.put("through/a", {"k": "1"})
    rule = {"local": "through/**", "remote": f"{desk.bao.mount}/data/through/**"}
    backend, file = desk.backend(
        path_mapping=[rule], writes="write_through", propagate_deletes=True
    )
    at = ("--config", str(file))
    await desk.program("run-once", "--backend", backend, *at)
    written = await desk.program("secrets", "write", "through/a", "k=@-", *at, stdin=b"2")
    assert written.out.splitlines() == [
        "through/a is at version 2 now.",
        "Its backend has taken it too.",
    ]
    await desk.bao.put("through/a", {"k": "theirs"})
    refused = await desk.program("secrets", "write", "through/a", "k=@-", *at, stdin=b"3")
    assert refused.code == 1
    assert f"was changed in {backend}" in refused.sentence
    history = await desk.program("secrets", "history", "through/a", *at)
    assert history.out.splitlines()[-1].startswith("A destroyed version was never current")
    await desk.program("run-once", "--backend", backend, *at)
    deleted = await desk.program("secrets", "delete", "through/a", *at)
    assert deleted.out.splitlines()[1] == "Its backend has taken it too."
    away = json.loads(file.read_text())
    away["backends"][0]["config"]["endpoint"] = "http://127.0.0.1:1"
    lost = await desk.program(
        "secrets", "write", "through/b", "k=@-", "--config", str(desk.file(away)), "--json",
        stdin=b"1",
    )  # fmt: skip
    assert (lost.code, lost.json["error"]["code"]) == (3, "backend_unreachable")
    assert lost.sentence.startswith(f"svsync: {backend}: ")


async def test_a_write_before_its_backup_is_told_to_wait_for_it(desk: Desk) -> None:
    rule = {"local": "backup/**", "remote": f"{desk.bao.mount}/data/backup/**"}
    _, file = desk.backend(
        path_mapping=[rule],
        writes="write_through",
        conflict_resolution="local_wins",
        config={"endpoint": "http://127.0.0.1:1"},
    )
    written = await desk.program(
        "secrets", "write", "backup/a", "k=@-", "--config", str(file), stdin=b"1"
    )
    assert written.code == 0
    first, second = written.out.splitlines()
    assert first == "backup/a is at version 1 now."
    assert second.startswith("Its backend has not taken it yet: the next run sees to that (psh_")


async def test_retention_says_what_it_removed(desk: Desk) -> None:
    for text in (b"one", b"two", b"three"):
        await desk.program(
            "secrets", "write", "kept/short", "k=@-", "--max-versions", "1", stdin=text
        )
    said = await desk.program("retention", "run", "--json", SVSYNC_TRIM_GRACE="0")
    assert said.code == 0
    assert said.json["removed"]["versions"] == 2
    assert set(said.json["removed"]) == {
        "versions", "tombstone_values", "tombstones", "conflicts", "runs", "pushes",
        "detached_pairs", "hidden_copies", "deliveries", "events", "tokens", "request_keys",
        "data_keys",
    }  # fmt: skip
    again = await desk.program("retention", "run", SVSYNC_TRIM_GRACE="0")
    lines = again.out.splitlines()
    assert lines[0].split() == ["WHAT", "REMOVED"]
    assert all(line.endswith(" 0") for line in lines[1:])


async def test_what_is_read_through_is_listed_and_told_where_it_is_not(desk: Desk) -> None:
    await desk.bao.put("deep/er/a", {"v": desk.program.canary.value()})
    name, config = desk.backend(mode="proxy")
    asked = ("secrets", "list", "--prefix", f"{name}/deep/", "--config", str(config))
    listed = await desk.program(*asked, "--json")
    [secret] = listed.json["secrets"]
    assert (secret["path"], secret["status"]) == (f"{name}/deep/er/a", "proxied")
    assert listed.json["incomplete"] is False
    shown = await desk.program(*asked)
    assert f"{name}/deep/er/a" in shown.out
    assert shown.sentences == []
    config.write_text(config.read_text().replace(desk.bao.url, "http://127.0.0.1:1"))
    lacking = await desk.program(*asked, "--json", BAO_TOKEN="none")
    assert (lacking.json["secrets"], lacking.json["incomplete"]) == ([], True)
