"""Does the page say what is so where an answer is lost, late, cut short or not what was meant?"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.async_api import Page, Route, expect
from tests.console.conftest import BACKEND, EVIL, Door, Site, see_no_change
from tests.program import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

_GREAT = "12345678901234567890"
"""A number that no double holds."""


def conflict(path: str) -> str:
    return f"backends/{BACKEND}/conflicts/{path}"


# --- what a link may do ----------------------------------------------------------------


@pytest.mark.parametrize(
    "place",
    [
        "webhooks/..%2Fsecrets%2Fapps%2Fbilling%2Fdb",
        "policies/x%2F..%2F..%2Fsecrets%2Fapps%2Fbilling%2Fdb",
        f"backends/{BACKEND}/runs/..%2F..%2F..%2F..%2Fsecrets%2Fapps%2Fbilling%2Fdb",
        "webhooks/..",
    ],
)
async def test_link_makes_nobody_ask_for_what_its_page_is_not_about(door: Door, place: str) -> None:
    page = await door.enter("keys")
    await expect(page.get_by_role("heading", name="Keys")).to_be_visible()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await page.goto(f"{door.site.url}/ui/#/{place}")
    await expect(page.get_by_role("alert").first).to_contain_text(re.compile("no|not"))
    assert not [url for url in asked if "/v1/secrets" in url or url.endswith("/v1/")]


async def test_what_cannot_be_a_token_is_told_to_be_none(site: Site, door: Door) -> None:
    page = await door.context.new_page()
    await page.goto(f"{site.url}/ui/")
    for given in ("svt_\N{HORIZONTAL ELLIPSIS}", "svt_one svt_two"):
        await page.get_by_label("Token").fill(given)
        await page.get_by_role("button", name="Sign in", exact=True).click()
        await expect(page.get_by_role("alert")).to_contain_text("This is no token")


async def test_field_of_an_error_is_named_once(door: Door) -> None:
    page = await door.enter("audit?from=last%20week")
    told = page.get_by_role("alert")
    await expect(told).to_contain_text("from:")
    assert (await told.inner_text()).count("from:") == 1


# --- answers that are lost, late or of another ------------------------------------------


async def test_strip_of_runs_is_asked_for_again_where_its_answer_was_lost(door: Door) -> None:
    lost: list[str] = []

    async def lose_first(route: Route) -> None:
        if lost:
            await route.continue_()
        else:
            lost.append(route.request.url)
            await route.abort()

    await door.context.route("**/v1/federation/runs*", lose_first)
    page = await door.enter()
    strip = page.locator(f"tr:has-text('{BACKEND} ·')").get_by_role("img")
    await expect(strip).to_have_attribute("aria-label", re.compile("Last"))
    assert lost


async def test_answer_that_is_late_is_told_and_what_stands_there_is_dated(door: Door) -> None:
    held, free = asyncio.Event(), asyncio.Event()

    async def hold(route: Route) -> None:
        held.set()
        await free.wait()
        await route.continue_()

    await door.context.clock.install()
    page = await door.enter()
    await page.get_by_role("link", name="live-reads").wait_for()
    await door.context.route("**/v1/federation/status*", hold)
    await door.context.clock.fast_forward(10_000)
    await held.wait()
    await door.context.clock.fast_forward(11_000)
    late = page.get_by_role("alert")
    await expect(late).to_contain_text("has not answered for 10 s")
    await expect(late).to_contain_text("What stands here is of")
    free.set()
    await expect(late).to_have_count(0)


async def test_settlement_whose_answer_was_lost_is_not_told_to_be_undone(
    site: Site, door: Door
) -> None:
    path = await site.quarrel()
    page = await door.enter(conflict(path))

    async def lose(route: Route) -> None:
        await route.fetch()
        await route.abort()

    await door.context.route("**/conflicts/resolve", lose)
    await page.get_by_role("radio", name="Take the remote side").check()
    await page.get_by_role("button", name="Settle").click()
    await expect(page.get_by_role("alert")).to_contain_text("may have been done")
    version = (await site.call("GET", f"/v1/secrets/{path}"))[1]["version"]
    await door.context.unroute("**/conflicts/resolve")
    await page.get_by_role("button", name="Settle").click()
    await expect(page.get_by_text("The conflict is settled.")).to_be_visible()
    await expect(page.get_by_text("nothing was done")).to_have_count(0)
    assert (await site.call("GET", f"/v1/secrets/{path}"))[1]["version"] == version


def secret(name: str) -> dict[str, object]:
    unknown = dict.fromkeys(("synced_at", "reason", "retry_at", "moved_to"))
    about = {"path": name, "remote_path": name, "status": "in_sync", "version": 1, "failures": 0}
    return {**about, **unknown}


async def leave_a_list_for_another(
    door: Door, paged: Callable[[Route], Awaitable[None]], free: asyncio.Event
) -> Page:
    """More of a list is asked for, which `paged` answers once `free` is set: when another list
    stands there. Returns when that answer has been taken."""
    await door.context.route(f"**/{BACKEND}/secrets*", paged)
    page = await door.enter(f"backends/{BACKEND}/secrets")
    async with page.expect_response("**/secrets?*cursor=*"):
        await page.get_by_role("button", name="Show more").click()
        await page.get_by_label("State").select_option("denied")
        await expect(page.get_by_text("of-one").first).to_be_visible()
        free.set()
    await page.evaluate("new Promise(requestAnimationFrame)")
    await page.evaluate("new Promise(requestAnimationFrame)")
    return page


async def test_more_of_one_list_is_not_added_to_another(door: Door) -> None:
    free = asyncio.Event()

    async def paged(route: Route) -> None:
        told: dict[str, object] = {"secrets": [secret("of-all")], "next_cursor": "more"}
        if "cursor=" in route.request.url:
            await free.wait()
            told = {"secrets": [secret("late")], "next_cursor": "even-more"}
        elif "state=" in route.request.url:
            told = {"secrets": [secret("of-one")], "next_cursor": None}
        await route.fulfill(json=told)

    page = await leave_a_list_for_another(door, paged, free)
    await expect(page.get_by_text("late")).to_have_count(0)
    await expect(page.get_by_role("button", name="Show more")).to_have_count(0)


async def test_list_that_is_slower_than_what_it_follows_is_shown_and_asked_for_seldom(
    door: Door,
) -> None:
    """With each look there is more to push; each look at the list is a row of the audit log."""
    looks: list[str] = []
    lists: list[str] = []

    async def busy(route: Route) -> None:
        looks.append(route.request.url)
        told = await (await route.fetch()).json()
        told["backends"][0]["pending_pushes"] = len(looks)
        await route.fulfill(json=told)

    async def slow(route: Route) -> None:
        lists.append(route.request.url)
        row, enough = secret(f"list-{len(lists)}"), len(looks) + 2

        async def came() -> bool:  # one of them to the page, and changed what that knows
            return len(looks) >= enough

        await until(came)
        await route.fulfill(json={"secrets": [row], "next_cursor": None})

    await door.context.route("**/v1/federation/status?backend_ids=*", busy)
    await door.context.route(f"**/{BACKEND}/secrets*", slow)
    page = await door.enter(f"backends/{BACKEND}/secrets")
    await expect(page.get_by_text("list-1").first).to_be_visible()
    await expect(page.get_by_text("list-2").first).to_be_visible()
    assert len(looks) >= 2 * len(lists)


async def test_trouble_of_one_list_is_not_told_of_another(door: Door) -> None:
    free = asyncio.Event()

    async def paged(route: Route) -> None:
        told: dict[str, object] = {"secrets": [secret("of-all")], "next_cursor": "more"}
        if "cursor=" in route.request.url:
            await free.wait()
            await route.fulfill(status=500, json={"error": {"code": "x", "message": "late"}})
            return
        if "state=" in route.request.url:
            told = {"secrets": [secret("of-one")], "next_cursor": None}
        await route.fulfill(json=told)

    page = await leave_a_list_for_another(door, paged, free)
    await expect(page.get_by_role("alert")).to_have_count(0)


async def test_path_without_a_conflict_is_told_to_have_none(door: Door) -> None:
    page = await door.enter(conflict("apps/billing/db"))
    await expect(page.get_by_text("There is no conflict on this path")).to_be_visible()


async def test_values_of_sides_that_moved_are_not_shown_below_the_old_ones(
    site: Site, door: Door
) -> None:
    path = await site.quarrel()
    await see_no_change(door.context)
    page = await door.enter(conflict(path))
    await expect(page.get_by_role("button", name="Reveal")).to_be_visible()
    marker = site.desk.program.canary.marker
    await site.desk.bao.put(path, {"k": f"{marker}-moved", "same": marker})
    await site.run()
    await page.get_by_role("button", name="Reveal").click()
    told = page.get_by_role("alert").or_(page.get_by_role("button", name="Hide values"))
    await expect(told).to_contain_text("moved while you looked")
    await page.get_by_role("button", name="Reveal").click()
    await expect(page.get_by_text(f"{marker}-moved")).to_be_visible()


async def test_long_list_lets_its_first_rows_go_and_says_so(door: Door) -> None:
    async def endless(route: Route) -> None:
        after = int(parse_qs(urlsplit(route.request.url).query).get("cursor", ["0"])[0])
        rows = [secret(f"row-{number:05}") for number in range(after, after + 400)]
        await route.fulfill(json={"secrets": rows, "next_cursor": str(after + 400)})

    await door.context.route(f"**/{BACKEND}/secrets*", endless)
    page = await door.enter(f"backends/{BACKEND}/secrets")
    rows = page.locator("tbody tr")
    await expect(rows).to_have_count(400)
    await page.get_by_role("button", name="Show more").click()
    await expect(rows).to_have_count(500)
    await expect(rows.first).to_contain_text("row-00300")
    await expect(rows.last).to_contain_text("row-00799")
    await expect(page.get_by_text("The first 300 of this list have made room")).to_be_visible()
    await page.get_by_role("button", name="From the beginning").click()
    await expect(rows).to_have_count(400)
    await expect(rows.first).to_contain_text("row-00000")


async def test_token_that_is_revoked_ends_a_visit_on_a_page_that_asks_once(
    site: Site, door: Door
) -> None:
    token, token_id = await site.token_of("admin")
    await door.context.clock.install()
    page = await door.enter("tokens", token=token)
    await expect(page.get_by_text(token_id)).to_be_visible()
    await site.desk.program("tokens", "revoke", token_id)
    await door.context.clock.fast_forward(31_000)
    await expect(page.get_by_text("You were signed out")).to_be_visible()
    await expect(page.get_by_text(token_id)).to_have_count(0)


# --- numbers, words and fields -----------------------------------------------------------


async def test_number_of_a_value_is_shown_and_written_digit_by_digit(
    site: Site, door: Door
) -> None:
    path = await site.quarrel()
    page = await door.enter(conflict(path))
    await page.get_by_role("radio", name="Write another value").check()
    await page.get_by_label("The value, a JSON object").fill(f'{{"k": {_GREAT}, "n": 1.10}}')
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.post_data or ""))
    await page.get_by_role("button", name="Settle").click()
    await expect(page.get_by_text("The conflict is settled.")).to_be_visible()
    assert any(f'"k": {_GREAT}, "n": 1.10' in body for body in sent)


async def test_value_is_revealed_with_the_digits_that_it_has(site: Site, door: Door) -> None:
    path = await site.quarrel()

    async def numbers(route: Route) -> None:
        answer = await route.fetch()
        marker = site.desk.program.canary.marker
        text = (await answer.text()).replace(f'"{marker}-there"', f'{{"a": [{_GREAT}, "1.10"]}}')
        await route.fulfill(response=answer, body=text.replace(f'"{marker}-here"', "1.10"))

    await door.context.route("**/conflicts?*reveal=true*", numbers)
    page = await door.enter(conflict(path))
    await page.get_by_role("button", name="Reveal values").click()
    shown = page.locator("code.value")
    await expect(shown.first).to_have_text("1.10")
    await expect(shown.nth(1)).to_have_text(f'{{"a":[{_GREAT},"1.10"]}}')


async def test_filters_that_are_shown_are_those_of_the_list(site: Site, door: Door) -> None:
    page = await door.enter("audit")
    await page.get_by_label("Identity").fill("sa:nobody-there")
    await page.get_by_role("button", name="Filter").click()
    await expect(page.get_by_text("Nothing of that kind")).to_be_visible()
    await page.go_back()
    await expect(page.get_by_text("Nothing of that kind")).to_have_count(0)
    await expect(page.get_by_label("Identity")).to_have_value("")
    await page.goto(f"{site.url}/ui/#/migration?prefix=apps")
    await expect(page.get_by_label("Below")).to_have_value("apps")
    await page.goto(f"{site.url}/ui/#/migration?prefix=evil")
    await expect(page.get_by_label("Below")).to_have_value("evil")


async def test_dry_run_is_not_told_to_have_changed_anything(site: Site, door: Door) -> None:
    await site.desk.bao.put("apps/only/planned", {"v": site.desk.program.canary.marker})
    made = await site.call("POST", f"/v1/federation/backends/{BACKEND}/plan", {})
    assert made[0] == 200, made
    page = await door.enter(f"backends/{BACKEND}/runs")
    row = page.get_by_role("row").filter(has_text="dry,").first
    await expect(row).to_contain_text("would be")
    await site.run()


async def test_plan_tells_what_it_leaves_out(site: Site, door: Door) -> None:
    page = await door.enter(f"backends/{EVIL}")
    await page.get_by_role("button", name="Dry run").click()
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_contain_text("1 path would be skipped")
    await expect(dialog).not_to_contain_text("both sides are as the last run left them")


async def test_what_a_list_leaves_out_and_an_anchor_that_is_given_no_more_are_told(
    door: Door,
) -> None:
    async def cut(route: Route) -> None:
        answer = await route.fetch()
        await route.fulfill(response=answer, json={**await answer.json(), "left_out": 17})

    async def old(route: Route) -> None:
        answer = await route.fetch()
        anchor = {"kind": "s3", "first_n": 1, "last_n": 2, "behind": 5, "in_use": False}
        told = {**await answer.json(), "anchors": [anchor]}
        await route.fulfill(response=answer, json=told)

    await door.context.route("**/v1/migration*", cut)
    await door.context.route("**/v1/audit/chains*", old)
    page = await door.enter("migration")
    await expect(page.locator("main")).to_contain_text("17 folders more")
    await page.goto(f"{door.site.url}/ui/#/audit")
    await expect(page.locator("summary")).to_contain_text("anchored nowhere")


async def test_card_of_a_backend_has_room_for_all_that_it_tells(site: Site, door: Door) -> None:
    async def many(route: Route) -> None:
        answer = await route.fetch()
        told = await answer.json()
        worst = {
            "status": "unreachable",
            "unreachable_since": told["at"],
            "cost_per_day": {"amount": 0.01, "currency": "USD"},
            "run": {"run_id": "run_x", "kind": "full", "stage": "list", "to_do": None},
        }
        one = next(found for found in told["backends"] if found["id"] == BACKEND) | worst
        told["backends"] = [{**one, "id": f"fed_{n}", "name": f"many {n}"} for n in range(100)]
        await route.fulfill(json=told)

    await door.context.route("**/v1/federation/status*", many)
    page = await door.enter()
    await page.set_viewport_size({"width": 360, "height": 900})
    card = page.get_by_role("row").filter(has_text="many 1")
    await expect(card.first).to_contain_text("0.01")
    assert await card.first.evaluate("one => one.scrollHeight <= one.clientHeight")


async def test_folders_by_the_thousand_are_painted_a_hundred_at_once(door: Door) -> None:
    async def thousand(route: Route) -> None:
        answer = await route.fetch()
        told = await answer.json()
        one = told["folders"][0]
        told["folders"] = [{**one, "folder": f"team-{n:03}/"} for n in range(1000)]
        await route.fulfill(response=answer, json=told)

    await door.context.route("**/v1/migration*", thousand)
    page = await door.enter("migration")
    rows = page.get_by_role("row").filter(has_text="team-")
    await expect(rows).to_have_count(100)
    await page.get_by_role("button", name="Show more of 1,000 folders").click()
    await expect(rows).to_have_count(200)
