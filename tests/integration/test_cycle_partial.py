"""One secret that cannot be taken in stops no other, is reported, and is tried again later."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tests.house import ENDINGS, WORK, House, backend, counts, failure, open_house, skips

from svsync.domain.changes import Entry, ListingPage, RemoteRead, RemoteUnknown, RemoteValue
from svsync.domain.ids import RemotePath
from svsync.domain.runs import QUARANTINE_AFTER, RunResult
from svsync.domain.values import Payload
from svsync.services.sync.intake import IDLE_PAGES
from svsync.testing.memory import MemoryBackend


async def test_secret_that_cannot_be_read_is_skipped_and_the_others_go_on(house: House) -> None:
    for name in "abc":
        house.there.put(f"kv/{name}", {"k": "1"})
    house.there.unreadable["kv/b"] = RemoteUnknown("undecodable", "at offset 3")
    ended = await house.run()
    assert ended.record.result is RunResult.PARTIAL
    assert skips(ended) == {"kv/b": "undecodable"}
    assert await house.paths() == ["ext/a", "ext/c"]
    assert (await house.row("run_skips"))["detail"] == "at offset 3"
    assert (await house.events())[-1] == "federation.sync.completed"


async def test_secret_that_cannot_be_read_any_more_keeps_its_value(house: House) -> None:
    for name in "abc":
        house.there.put(f"kv/{name}", {"k": "1"})
    await house.run()
    house.there.put("kv/b", {"k": "2"})
    house.there.unreadable["kv/b"] = RemoteUnknown("undecodable")
    await house.run()
    assert await house.data("ext/b") == {"k": "1"}
    house.there.unreadable.clear()
    await house.run()
    assert await house.data("ext/b") == {"k": "2"}


async def test_secret_that_fails_again_and_again_waits_longer_each_time(house: House) -> None:
    for name in "abc":
        house.there.put(f"kv/{name}", {"k": "1"})
    house.there.unreadable["kv/b"] = RemoteUnknown("undecodable")
    for _ in range(QUARANTINE_AFTER):
        await house.run()
    assert await house.status("ext/b") == "quarantined"
    read = house.there.calls["read"]
    ended = await house.run()
    assert house.there.calls["read"] == read
    assert (ended.record.result, skips(ended)) == (RunResult.PARTIAL, {"kv/b": "quarantined"})
    waits = []
    for _ in range(3):
        await house.admin.execute("UPDATE sync_state SET retry_at = now() WHERE path = 'ext/b'")
        await house.run()
        waits.append(
            await house.admin.fetchval(
                "SELECT extract(epoch FROM retry_at - now()) FROM sync_state WHERE path = 'ext/b'"
            )
        )
    assert 2 * 720 < waits[0] + 1 < waits[1] < waits[2]


async def test_quarantined_secret_that_is_whole_again_is_in_sync(house: House) -> None:
    for name in "abc":
        house.there.put(f"kv/{name}", {"k": "1"})
    await house.run()
    house.there.put("kv/b", {"k": "2"})
    house.there.unreadable["kv/b"] = RemoteUnknown("undecodable")
    for _ in range(QUARANTINE_AFTER):
        await house.run()
    house.there.unreadable.clear()
    await house.admin.execute("UPDATE sync_state SET retry_at = now()")
    assert (await house.run()).record.result is RunResult.OK
    row = await house.row("sync_state", path="ext/b")
    assert (row["status"], row["failures"], row["retry_at"]) == ("in_sync", 0, None)
    assert await house.data("ext/b") == {"k": "2"}


async def test_denied_secret_is_not_quarantined(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    house.there.put("kv/b", {"k": "1"})
    await house.run()
    house.there.hidden.add("kv/b")
    for _ in range(QUARANTINE_AFTER + 1):
        await house.run()
    assert await house.status("ext/b") == "denied"


async def test_too_many_errors_fail_the_run_and_keep_what_was_taken(house: House) -> None:
    for name in "abc":
        house.there.put(f"kv/{name}", {"k": "1"})
    for name in "bc":
        house.there.unreadable[f"kv/{name}"] = RemoteUnknown("undecodable")
    ended = await house.run()
    assert failure(ended) == "too_many_errors"
    assert await house.paths() == ["ext/a"]
    assert (await house.events())[-1] == "federation.sync.failed"


async def test_value_that_is_too_large_is_skipped(house: House) -> None:
    house.there.put("kv/a", Payload.from_text("x" * 2_000_000))
    house.there.put("kv/b", {"k": "1"})
    assert skips(await house.run()) == {"kv/a": "value_too_large"}
    assert await house.paths() == ["ext/b"]


@pytest.mark.parametrize("bad", ["\x00", "\ud800", "\x1b"], ids=["NUL", "surrogate", "escape"])
@pytest.mark.parametrize("known", [False, True], ids=["new", "known"])
async def test_odd_tag_skips_its_secret_only(house: House, bad: str, known: bool) -> None:
    for name in "abc":
        house.there.put(f"kv/{name}", {"k": "1"})
    if known:
        await house.run()
    house.there.tag("kv/b", {"team": f"x{bad}y"})
    ended = await house.run()
    assert (ended.record.result, skips(ended)) == (RunResult.PARTIAL, {"kv/b": "bad_metadata"})
    assert (await house.paths() == ["ext/a", "ext/b", "ext/c"]) is known
    house.there.tag("kv/b", {"team": "fine"})
    await house.run()
    assert (await house.row("secrets", path="ext/b"))["tags"] == ["team=fine"]
    assert await house.status("ext/b") == "in_sync"


@pytest.mark.parametrize("bad", ["a b", "a\x00b", "..", "a%2fb", "ä", "x\ud800"])
async def test_odd_name_is_skipped_and_the_others_arrive(house: House, bad: str) -> None:
    for n in range(5):
        house.there.put(f"kv/{n}", {"k": "1"})
    house.there.put(f"kv/{bad}", {"k": "1"})
    ended = await house.run()
    assert ended.record.result is RunResult.PARTIAL
    assert len(skips(ended)) == 1
    assert await house.paths() == [f"ext/{n}" for n in range(5)]
    assert not failure(await house.run())


class Twice(MemoryBackend):
    """Lists every name twice, in pages of its own."""

    async def list_entries(
        self, prefixes: Sequence[str], *, tokens: bool
    ) -> AsyncGenerator[ListingPage]:
        async for page in super().list_entries(prefixes, tokens=tokens):
            yield page
            yield replace(page, scopes=())


async def test_names_listed_twice_are_taken_once(
    database_url: str, admin_url: str, state_dir: Path
) -> None:
    async with open_house(database_url, admin_url, state_dir, made=Twice) as house:
        for n in range(600):  # more than one batch, so that a name is in two
            house.there.put(f"kv/{n}", {"k": "1"})
        ended = await house.run()
        assert counts(ended)["created"] == 600
        assert ended.record.result is RunResult.OK
        house.there.put("kv/7", {"k": "2"})
        assert counts(await house.run())["updated"] == 1
        assert await house.versions("ext/7") == [{"k": "1"}, {"k": "2"}]


class Endless(MemoryBackend):
    """A listing that goes on for ever: with the same names, new ones, or nothing at all."""

    page = staticmethod(lambda n: ListingPage())

    async def list_entries(
        self, prefixes: Sequence[str], *, tokens: bool
    ) -> AsyncGenerator[ListingPage]:
        n = 0
        while n < 100_000:
            yield self.page(n)
            n += 1
        raise AssertionError("nobody ended the listing")


class EndlessNames(Endless):
    page = staticmethod(lambda n: ListingPage((Entry(RemotePath(f"kv/{n}"), "1"),)))


class EndlessRejects(Endless):
    page = staticmethod(lambda n: ListingPage(rejected=((f"kv/{n}", "illegal_path"),)))


class EndlessOthers(Endless):
    page = staticmethod(lambda n: ListingPage(passed_over=25))


@pytest.mark.parametrize("made", [Endless, EndlessNames, EndlessRejects, EndlessOthers])
async def test_listing_that_never_ends_is_ended(
    database_url: str, admin_url: str, state_dir: Path, made: type[MemoryBackend]
) -> None:
    spec = backend(max_secrets=1000)
    async with open_house(database_url, admin_url, state_dir, spec, made=made) as house:
        assert failure(await house.run()) == "listing_unbounded"
        assert await house.paths() == []


class Crowded(MemoryBackend):
    """One listing of all, most of which is somebody else's."""

    async def list_entries(
        self, prefixes: Sequence[str], *, tokens: bool
    ) -> AsyncGenerator[ListingPage]:
        for _ in range(2 * IDLE_PAGES):
            yield ListingPage(passed_over=25)
        async for page in super().list_entries(prefixes, tokens=tokens):
            yield page


