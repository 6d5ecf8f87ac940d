"""The description of the API, served beside it: one document, of a file for each noun."""

import json
from functools import cache
from importlib import resources
from typing import Any

import yaml
from aiohttp import web


@cache
def document() -> str:
    """The files of `document/` put together, as JSON text.

    Raises ValueError where two of them have the same path or component.
    """
    folder = resources.files("svsync.http").joinpath("document")
    whole: dict[str, Any] = yaml.safe_load(folder.joinpath("base.yaml").read_text("utf-8"))
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name == "base.yaml" or not file.name.endswith(".yaml"):
            continue
        part: dict[str, Any] = yaml.safe_load(file.read_text("utf-8"))
        whole["tags"] += part.get("tags", [])
        _join(whole["paths"], part["paths"], file.name)
        for kind, named in part.get("components", {}).items():
            _join(whole["components"].setdefault(kind, {}), named, file.name)
    return json.dumps(whole)


@cache
def codes() -> frozenset[str]:
    """Every code that an answer may have."""
    return frozenset(json.loads(document())["components"]["schemas"]["ErrorCode"]["enum"])


def _join(known: dict[str, Any], more: dict[str, Any], file: str) -> None:
    if twice := known.keys() & more.keys():
        raise ValueError(f"{file} has again what another file has: {', '.join(sorted(twice))}")
    known.update(more)


def routes() -> list[web.RouteDef]:
    async def described(_request: web.Request) -> web.Response:
        return web.Response(text=document(), content_type="application/json")

    return [web.get("/openapi.json", described)]
