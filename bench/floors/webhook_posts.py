"""Floor of deliveries: one client that signs the same messages and posts them, some at once."""

import asyncio
import base64
import hashlib
import hmac
import os
import time

import aiohttp

from bench.programs import Result, answer
from bench.receivers import receiving

KEY = os.urandom(32)


async def post(http: aiohttp.ClientSession, url: str, name: str, body: bytes) -> None:
    moment = str(int(time.time()))
    signature = hmac.digest(KEY, f"{name}.{moment}.".encode() + body, hashlib.sha256)
    headers = {
        "content-type": "application/json",
        "webhook-id": name,
        "webhook-timestamp": moment,
        "webhook-signature": f"v1,{base64.b64encode(signature).decode()}",
    }
    async with http.post(url, data=body, headers=headers) as response:
        assert response.status == 200
        await response.read()


async def main(given: Result) -> Result:
    """Messages a second, `count` of them of `body`, `at_once` on their way at one time."""
    body = given["body"].encode()
    numbers = iter(range(given["count"]))

    async def sender(http: aiohttp.ClientSession, url: str) -> None:
        for number in numbers:
            await post(http, url, f"evt_{number:026}_whk", body)

    async with receiving() as receiver, aiohttp.ClientSession() as http:
        began, spent = time.perf_counter(), time.process_time()
        await asyncio.gather(*(sender(http, receiver.url) for _ in range(given["at_once"])))
        seconds, spent = time.perf_counter() - began, time.process_time() - spent
        assert len(receiver.arrived) == given["count"]
    return {"per_second": given["count"] / seconds, "cpu_s": spent}


if __name__ == "__main__":
    answer(main)
