"""Floor of reads that pass through and are recorded: as `passing_server`, with a row of each read
that is on disk before the read is answered, written together with others that wait. Nobody is
asked who they are, no row follows from the one before it, and none is found by anything."""

import asyncio
import json
import sys

import aiohttp
import asyncpg
import uvloop
from aiohttp import web

from bench.programs import Result, answer

_TABLE = "CREATE TABLE reads (at timestamptz NOT NULL DEFAULT now(), who text, path text)"
_INSERT = "INSERT INTO reads (who, path) SELECT * FROM unnest($1::text[], $2::text[])"


async def main(given: Result) -> Result:
    """`given`: `url` and `token` of an OpenBao, `dsn` of an empty database."""
    token = {"X-Vault-Token": given["token"]}
    db = await asyncpg.connect(given["dsn"])
    await db.execute(_TABLE)
    waiting: list[tuple[str, str, asyncio.Future[None]]] = []
    some = asyncio.Event()

    async def keep_recording() -> None:
        while True:
            await some.wait()
            some.clear()
            batch, waiting[:] = waiting[:], []
            who, paths, told = zip(*batch, strict=True)
            await db.execute(_INSERT, who, paths)
            for one in told:
                one.set_result(None)

    recording = asyncio.create_task(keep_recording())
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), headers=token) as session:

        async def passing(request: web.Request) -> web.Response:
            async with session.get(given["url"] + request.path) as answered:
                body = await answered.read()
            recorded = asyncio.get_running_loop().create_future()
            waiting.append((request.headers["Authorization"], request.path, recorded))
            some.set()
            await recorded
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
    recording.cancel()
    await db.close()
    return {}


if __name__ == "__main__":
    answer(main, loop=uvloop.new_event_loop)
