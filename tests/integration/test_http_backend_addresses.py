"""Backends over HTTP: where one may connect to, and one of a real store."""

import json
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.api import BACKENDS, Front, open_front
from tests.house import open_house, settings_for
from tests.integration.test_http_backends import CREDENTIAL, patch
from tests.openbao import Bao, credential_json, guide_policy

from svsync.config.model import Settings
from svsync.domain.values import Payload

VAULT = {
    "name": "vault",
    "type": "hashicorp-vault",
    "mode": "sync",
    "path_mapping": {"vault/**": "kv/data/**"},
}


def vault(endpoint: str, **changes: Any) -> dict[str, Any]:
    config = {"endpoint": endpoint, "auth_method": "token", "auth_config_path": CREDENTIAL}
    return {**VAULT, "config": config, **changes}


@pytest.fixture
async def strict(
    database_url: str, admin_url: str, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Front]:
    """A front whose operator allows nothing of loopback."""
    monkeypatch.setattr("tests.house.settings_for", _without_loopback)
    async with open_house(database_url, admin_url, state_dir) as house, open_front(house) as front:
        yield front


def _without_loopback(*given: Any) -> Settings:
    return replace(settings_for(*given), allow_loopback=False)


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://127.0.0.1:8200",
        "https://localhost:8200",
        "https://[::1]:8200",
        "https://[::ffff:127.0.0.1]:8200",
        "https://169.254.169.254",
        "https://10.1.2.3:8200",
        "https://[fd00::1]:8200",
        "https://0.0.0.0:8200",
        "http://vault.example",
    ],
)
async def test_an_endpoint_within_is_refused_at_once(strict: Front, endpoint: str) -> None:
    answer = await strict.client.post(BACKENDS, json=vault(endpoint))
    assert (answer.status, answer.body["error"]["field"]) == (422, "config.endpoint")
    assert len(await strict.house.rows("backends")) == 1


def resolves_to(monkeypatch: pytest.MonkeyPatch, name: str, *addresses: str) -> list[str]:
    """Make a name resolve to these addresses, one after another; what is left of them."""
    left, real = list(addresses), socket.getaddrinfo

    def look_up(host: Any, port: Any, *args: Any, **kwargs: Any) -> Sequence[Any]:
        if host != name:
            return real(host, port, *args, **kwargs)
        address = left.pop(0) if len(left) > 1 else left[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, int(port or 0)))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return left


@pytest.mark.parametrize(
    ("address", "word"),
    [("127.0.0.1", "loopback"), ("169.254.169.254", "metadata"), ("10.1.2.3", "private")],
)
async def test_a_name_that_leads_within_is_not_connected_to(
    strict: Front, monkeypatch: pytest.MonkeyPatch, address: str, word: str
) -> None:
    await strict.house.write(CREDENTIAL, {"token": "t"})
    resolves_to(monkeypatch, "vault.example", address)
    answer = await strict.client.post(BACKENDS, json=vault("https://vault.example"))
    assert (answer.status, answer.body["status"]) == (201, "unreachable")
    [warning] = answer.body["warnings"]
    assert word in warning


# --- a real store ---------------------------------------------------------------------


@pytest.fixture
async def bao(front: Front, kv2: Bao) -> Bao:
    """A store whose credential stands at `CREDENTIAL`."""
    login = await kv2.approle(guide_policy(kv2.mount))
    await front.house.write(CREDENTIAL, Payload.from_json_text(credential_json(login)))
    return kv2


def of_bao(bao: Bao, **changes: Any) -> dict[str, Any]:
    made = vault(bao.url, path_mapping={"vault/**": f"{bao.mount}/data/**"})
    made["config"] |= {"auth_method": "approle"}
    return {**made, **changes}


