"""Is a copy made of what is there, recorded before, and never in place of somebody's value?"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.house import TENANT, House

from svsync.config.copy_mapping import CopyMapping, load_copy_mapping
from svsync.domain.changes import RemoteUnknown
from svsync.domain.errors import BackendUnreachableError, SvsyncError
from svsync.domain.federation import ConflictPolicy, Mode, Writes
from svsync.domain.globs import Glob
from svsync.domain.ids import LocalPath
from svsync.domain.values import Payload
from svsync.services.comparing import Comparison, compare_copies
from svsync.services.comparing_backends import Comparing
from svsync.services.copying import copy
from svsync.services.nameless import NamelessSecrets
from svsync.services.operating import Operating, operator_call
from svsync.services.recording import AuditUnavailableError
from svsync.services.transfer import WORKERS, Given, Held, Report

Copied = Callable[..., Awaitable[Report]]


def operating(house: House, kind: type[Operating] = Operating) -> Operating:
    app = house.app
    return kind(
        operator_call(TENANT, "default", "ada", "req_1"),
        reading=app.reading,
        listing=app.listing,
        secrets=app.secrets,
        writes=app.writes,
        recorder=app.recorder,
        nameless=NamelessSecrets(app.db, app.registry, app.proxying.open),
    )


def mapping(folder: Path, *lines: str) -> CopyMapping:
    file = folder / "mapping.yaml"
    file.write_text("\n".join(("paths:", *(f"  {line}" for line in lines))))
    return load_copy_mapping(str(file))


@pytest.fixture
def copied(house: House, tmp_path: Path) -> Copied:
    """Copies by these lines, `ext/**` to `new/**` unless others are given."""

    async def run(*lines: str, access: Operating | None = None, overwrite: bool = False) -> Report:
        report = Report()
        await copy(
            access or operating(house),
            mapping(tmp_path, *(lines or ('"ext/**": "new/**"',))),
            report,
            overwrite=overwrite,
            tell=lambda done: None,
        )
        return report

    return run


def reasons(report: Report) -> dict[str, str | None]:
    return {one.source: one.reason for one in report.placed if one.reason is not None}


async def test_copy_is_recorded_before_it_is_made(house: House, copied: Copied) -> None:
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    await house.admin.execute(
        "CREATE FUNCTION no_more() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN IF NEW.action = 'secret.write' THEN RAISE EXCEPTION 'no'; END IF;"
        " RETURN NEW; END$$;"
        "CREATE TRIGGER no_more BEFORE INSERT ON audit FOR EACH ROW EXECUTE FUNCTION no_more()"
    )
    with pytest.raises(AuditUnavailableError):
        await copied()
    assert await house.paths() == ["ext/a"]
    read = await house.row("audit", action="secret.read", secret_path="ext/a")
    assert (read["identity_type"], read["identity_id"]) == ("operator", "cli:ada")
    assert (read["request_id"], read["source_ip"]) == ("req_1", None)


@pytest.mark.parametrize("overwrite", [False, True])
async def test_a_value_written_at_the_same_moment_is_not_overwritten(
    house: House, copied: Copied, overwrite: bool
) -> None:
    """Whether nothing was there when it was looked at, or another value."""

    class Late(Operating):
        async def write(self, path: LocalPath, given: Given, *, cas: int, detail: str) -> int:
            await house.write(path, {"k": "theirs"})
            return await super().write(path, given, cas=cas, detail=detail)

    house.there.put("kv/a", {"k": "1"})
    await house.run()
    if overwrite:
        await house.write("new/a", {"k": "before"})
    report = await copied(access=operating(house, Late), overwrite=overwrite)
    assert reasons(report) == {"ext/a": "version_conflict"}
    assert not report.well
    assert await house.data("new/a") == {"k": "theirs"}


async def in_conflict(house: House) -> None:
    """`ext/a` was changed on both sides, and a person has to decide; `ext/b` was not."""
    await house.configure(conflict_resolution=ConflictPolicy.MANUAL)
    house.there.put("kv/a", {"k": "1"})
    house.there.put("kv/b", {"k": "1"})
    await house.run()
    house.there.put("kv/a", {"k": "2"})
    await house.write("ext/a", {"k": "3"})
    await house.run()


async def test_source_in_conflict_is_not_copied(house: House, copied: Copied) -> None:
    await in_conflict(house)
    report = await copied()
    assert reasons(report) == {"ext/a": "source_in_conflict"}
    assert await house.paths() == ["ext/a", "ext/b", "new/b"]


@pytest.mark.parametrize("overwrite", [False, True])
async def test_place_in_conflict_is_left_whatever_is_there(
    house: House, copied: Copied, overwrite: bool
) -> None:
    await in_conflict(house)
    for value in ("3", "4"):
        await house.write("apps/a", {"k": value})
        report = await copied("apps/a: ext/a", overwrite=overwrite)
        assert reasons(report) == {"apps/a": "target_in_conflict"}
    assert await house.data("ext/a") == {"k": "3"}


async def test_copy_into_a_backend_goes_the_way_of_any_write(house: House, copied: Copied) -> None:
    await house.configure(writes=Writes.WRITE_THROUGH)
    await house.run()
    await house.write("apps/a", {"k": "1"})
    assert (await copied('"apps/*": "ext/*"')).well
    assert house.there.secret("kv/a") is not None
    await house.configure(writes=Writes.DISABLED)
    await house.write("apps/b", {"k": "1"})
    report = await copied('"apps/*": "ext/*"')
    assert reasons(report) == {"apps/b": "federated_path_read_only"}


async def test_source_that_cannot_be_read_is_told_and_the_rest_is_copied(
    house: House, copied: Copied
) -> None:
    await house.configure(mode=Mode.PROXY)
    for name in ("a", "b", "shut"):
        house.there.put(f"kv/{name}", {"k": "1"})
    house.there.unreadable["kv/shut"] = RemoteUnknown("denied")
    report = await copied()
    assert reasons(report) == {"ext/shut": "backend_denied"}
    assert await house.paths() == ["new/a", "new/b"]


async def test_folder_that_is_not_listed_makes_the_copy_incomplete(
    house: House, copied: Copied
) -> None:
    await house.configure(mode=Mode.PROXY)
    house.there.put("kv/a", {"k": "1"})
    house.there.put("kv/shut/b", {"k": "1"})
    house.there.denied.add("kv/shut/")
    report = await copied()
    assert report.counts()["created"] == 1
    assert (report.not_listed, report.well) == (["ext/"], False)


@pytest.mark.parametrize("mode", [Mode.PROXY, Mode.SYNC])
async def test_name_that_no_path_can_be_is_told_below_what_is_copied(
    house: House, copied: Copied, mode: Mode
) -> None:
    await house.configure(mode=mode)
    for name in ("apps/a", "apps/odd name", "other/odd name"):
        house.there.put(f"kv/{name}", {"k": "1"})
    if mode is Mode.SYNC:
        await house.run()
    report = await copied('"ext/apps/*": "new/*"')
    assert reasons(report) == {"kv/apps/odd name": "illegal_path"}
    assert (report.counts()["created"], report.well) == (1, False)
    house.there.remove("kv/apps/odd name")
    assert (await copied('"ext/apps/*": "new/*"')).well


async def test_synced_secrets_are_copied_while_their_backend_is_away_and_that_is_told(
    house: House, copied: Copied
) -> None:
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    house.there.failed.add("kv/")
    report = await copied()
    assert await house.data("new/a") == {"k": "1"}
    assert (report.not_listed, report.well) == (["ext/"], False)
    await house.app.removal.pause(TENANT, house.spec.id)
    assert (await copied()).well


async def test_backend_that_goes_away_ends_it_and_what_was_done_is_told(
    house: House, copied: Copied, tmp_path: Path
) -> None:
    await house.configure(mode=Mode.PROXY)
    names = [f"n{n}" for n in range(20)]
    for name in names:
        house.there.put(f"kv/{name}", {"k": "1"})

    reads = 0

    async def away(operation: str, path: str) -> None:
        nonlocal reads
        reads += operation == "read"
        if reads > WORKERS + 2:
            raise BackendUnreachableError("away", operation="read")

    house.there.before = away
    report = Report()
    with pytest.raises(BackendUnreachableError):
        await copy(
            operating(house),
            mapping(tmp_path, '"ext/**": "new/**"'),
            report,
            overwrite=False,
            tell=lambda done: None,
        )
    house.there.before = None
    done = report.counts()["created"]
    assert 0 < done < len(names)
    again = await copied()
    assert again.well
    assert again.counts()["created"] <= len(names) - done
    assert again.counts()["unchanged"] >= done


async def test_value_from_a_standby_is_not_copied(house: House, copied: Copied) -> None:
    class Behind(Operating):
        async def read(self, path: LocalPath) -> Held:
            held = await super().read(path)
            return Held(held.text, held.version, held.secret_type, from_standby=True)

    house.there.put("kv/a", {"k": "1"})
    await house.run()
    report = await copied(access=operating(house, Behind))
    assert reasons(report) == {"ext/a": "read_from_standby"}


# --- comparing ------------------------------------------------------------------------


async def compared(house: House, only: str | None = None) -> dict[tuple[str, str], Any]:
    """What differs between the house and its backend."""
    app = house.app
    comparing = Comparing(app.db, app.registry, app.proxying.open, app.secrets, operating(house))
    comparison = Comparison()
    await comparing.compare(
        TENANT,
        house.spec.id,
        comparison,
        only=None if only is None else Glob(only),
        tell=lambda done: None,
    )
    return {(one.path, str(one.what)): one.reason for one in comparison.differences}


async def test_numbers_and_order_do_not_make_two_values_differ(house: House) -> None:
    house.there.put("kv/a", {"k": "1", "m": "2"})
    await house.run()
    await house.write("ext/a", {"m": "2", "k": "1"})
    assert await compared(house) == {}


async def test_what_the_listing_lacks_is_asked_for_by_name(house: House) -> None:
    house.there.put("kv/gone", {"k": "1"})
    await house.run()
    house.there.lag()
    house.there.put("kv/lagging", {"k": "1"})
    await house.run("ext/lagging")
    assert "ext/lagging" in await house.paths()
    house.there.remove("kv/gone")
    await house.write("ext/only-here", {"k": "1"})
    assert await compared(house) == {
        ("ext/gone", "missing_there"): None,
        ("ext/only-here", "missing_there"): None,
    }


async def test_what_could_not_be_seen_is_not_equal(house: House) -> None:
    for name in ("a", "shut/b", "unreadable"):
        house.there.put(f"kv/{name}", {"k": "1"})
    await house.run()
    house.there.denied.add("kv/shut/")
    house.there.unreadable["kv/unreadable"] = RemoteUnknown("denied")
    house.there.put("kv/no name", {"k": "1"})
    assert await compared(house) == {
        ("ext/shut/b", "not_compared"): "denied",
        ("ext/unreadable", "not_compared"): "denied",
        ("kv/no name", "not_compared"): "illegal_path",
        ("kv/shut/", "not_compared"): "denied",
    }


async def test_only_the_paths_that_were_named_are_compared(house: House) -> None:
    for name in ("a", "b"):
        house.there.put(f"kv/{name}", {"k": "1"})
    assert await compared(house, "ext/a") == {("ext/a", "missing_here"): None}


async def test_comparison_is_recorded_before_a_value_is_read(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    await house.admin.execute(
        "CREATE FUNCTION no_more() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN RAISE EXCEPTION 'no'; END$$;"
        "CREATE TRIGGER no_more BEFORE INSERT ON audit FOR EACH ROW EXECUTE FUNCTION no_more()"
    )
    before = house.there.calls["read"]
    with pytest.raises(AuditUnavailableError):
        await compared(house)
    assert house.there.calls["read"] == before


async def test_local_value_that_does_not_open_is_not_equal(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    await house.admin.execute("UPDATE versions SET sealed = sealed || '\\x00'")
    assert await compared(house) == {("ext/a", "not_compared"): "value_unreadable"}


async def test_copy_that_lacks_its_source_is_missing_there(house: House, tmp_path: Path) -> None:
    await house.write("new/a", {"k": "1"})
    comparison = Comparison()
    await compare_copies(
        operating(house),
        mapping(tmp_path, "apps/a: new/a"),
        comparison,
        only=None,
        tell=lambda done: None,
    )
    [one] = comparison.differences
    assert (one.path, one.there, str(one.what)) == ("new/a", "apps/a", "missing_there")


@pytest.fixture
def compared_copies(house: House, tmp_path: Path) -> Callable[..., Awaitable[Comparison]]:
    """Copies by these lines, compared with their sources."""

    async def run(
        *lines: str, access: Operating | None = None, only: str | None = None
    ) -> Comparison:
        comparison = Comparison()
        await compare_copies(
            access or operating(house),
            mapping(tmp_path, *lines),
            comparison,
            only=None if only is None else Glob(only),
            tell=lambda done: None,
        )
        return comparison

    return run


SLIP = ('"ext/**": "new/**"', '"etx/*": "newer/*"', '"ext-old/**": null')
"""Of these lines the second matches nothing; the third need not."""


async def test_line_that_matches_nothing_is_told_and_is_not_well(
    house: House, copied: Copied, compared_copies: Callable[..., Awaitable[Comparison]]
) -> None:
    house.there.put("kv/a", {"k": "1"})
    await house.run()
    report = await copied(*SLIP)
    assert (report.unmatched, report.well) == (["etx/*"], False)
    comparison = await compared_copies(*SLIP)
    assert (comparison.compared, comparison.differences) == (1, [])
    assert (comparison.unmatched, comparison.clean) == (["etx/*"], False)
    # Of what was named, nothing was left to a slip.
    assert (await compared_copies(*SLIP, only="new/*")).clean
    assert (await copied(SLIP[0], SLIP[2])).well
    assert (await compared_copies(SLIP[0], SLIP[2])).clean


async def test_comparing_nothing_is_not_clean(
    house: House, compared_copies: Callable[..., Awaitable[Comparison]]
) -> None:
    await house.write("ext/a", {"k": "1"})
    comparison = await compared_copies('"ext/**": "new/**"', only="new/typo/**")
    assert (comparison.compared, comparison.differences) == (0, [])
    assert not comparison.clean


async def test_label_that_a_copy_lacks_is_told_and_added_by_word_without_a_new_version(
    house: House, copied: Copied, compared_copies: Callable[..., Awaitable[Comparison]]
) -> None:
    await house.write("apps/a", {"k": "1"})
    assert (await copied("apps/a: new/a")).well
    await house.write("new/a", {"k": "1"}, tags=("mine",))
    before = (await house.row("secrets", path="new/a"))["current_version"]
    line = "apps/a: {to: new/a, tags: [moved], owner: team:b, type: api_key, max_versions: 7}"
    report = await copied(line)
    assert (reasons(report), report.well) == ({"apps/a": "labels_differ"}, False)
    found = {str(one.what): one for one in (await compared_copies(line)).differences}
    assert found["tags_differ"].tags == (("moved", "only_there"),)
    assert found["labels_differ"].fields == (("type", "different"), ("owner", "different"))
    report = await copied(line, overwrite=True)
    assert (report.counts()["labelled"], report.well) == (1, True)
    row = await house.row("secrets", path="new/a")
    assert (row["tags"], row["owner"], row["secret_type"]) == (
        ["mine", "moved"],
        "team:b",
        "api_key",
    )
    assert (row["current_version"], row["max_versions"]) == (before, 7)
    again = await copied(line)
    # What is there already is counted, and not kept one by one.
    assert (again.counts()["unchanged"], again.placed) == (1, [])
    assert (await compared_copies(line)).clean


async def test_numbers_that_one_double_stands_for_are_two(
    house: House, copied: Copied, compared_copies: Callable[..., Awaitable[Comparison]]
) -> None:
    for path, number in (("apps/a", b"9007199254740993"), ("new/a", b"9007199254740992")):
        await house.write(path, Payload.from_json_text(b'{"id":' + number + b"}"))
    assert reasons(await copied("apps/a: new/a")) == {"apps/a": "value_differs"}
    [one] = (await compared_copies("apps/a: new/a")).differences
    assert one.fields == (("id", "different"),)
    assert (await copied("apps/a: new/a", overwrite=True)).well
    assert (await compared_copies("apps/a: new/a")).clean


@pytest.mark.parametrize(
    ("line", "reason"),
    [("ext/a: new/a", "source_in_conflict"), ("apps/a: ext/a", "target_in_conflict")],
)
async def test_side_in_conflict_is_not_equal(
    house: House, compared_copies: Callable[..., Awaitable[Comparison]], line: str, reason: str
) -> None:
    await in_conflict(house)
    for path in ("new/a", "apps/a"):
        await house.write(path, {"k": "3"})
    [one] = (await compared_copies(line)).differences
    assert (str(one.what), one.reason) == ("not_compared", reason)


@pytest.mark.parametrize("behind", ["apps/a", "new/a"])
async def test_side_read_from_a_standby_is_not_equal(
    house: House, compared_copies: Callable[..., Awaitable[Comparison]], behind: str
) -> None:
    class Behind(Operating):
        async def read(self, path: LocalPath) -> Held:
            held = await super().read(path)
            return replace(held, from_standby=path == behind)

    for path in ("new/a", "apps/a"):
        await house.write(path, {"k": "1"})
    [one] = (await compared_copies("apps/a: new/a", access=operating(house, Behind))).differences
    assert (str(one.what), one.reason) == ("not_compared", "read_from_standby")


async def test_an_error_of_the_store_ends_the_comparison(house: House, tmp_path: Path) -> None:
    class Broken(Operating):
        async def read(self, path: LocalPath) -> Held:
            raise SvsyncError("x", code="store_unavailable")

    with pytest.raises(SvsyncError):
        await compare_copies(
            operating(house, Broken),
            mapping(tmp_path, "apps/a: new/a"),
            Comparison(),
            only=None,
            tell=lambda done: None,
        )
