"""Floor of reads that pass through: the same two libraries that svsync has, a server's and a
client's, with nothing between them: nobody is asked who they are, and nothing is recorded."""

import asyncio
import json
import sys

import aiohttp
import uvloop
from aiohttp import web

from bench.programs import Result, answer


async def main(given: Result) -> Result:
    """`given`: `url` and `token` of an OpenBao."""
    token = {"X-Vault-Token": given["token"]}
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), headers=token) as session:

        async def passing(request: web.Request) -> web.Response:
            async with session.get(given["url"] + request.path) as answered:
                body = await answered.read()
            return web.Response(body=body, content_type="application/json")

        app = web.Application()
        app.add_routes([web.get("/{path:.+}", passing)])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        assert runner.addresses
        print(json.dumps({"url": f"http://127.0.0.1:{runner.addresses[0][1]}"}), flush=True)
        await asyncio.to_thread(sys.stdin.read)
        await runner.cleanup()
    return {}


if __name__ == "__main__":
    answer(main, loop=uvloop.new_event_loop)
