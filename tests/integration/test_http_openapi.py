"""Does the document describe the routes that there are, and no other?"""

import secrets

from tests.api import DOCUMENT, Front, api_of, documented
from tests.house import House

from svsync.app import new_id
from svsync.http.server import make_server
from svsync.services.access import Access


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
    assert open_paths == {"/healthz", "/readyz", "/openapi.json"}
    assert DOCUMENT["security"] == [{"token": []}]
