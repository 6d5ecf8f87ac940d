"""Probes, which need no token and tell nothing that one would: does it live, is it ready."""

from dataclasses import asdict

from aiohttp import web

from svsync.services.readiness import Readiness


def routes(readiness: Readiness) -> list[web.RouteDef]:
    async def live(_request: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def ready(_request: web.Request) -> web.Response:
        found = await readiness.look()
        told = {"ready": found.ready, **asdict(found)}
        return web.json_response(told, status=200 if found.ready else 503)

    return [web.get("/healthz", live), web.get("/readyz", ready)]
