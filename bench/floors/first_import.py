"""Floor of a first import: list, GET each, fingerprint, seal, COPY into one table."""

import asyncio
import hmac
import json
import os
import time
from collections import deque
from typing import Any

import aiohttp
import asyncpg
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bench.programs import Result, answer

LISTERS, READERS, PAGE, BATCH = 4, 16, 500, 500
Listed = list[tuple[str, str]]
"""Path below the mount, and the token that tells one version from another."""
_TABLE = """
CREATE TABLE import_floor (path text NOT NULL, secret_id bigint NOT NULL, version int NOT NULL,
  key_id int NOT NULL, nonce bytea NOT NULL, sealed bytea NOT NULL, fp bytea NOT NULL,
  token text NOT NULL, created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (secret_id, version))
"""
_COLUMNS = ("path", "secret_id", "version", "key_id", "nonce", "sealed", "fp", "token")


async def list_tokens(http: aiohttp.ClientSession, url: str, mount: str) -> Listed:
    """Every secret below the mount by paged `detailed-metadata`, four folders at a time."""
    folders: asyncio.Queue[str] = asyncio.Queue()
    folders.put_nowait("")
    found: Listed = []

    async def one_folder(folder: str) -> None:
        after = ""
        while True:
            query = f"list=true&limit={PAGE}&after={after}"
            place = f"{url}/v1/{mount}/detailed-metadata/{folder}?{query}"
            async with http.get(place) as response:
                if response.status == 404:
                    return
                data: dict[str, Any] = json.loads(await response.read())["data"]
            for key in data["keys"]:
                if key.endswith("/"):
                    folders.put_nowait(folder + key)
                else:
                    info = data["key_info"][key]
                    number = info["current_version"]
                    made = info["versions"][str(number)]["created_time"]
                    found.append((folder + key, f"{number}|{made}"))
            if len(data["keys"]) < PAGE:
                return
            after = data["keys"][-1]

    async def lister() -> None:
        while True:
            await one_folder(await folders.get())
            folders.task_done()

    listers = [asyncio.create_task(lister()) for _ in range(LISTERS)]
    await folders.join()
    for task in listers:
        task.cancel()
    return found


async def first_import(
    http: aiohttp.ClientSession, db: "asyncpg.Connection[Any]", url: str, mount: str
) -> int:
    names = deque(enumerate(await list_tokens(http, url, mount)))
    cipher, key = AESGCM(os.urandom(32)), hmac.new(os.urandom(32), b"", "sha256")
    rows: list[tuple[object, ...]] = []
    writing = asyncio.Lock()

    async def write() -> None:
        batch, rows[:] = rows[:], []
        async with writing, db.transaction():
            await db.copy_records_to_table("import_floor", columns=_COLUMNS, records=batch)

    async def reader() -> None:
        while names:
            number, (path, token) = names.popleft()
            async with http.get(f"{url}/v1/{mount}/data/{path}") as response:
                assert response.status == 200
                data = json.loads(await response.read())["data"]["data"]
            text = json.dumps(data, sort_keys=True, separators=(",", ":")).encode()
            fingerprint = key.copy()
            fingerprint.update(text)
            nonce = os.urandom(12)
            sealed = cipher.encrypt(nonce, text, path.encode())
            rows.append((path, number, 1, 1, nonce, sealed, fingerprint.digest(), token))
            if len(rows) >= BATCH:
                await write()

    await asyncio.gather(*[reader() for _ in range(READERS)])
    await write()
    return await db.fetchval("SELECT count(*) FROM import_floor")  # type: ignore[no-any-return]


async def main(given: Result) -> Result:
    db = await asyncpg.connect(given["dsn"])
    await db.execute("DROP TABLE IF EXISTS import_floor")
    await db.execute(_TABLE)
    async with aiohttp.ClientSession(headers={"X-Vault-Token": given["token"]}) as http:
        began, spent = time.perf_counter(), time.process_time()
        done = await first_import(http, db, given["url"], given["mount"])
        seconds, spent = time.perf_counter() - began, time.process_time() - spent
    assert done == given["count"], done
    await db.close()
    return {"seconds": seconds, "cpu_s": spent}


if __name__ == "__main__":
    answer(main)
