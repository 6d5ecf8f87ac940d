"""Floor of reads: a handler that does nothing but answer as many bytes."""

import asyncio
import json
import sys

from aiohttp import web

from bench.programs import Result, answer


async def main(given: Result) -> Result:
    body = b"x" * given["bytes"]

    async def nothing(_request: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    app = web.Application()
    app.add_routes([web.get("/{path:.+}", nothing)])
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
    answer(main)
