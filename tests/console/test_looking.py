"""Does the page show what is so, live, to whoever may see it, and as text?"""

import re

import pytest
from playwright.async_api import Page, Route, expect
from tests.console.conftest import AWAY, BACKEND, EVIL, LIVE, MARKUP, Door, Site
from tests.postgres import connected

pytestmark = pytest.mark.asyncio(loop_scope="session")


def row(page: Page, backend: str) -> str:
    return f"tr:has-text('{backend} ·')"


# --- the door --------------------------------------------------------------------------


async def test_token_that_does_not_count_is_told_in_a_sentence_and_kept_nowhere(
    site: Site, door: Door
) -> None:
    page = await door.context.new_page()
    await page.goto(f"{site.url}/ui/")
    field = page.get_by_label("Token")
    await field.fill("svt_nobody")
    await field.press("Enter")
    await expect(page.get_by_role("alert")).to_contain_text("token")
    await expect(field).to_have_value("")
    assert "svt_nobody" not in await page.content()
    await field.fill(site.token)
    await field.press("Enter")
    await expect(page.get_by_role("heading", name="Backends of default")).to_be_visible()
    assert site.token not in await page.content()
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_text("You are signed out.")).to_be_visible()
    await page.reload()
    await expect(page.get_by_label("Token")).to_be_visible()


async def test_scopes_decide_which_pages_there_are(site: Site, door: Door) -> None:
    token, _ = await site.token_of("federation:read")
    page = await door.enter("audit", token=token)
    await expect(page.get_by_role("heading", name="Your token does not reach here")).to_be_visible()
    pages = page.get_by_role("navigation", name="Pages")
    await expect(pages.get_by_role("link")).to_have_text(["Backends", "Migration", "Webhooks"])
    await page.goto(f"{site.url}/ui/#/backends/{BACKEND}")
    await expect(page.get_by_role("heading", name="applications")).to_be_visible()
    await expect(page.get_by_role("button", name="Sync now")).to_have_count(0)
    await page.goto(f"{site.url}/ui/#/backends/{BACKEND}/secrets")
    await expect(page.get_by_text("Nothing here that you may list")).to_be_visible()


# --- the overview ----------------------------------------------------------------------


async def test_each_backend_is_shown_as_it_is_and_follows_what_happens(
    site: Site, door: Door
) -> None:
    page = await door.enter()
    apps = page.locator(row(page, BACKEND))
    await expect(apps.get_by_role("link", name="applications")).to_be_visible()
    await expect(page.locator(row(page, AWAY))).to_contain_text("unreachable")
    await expect(page.locator(row(page, LIVE))).to_contain_text("read live")
    runs = (await site.call("GET", f"/v1/federation/backends/{BACKEND}/runs"))[1]["runs"]
    strip = apps.get_by_role("img")
    await expect(strip).to_have_attribute(
        "aria-label", re.compile(rf"Last {len(runs)} runs?: .*partial")
    )
    await site.quarrel()
    await expect(apps.get_by_role("link", name="1")).to_be_visible()
    await expect(strip).to_have_attribute("aria-label", re.compile(rf"Last {len(runs) + 2} runs"))
    await expect(apps.locator("time").first).to_have_attribute("title", re.compile("UTC$"))


async def test_search_and_groups_find_one_among_all(door: Door) -> None:
    page = await door.enter()
    await page.get_by_role("link", name="live-reads").wait_for()
    await page.keyboard.press("/")
    await page.keyboard.type("vault WEST")
    names = page.locator(".backends .name > a")
    await expect(names).to_have_text(["data-centre-west"])
    await expect(page.get_by_text("1 of 5 backends")).to_be_visible()
    await page.keyboard.type(" nowhere")
    await page.get_by_role("button", name="Show all again").click()
    await expect(names).to_have_count(5)
    await page.get_by_label("Group by").select_option("health")
    groups = page.locator(".backends .group th")
    await expect(groups).to_have_text([re.compile("healthy"), re.compile("unreachable")])
    await page.get_by_role("button", name="need a look").click()
    await expect(page.get_by_role("link", name="live-reads")).to_have_count(0)


