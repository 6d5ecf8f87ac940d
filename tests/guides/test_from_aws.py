"""The guide from AWS Secrets Manager, followed to its end: synced, and copied by its consumers."""

import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from tests.aws import Aws, server
from tests.guides.conftest import Site
from tests.guides.programs import SCAIVAULT, Reader, needs_curl_and_jq

pytestmark = [needs_curl_and_jq, pytest.mark.asyncio(loop_scope="session")]

STRIPE = {"secret_key": "sk_live_1", "note": 'a "b" $c'}
DATABASE = {"username": "billing", "password": "p-1"}
SALESFORCE = {"client_id": "3MVG9", "client_secret": "s-1"}
NEW_STRIPE = "/v1/secrets/environments/production/billing/stripe"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def aws() -> AsyncIterator[Aws]:
    """An AWS of the reader's own, with the names that the guide reads."""
    async with server("roto-server", "--ephemeral", "--port") as found:
        await found.put("prod/billing/stripe", STRIPE, environment="production")
        await found.put("prod/billing/database", DATABASE)
        await found.put("prod/reporting/salesforce", SALESFORCE)
        await found.put("dev/billing/stripe", {"secret_key": "not taken"})
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def reader(aws: Aws, site: Site, tmp_path_factory: pytest.TempPathFactory) -> Reader:
    token = await site.token("user:migrator", "secrets:write", "federation:write", "admin")
    names = {
        SCAIVAULT: site.url,
        '"AKIA..."': '"AKIAEXAMPLE"',
        '"secret_access_key": "..."': '"secret_access_key": "of-nobody"',
        '"region": "us-east-1",': f'"region": "us-east-1", "endpoint_url": "{aws.url}",',
        "scaivault_sdk": "svsync.client",
        "SyncScaiVaultClient": "SyncClient",
        "base_url=..., token=...": f'base_url="{site.url}", token="{token}"',
    }
    return Reader(
        "from_aws.md", tmp_path_factory.mktemp("reader"), {"SCAIVAULT_TOKEN": token}, names
    )


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def backend(reader: Reader, site: Site) -> str:
    """Its id, once it was made by the third and fourth step and has synced."""
    assert json.loads(await reader.follow("credential"))["version"] == 1
    made = json.loads(await reader.follow("federation"))
    assert made["status"] == "healthy", made
    await site.synced(made["id"], reader.environment["SCAIVAULT_TOKEN"], 3)
    return str(made["id"])


async def test_what_aws_has_is_synced_and_read(reader: Reader, backend: str) -> None:
    answer = json.loads(await reader.follow("read"))
    assert (answer["data"], answer["version"]) == (STRIPE, 1)
    assert answer["metadata"]["tags"] == ["environment=production"]
    assert (answer["federation"]["backend_id"], answer["federation"]["mode"]) == (backend, "sync")


@pytest.mark.usefixtures("backend")
async def test_secrets_move_to_their_new_paths(reader: Reader, site: Site) -> None:
    token = reader.environment["SCAIVAULT_TOKEN"]
    assert json.loads(await reader.follow("copy of one"))["version"] == 1
    found = await site.get(NEW_STRIPE, token)
    assert (found["data"], found["metadata"]["owner"]) == (STRIPE, "team:billing")
    assert found["metadata"]["tags"] == ["billing", "migrated-from-asm", "stripe"]
    told = (await reader.follow("copy")).splitlines()
    assert told[-1] == "  external/aws/reporting/salesforce -> shared/integrations/salesforce/oauth"
    assert (await site.get(NEW_STRIPE, token))["version"] == 2
    moved = await site.get("/v1/secrets/shared/integrations/salesforce/oauth", token)
    assert (moved["data"], moved["secret_type"]) == (SALESFORCE, "json")
    _, consumer = reader.program("consumer")
    shown = await reader.run("python", f"{consumer}\nimport json\nprint(json.dumps(secret))")
    assert json.loads(shown) == STRIPE
