"""Does `copy` bring every secret to its new place, once, and `verify` say what is not there?"""

import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from tests.acceptance.conftest import Desk
from tests.postgres import connected
from tests.program import until

from svsync.services.transfer import WORKERS

DONE: Final = 20
MANY: Final = 40


def mapping_file(desk: Desk, paths: dict[str, Any], **more: Any) -> str:
    path = desk.folder / f"mapping-{desk.backends}-{len(list(desk.folder.iterdir()))}.yaml"
    path.write_text(json.dumps({"paths": paths, **more}, indent=1))
    return str(path)


class Estate:
    """A backend over the mount, with secrets of its own below one folder there."""

    def __init__(self, desk: Desk, mode: str) -> None:
        self.desk = desk
        self.name, self.file = desk.backend(mode=mode)
        self.folder = f"{self.name}-apps"
        self.source = f"{self.name}/{self.folder}"

    async def put(self, name: str, data: dict[str, Any]) -> None:
        await self.desk.bao.put(f"{self.folder}/{name}", data)

    async def tag(self, name: str, tags: dict[str, str]) -> None:
        await self.desk.bao.tag(f"{self.folder}/{name}", tags)

    async def __call__(self, *words: str, **options: Any) -> Any:
        return await self.desk.program(*words, "--config", str(self.file), **options)

    async def got(self, path: str) -> Any:
        return (await self("secrets", "get", path, "--json", reveals=True)).json


@pytest.fixture
def proxied(desk: Desk) -> Estate:
    return Estate(desk, "proxy")


@pytest.fixture
def synced(desk: Desk) -> Estate:
    return Estate(desk, "sync")


async def test_copy_brings_value_tags_owner_and_versions_of_the_guide(proxied: Estate) -> None:
    marker = proxied.desk.program.canary.value()
    await proxied.put("db", {"password": marker, "port": 5432})
    await proxied.tag("db", {"team": "billing"})
    file = mapping_file(
        proxied.desk,
        {f"{proxied.source}/db": "new/guide/database"},
        tags=["migrated-from-vault"],
        owner="team:billing",
        max_versions=10,
    )
    copied = await proxied("copy", "--mapping", file)
    assert (copied.code, copied.sentences) == (0, [])
    assert copied.out.splitlines()[-1] == "1 copied."
    assert f"{proxied.source}/db" in copied.out
    got = await proxied.got("new/guide/database")
    assert got["data"] == {"password": marker, "port": 5432}
    assert got["metadata"]["tags"] == ["migrated-from-vault", "team=billing"]
    assert got["metadata"]["owner"] == "team:billing"
    assert got["metadata"]["description"] == f"Copied from {proxied.source}/db"
    async with connected(proxied.desk.database) as admin:
        kept = await admin.fetchval(
            "SELECT max_versions FROM secrets WHERE path = 'new/guide/database'"
        )
        rows = await admin.fetch(
            "SELECT action, secret_path, identity_type, backend_id, detail FROM audit"
            " WHERE secret_path = ANY($1) AND action IN ('secret.read', 'secret.write')"
            " ORDER BY action",
            ["new/guide/database", f"{proxied.source}/db"],
        )
    assert kept == 10
    assert {row["identity_type"] for row in rows} == {"operator"}
    [written] = [row for row in rows if row["action"] == "secret.write"]
    assert written["secret_path"] == "new/guide/database"
    assert json.loads(written["detail"]) == {"copied_from": f"{proxied.source}/db"}
    assert (f"{proxied.source}/db", proxied.name) in {
        (row["secret_path"], row["backend_id"]) for row in rows if row["action"] == "secret.read"
    }


async def test_a_second_run_does_only_what_is_missing(proxied: Estate) -> None:
    for name in ("a", "b"):
        await proxied.put(name, {"k": proxied.desk.program.canary.value()})
    file = mapping_file(proxied.desk, {f"{proxied.source}/**": "new/again/**"})
    said = await proxied("copy", "--mapping", file, "--json")
    assert (said.code, said.json["counts"]["created"]) == (0, 2)
    await proxied.put("sub/c", {"k": "3"})
    said = await proxied("copy", "--mapping", file, "--json")
    assert said.code == 0
    counts = {"created": 1, "unchanged": 2}
    assert {name: many for name, many in said.json["counts"].items() if many} == counts
    [one] = said.json["secrets"]
    assert (one["path"], one["version"]) == ("new/again/sub/c", 1)
    history = await proxied("secrets", "history", "new/again/a", "--json")
    assert [v["version"] for v in history.json["versions"]] == [1]