async def test_what_a_backend_holds_is_text_wherever_it_stands(site: Site, door: Door) -> None:
    page = await door.enter()
    named = page.get_by_role("link", name=MARKUP)
    await expect(named).to_be_visible()
    await named.click()
    await expect(page.get_by_role("heading", name=MARKUP)).to_be_visible()
    last = (await site.call("GET", f"/v1/federation/backends/{EVIL}/runs"))[1]["runs"][0]
    await page.goto(f"{site.url}/ui/#/backends/{EVIL}/runs/{last['run_id']}")
    await expect(page.get_by_text("<img src=x", exact=False).first).to_be_visible()
    path = await site.quarrel(EVIL, MARKUP)
    await page.goto(f"{site.url}/ui/#/backends/{EVIL}/conflicts/{path}")
    await page.get_by_role("button", name="Reveal values").click()
    await expect(page.get_by_text(f"{site.desk.program.canary.marker}-there")).to_be_visible()
    await expect(page.get_by_role("row").filter(has_text=MARKUP)).to_be_visible()
    await expect(page.locator("main img")).to_have_count(0)


async def test_thousands_of_backends_stay_usable(site: Site, door: Door) -> None:
    many = 3000
    # Rows as the live backend has them, of other ids and names.
    own = "jsonb_build_object('id', 'fed_many' || n, 'name', 'many-' || lpad(n::text, 4, '0'))"
    renamed = f"{own} || jsonb_build_object('backend_id', 'fed_many' || n, 'state', 'paused')"
    spec = f"jsonb_build_object('spec', (one.spec::jsonb || {own})::text)"
    async with connected(site.desk.database) as admin:
        for table, changes in (
            ("backends", f"{renamed} || {spec}"),
            ("backend_health", "jsonb_build_object('backend_id', 'fed_many' || n)"),
        ):
            await admin.execute(
                f"INSERT INTO {table} SELECT (jsonb_populate_record(one, {changes})).*"
                f" FROM {table} one, generate_series(1, $1) n WHERE backend_id = $2",
                many,
                LIVE,
            )
    try:
        page = await door.enter()
        await expect(page.get_by_text("3,005 backends")).to_be_visible()
        rows = page.locator(".backends tbody tr")
        assert await rows.count() < 100
        await page.get_by_label("Sort by").select_option("name")
        await page.keyboard.press("End")
        await page.mouse.wheel(0, 10_000_000)
        await expect(page.get_by_role("link", name="many-3000")).to_be_visible()
        assert await rows.count() < 100
        await page.get_by_label("Search").fill("many-2718")
        await expect(page.locator(".backends .name > a")).to_have_text(["many-2718"])
        shown = page.locator(".backends")
        await expect(shown).to_contain_text("paused")
        async with connected(site.desk.database) as admin:
            change = "UPDATE backends SET state = 'active' WHERE backend_id = 'fed_many2718'"
            await admin.execute(change)
        await expect(shown).not_to_contain_text("paused")
    finally:
        async with connected(site.desk.database) as admin:
            await admin.execute("DELETE FROM backend_health WHERE backend_id LIKE 'fed_many%'")
            await admin.execute("DELETE FROM backends WHERE backend_id LIKE 'fed_many%'")


# --- when it does not go on ------------------------------------------------------------


async def test_daemon_that_restarts_is_waited_for_and_nothing_is_lost(
    site: Site, door: Door
) -> None:
    page = await door.enter()
    link = page.get_by_role("link", name="live-reads")
    await expect(link).to_be_visible()
    await site.stop()
    try:
        away = page.get_by_role("alert")
        await expect(away).to_contain_text("svsync does not answer")
        await expect(away).to_contain_text("What stands here is of")
        await expect(link).to_be_visible()
    finally:
        await site.start()
    await expect(away).to_have_count(0)
    await expect(link).to_be_visible()