async def test_what_belongs_to_others_may_be_much(
    database_url: str, admin_url: str, state_dir: Path
) -> None:
    spec = backend(max_secrets=1)
    async with open_house(database_url, admin_url, state_dir, spec, made=Crowded) as house:
        house.there.put("kv/a", {"k": "1"})
        assert failure(await house.run()) is None
        assert await house.paths() == ["ext/a"]


async def test_more_secrets_than_max_secrets_fail_the_run_before_any_write(
    database_url: str, admin_url: str, state_dir: Path
) -> None:
    async with open_house(database_url, admin_url, state_dir, backend(max_secrets=3)) as house:
        for n in range(4):
            house.there.put(f"kv/{n}", {"k": "1"})
        assert failure(await house.run()) == "listing_unbounded"
        assert await house.paths() == []
        house.there.remove("kv/3")
        assert failure(await house.run()) is None


class Tokenless(MemoryBackend):
    """As KV v1: neither versions nor tokens nor tags, not even in a point read."""

    async def list_entries(
        self, prefixes: Sequence[str], *, tokens: bool
    ) -> AsyncGenerator[ListingPage]:
        async for page in super().list_entries(prefixes, tokens=tokens):
            entries = tuple(Entry(e.remote_path) for e in page.entries if not e.gone)
            yield replace(page, entries=entries)

    async def read(self, paths: Sequence[RemotePath]) -> Sequence[RemoteRead]:
        return [
            replace(r, value_token="", meta_token=None, order=None, tags=None)
            if isinstance(r, RemoteValue)
            else r
            for r in await super().read(paths)
        ]


