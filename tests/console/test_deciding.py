"""Does a person do from the page what they mean, and nothing else?"""

import re
from datetime import datetime, timezone
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect
from tests.console.conftest import BACKEND, GUARDED, OFFSET, Door, Site, entering, see_no_change
from tests.program import until

pytestmark = pytest.mark.asyncio(loop_scope="session")


def place(path: str) -> str:
    return f"backends/{BACKEND}/conflicts/{path}"


async def choose(page: Page, what: str) -> None:
    await page.get_by_role("radio", name=what).check()
    await page.get_by_role("button", name="Settle").click()


# --- a backend -------------------------------------------------------------------------


async def test_backend_is_paused_and_resumed(site: Site, door: Door) -> None:
    page = await door.enter(f"backends/{BACKEND}")
    status = f"/v1/federation/backends/{BACKEND}/status"
    await page.get_by_role("button", name="Pause").click()
    await expect(page.get_by_text("No run begins any more.")).to_be_visible()
    await expect(page.locator(".title .badge", has_text="paused")).to_be_visible()
    assert (await site.call("GET", status))[1]["paused"]
    await page.get_by_role("button", name="Resume").click()
    await expect(page.get_by_role("button", name="Pause")).to_be_visible()
    assert not (await site.call("GET", status))[1]["paused"]
    await site.run()  # whatever was due while it was paused is over


async def test_plan_is_shown_before_anything_is_done(site: Site, door: Door) -> None:
    await site.desk.bao.put("apps/planned/new", {"v": site.desk.program.canary.marker})
    page = await door.enter(f"backends/{BACKEND}")
    await page.get_by_role("button", name="Dry run").click()
    dialog = page.get_by_role("dialog")
    line = dialog.get_by_role("row").filter(has_text="apps/planned/new")
    await expect(line).to_contain_text("create")
    assert (await site.call("GET", "/v1/secrets/apps/planned/new"))[0] == 404
    await page.keyboard.press("Escape")
    await expect(dialog).to_have_count(0)
    await expect(page.get_by_role("button", name="Dry run")).to_be_focused()
    await page.get_by_role("button", name="Dry run").click()
    await dialog.get_by_role("button", name="Sync now").click()
    await expect(page.get_by_text("A run was asked for.")).to_be_visible()
    await page.get_by_role("link", name="Secrets").click()
    await expect(page.get_by_role("row").filter(has_text="apps/billing/stripe")).to_be_visible()
    await site.run()
    assert (await site.call("GET", "/v1/secrets/apps/planned/new"))[0] == 200


async def last_run(site: Site) -> dict[str, Any]:
    """Of the guarded backend, but for dry ones."""
    found = await site.call("GET", f"/v1/federation/backends/{GUARDED}/runs")
    runs: list[dict[str, Any]] = found[1]["runs"]
    return next(run for run in runs if run["kind"] != "dry")


async def test_guard_that_fired_tells_what_it_kept_and_is_passed_by_on_purpose_alone(
    site: Site, door: Door
) -> None:
    page = await door.enter(f"backends/{GUARDED}")
    fired = page.get_by_role("note").filter(has_text="mass delete guard")
    await expect(fired).to_contain_text("unlisted")
    await page.get_by_role("button", name="Dry run").click()
    dialog = page.get_by_role("dialog")
    await expect(dialog.get_by_role("note")).to_contain_text("mass delete guard")
    await expect(dialog.get_by_role("row").filter(has_text="guarded/a")).to_be_visible()
    await expect(dialog.get_by_role("button", name="Sync now")).to_have_count(0)
    past = dialog.get_by_role("button", name="Sync past the guard")
    await expect(past).to_be_disabled()
    assert (await last_run(site))["error"]["code"] == "mass_delete_guard"
    await dialog.get_by_role("checkbox", name="it is meant").check()
    await past.click()
    await expect(page.locator(".halves").get_by_text("by api")).to_be_visible()

    async def went_through() -> bool:
        return bool((await last_run(site))["result"] == "ok")

    await until(went_through)
    await expect(fired).to_have_count(0)


async def test_run_tells_its_stages_counts_calls_and_what_it_skipped(
    site: Site, door: Door
) -> None:
    run = await site.run()
    page = await door.enter(f"backends/{BACKEND}/runs")
    await page.get_by_role("row").nth(1).get_by_role("link").click()
    await expect(page.get_by_text(run["run_id"])).to_be_visible()
    began = datetime.fromisoformat(run["started_at"])
    moment = page.locator("time").filter(has_text=f"{began.astimezone(timezone(OFFSET)):%H:%M:%S}")
    await expect(moment.first).to_have_attribute(
        "title", re.compile(f"{began:%Y-%m-%d %H:%M:%S}.*UTC")
    )
    stages = page.locator(".timeline li")
    await expect(stages).to_have_count(len(run["stages_ms"]))
    await expect(page.locator("main")).to_contain_text(
        f"{run['api_calls']['list']} call"  # one or more
    )
    skipped = page.get_by_role("row", name=re.compile("no name"))
    await expect(skipped).to_contain_text("illegal path")


