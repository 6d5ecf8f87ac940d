"""A stand-in for AWS with as many secrets as are asked for."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import aiohttp

from bench.rig import name_of, value_of
from svsync.embedded.processes import end_process, free_port

PROGRAM: Final = str(Path(sys.executable).with_name("roto-server"))
REGION: Final = "us-east-1"
_WRITERS: Final = 16
_SIGNED: Final = (
    f"AWS4-HMAC-SHA256 Credential=AKIA/20261129/{REGION}/secretsmanager/aws4_request,"
    " SignedHeaders=host, Signature=00"
)
"""It does not look at what a signature is."""


@asynccontextmanager
async def filled_aws(count: int) -> AsyncIterator[str]:
    """The URL of a server with `count` secrets of 200 bytes, each with a tag."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        PROGRAM,
        "--ephemeral",
        "--port",
        str(port),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}/"
    try:
        async with aiohttp.ClientSession() as http:
            async with asyncio.timeout(30):
                while not await _listens(http, url):  # noqa: ASYNC110 - a server tells nobody
                    await asyncio.sleep(0.05)
            await _fill(http, url, count)
        yield url.rstrip("/")
    finally:
        await end_process(process, 5)


async def _listens(http: aiohttp.ClientSession, url: str) -> bool:
    try:
        await _call(http, url, "ListSecrets", {})
    except aiohttp.ClientConnectionError:
        return False
    return True


async def _fill(http: aiohttp.ClientSession, url: str, count: int) -> None:
    numbers = iter(range(count))

    async def writer() -> None:
        for number in numbers:
            secret: dict[str, object] = {
                "Name": name_of(number),
                "SecretString": json.dumps(value_of(number)),
                "ClientRequestToken": f"{number:032}",
                "Tags": [{"Key": "team", "Value": f"t{number % 10}"}],
            }
            await _call(http, url, "CreateSecret", secret)

    await asyncio.gather(*[writer() for _ in range(_WRITERS)])


async def _call(
    http: aiohttp.ClientSession, url: str, operation: str, body: dict[str, object]
) -> None:
    headers = {
        "X-Amz-Target": f"secretsmanager.{operation}",
        "Content-Type": "application/x-amz-json-1.1",
        "Authorization": _SIGNED,
    }
    async with http.post(url, data=json.dumps(body), headers=headers) as answer:
        assert answer.status == 200, await answer.text()