@asynccontextmanager
async def held_up(estate: Estate, below: str) -> AsyncIterator[Callable[[], Awaitable[bool]]]:
    """Copies to `below/n000` and so on stand still once DONE of them are made: each worker
    meets a place that somebody is about to take. Gives what says whether they do."""
    counted = "SELECT count(*) FROM secrets WHERE path LIKE $1 AND state = 'live'"
    assert (await estate("migrate")).code == 0
    database = estate.desk.database
    async with connected(database) as admin, connected(database) as looking:

        async def stands_still() -> bool:
            return bool(await looking.fetchval(counted, f"{below}/%") == DONE)

        taking = admin.transaction()
        await taking.start()
        for n in range(WORKERS):
            await admin.execute(
                "INSERT INTO secrets (tenant_id, secret_id, path, state, current_version,"
                " last_version) VALUES (1, $1, $2, 'live', 1, 1)",
                -1 - n,
                f"{below}/n{DONE + n:03}",
            )
        try:
            yield stands_still
        finally:
            await taking.rollback()


async def test_a_killed_copy_is_gone_on_with_by_the_next(proxied: Estate) -> None:
    for n in range(MANY):
        await proxied.put(f"n{n:03}", {"k": f"{proxied.desk.program.canary.value()}-{n}"})
    file = mapping_file(proxied.desk, {f"{proxied.source}/*": "new/killed/*"})
    words = ("copy", "--mapping", file, "--config", str(proxied.file))
    async with held_up(proxied, "new/killed") as stands_still:
        process = await proxied.desk.program.start(*words)
        await until(stands_still)
        process.send_signal(signal.SIGKILL)
        assert (await proxied.desk.program.ended(process)).code == -signal.SIGKILL
    missing = await proxied("verify", "--mapping", file, "--json")
    assert (missing.code, len(missing.json["differences"])) == (1, MANY - DONE)
    again = await proxied("copy", "--mapping", file, "--json")
    assert again.code == 0
    counts = again.json["counts"]
    assert (counts["created"], counts["unchanged"]) == (MANY - DONE, DONE)
    clean = await proxied("verify", "--mapping", file)
    assert (clean.code, clean.out, clean.sentences) == (0, "", [f"svsync: compared {MANY} secrets"])


async def test_interrupted_copy_tells_what_it_did(proxied: Estate) -> None:
    for n in range(MANY):
        await proxied.put(f"n{n:03}", {"k": str(n)})
    file = mapping_file(proxied.desk, {f"{proxied.source}/*": "new/stopped/*"})
    words = ("copy", "--mapping", file, "--config", str(proxied.file), "--json")
    async with held_up(proxied, "new/stopped") as stands_still:
        process = await proxied.desk.program.start(*words)
        await until(stands_still)
        process.send_signal(signal.SIGTERM)
        said = await proxied.desk.program.ended(process)
    assert said.code == 128 + signal.SIGTERM
    assert said.json["error"]["code"] == "interrupted"
    # One that each worker had just made may not have been told yet.
    assert DONE - WORKERS <= said.json["counts"]["created"] <= DONE


async def test_a_value_that_changed_meanwhile_is_told_and_never_overwritten_silently(
    proxied: Estate,
) -> None:
    await proxied.put("rotated", {"k": "old"})
    file = mapping_file(proxied.desk, {f"{proxied.source}/*": "new/changed/*"}, tags=["moved"])
    assert (await proxied("copy", "--mapping", file)).code == 0
    newer = proxied.desk.program.canary.value()
    written = await proxied(
        "secrets", "write", "new/changed/rotated", "k=@-", "--tag", "mine", stdin=newer.encode()
    )
    assert written.code == 0
    for words in ((), ("--dry-run",)):
        said = await proxied("copy", "--mapping", file, "--json", *words)
        assert said.code == 1
        [one] = said.json["secrets"]
        assert (one["outcome"], one["reason"]) == ("differs", "value_differs")
        assert "--overwrite" in one["message"]
    assert (await proxied.got("new/changed/rotated"))["data"] == {"k": newer}

    would = await proxied("copy", "--mapping", file, "--overwrite", "--dry-run")
    assert (would.code, would.out.splitlines()[-1]) == (0, "1 would be overwritten.")
    assert (await proxied.got("new/changed/rotated"))["version"] == 2

    said = await proxied("copy", "--mapping", file, "--overwrite", "--json")
    [one] = said.json["secrets"]
    assert (said.code, one["outcome"], one["version"]) == (0, "overwritten", 3)
    assert one["replaced_version"] == 2
    got = await proxied.got("new/changed/rotated")
    assert (got["data"], got["metadata"]["tags"]) == ({"k": "old"}, ["mine", "moved"])
    back = await proxied(
        "secrets", "get", "new/changed/rotated", "--version", "2", "--json", reveals=True
    )
    assert back.json["data"] == {"k": newer}