async def test_a_backend_of_a_real_store_is_made_and_read(front: Front, bao: Bao) -> None:
    await bao.put("app/db", {"password": "p"})
    answer = await front.client.post(f"{BACKENDS}?require_healthy=true", json=of_bao(bao))
    assert (answer.status, answer.body["status"]) == (201, "healthy")
    tested = await front.client.post(f"{answer.headers['Location']}/test")
    assert (tested.body["status"], tested.body["id"]) == ("healthy", answer.body["id"])
    assert tested.body["version"]
    await front.house.run(backend=answer.body["id"])
    assert await front.house.data("vault/app/db") == {"password": "p"}


async def test_a_rule_that_such_a_store_cannot_serve_is_refused_with_the_right_one(
    front: Front, bao: Bao
) -> None:
    wrong = of_bao(bao, path_mapping={"vault/**": f"{bao.mount}/**"})
    answer = await front.client.post(BACKENDS, json=wrong)
    assert answer.status == 422
    assert f"{bao.mount}/data/**" in answer.body["error"]["message"]


async def test_a_login_that_is_refused_and_a_credential_that_is_not_there(
    front: Front, bao: Bao
) -> None:
    body = of_bao(bao)
    body["config"]["auth_config_path"] = "infra/nothing"
    answer = await front.client.post(BACKENDS, json=body)
    assert (answer.status, answer.body["status"]) == (201, "denied")
    assert "infra/nothing" in answer.body["warnings"][0]
    wrong = json.dumps({"role_id": "r", "secret_id": "s-hunter2"})
    await front.house.write(CREDENTIAL, Payload.from_json_text(wrong))
    config = {"auth_config_path": CREDENTIAL}
    at = answer.headers["Location"]
    assert (await patch(front, at, {"config": config})).status == 200
    tested = await front.client.post(f"{at}/test")
    assert (tested.status, tested.body["status"]) == (200, "denied")
    assert "hunter2" not in json.dumps(tested.body)


async def test_a_credential_is_sent_only_where_it_says(front: Front, bao: Bao) -> None:
    login = await bao.approle(guide_policy(bao.mount))
    secret = Payload.from_json_text(credential_json(login))
    elsewhere = {"svsync_endpoints": "https://vault.internal:8200, https://other"}
    await front.house.write(CREDENTIAL, secret, custom=elsewhere)
    answer = await front.client.post(BACKENDS, json=of_bao(bao))
    assert (answer.status, answer.body["status"]) == (201, "denied")
    assert "svsync_endpoints" in answer.body["warnings"][0]
    at = answer.headers["Location"]
    await front.house.write(CREDENTIAL, secret, custom={"svsync_endpoints": f"https://x {bao.url}"})
    assert (await front.client.post(f"{at}/test")).body["status"] == "healthy"
    await front.house.write(CREDENTIAL, secret, custom={"svsync_endpoints": ""})
    assert (await front.client.post(f"{at}/test")).body["status"] == "denied"


async def test_the_address_is_judged_at_each_connection(
    front: Front, bao: Bao, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that leads to the store first and to the cloud's metadata afterwards."""
    left = resolves_to(monkeypatch, "localhost", "127.0.0.1", "169.254.169.254")
    body = of_bao(bao)
    body["config"]["endpoint"] = bao.url.replace("127.0.0.1", "localhost")
    answer = await front.client.post(BACKENDS, json=body)
    assert (answer.status, answer.body["status"]) == (201, "healthy")
    assert left == ["169.254.169.254"]
    tested = await front.client.post(f"{answer.headers['Location']}/test")
    assert tested.body["status"] == "unreachable"
    assert "metadata" in tested.body["warnings"][0]


async def test_svsync_does_not_call_itself(front: Front) -> None:
    listener = front.listener
    front.house.app.registry.know_listeners(frozenset({(listener.host, listener.port)}))
    answer = await front.client.post(BACKENDS, json=vault(listener.url))
    assert (answer.status, answer.body["error"]["field"]) == (422, "config.endpoint")
    assert "own listener" in answer.body["error"]["message"]
