"""Do the pages of webhooks, the audit log, policies, tokens and keys do what they say?"""

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import expect
from tests.console.conftest import Door, Site
from tests.program import until
from tests.receivers import Receiver

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as opened:
        yield opened


async def test_deliveries_are_shown_and_sent_again(
    site: Site, door: Door, receiver: Receiver
) -> None:
    made = await site.call("POST", "/v1/webhooks", {"url": receiver.url})
    hook = made[1]["id"]
    run = await site.run()
    await receiver.received(1)

    async def delivered() -> bool:
        found = await site.call("GET", f"/v1/webhooks/{hook}/deliveries?state=delivered")
        return bool(found[1]["deliveries"])

    await until(delivered)
    page = await door.enter("webhooks")
    await page.get_by_role("link", name=receiver.url).click()
    row = page.get_by_role("row").filter(has_text="federation.sync.completed").first
    await expect(row).to_contain_text("delivered")
    await row.get_by_role("button", name="Replay").click()
    await expect(page.get_by_text("1 delivery will be sent again.")).to_be_visible()
    await receiver.received(2)
    assert receiver.got[0].json["data"]["run_id"] == run["run_id"]
    assert receiver.got[1].id == receiver.got[0].id
    await page.get_by_role("button", name="Send a test").click()
    await expect(page.get_by_text("It arrived: status 200")).to_be_visible()
    await page.get_by_role("button", name="Replay what is dead").click()
    await expect(page.get_by_text("Nothing is dead")).to_be_visible()


async def test_log_is_filtered_and_its_chains_are_told(site: Site, door: Door) -> None:
    await site.call("GET", "/v1/secrets/apps/billing/db")
    token, _ = await site.token_of("secrets:read", identity="sa:stranger")
    assert (await site.call("GET", "/v1/secrets/apps/billing/db", token=token))[0] in (403, 404)
    page = await door.enter("audit")
    rows = page.get_by_role("row").filter(has_text="apps/billing/db")
    await expect(rows).to_have_count(2)
    await page.get_by_label("Path").fill("apps/billing/**")
    await page.get_by_label("Decision").select_option("deny")
    await page.get_by_role("button", name="Filter").click()
    await expect(rows).to_have_count(1)
    await expect(rows).to_contain_text("sa:stranger")
    await expect(page).to_have_url(re.compile("#/audit.*decision=deny"))
    await page.get_by_label("From", exact=True).fill("last week")
    await page.get_by_role("button", name="Filter").click()
    await expect(page.get_by_role("alert")).to_contain_text("from")
    await page.get_by_role("button", name="Clear").click()
    await expect(rows).to_have_count(2)
    await page.locator("summary").click()
    await expect(page.get_by_role("table", name="Chains")).to_be_visible()


async def test_why_somebody_may_read_is_told_by_the_rule(site: Site, door: Door) -> None:
    rules = [{"path_pattern": "apps/billing/**", "permissions": ["read"]}]
    made = await site.call("POST", "/v1/policies", {"name": "billing-reader", "rules": rules})
    bound = {"identity_type": "service_account", "identity_id": "sa:billing"}
    await site.call("POST", f"/v1/policies/{made[1]['id']}/bindings", bound)
    page = await door.enter("policies")
    await page.get_by_label("Path", exact=True).fill("apps/billing/stripe")
    await page.get_by_label("Identity").fill("sa:billing")
    await page.keyboard.press("Enter")
    await expect(page.locator("main")).to_contain_text("by rule 1 of billing-reader")
    await page.get_by_label("Identity").fill("sa:other")
    await page.keyboard.press("Enter")
    near = page.get_by_role("row").filter(has_text="it is bound to sa:billing")
    await expect(near).to_be_visible()
    await near.get_by_role("link", name="billing-reader").click()
    await expect(page.get_by_role("heading", name="billing-reader")).to_be_visible()
    await expect(page.get_by_role("row").filter(has_text="sa:billing")).to_be_visible()


async def test_token_is_made_shown_once_and_revoked(site: Site, door: Door) -> None:
    page = await door.enter("tokens")
    await page.get_by_role("button", name="Make a token").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("For whom").fill("sa:nightly")
    await dialog.get_by_label("federation:read").check()
    await dialog.get_by_role("button", name="Make it").click()
    text = await dialog.locator("pre").inner_text()
    status, who = await site.call("GET", "/v1/auth/whoami", token=text)
    assert (status, who["identity_id"], who["scopes"]) == (200, "sa:nightly", ["federation:read"])
    await dialog.get_by_role("button", name="It is copied").click()
    await expect(dialog).to_have_count(0)
    assert text not in await page.content()
    row = page.get_by_role("row").filter(has_text=who["token_id"])
    await row.get_by_role("button", name="Revoke").click()
    await expect(dialog).to_contain_text("sa:nightly")
    assert (await site.call("GET", "/v1/auth/whoami", token=text))[0] == 200
    await dialog.get_by_role("button", name="Revoke it").click()
    await expect(row).to_contain_text("revoked")
    assert (await site.call("GET", "/v1/auth/whoami", token=text))[0] == 401


async def test_migration_is_told_folder_by_folder_with_the_next_step(
    site: Site, door: Door
) -> None:
    await site.quarrel()
    page = await door.enter("migration")
    row = page.get_by_role("row").filter(has_text="apps/")
    await expect(row).to_contain_text("resolve")
    await expect(page.get_by_text("What cannot be known from here")).to_be_visible()
    await expect(page.locator("main")).to_contain_text("live/**")
    known = (await site.call("GET", "/v1/migration"))[1]["folders"]
    [apps] = [folder for folder in known if folder["folder"] == "apps/"]
    await expect(row.get_by_role("img")).to_have_attribute(
        "aria-label", re.compile(f"{apps['synced']} synced of {apps['federated']} federated")
    )
    await row.get_by_role("link", name="apps/").click()
    await expect(page.get_by_label("Below")).to_have_value("apps")
    await expect(page.get_by_role("row").filter(has_text="billing/")).to_be_visible()
    await expect(page.get_by_text("directly in it")).to_be_visible()
    await page.get_by_role("link", name="all", exact=True).click()
    await expect(row).to_be_visible()


async def test_keys_are_told_by_their_ages(site: Site, door: Door) -> None:
    page = await door.enter("keys")
    known = (await site.call("GET", "/v1/keys"))[1]["keys"]
    await expect(page.get_by_role("row")).to_have_count(len(known) + 1)
    await expect(page.get_by_role("row").filter(has_text="root 1").first).to_contain_text("active")