async def test_what_was_deleted_at_its_new_place_stays_deleted(proxied: Estate) -> None:
    await proxied.put("gone", {"k": "1"})
    file = mapping_file(proxied.desk, {f"{proxied.source}/*": "new/deleted/*"})
    assert (await proxied("copy", "--mapping", file)).code == 0
    assert (await proxied("secrets", "delete", "new/deleted/gone")).code == 0
    said = await proxied("copy", "--mapping", file, "--json")
    [one] = said.json["secrets"]
    assert (said.code, one["reason"]) == (1, "deleted_here")
    assert (await proxied("secrets", "get", "new/deleted/gone")).code == 1
    assert (await proxied("copy", "--mapping", file, "--overwrite")).code == 0
    assert (await proxied.got("new/deleted/gone"))["data"] == {"k": "1"}


async def test_what_has_no_place_is_told_with_its_reason_and_the_rest_is_copied(
    proxied: Estate,
) -> None:
    await proxied.put("one", {"k": "1"})
    await proxied.put("two", {"k": "2"})
    await proxied.put("left", {"k": "3"})
    file = mapping_file(
        proxied.desk,
        {
            f"{proxied.source}/one": "new/reasons/two",
            f"{proxied.name}/absent/x": "new/reasons/x",
            f"{proxied.name}/absent/y": f"{proxied.name}/elsewhere",
            f"{proxied.source}/left": None,
            f"{proxied.source}/*": "new/reasons/*",
        },
    )
    await proxied.desk.bao.put("absent/y", {"k": "1"})
    said = await proxied("copy", "--mapping", file, "--json")
    assert (said.code, said.json["counts"]["created"]) == (1, 1)
    assert said.json["reasons"] == {
        "proxied_path_read_only": 1,
        "secret_not_found": 1,
        "shadowed": 1,
    }
    assert (await proxied.got("new/reasons/two"))["data"] == {"k": "1"}
    for_people = await proxied("copy", "--mapping", file)
    assert "there is no secret at" in for_people.out
    assert for_people.out.splitlines()[-1] == "1 there already, 3 failed."


async def test_a_name_too_long_for_its_new_place_is_told(proxied: Estate) -> None:
    long = "x" * 300
    await proxied.put(long, {"k": "1"})
    file = mapping_file(proxied.desk, {f"{proxied.source}/*": f"new/{'y' * 250}/*"})
    said = await proxied("copy", "--mapping", file, "--json")
    [one] = said.json["secrets"]
    assert (said.code, one["path"], one["reason"]) == (1, None, "illegal_path")
    assert "512" in one["message"]


async def test_backend_that_is_away_ends_the_copy_with_3(desk: Desk) -> None:
    name, file = desk.backend(mode="proxy", config={"endpoint": "http://127.0.0.1:9"})
    mapping = mapping_file(desk, {f"{name}/a": "new/away/a"})
    said = await desk.program("copy", "--mapping", mapping, "--json", "--config", str(file))
    assert (said.code, said.json["error"]["code"]) == (3, "backend_unreachable")
    assert said.json["counts"]["created"] == 0
    said = await desk.program("verify", "--mapping", mapping, "--json", "--config", str(file))
    assert (said.code, said.json["compared"]) == (3, 0)


