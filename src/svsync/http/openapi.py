"""The description of the API, served beside it."""

import json
from functools import cache
from importlib import resources

import yaml
from aiohttp import web


@cache
def document() -> str:
    """`openapi.yaml` as JSON text."""
    text = resources.files("svsync.http").joinpath("openapi.yaml").read_text("utf-8")
    return json.dumps(yaml.safe_load(text))


def routes() -> list[web.RouteDef]:
    async def described(_request: web.Request) -> web.Response:
        return web.Response(text=document(), content_type="application/json")

    return [web.get("/openapi.json", described)]