async def test_backend_without_tokens_is_compared_by_value(
    database_url: str, admin_url: str, state_dir: Path
) -> None:
    async with open_house(database_url, admin_url, state_dir, made=Tokenless) as house:
        for name in "abc":
            house.there.put(f"kv/{name}", {"k": "1"})
        await house.run()
        before = await house.dump(without=WORK | ENDINGS)
        assert counts(await house.run()) == {"listed": 3, "unchanged": 3}
        assert await house.dump(without=WORK | ENDINGS) == before
        house.there.put("kv/b", {"k": "2"})
        house.there.remove("kv/c")
        assert counts(await house.run()) == {
            "listed": 2, "unchanged": 1, "updated": 1, "unlisted": 1, "retained": 1,
        }  # fmt: skip
        assert await house.versions("ext/b") == [{"k": "1"}, {"k": "2"}]
        house.there.put("kv/c", {"k": "1"})
        await house.run()
        assert await house.versions("ext/c") == [{"k": "1"}]


class Untagged(MemoryBackend):
    """Tells no tags when it is asked for a name."""

    async def look_up(self, path: RemotePath) -> Entry | RemoteRead:
        found = await super().look_up(path)
        return replace(found, tags=None) if isinstance(found, Entry) else found


async def test_tags_that_are_not_told_are_not_gone(
    database_url: str, admin_url: str, state_dir: Path
) -> None:
    async with open_house(database_url, admin_url, state_dir, made=Untagged) as house:
        house.there.put("kv/a", {"k": "1"})
        house.there.tag("kv/a", {"team": "x"})
        house.there.put("kv/b", {"k": "1"})
        await house.run()
        listed: Mapping[str, object] = house.there.listed_names()
        house.there._listed = {"kv/b": listed["kv/b"]}  # type: ignore[dict-item]
        await house.run()
        assert (await house.row("secrets", path="ext/a"))["tags"] == ["team=x"]


@pytest.mark.parametrize("table", ["secrets", "versions", "sync_state"])
async def test_secret_that_the_database_refuses_stops_no_other(house: House, table: str) -> None:
    """The batch is halved until the one path is alone that is refused (S30)."""
    for n in range(9):
        house.there.put(f"kv/{n}", {"k": str(n)})
    await house.run("ext/5")
    [known] = await house.rows("secrets")
    house.there.put("kv/5", {"k": "refused"})
    refused = {
        "secrets": "NEW.path = 'ext/5'",
        "versions": f"NEW.secret_id = {known['secret_id']}",
        "sync_state": "NEW.path = 'ext/5' AND NEW.base_order = 2",
    }
    await house.admin.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" IF {refused[table]} THEN RAISE 'no'; END IF; RETURN NEW; END $$"
    )
    await house.admin.execute(
        f"CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON {table}"
        " FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    ended = await house.run()
    assert (ended.record.result, list(skips(ended))) == (RunResult.PARTIAL, ["kv/5"])
    assert counts(ended)["created"] == 8
    assert await house.data("ext/5") == {"k": "5"}
    await house.admin.execute("DROP FUNCTION refuse CASCADE")
    assert (await house.run()).record.result is RunResult.OK
    assert await house.data("ext/5") == {"k": "refused"}
    assert await house.status("ext/5") == "in_sync"