async def test_mapping_is_tried_both_ways(site: Site, door: Door) -> None:
    page = await door.enter(f"backends/{BACKEND}/mapping")
    await page.get_by_label("A remote or a local path").fill("apps/billing/db")
    await page.keyboard.press("Enter")
    local = page.locator("section", has=page.get_by_role("heading", name="As a local path"))
    await expect(local.last).to_contain_text("mapped by rule 1")
    await expect(local.last).to_contain_text(f"{site.desk.bao.mount}/data/apps/billing/db")
    await expect(local.last).to_contain_text("billing/db")
    remote = page.locator("section", has=page.get_by_role("heading", name="As a remote path"))
    await expect(remote.last).to_contain_text("unmapped")


# --- conflicts -------------------------------------------------------------------------


async def test_values_are_shown_when_asked_recorded_and_hidden_again(
    site: Site, door: Door
) -> None:
    path = await site.quarrel()
    marker = site.desk.program.canary.marker
    await door.context.clock.install()
    page = await door.enter(place(path))
    rows = page.get_by_role("row", name=re.compile("string"))
    await expect(rows).to_have_count(2)
    await expect(rows.first).to_contain_text("different")
    await expect(rows.last).to_contain_text("same")
    assert marker not in await page.content()
    seen = "/v1/audit/logs?action=conflict.reveal"
    before = len((await site.call("GET", seen))[1]["logs"])

    await page.get_by_role("button", name="Reveal values").click()
    await expect(page.get_by_text(f"{marker}-there")).to_be_visible()
    await expect(page.get_by_text(f"{marker}-here")).to_be_visible()
    assert len((await site.call("GET", seen))[1]["logs"]) == before + 1
    await door.context.clock.fast_forward(61_000)
    await expect(page.get_by_role("button", name="Reveal values")).to_be_visible()
    assert marker not in await page.content()

    await page.get_by_role("button", name="Reveal values").click()
    await expect(page.get_by_text(f"{marker}-there")).to_be_visible()
    await page.get_by_role("link", name="Conflicts", exact=True).first.click()
    await expect(page.get_by_text("those that wait")).to_be_attached()
    assert marker not in await page.content()


async def test_values_stay_hidden_from_whoever_may_not_reveal_them(site: Site, door: Door) -> None:
    path = await site.quarrel()
    made = await site.call(
        "POST",
        "/v1/policies",
        {"name": "lists", "rules": [{"path_pattern": "apps/**", "permissions": ["list"]}]},
    )
    bound = {"identity_type": "user", "identity_id": "user:lea"}
    assert (await site.call("POST", f"/v1/policies/{made[1]['id']}/bindings", bound))[0] == 201
    token, _ = await site.token_of("federation:read", identity="user:lea")
    page = await door.enter(place(path), token=token)
    await page.get_by_role("button", name="Reveal values").click()
    await expect(page.get_by_role("alert")).to_contain_text("permission reveal")
    await expect(page.get_by_text("scope federation:write, which your token lacks")).to_be_visible()
    assert site.desk.program.canary.marker not in await page.content()


@pytest.mark.parametrize(
    ("what", "ending"), [("Keep the local side", "-here"), ("Take the remote side", "-there")]
)
async def test_side_that_is_chosen_stands_afterwards(
    site: Site, door: Door, what: str, ending: str
) -> None:
    path = await site.quarrel()
    page = await door.enter(place(path))
    await expect(page.get_by_role("button", name="Settle")).to_be_disabled()
    await choose(page, what)
    await expect(page.get_by_text("The conflict is settled.")).to_be_visible()
    await expect(page.get_by_text("settled by")).to_be_visible()
    assert (await site.value(path))["k"].endswith(ending)


async def test_list_of_conflicts_follows_what_others_settle(site: Site, door: Door) -> None:
    path = await site.quarrel()
    page = await door.enter(f"backends/{BACKEND}/conflicts")
    line = page.get_by_role("row").filter(has_text=path)
    await expect(line).to_be_visible()
    at = f"/v1/federation/backends/{BACKEND}/conflicts/resolve"
    settled = await site.call("POST", at, {"path": path, "resolution": "use_local"})
    assert settled[0] == 200
    await expect(line).to_have_count(0)


async def test_value_of_ones_own_is_written_and_a_bad_one_is_refused(
    site: Site, door: Door
) -> None:
    path = await site.quarrel()
    page = await door.enter(place(path))
    await page.get_by_role("radio", name="Write another value").check()
    await page.get_by_label("The value, a JSON object").fill("[1]")
    await page.get_by_role("button", name="Settle").click()
    await expect(page.get_by_role("alert")).to_contain_text("no JSON object")
    await page.get_by_label("The value, a JSON object").fill('{"k": "ours"}')
    await page.get_by_role("button", name="Settle").click()
    await expect(page.get_by_text("The conflict is settled.")).to_be_visible()
    assert await site.value(path) == {"k": "ours"}


