"""Does `svsync healthcheck` tell a service that answers from one that does not, and why?"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trustme
from tests.acceptance.conftest import Desk
from tests.acceptance.serving import Served, serving
from tests.postgres import relayed
from tests.program import Program, Said

pytestmark = pytest.mark.asyncio(loop_scope="session")


def with_environment(desk: Desk, *environments: Mapping[str, str]) -> Program:
    """The program, with more in its environment."""
    whole = {**desk.program.environment}
    for environment in environments:
        whole.update(environment)
    return replace(desk.program, environment=whole)


async def checked(desk: Desk, *args: str, **environment: str) -> Said:
    return await with_environment(desk, environment)("healthcheck", *args)


def at(served: Served) -> dict[str, str]:
    """The environment of a service, as far as it says where that listens."""
    host = served.url.partition("://")[2]
    return {
        "BIND_ADDRESS": host,
        "METRICS_ADDRESS": served.metrics.removeprefix("http://").removesuffix("/metrics"),
    }


@asynccontextmanager
async def answering(text: bytes) -> AsyncIterator[str]:
    """Somebody else's port: says this to whoever comes, and hangs up."""

    async def say(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(text)
        writer.close()

    server = await asyncio.start_server(say, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.fixture
def certified(tmp_path: Path) -> dict[str, str]:
    """The settings of a service with a certificate for another name than its address."""
    made = trustme.CA().issue_cert("svsync.internal")
    made.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    (tmp_path / "chain.pem").write_bytes(b"".join(pem.bytes() for pem in made.cert_chain_pems))
    return {
        "TLS_CERT_FILE": str(tmp_path / "chain.pem"),
        "TLS_KEY_FILE": str(tmp_path / "key.pem"),
    }


async def test_service_that_answers_is_alive_and_ready(desk: Desk) -> None:
    async with serving(desk.program, "--role", "api") as served:
        alive = await checked(desk, **at(served))
        assert (alive.code, alive.out) == (0, "alive\n")
        ready = await checked(desk, "--ready", "--json", **at(served))
        where = at(served)["BIND_ADDRESS"]
        assert (ready.code, ready.json) == (0, {"address": where, "status": 200})


async def test_service_that_listens_everywhere_is_asked_on_this_machine(desk: Desk) -> None:
    async with serving(desk.program, "--role", "api", BIND_ADDRESS="0.0.0.0:0") as served:
        port = served.url.rpartition(":")[2]
        assert (await checked(desk, BIND_ADDRESS=f"0.0.0.0:{port}")).code == 0


async def test_service_without_its_store_is_alive_and_not_ready(desk: Desk) -> None:
    async with (
        relayed(desk.program.environment["DATABASE_URL"]) as (relay, url),
        serving(desk.program, "--role", "api", DATABASE_URL=url) as served,
    ):
        relay.leave()
        assert (await checked(desk, **at(served))).code == 0
        said = await checked(desk, "--ready", "--json", **at(served))
        assert (said.code, said.json["error"]["code"]) == (1, "not_ready")
        assert "answers 503" in said.sentence


@pytest.mark.parametrize("text", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1\r\n"])
async def test_port_that_somebody_else_has_is_no_service(desk: Desk, text: bytes) -> None:
    async with answering(text) as address:
        said = await checked(desk, "--json", BIND_ADDRESS=address)
    assert (said.code, said.json["error"]["code"]) == (1, "service_unreachable")
    assert address in said.sentence


async def test_service_that_is_not_there_is_unreachable(desk: Desk) -> None:
    async with answering(b"") as address:
        pass
    said = await checked(desk, BIND_ADDRESS=address)
    assert (said.code, said.out) == (1, "")
    assert "nobody answers" in said.sentence


async def test_service_with_a_certificate_for_its_public_name_is_asked(
    desk: Desk, certified: dict[str, str]
) -> None:
    async with serving(with_environment(desk, certified), "--role", "api") as served:
        assert served.url.startswith("https://")
        said = await checked(desk, "--ready", **{**at(served), **certified})
        assert (said.code, said.out) == (0, "ready\n")
        plain = await checked(desk, **at(served))
        assert plain.code == 1


async def test_service_that_wants_client_certificates_is_asked_at_its_metrics(
    desk: Desk, certified: dict[str, str]
) -> None:
    wanted = {**certified, "TLS_CLIENT_CA_FILE": certified["TLS_CERT_FILE"]}
    async with (
        relayed(desk.program.environment["DATABASE_URL"]) as (relay, url),
        serving(with_environment(desk, wanted), "--role", "api", DATABASE_URL=url) as served,
    ):
        here = {**at(served), **wanted}
        assert (await checked(desk, "--ready", **here)).code == 0
        off = await checked(desk, **{**here, "METRICS_ADDRESS": "off"})
        assert (off.code, off.out) == (2, "")
        assert "metrics_address" in off.sentence
        relay.leave()
        assert (await checked(desk, **here)).code == 0
        assert (await checked(desk, "--ready", **here)).code == 1


async def test_service_of_another_machine_is_no_question_for_it(desk: Desk) -> None:
    """With SVSYNC_URL in the environment this machine's own is asked; `--url` is refused."""
    async with serving(desk.program, "--role", "api") as served:
        elsewhere = {**at(served), "SVSYNC_URL": "https://svsync.internal"}
        assert (await checked(desk, **elsewhere)).code == 0
    named = await checked(desk, "--url", "https://svsync.internal")
    assert named.code == 2