async def test_token_that_is_revoked_ends_the_visit_and_takes_everything_with_it(
    site: Site, door: Door
) -> None:
    token, token_id = await site.token_of("federation:read")
    page = await door.enter(token=token)
    await expect(page.get_by_role("link", name="live-reads")).to_be_visible()
    said = await site.desk.program("tokens", "revoke", token_id)
    assert said.code == 0
    await expect(page.get_by_text("You were signed out")).to_be_visible()
    await expect(page.get_by_label("Token")).to_be_visible()
    await expect(page.get_by_text("live-reads")).to_have_count(0)


# --- by keyboard -----------------------------------------------------------------------


async def test_states_follow_the_runs_and_more_of_a_list_stays_where_it_was(
    site: Site, door: Door
) -> None:
    page = await door.enter(f"backends/{BACKEND}/secrets")
    await expect(page.get_by_role("row").filter(has_text="apps/billing/db")).to_be_visible()
    await site.desk.bao.put("apps/seen/live", {"v": site.desk.program.canary.marker})
    await site.run()
    await expect(page.get_by_role("row").filter(has_text="apps/seen/live")).to_be_visible()

    async def shorter(route: Route) -> None:
        await route.continue_(url=route.request.url.replace("limit=100", "limit=2"))

    await door.context.route(f"**/{BACKEND}/secrets*", shorter)
    page = await door.enter(f"backends/{BACKEND}/secrets")
    rows = page.locator("tbody tr")
    await expect(rows).to_have_count(2)
    await page.get_by_role("button", name="Show more").click()
    await expect(rows).to_have_count(4)
    await site.run()
    await expect(page.get_by_text("This list has changed since.")).to_be_visible()
    await expect(rows).to_have_count(4)
    await page.get_by_role("button", name="Look again").click()
    await expect(rows).to_have_count(2)


async def test_secret_is_found_by_what_its_path_begins_with(door: Door) -> None:
    page = await door.enter(f"backends/{BACKEND}/secrets")
    rows = page.locator("tbody tr")
    await expect(rows.filter(has_text="apps/web/session")).to_be_visible()
    box = page.get_by_label("Path begins with")
    await box.fill("apps/billing/")
    await expect(rows).to_have_count(2)
    await expect(rows.filter(has_text="apps/billing/stripe")).to_be_visible()
    await box.fill("apps/nobody/")
    await expect(page.get_by_text("No secret that you may list is like that.")).to_be_visible()
    await box.fill("no path")
    await expect(page.get_by_role("alert")).to_contain_text("prefix")


async def test_who_has_left_leaves_no_name_in_the_title(door: Door) -> None:
    page = await door.enter(f"backends/{BACKEND}")
    await expect(page).to_have_title(re.compile(BACKEND))
    await page.get_by_role("button", name="Sign out").click()
    await expect(page).to_have_title("svsync")


async def test_everything_is_reached_by_keyboard_and_focus_is_seen(site: Site, door: Door) -> None:
    page = await door.context.new_page()
    await page.goto(f"{site.url}/ui/")
    await page.get_by_label("Token").wait_for()
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator("main")).to_be_focused()
    await page.keyboard.press("Tab")
    await page.keyboard.type(site.token)
    await page.keyboard.press("Enter")
    await page.get_by_role("link", name="live-reads").wait_for()
    await expect(page.locator("main")).to_be_focused()
    for _ in range(20):
        await page.keyboard.press("Tab")
        focused = page.locator(":focus")
        outline = await focused.evaluate("one => getComputedStyle(one).outlineStyle")
        assert outline != "none"
        if await focused.inner_text() == "live-reads":
            break
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="live-reads")).to_be_visible()
    theme = page.get_by_role("button", name="Theme:")
    await theme.focus()
    await page.keyboard.press("Enter")
    await page.keyboard.press("Enter")
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
