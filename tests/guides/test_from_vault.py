"""The guide from Vault, followed to its end: fronted, copied, and made the backup."""

import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from tests.guides.conftest import Site
from tests.guides.programs import SCAIVAULT, Reader, needs_curl_and_jq
from tests.openbao import Bao, new_mount

from svsync.embedded.openbao import openbao_binary, openbao_server

pytestmark = [needs_curl_and_jq, pytest.mark.asyncio(loop_scope="session")]

DB = {"host": "db.internal", "port": 5432, "password": "p-1"}
STRIPE = {"secret_key": "sk_live_1", "note": 'a "b" \\ é'}
NEW_DB = "environments/production/billing/database"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def bao(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bao]:
    """An OpenBao of the reader's own, with the guide's mount and what is in it."""
    async with openbao_server(tmp_path_factory.mktemp("openbao")) as server:
        mount = await new_mount(server, name="kv")
        await mount.put("apps/billing/db", DB)
        await mount.put("apps/billing/stripe", STRIPE)
        yield mount


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def reader(bao: Bao, site: Site, tmp_path_factory: pytest.TempPathFactory) -> Reader:
    folder = tmp_path_factory.mktemp("reader")
    (folder / "bin").mkdir()
    (folder / "bin/vault").symlink_to(openbao_binary())
    return Reader(
        "from_vault.md",
        folder,
        {
            "VAULT_ADDR": bao.url,
            "VAULT_TOKEN": bao.root_token,
            "SCAIVAULT_TOKEN": await site.token(
                "user:migrator", "secrets:write", "policies:write", "federation:write", "admin"
            ),
        },
        {
            SCAIVAULT: site.url,
            "https://vault.internal:8200": bao.url,
            "VAULT_TOKEN=...": f"VAULT_TOKEN={bao.root_token}",
        },
    )


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def backend(reader: Reader) -> str:
    """Its id, once the first four steps were taken."""
    stored = json.loads((await reader.follow("role", "credential")).splitlines()[-1])
    assert (stored["path"], stored["version"]) == ("infra/hashicorp/approle", 1)
    made = json.loads(await reader.follow("federation"))
    assert made["status"] == "healthy"
    return str(made["id"])


async def test_inventory_lists_what_the_vault_has(reader: Reader) -> None:
    lines = (await reader.follow("inventory")).splitlines()
    assert "kv/ kv 2" in lines
    assert lines[-1] == "apps/"


async def test_reads_pass_through_in_real_time(reader: Reader, bao: Bao, backend: str) -> None:
    written = await bao.put("apps/billing/db", DB)
    answer = json.loads(await reader.follow("read"))
    assert (answer["data"], answer["version"]) == (DB, written)
    assert answer["federation"] == {
        "backend_id": backend, "mode": "proxy", "synced_at": None, "status": "proxied",
    }  # fmt: skip
    rotated = {**DB, "password": "p-2"}
    await bao.put("apps/billing/db", rotated)
    answer = json.loads(await reader.follow("read"))
    assert (answer["data"], answer["version"]) == (rotated, written + 1), "nothing is a copy yet"


async def test_subtree_is_copied_and_zero_output_means_clean(
    reader: Reader, bao: Bao, site: Site
) -> None:
    copied = (
        f"  apps/billing/db  ->  {NEW_DB}\n"
        "  apps/billing/stripe  ->  environments/production/billing/stripe\n"
    )
    await bao.put("apps/billing/db", DB)
    assert await reader.follow("copy") == copied
    found = await site.get(f"/v1/secrets/{NEW_DB}", reader.environment["SCAIVAULT_TOKEN"])
    assert (found["data"], found["secret_type"]) == (DB, "json")
    assert found["metadata"]["tags"] == ["migrated-from-vault"]
    assert found["metadata"]["description"] == "Migrated from vault: kv/data/apps/billing/db"
    assert await reader.follow("copy", "diff") == copied, "they run as one program"
    # The second program alone, with what the first set up for it.
    _, first = reader.program("copy")
    _, second = reader.program("diff")
    compare = first.partition("\nfor ")[0] + "\n" + second
    assert await reader.run("python", compare) == ""
    await bao.put("apps/billing/db", {**DB, "password": "p-2"})
    assert (await reader.run("python", compare)).startswith("DIFF: apps/billing/db\n")


async def test_log_shows_the_consumer_on_the_new_path(reader: Reader, site: Site) -> None:
    await reader.follow("copy")
    await site.program(
        "policies", "create", "billing", "--rule", "environments/production/billing/**=read"
    )
    await site.program("policies", "bind", "billing", "sa:billing-prod")
    consumer = await site.token("sa:billing-prod", "secrets:read")
    found = await site.get(f"/v1/secrets/{NEW_DB}", consumer)
    [row] = json.loads(await reader.follow("audit"))["logs"]
    told = ("action", "secret_path", "identity_id", "identity_type", "decision", "version")
    assert [row[name] for name in told] == [
        "secret.read", NEW_DB, "sa:billing-prod", "service_account", "allow", found["version"],
    ]  # fmt: skip


async def test_authority_is_flipped_without_a_gap(
    reader: Reader, bao: Bao, site: Site, backend: str
) -> None:
    await bao.put("apps/billing/db", DB)
    reader.names["fed_abc"] = backend
    token = reader.environment["SCAIVAULT_TOKEN"]
    changed = json.loads(await reader.follow("flip"))
    assert [changed[key] for key in ("mode", "sync_interval", "conflict_resolution")] == [
        "sync", "1h", "local_wins",
    ]  # fmt: skip
    assert json.loads(await reader.follow("read"))["data"] == DB, "before it was synced"
    await site.synced(backend, token, 2)
    answer = json.loads(await reader.follow("read"))
    assert (answer["data"], answer["federation"]["mode"]) == (DB, "sync")
    await bao.server.seal()
    assert json.loads(await reader.follow("read"))["data"] == DB, "Vault is the backup now"
