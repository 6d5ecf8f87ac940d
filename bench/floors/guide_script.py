"""The script that people write: GET a secret here, PUT it there, one after another.

As written, each call is a client of its own, which loads the certificate
authorities and connects anew, as `httpx.get` does; or one client makes all calls.
The other side is a second mount of the same server: a store that is durable too.
A sample of the secrets is copied; what is told is seconds a secret.
"""

import ssl
import time

import aiohttp
import certifi
import requests

from bench.floors.first_import import list_tokens
from bench.programs import Result, answer


class OneClientACall:
    """A session for each call, with the TLS context that such a client makes."""

    def request(self, method: str, url: str, **options: object) -> requests.Response:
        ssl.create_default_context(cafile=certifi.where())
        with requests.Session() as session:
            return session.request(method, url, **options)  # type: ignore[arg-type]


def copy_secrets(
    client: "OneClientACall | requests.Session", given: Result, names: list[str]
) -> float:
    """Seconds a secret."""
    headers = {"X-Vault-Token": given["root_token"]}
    began = time.perf_counter()
    for name in names:
        got = client.request(
            "GET", f"{given['url']}/v1/{given['mount']}/data/{name}", headers=headers
        )
        data = got.json()["data"]["data"]
        put = client.request(
            "PUT",
            f"{given['url']}/v1/{given['copy_mount']}/data/{name}",
            headers=headers,
            json={"data": data},
        )
        assert put.status_code == 200
    return (time.perf_counter() - began) / len(names)


async def main(given: Result) -> Result:
    async with aiohttp.ClientSession(headers={"X-Vault-Token": given["token"]}) as http:
        listed = await list_tokens(http, given["url"], given["mount"])
    assert len(listed) == given["count"]
    names = [name for name, _ in listed]
    as_written = copy_secrets(OneClientACall(), given, names[: given["sample"]])
    with requests.Session() as session:
        one_client = copy_secrets(session, given, names[: given["sample"] * 4])
    return {"as_written_s": as_written, "one_client_s": one_client}


if __name__ == "__main__":
    answer(main)
