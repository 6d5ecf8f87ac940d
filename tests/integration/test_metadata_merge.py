"""Tags and custom metadata of both sides end up together, and nobody's are lost."""

import json

import pytest
from tests.house import ENDINGS, WORK, House, counts

from svsync.domain.federation import ConflictPolicy, RuleSpec, TagTransform


async def metadata(house: House) -> tuple[list[str], dict[str, str]]:
    row = await house.row("secrets")
    return row["tags"], json.loads(row["custom"])


def tagged(house: House, value: str = "1", **tags: str) -> None:
    house.there.put("kv/a", {"k": value})
    house.there.tag("kv/a", tags)


async def test_field_that_was_removed_there_is_removed_and_a_persons_own_stays(
    house: House,
) -> None:
    tagged(house, team="x", old="1")
    await house.run()
    await house.write(
        "ext/a", {"k": "1"}, tags=("mine", "old=1", "team=x"),
        custom={"team": "x", "old": "1", "note": "mine"},
    )  # fmt: skip
    house.there.tag("kv/a", {"team": "y"})
    await house.run()
    assert await metadata(house) == (["mine", "team=y"], {"team": "y", "note": "mine"})


async def test_local_metadata_of_a_diverged_secret_survives_a_remote_change(house: House) -> None:
    tagged(house, team="x")
    await house.run()
    await house.write("ext/a", {"k": "local"}, tags=("mine",), custom={"note": "mine"})
    await house.run()
    assert await house.status("ext/a") == "diverged"
    house.there.tag("kv/a", {"team": "x", "env": "prod"})
    await house.run()
    assert await metadata(house) == (["env=prod", "mine"], {"env": "prod", "note": "mine"})
    assert await house.data("ext/a") == {"k": "local"}


@pytest.mark.parametrize(
    ("policy", "kept"),
    [(ConflictPolicy.BACKEND_WINS, "there"), (ConflictPolicy.LOCAL_WINS, "here")],
)
async def test_field_that_changed_on_both_sides_follows_the_policy(
    house: House, policy: ConflictPolicy, kept: str
) -> None:
    await house.configure(conflict_resolution=policy)
    tagged(house, team="x")
    await house.run()
    await house.write("ext/a", {"k": "1"}, custom={"team": "here"})
    house.there.tag("kv/a", {"team": "there"})
    await house.run()
    assert (await metadata(house))[1] == {"team": kept}
    assert not await house.rows("conflicts")  # metadata opens none


async def test_equal_secret_that_is_adopted_takes_the_remote_tags_in(house: House) -> None:
    await house.write("ext/a", {"k": "1"}, tags=("mine",), custom={"note": "mine"})
    tagged(house, team="x")
    assert counts(await house.run())["attached"] == 1
    assert await metadata(house) == (["mine", "team=x"], {"team": "x", "note": "mine"})
    assert await house.versions("ext/a") == [{"k": "1"}]


async def test_equal_writes_that_converge_take_the_remote_tags_in(house: House) -> None:
    tagged(house, team="x")
    await house.run()
    await house.write("ext/a", {"k": "2"})
    tagged(house, "2", team="y")
    await house.run()
    assert await house.status("ext/a") == "in_sync"
    assert await metadata(house) == (["team=y"], {"team": "y"})


# --- a changed format ---------------------------------------------------------------------


async def reformat(house: House, transform: TagTransform) -> None:
    await house.configure(rules=(RuleSpec("ext/**", "kv/**", tags=transform),))


@pytest.mark.parametrize(
    ("transform", "rewritten"),
    [
        (TagTransform(format="{key}:{value}"), ["env:prod", "mine", "team:x"]),
        (TagTransform(exclude=("env",)), ["mine", "team=x"]),
        (TagTransform(drop=True), ["mine"]),
    ],
    ids=["format", "exclude", "drop"],
)
async def test_changed_tag_format_rewrites_the_strings_and_asks_the_backend_nothing(
    house: House, transform: TagTransform, rewritten: list[str]
) -> None:
    tagged(house, team="x", env="prod")
    await house.run()
    await house.write("ext/a", {"k": "1"}, tags=("mine", "team=x", "env=prod"))
    await house.run()
    await reformat(house, transform)
    before = house.there.calls.copy()
    ended = await house.run()
    assert (await metadata(house))[0] == rewritten
    assert counts(ended)["metadata_updated"] == 1
    asked = house.there.calls - before
    assert (asked["read"], asked["metadata"]) == (0, 0)
    assert await house.versions("ext/a") == [{"k": "1"}, {"k": "1"}]


async def test_tag_format_that_changed_is_applied_once(house: House) -> None:
    tagged(house, team="x")
    await house.run()
    await reformat(house, TagTransform(format="{key}:{value}"))
    await house.run()
    before = await house.dump(without=WORK | ENDINGS)
    assert "metadata_updated" not in counts(await house.run())
    assert await house.dump(without=WORK | ENDINGS) == before


async def test_tag_format_that_changes_back_leaves_what_was_there(house: House) -> None:
    tagged(house, team="x")
    await house.run()
    await reformat(house, TagTransform(drop=True))
    await house.run()
    await reformat(house, TagTransform())
    await house.run()
    assert (await metadata(house))[0] == ["team=x"]


async def test_dry_run_after_a_changed_tag_format_rewrites_nothing(house: House) -> None:
    tagged(house, team="x")
    await house.run()
    await reformat(house, TagTransform(format="{key}:{value}"))
    assert counts(await house.run(dry=True))["metadata_updated"] == 1
    assert (await metadata(house))[0] == ["team=x"]
    await house.run()
    assert (await metadata(house))[0] == ["team:x"]