async def test_second_of_two_tabs_is_told_that_it_was_settled_and_by_whom(
    site: Site, browser: Browser, door: Door
) -> None:
    path = await site.quarrel()
    first = await door.enter(place(path))
    async with entering(site, browser) as other:
        await see_no_change(other.context)
        second = await other.enter(place(path))
        await expect(second.get_by_role("button", name="Settle")).to_be_visible()
        await choose(first, "Take the remote side")
        await expect(first.get_by_text("settled by")).to_be_visible()
        version = (await site.call("GET", f"/v1/secrets/{path}"))[1]["version"]
        await choose(second, "Keep the local side")
        await expect(second.get_by_role("alert")).to_contain_text("Somebody settled it")
        await expect(second.get_by_text("settled by")).to_be_visible()
        await expect(second.get_by_role("button", name="Settle")).to_have_count(0)
    assert (await site.value(path))["k"].endswith("-there")
    assert (await site.call("GET", f"/v1/secrets/{path}"))[1]["version"] == version


async def test_conflict_that_somebody_settles_is_told_as_settled(site: Site, door: Door) -> None:
    path = await site.quarrel()
    page = await door.enter(place(path))
    await expect(page.get_by_role("button", name="Settle")).to_be_visible()
    at = f"/v1/federation/backends/{BACKEND}/conflicts/resolve"
    assert (await site.call("POST", at, {"path": path, "resolution": "use_local"}))[0] == 200
    await expect(page.get_by_text("settled by")).to_be_visible()
    await expect(page.get_by_role("button", name="Settle")).to_have_count(0)


async def test_next_conflict_of_a_path_is_told_as_a_new_one(site: Site, door: Door) -> None:
    path = await site.quarrel()
    page = await door.enter(place(path))
    value = page.get_by_label("The value, a JSON object")
    await page.get_by_role("radio", name="Write another value").check()
    await value.fill('{"k": "typed"}')
    at = f"/v1/federation/backends/{BACKEND}/conflicts/resolve"
    assert (await site.call("POST", at, {"path": path, "resolution": "use_local"}))[0] == 200
    await expect(page.get_by_text("settled by")).to_be_visible()
    await site.run()
    marker = site.desk.program.canary.marker
    ours = {"data": {"k": f"{marker}-again-here"}}
    assert (await site.call("PUT", f"/v1/secrets/{path}", ours))[0] == 200
    await site.desk.bao.put(path, {"k": f"{marker}-again-there"})
    await site.run()
    await page.get_by_role("radio", name="Write another value").check()
    await expect(value).to_have_value("")
    await expect(page.get_by_role("alert")).to_have_count(0)


async def test_side_that_moves_is_shown_and_what_was_typed_stays(site: Site, door: Door) -> None:
    path = await site.quarrel()
    page = await door.enter(place(path))
    value = page.get_by_label("The value, a JSON object")
    await page.get_by_role("radio", name="Write another value").check()
    await value.fill('{"k": "typed"}')
    marker = site.desk.program.canary.marker
    await site.desk.bao.put(path, {"k": f"{marker}-moved", "same": marker})
    await site.run()
    await expect(page.get_by_role("alert")).to_contain_text("moved while you looked")
    await expect(page.get_by_role("radio", checked=True)).to_have_count(0)
    await page.get_by_role("radio", name="Write another value").check()
    await expect(value).to_have_value('{"k": "typed"}')
    await page.get_by_role("button", name="Settle").click()
    await expect(page.get_by_text("settled by")).to_be_visible()
    await expect(page.get_by_role("alert")).to_have_count(0)
    assert await site.value(path) == {"k": "typed"}


async def test_side_that_moved_meanwhile_is_looked_at_again(site: Site, door: Door) -> None:
    path = await site.quarrel()
    await see_no_change(door.context)
    page = await door.enter(place(path))
    await expect(page.get_by_role("button", name="Settle")).to_be_visible()
    marker = site.desk.program.canary.marker
    await site.desk.bao.put(path, {"k": f"{marker}-moved", "same": marker})
    await site.run()
    await choose(page, "Take the remote side")
    await expect(page.get_by_role("alert")).to_contain_text("moved while you looked")
    assert (await site.value(path))["k"].endswith("-here")
    await expect(page.get_by_role("radio", checked=True)).to_have_count(0)
    await choose(page, "Take the remote side")
    await expect(page.get_by_text("settled by")).to_be_visible()
    await expect(page.get_by_role("alert")).to_have_count(0)
    assert (await site.value(path))["k"].endswith("-moved")
