"""Does the document describe the routes that there are, and no other?"""

import re
import secrets
from pathlib import Path

from tests.api import DOCUMENT, Front, api_of, documented
from tests.house import House

from svsync.app import new_id
from svsync.http.server import make_server
from svsync.services.access import Access

PAGE = Path(__file__).parents[2] / "docs/reference/api.md"


async def test_each_route_is_in_the_document_and_the_reverse(house: House) -> None:
    access = Access(house.app.db, ids=new_id, random=secrets.token_bytes)
    server = make_server(api_of(house, access))
    routes = {
        (route.method, route.resource.canonical)
        for route in server.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    assert routes == documented()


async def test_the_document_is_served_without_a_token(front: Front) -> None:
    answer = await front.client.with_token(None).get("/openapi.json")
    assert answer.body == DOCUMENT
    assert answer.body["openapi"] == "3.1.0"


def test_what_needs_no_token_is_said_so() -> None:
    open_paths = {
        path
        for path, operations in DOCUMENT["paths"].items()
        if any(
            operation.get("security") == []
            for operation in operations.values()
            if isinstance(operation, dict)
        )
    }
    console = {"/ui", "/ui/", "/ui/console.js", "/ui/console.css", "/ui/icon.svg"}
    probes = {"/healthz", "/readyz", "/openapi.json"}
    assert open_paths == {*probes, *console, "/ui/config.json"}
    assert DOCUMENT["security"] == [{"token": []}]


def test_the_page_has_each_route_with_its_scope() -> None:
    rows = re.findall(r"^\| `([A-Z]+) (/\S*)` \| (\S+) \|", PAGE.read_text("utf-8"), re.MULTILINE)
    told = {(method, path): scope.strip("`") for method, path, scope in rows}
    assert set(told) == documented()
    for (method, path), scope in told.items():
        about = DOCUMENT["paths"][path][method.lower()].get("description", "")
        assert (scope == "none") or f"Scope: `{scope}`" in about
