"""Is every page one that anybody can read: by screen reader, in the dark, on a telephone?"""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal

import pytest
from playwright.async_api import Browser, Page, expect
from tests.console.conftest import AWAY, BACKEND, EVIL, GUARDED, Site, entering

pytestmark = pytest.mark.asyncio(loop_scope="session")

_AXE: Final = find_spec("axe_playwright_python")
assert _AXE is not None
assert _AXE.origin is not None
AXE: Final = Path(_AXE.origin).with_name("axe.min.js")
WIDTHS: Final = (360, 1280, 2560)
THEMES: Final[tuple[Literal["light", "dark"], ...]] = ("light", "dark")
CHECKED: Final = {(360, "light"), (1280, "light"), (1280, "dark")}
"""By axe. Between the two widths the page changes its shape, between the themes its colours."""
PLACES: Final = {
    "overview": "",
    "backend": f"backends/{BACKEND}",
    "guarded": f"backends/{GUARDED}",
    "away": f"backends/{AWAY}",
    "runs": f"backends/{BACKEND}/runs",
    "run": f"backends/{EVIL}/runs/LAST",
    "secrets": f"backends/{BACKEND}/secrets",
    "conflicts": f"backends/{BACKEND}/conflicts",
    "conflict": f"backends/{BACKEND}/conflicts/PATH",
    "mapping": f"backends/{BACKEND}/mapping",
    "webhooks": "webhooks",
    "webhook": "webhooks/HOOK",
    "audit": "audit",
    "migration": "migration",
    "policies": "policies",
    "policy": "policies/POLICY",
    "tokens": "tokens",
    "keys": "keys",
    "nowhere": "nowhere",
}
_SHOTS: Final = os.environ.get("SVSYNC_SCREENSHOTS", "")
"""A folder for pictures of each page, where somebody wants to look at them."""


@pytest.fixture(scope="module")
def kept() -> dict[str, str]:
    return {}


async def address(site: Site, kept: dict[str, str], place: str) -> str:
    """A place whose ids are those of the site."""
    if not kept:
        kept["PATH"] = await site.quarrel()
        runs = (await site.call("GET", f"/v1/federation/backends/{EVIL}/runs"))[1]["runs"]
        kept["LAST"] = runs[0]["run_id"]
        made = await site.call("POST", "/v1/webhooks", {"url": "http://127.0.0.1:9/svsync"})
        kept["HOOK"] = made[1]["id"]
        rules = [{"path_pattern": "apps/**", "permissions": ["read", "list"]}]
        policy = {"name": "app-readers", "description": "What applications read.", "rules": rules}
        kept["POLICY"] = (await site.call("POST", "/v1/policies", policy))[1]["id"]
        bound = {"identity_type": "service_account", "identity_id": "sa:billing"}
        await site.call("POST", f"/v1/policies/{kept['POLICY']}/bindings", bound)
        await site.run()
    for name, value in kept.items():
        place = place.replace(name, value)
    return place


async def settled(page: Page) -> None:
    """Everything that was asked for is there."""
    await expect(page.locator("h1, .empty")).not_to_have_count(0)
    await expect(page.locator(".waiting")).to_have_count(0)


async def violations(page: Page) -> list[str]:
    found: dict[str, Any] = await page.evaluate("axe.run()")
    return [
        f"{one['id']}: {node['html'][:200]} {node.get('failureSummary', '')}"
        for one in found["violations"]
        for node in one["nodes"]
    ]


async def look(page: Page, place: str) -> None:
    """Hold what is shown against the rules, in each width and both themes."""
    for width in WIDTHS:
        await page.set_viewport_size({"width": width, "height": max(720, width * 9 // 16)})
        await settled(page)
        wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert await page.evaluate(wide) == 0, f"{place} is wider than {width} px"
        for theme in THEMES:
            await page.emulate_media(color_scheme=theme)
            if _SHOTS:
                await page.screenshot(path=f"{_SHOTS}/{place}-{theme}-{width}.png", full_page=True)
            if (width, theme) in CHECKED:
                assert not await violations(page)


@pytest.mark.parametrize("place", PLACES)
async def test_page_is_for_everybody(
    site: Site, browser: Browser, kept: dict[str, str], place: str
) -> None:
    at = await address(site, kept, PLACES[place])
    async with entering(site, browser) as door:
        await door.context.add_init_script(path=AXE)
        await look(await door.enter(at), place)


@pytest.mark.parametrize(
    ("place", "name"), [(f"backends/{GUARDED}", "Dry run"), ("tokens", "Make a token")]
)
async def test_dialog_is_for_everybody(site: Site, browser: Browser, place: str, name: str) -> None:
    async with entering(site, browser) as door:
        await door.context.add_init_script(path=AXE)
        page = await door.enter(place)
        await page.get_by_role("button", name=name).click()
        await page.get_by_role("dialog").get_by_role("checkbox").first.wait_for()
        await look(page, name.replace(" ", "-"))


async def test_door_is_for_everybody(site: Site, browser: Browser) -> None:
    async with entering(site, browser) as door:
        await door.context.add_init_script(path=AXE)
        page = await door.context.new_page()
        await page.goto(f"{site.url}/ui/")
        await page.get_by_label("Token").wait_for()
        await look(page, "door")
