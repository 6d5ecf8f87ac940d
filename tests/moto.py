"""moto, a stand-in for AWS, as a server of its own; and a bucket in its S3."""

import asyncio
import os
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from tests.program import until

from svsync.embedded.processes import end_process, free_port

KEYS = {"access_key_id": "moto-key", "secret_access_key": "moto-secret"}
"""Any will do, as long as nobody has asked it to look at them."""
_GRACE = 5.0


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def moto(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The address of the worker's own moto. Do not stop it."""
    port = free_port()
    with (tmp_path_factory.mktemp("moto") / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            Path(sys.executable).with_name("moto_server"),
            *("-H", "127.0.0.1", "-p", str(port)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={"PATH": os.defpath, "HOME": "/nonexistent"},
        )
        try:
            url = f"http://127.0.0.1:{port}"
            await until(lambda: _answers(url))
            yield url
        finally:
            await end_process(process, _GRACE)


async def _answers(url: str) -> bool:
    with suppress(aiohttp.ClientError):
        async with aiohttp.ClientSession() as session, session.get(f"{url}/moto-api/") as answer:
            return answer.status == 200
    return False


@dataclass
class Bucket:
    """A bucket as its owner works with it."""

    url: str
    name: str
    client: Any

    async def keys(self) -> list[str]:
        """The names of its objects, as a listing has them."""
        listed = await self.client.list_objects_v2(Bucket=self.name)
        return [one["Key"] for one in listed.get("Contents", ())]

    async def text(self, key: str) -> str:
        answer = await self.client.get_object(Bucket=self.name, Key=key)
        async with answer["Body"] as body:
            data: bytes = await body.read()
        return data.decode()

    async def put(self, key: str, text: str) -> None:
        await self.client.put_object(Bucket=self.name, Key=key, Body=text.encode())

    async def delete(self, key: str) -> None:
        await self.client.delete_object(Bucket=self.name, Key=key)


@asynccontextmanager
async def new_bucket(url: str, **options: Any) -> AsyncIterator[Bucket]:
    """A bucket that nobody else has; `options` as the API's CreateBucket has them."""
    from aiobotocore.session import get_session

    made = get_session().create_client(
        "s3",
        region_name="us-east-1",
        endpoint_url=url,
        **{f"aws_{name}": value for name, value in KEYS.items()},
    )
    async with made as client:
        name = f"audit-{secrets.token_hex(6)}"
        await client.create_bucket(Bucket=name, **options)
        yield Bucket(url, name, client)


@pytest.fixture
async def bucket(moto: str) -> AsyncIterator[Bucket]:
    async with new_bucket(moto) as made:
        yield made