async def test_folder_of_a_backend_that_is_away_ends_with_3_and_the_rest_is_done(
    desk: Desk,
) -> None:
    name, file = desk.backend(mode="proxy", config={"endpoint": "http://127.0.0.1:9"})
    mapping = mapping_file(desk, {f"{name}/*": "new/away/*", "apps/away/*": "new/near/*"})
    at, config = ("--mapping", mapping), ("--config", str(file))
    assert (await desk.program("secrets", "write", "apps/away/a", "k=1", *config)).code == 0
    said = await desk.program("copy", *at, *config)
    assert (said.code, said.out.splitlines()[-1]) == (3, "1 copied.")
    said = await desk.program("copy", *at, *config, "--json")
    assert (said.code, said.json["counts"]["unchanged"]) == (3, 1)
    assert said.json["not_listed"] == [f"{name}/"]
    assert said.json["error"]["code"] == "backend_unreachable"
    said = await desk.program("verify", *at, *config, "--json")
    assert (said.code, said.json["compared"]) == (3, 1)
    assert said.json["error"]["code"] == "backend_unreachable"


async def test_paused_source_is_not_nothing_to_do(proxied: Estate) -> None:
    await proxied.put("one", {"k": "1"})
    file = mapping_file(proxied.desk, {f"{proxied.source}/*": "new/paused/*"})
    assert (await proxied("backends", "pause", proxied.name)).code == 0
    said = await proxied("copy", "--mapping", file)
    assert (said.code, said.out) == (1, "")
    assert "there may be more" in said.sentence


@pytest.mark.parametrize("command", ["copy", "verify"])
async def test_a_mapping_that_cannot_be_used_is_one_sentence_with_its_line(
    desk: Desk, command: str
) -> None:
    _, file = desk.backend()
    wrong = desk.folder / "wrong.yaml"
    wrong.write_text("paths:\n  a/*: b\n")
    said = await desk.program(command, "--mapping", str(wrong), "--config", str(file), "--json")
    assert (said.code, said.out) == (2, "")
    assert said.sentence.startswith(f"svsync: {wrong}:2: ")
    said = await desk.program(command, "--mapping", "/nowhere/at/all", "--config", str(file))
    assert said.code == 2
    why = "the file cannot be read (No such file or directory)"
    assert said.sentence == f"svsync: /nowhere/at/all: {why}"


# --- verify ---------------------------------------------------------------------------


async def test_verify_tells_what_differs_between_copies_and_their_sources_and_no_value(
    proxied: Estate,
) -> None:
    marker = proxied.desk.program.canary.value()
    for name in ("same", "value", "tags", "new"):
        await proxied.put(name, {"password": marker, "host": "h"})
    file = mapping_file(
        proxied.desk,
        {
            f"{proxied.source}/new": None,
            f"{proxied.source}/*": "new/verified/*",
        },
        tags=["moved"],
    )
    assert (await proxied("copy", "--mapping", file)).code == 0
    clean = await proxied("verify", "--mapping", file)
    assert (clean.code, clean.out, clean.sentences) == (0, "", ["svsync: compared 3 secrets"])
    await proxied.put("value", {"password": f"{marker}2", "port": 1})
    equal = json.dumps({"host": "h", "password": marker}).encode()
    words = ("secrets", "write", "new/verified/tags", "--tag", "", "--json-file", "-")
    assert (await proxied(*words, stdin=equal)).code == 0
    paths = {f"{proxied.source}/*": "new/verified/*"}
    whole = mapping_file(proxied.desk, paths, tags=["moved"])
    said = await proxied("verify", "--mapping", whole)
    assert said.code == 1
    assert said.out.splitlines() == [
        f"new/verified/new: missing here ({proxied.source}/new)",
        f"new/verified/tags: tags differ ({proxied.source}/tags): moved is only there",
        f"new/verified/value: value differs ({proxied.source}/value):"
        " host is only here, password differs, port is only there",
    ]
    told = await proxied("verify", "--mapping", whole, "--json", "--path", "new/verified/value")
    assert (told.code, told.json["compared"]) == (1, 1)
    assert told.json["differences"] == [
        {
            "path": "new/verified/value",
            "there": f"{proxied.source}/value",
            "what": "value_differs",
            "fields": {"host": "only_here", "password": "different", "port": "only_there"},
            "tags": {},
            "reason": None,
        }
    ]


