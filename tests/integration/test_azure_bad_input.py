"""Cycles over a Key Vault that is not the one that was meant, does not let svsync in, or holds
what no plain secret is: one sentence and one reason each, nothing lost.

What Azure answers is by the pages that `tests.azure_vault` and `tests.azure_fake` name.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.aws_house import Database
from tests.azure import KEYS
from tests.azure_fake import CLIENT, OTHER_TENANT, TENANT, AzureFake
from tests.azure_house import house_of
from tests.azure_vault import Vault
from tests.house import ENDINGS, WORK, House, counts, failure, skips
from tests.waiting import try_once
from tests.writes import put, state

from svsync.domain.errors import SvsyncError
from svsync.domain.federation import OnRemoteDelete, RuleSpec, Writes
from svsync.domain.ids import TenantId
from svsync.domain.runs import RunResult
from svsync.services.backend_trials import try_backend

MARK = "canary-of-azure"
ELSEWHERE = "no-such-vault.vault.azure.net"
Break = Callable[[AzureFake, Vault], Any]


async def kept(house: House) -> dict[str, list[str]]:
    """Everything but what the end of any run writes."""
    return await house.dump(without=WORK | ENDINGS | {"backends"})


def sentence(ended: Any) -> str:
    """What the run's end says, which is one sentence and nothing of Azure's."""
    assert ended.record.error is not None
    said: str = ended.record.error.message
    assert MARK not in said
    assert "\n" not in said
    assert ". " not in said
    return said


HEALTH = {
    "backend_unreachable": "unreachable",
    "protocol_error": "degraded",
    "throttled": "degraded",
}
"""What a connection test says of a backend for each code; denied for any other."""


async def tried(house: House, reason: str, says: str) -> None:
    """The connection test says the same, in one sentence."""
    trial = await try_backend(
        house.app.db, house.app.registry, house.spec, TenantId(1), stored=True
    )
    assert trial.status == HEALTH.get(reason, "denied")
    if trial.warnings:
        [said] = trial.warnings
        assert says in said
        assert MARK not in said
        assert ". " not in said
    else:
        assert all(check.hint for check in trial.checks if check.state == "missing")


# --- the vault as a whole -------------------------------------------------------------


def _other_directory(fake: AzureFake, vault: Vault) -> None:
    vault.tenant = OTHER_TENANT


def _firewall(fake: AzureFake, vault: Vault) -> None:
    vault.forbids = "ForbiddenByFirewall"


def _no_right(fake: AzureFake, vault: Vault) -> None:
    vault.permissions = set()


def _something_else(fake: AzureFake, vault: Vault) -> None:
    fake.answer("", lambda _: web.Response(text=f"<html>{MARK}</html>"))


def _not_resolved(fake: AzureFake, vault: Vault) -> None:
    fake.resolver.unknown.add(vault.url.removeprefix("https://"))


def _refused(number: int) -> Break:
    def refuse(fake: AzureFake, vault: Vault) -> None:
        fake.entra.refuses = number

    return refuse


def _answers(status: int, code: str) -> Break:
    return lambda fake, vault: fake.refuse_as("", status, code)


@pytest.mark.parametrize(
    ("breaks", "reason", "says"),
    [
        (_not_resolved, "backend_unreachable", "config.vault_url"),
        (_something_else, "protocol_error", "config.vault_url"),
        (_other_directory, "wrong_tenant", "config.vault_url"),
        (_firewall, "backend_denied", "firewall"),
        (_no_right, "backend_denied", "may list nothing of what it holds"),
        (_refused(90002), "login_failed", "tenant_id"),
        (_refused(700016), "login_failed", "client_id"),
        (_refused(7000222), "login_failed", "expired"),
        (_answers(429, "Throttled"), "throttled", "slow down"),
        (_answers(500, "InternalServerError"), "backend_unreachable", "failed"),
    ],
)
async def test_vault_that_cannot_be_used_ends_a_cycle_with_one_reason_and_changes_nothing(
    azure_fake: AzureFake,
    vault: Vault,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    breaks: Break,
    reason: str,
    says: str,
) -> None:
    try_once(monkeypatch)
    vault.put("a", '{"k": "1"}')
    vault.put("b", '{"k": "1"}')
    settings: dict[str, Any] = {
        "on_remote_delete": OnRemoteDelete.SOFT_DELETE,
        "writes": Writes.WRITE_THROUGH,
    }
    async with house_of(azure_fake, vault, database, **settings) as house:
        await house.run()
        vault.put("a", '{"k": "2"}')
        vault.remove("b")
        before, there = await kept(house), dict(vault.live)
        permissions = set(vault.permissions)
        breaks(azure_fake, vault)
        ended = await house.run()
        assert (ended.record.result, failure(ended)) == (RunResult.FAILED, reason)
        assert says in sentence(ended)
        assert await kept(house) == before
        await tried(house, reason, says)
        with pytest.raises(SvsyncError) as refused:
            await put(house, "ext/a", {"k": "mine"})
        assert MARK not in refused.value.message
        assert [await house.data(f"ext/{name}") for name in "ab"] == [{"k": "1"}] * 2
        assert vault.live == there
        assert (await house.events())[-1] == "federation.sync.failed"

        azure_fake.rules.clear()
        azure_fake.resolver.unknown.clear()
        azure_fake.entra.refuses, vault.tenant, vault.forbids = 0, TENANT, ""
        vault.permissions = permissions
        assert failure(await house.run()) is None
        assert await house.data("ext/a") == {"k": "2"}
        assert await house.paths() == ["ext/a"]


async def test_vault_that_was_named_wrongly_deletes_nothing_and_is_put_right(
    azure_fake: AzureFake, vault: Vault, database: Database
) -> None:
    vault.put("a", '{"k": "1"}')
    other = azure_fake.vault(f"{vault.name}-other")
    settings: dict[str, Any] = {
        "on_remote_delete": OnRemoteDelete.SOFT_DELETE,
        "writes": Writes.WRITE_THROUGH,
        "propagate_deletes": True,
    }
    async with house_of(azure_fake, vault, database, **settings) as house:
        await house.run()
        config = house.spec.config
        await house.configure(config={**config, "vault_url": other.url})
        assert counts(await house.run()) == {"detached": 1}
        assert await house.data("ext/a") == {"k": "1"}
        await house.configure(config=config)
        await house.run()
        assert await house.status("ext/a") == "in_sync"
        assert await house.versions("ext/a") == [{"k": "1"}]
    assert (vault.value("a"), other.live) == ('{"k": "1"}', {})


async def test_first_run_on_a_vault_that_is_not_there_leaves_nothing_and_is_put_right(
    azure_fake: AzureFake, vault: Vault, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    try_once(monkeypatch)
    azure_fake.resolver.unknown.add(ELSEWHERE)
    vault.put("a", '{"k": "1"}')
    async with house_of(
        azure_fake, vault, database, config={"vault_url": f"https://{ELSEWHERE}"}
    ) as house:
        ended = await house.run()
        assert failure(ended) == "backend_unreachable"
        assert "config.vault_url" in sentence(ended)
        assert await house.rows("secrets") == await house.rows("sync_state") == []
        await house.configure(config={**house.spec.config, "vault_url": vault.url})
        assert counts(await house.run()) == {"listed": 1, "created": 1}


@pytest.mark.parametrize("url", ["http://a.vault.azure.net", "https://example.com", "a"])
async def test_address_that_is_no_vaults_is_refused_when_it_is_configured(
    azure_fake: AzureFake, vault: Vault, database: Database, url: str
) -> None:
    async with house_of(azure_fake, vault, database) as house:
        with pytest.raises(SvsyncError, match="vault_url") as refused:
            await house.configure(config={**house.spec.config, "vault_url": url})
        assert refused.value.code == "invalid_configuration"


# --- who signs in -----------------------------------------------------------------------


async def test_federated_token_that_has_expired_fails_the_run_and_a_new_one_goes_on(
    azure_fake: AzureFake,
    vault: Vault,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    file = tmp_path / "token"
    for name, text in (
        ("AZURE_FEDERATED_TOKEN_FILE", str(file)),
        ("AZURE_CLIENT_ID", CLIENT),
        ("AZURE_TENANT_ID", TENANT),
    ):
        monkeypatch.setenv(name, text)
    file.write_text("first")
    azure_fake.entra.federated = {"first"}
    vault.put("a", '{"k": "1"}')
    config = {"auth_method": "workload_identity", "credentials_path": None}
    async with house_of(azure_fake, vault, database, config=config) as house:
        await house.run()
        before = await kept(house)
        azure_fake.entra.federated = {"second"}
        azure_fake.entra.refuses = 700024
        ended = await house.run()
        assert failure(ended) == "login_failed"
        assert "expired" in sentence(ended)
        assert await kept(house) == before
        azure_fake.entra.refuses = 0
        file.write_text("second")
        assert counts(await house.run()) == {"listed": 1, "unchanged": 1}


async def test_clock_that_is_wrong_fails_the_run_and_changes_nothing(
    azure_fake: AzureFake, vault: Vault, database: Database, rsa_pem: tuple[str, bytes]
) -> None:
    pem, azure_fake.entra.certificate = rsa_pem
    given = json.loads(KEYS) | {"certificate_pem": pem}
    del given["client_secret"]
    vault.put("a", '{"k": "1"}')
    config = {"auth_method": "certificate"}
    environ = {"AZURE_KEYS": json.dumps(given)}
    async with house_of(azure_fake, vault, database, config=config, environ=environ) as house:
        await house.run()
        before = await kept(house)
        azure_fake.entra.ahead = 7200
        ended = await house.run()
        assert failure(ended) == "clock_skew"
        assert "clock" in sentence(ended)
        assert await kept(house) == before


# --- secrets that are no plain value with a plain name ------------------------------------


async def test_each_odd_secret_has_its_reason_and_the_others_come(
    azure_fake: AzureFake, vault: Vault, database: Database
) -> None:
    """Key Vault holds texts: bytes come as whatever text they were made into, and a content
    type says no more than that somebody wrote it."""
    vault.put("plain", '{"k": "v"}')
    vault.put("bytes", "AP8=", content_type="application/octet-stream")
    vault.put("nothing", "")
    vault.put("broken", '{"k": "\ud800"}')
    vault.put("twice", '{"k": 1, "k": 2}')
    vault.put("large", "x" * 2001)
    vault.put("off", "v", enabled=False)
    vault.put("old", "v", exp=vault.now)
    vault.put("early", "v", nbf=vault.now + 100_000)
    vault.put("deleted", "v")
    vault.delete("deleted")
    settings: dict[str, Any] = {"max_value_bytes": 2000, "max_error_ratio": 1.0}
    async with house_of(azure_fake, vault, database, **settings) as house:
        for _ in range(2):
            ended = await house.run()
            assert ended.record.result is RunResult.PARTIAL
            assert skips(ended) == {
                "broken": "undecodable",
                "large": "value_too_large",
                "early": "unreadable",
            }
        assert await house.paths() == ["ext/bytes", "ext/nothing", "ext/plain", "ext/twice"]
        assert await house.data("ext/bytes") == {"value": "AP8="}
        assert await house.data("ext/twice") == {"value": '{"k": 1, "k": 2}'}


@pytest.mark.parametrize("gone", ["off", "old", "deleted", "purged"])
async def test_secret_that_goes_is_deleted_here_recoverably_and_comes_again(
    azure_fake: AzureFake, vault: Vault, database: Database, gone: str
) -> None:
    """Disabled, expired, scheduled to be purged, and purged."""
    vault.put("a", '{"k": "1"}')
    vault.put("b", '{"k": "1"}')
    removal = OnRemoteDelete.SOFT_DELETE
    async with house_of(azure_fake, vault, database, on_remote_delete=removal) as house:
        await house.run()
        if gone == "off":
            vault.touch("a", enabled=False)
        elif gone == "old":
            vault.touch("a", exp=vault.now)
        elif gone == "deleted":
            vault.delete("a")
        else:
            vault.remove("a")
        ended = await house.run()
        assert (skips(ended), counts(ended)["deleted"]) == ({}, 1)
        assert await house.paths() == ["ext/b"]
        assert await house.data("ext/a", 1) == {"k": "1"}, "its history stays"
        vault.put("a", '{"k": "2"}')
        await house.run()
        assert await house.data("ext/a") == {"k": "2"}


@pytest.mark.parametrize(
    ("path", "size", "reason"),
    [
        ("ext/" + "n" * 128, 10, "name_not_allowed"),
        ("ext/a.b", 10, "name_not_allowed"),
        ("ext/a_b", 10, "name_not_allowed"),
        ("ext/a", 25 * 1024 + 1, "value_too_large"),
    ],
)
async def test_write_that_no_vault_would_take_is_not_sent(
    azure_fake: AzureFake, vault: Vault, database: Database, path: str, size: int, reason: str
) -> None:
    """A name has 127 letters, digits and dashes, a value 25 KB at most [About Azure Key Vault
    secrets, key-vault/secrets/about-secrets]."""
    async with house_of(azure_fake, vault, database, writes=Writes.WRITE_THROUGH) as house:
        await house.run()
        with pytest.raises(SvsyncError) as refused:
            await put(house, path, {"k": "x" * size})
        assert refused.value.code == reason
        assert "x" * 10 not in refused.value.message
        assert azure_fake.calls("^PUT") == 0
        assert await house.paths() == []
        assert state(await put(house, "ext/b", {"k": "v"})) == "applied"
        assert failure(await house.run()) is None


async def test_name_that_no_vault_would_take_stays_a_local_one_where_it_is_there_already(
    azure_fake: AzureFake, vault: Vault, database: Database
) -> None:
    elsewhere = (RuleSpec("other/*", "*"),)
    async with house_of(azure_fake, vault, database, rules=elsewhere) as house:
        await house.write("ext/a.b", {"k": "1"})
        await house.configure(rules=(RuleSpec("ext/*", "*"),), writes=Writes.WRITE_THROUGH)
        assert state(await put(house, "ext/a.b", {"k": "2"})) == "not_configured"
        assert failure(await house.run()) is None
        assert await house.data("ext/a.b") == {"k": "2"}
    assert vault.live == {}