async def test_verify_compares_what_was_pulled_with_what_the_backend_has_now(
    synced: Estate,
) -> None:
    marker = synced.desk.program.canary.value()
    for name in ("same", "value", "tags", "gone", "sub/deep"):
        await synced.put(name, {"k": marker})
    at = ("--backend", synced.name, "--path", f"{synced.source}/**")
    assert (await synced("run-once", "--backend", synced.name)).code == 0
    clean = await synced("verify", *at)
    assert (clean.code, clean.out, clean.sentences) == (0, "", ["svsync: compared 5 secrets"])
    await synced.put("value", {"k": f"{marker}2"})
    await synced.tag("tags", {"a": "b"})
    await synced.desk.bao.delete(f"{synced.folder}/gone")
    await synced.put("new", {"k": "1"})
    said = await synced("verify", *at)
    assert said.code == 1
    remote = f"{synced.desk.bao.mount}/data/{synced.folder}"
    assert said.out.splitlines() == [
        f"{synced.source}/gone: missing there ({remote}/gone)",
        f"{synced.source}/new: missing here ({remote}/new)",
        f"{synced.source}/tags: tags differ ({remote}/tags): a=b is only there",
        f"{synced.source}/value: value differs ({remote}/value): k differs",
    ]
    told = await synced("verify", *at, "--json")
    assert (told.code, told.json["compared"]) == (1, 6)
    async with connected(synced.desk.database) as admin:
        rows = await admin.fetch(
            "SELECT DISTINCT backend_id, decision FROM audit"
            " WHERE action = 'secret.compare' AND secret_path = $1",
            f"{synced.source}/value",
        )
    assert [tuple(row) for row in rows] == [(synced.name, "allow")]


async def test_verify_of_a_backend_that_syncs_nothing_says_so(proxied: Estate) -> None:
    said = await proxied("verify", "--backend", proxied.name)
    assert said.code == 2
    assert "syncs nothing" in said.sentence
    said = await proxied("verify", "--backend", "fed_nobody", "--json")
    assert (said.code, said.json["compared"]) == (1, 0)


@pytest.mark.parametrize("words", [(), ("--backend", "a", "--mapping", "b")])
async def test_verify_takes_one_of_both_sides(desk: Desk, words: tuple[str, ...]) -> None:
    said = await desk.program("verify", *words)
    assert (said.code, said.out) == (2, "")


async def test_a_name_that_no_path_can_be_is_not_silently_left_behind(proxied: Estate) -> None:
    await proxied.put("good", {"k": "1"})
    await proxied.put("odd name", {"k": "2"})
    file = mapping_file(proxied.desk, {f"{proxied.source}/*": "new/odd/*"})
    said = await proxied("copy", "--mapping", file, "--json")
    assert (said.code, said.json["counts"]["created"]) == (1, 1)
    name = f"{proxied.desk.bao.mount}/data/{proxied.folder}/odd name"
    [odd] = [one for one in said.json["secrets"] if one["outcome"] == "failed"]
    assert (odd["source"], odd["path"], odd["reason"]) == (name, None, "illegal_path")
    compared = await proxied("verify", "--mapping", file)
    assert (compared.code, compared.out) == (1, f"{name}: not compared: illegal_path\n")


async def test_a_slip_in_a_mapping_or_a_path_does_not_look_like_done(proxied: Estate) -> None:
    await proxied.put("one", {"k": "1"})
    good = mapping_file(proxied.desk, {f"{proxied.source}/*": "new/slip/*"})
    assert (await proxied("copy", "--mapping", good)).code == 0
    slip = f"{proxied.source}-typo/*"
    file = mapping_file(proxied.desk, {slip: "new/slipped/*"})
    told = f"svsync: paths: {slip} matches no secret that can be listed"
    said = await proxied("copy", "--mapping", file)
    assert (said.code, said.out, said.sentence.startswith(told)) == (1, "", True)
    said = await proxied("copy", "--mapping", file, "--json")
    assert (said.code, said.json["unmatched"]) == (1, [slip])
    said = await proxied("verify", "--mapping", file)
    assert (said.code, said.out, said.sentences[0].startswith(told)) == (1, "", True)
    said = await proxied("verify", "--mapping", good, "--path", "new/typo/*")
    assert (said.code, said.out) == (1, "")
    why = "--path new/typo/* matches no secret that could be seen"
    assert said.sentence == f"svsync: nothing was compared: {why}"


async def test_a_backend_of_which_nothing_was_seen_is_not_clean(synced: Estate) -> None:
    said = await synced("verify", "--backend", synced.name, "--path", "nowhere/**")
    assert (said.code, said.out, "nothing was compared" in said.sentence) == (1, "", True)
