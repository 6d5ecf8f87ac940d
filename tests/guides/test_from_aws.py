"""The guide from AWS Secrets Manager, followed to its end: synced, and copied by its consumers."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import aiohttp
import pytest
from tests.guides.conftest import Site
from tests.guides.programs import SCAIVAULT, Reader, needs_curl_and_jq
from tests.program import until

from svsync import registry
from svsync.embedded.processes import end_process, free_port

pytestmark = [
    needs_curl_and_jq,
    pytest.mark.skipif(
        "aws-secrets-manager" in registry._LATER, reason="this type of backend is not there yet"
    ),
]

STRIPE = {"secret_key": "sk_live_1", "note": 'a "b" $c'}
DATABASE = {"username": "billing", "password": "p-1"}
SALESFORCE = {"client_id": "3MVG9", "client_secret": "s-1"}
NEW_STRIPE = "/v1/secrets/environments/production/billing/stripe"


class Aws:
    """An AWS Secrets Manager on loopback (roto), and somebody's hands in it."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def call(self, operation: str, body: Mapping[str, object]) -> bool:
        """Was it done? The emulator checks no signature."""
        headers = {
            "X-Amz-Target": f"secretsmanager.{operation}",
            "Content-Type": "application/x-amz-json-1.1",
            "Authorization": (
                "AWS4-HMAC-SHA256 Credential=AKIA/20261123/us-east-1/secretsmanager/aws4_request,"
                " SignedHeaders=host, Signature=00"
            ),
        }
        async with (
            aiohttp.ClientSession() as session,
            session.post(self.url, data=json.dumps(body), headers=headers) as answer,
        ):
            return answer.status == 200

    async def create(self, name: str, value: object, **tags: str) -> None:
        body = {
            "Name": name,
            "SecretString": json.dumps(value),
            "Tags": [{"Key": key, "Value": text} for key, text in tags.items()],
            "ClientRequestToken": f"{name:-<36}"[:64],
        }
        assert await self.call("CreateSecret", body)


@pytest.fixture
async def aws() -> AsyncIterator[Aws]:
    found = Aws(f"http://127.0.0.1:{(port := free_port())}/")
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("roto-server"),
        *("--port", str(port), "--ephemeral"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )

    async def listens() -> bool:
        try:
            return await found.call("ListSecrets", {})
        except aiohttp.ClientConnectionError:
            return False

    try:
        await until(listens)
        yield found
    finally:
        await end_process(process, 5)


@pytest.fixture
async def reader(aws: Aws, site: Site, state_dir: Path) -> Reader:
    await aws.create("prod/billing/stripe", STRIPE, environment="production")
    await aws.create("prod/billing/database", DATABASE)
    await aws.create("prod/reporting/salesforce", SALESFORCE)
    await aws.create("dev/billing/stripe", {"secret_key": "not taken"})
    token = await site.token("user:migrator", "secrets:write", "federation:write", "admin")
    names = {
        SCAIVAULT: site.url,
        '"AKIA..."': '"AKIAEXAMPLE"',
        '"secret_access_key": "..."': '"secret_access_key": "of-nobody"',
        '"region": "us-east-1",': f'"region": "us-east-1", "endpoint_url": "{aws.url[:-1]}",',
        "scaivault_sdk": "svsync.client",
        "SyncScaiVaultClient": "SyncClient",
        "base_url=..., token=...": f'base_url="{site.url}", token="{token}"',
    }
    return Reader("from_aws.md", state_dir, {"SCAIVAULT_TOKEN": token}, names)


async def federated(reader: Reader, site: Site) -> str:
    """The backend's id, once it was made and has synced."""
    assert json.loads(await reader.follow("credential"))["version"] == 1
    made = json.loads(await reader.follow("federation"))
    assert made["status"] == "healthy", made
    await site.synced(made["id"], reader.environment["SCAIVAULT_TOKEN"], 3)
    return str(made["id"])


async def test_what_aws_has_is_synced_and_read(reader: Reader, site: Site) -> None:
    backend = await federated(reader, site)
    answer = json.loads(await reader.follow("read"))
    assert (answer["data"], answer["version"]) == (STRIPE, 1)
    assert answer["metadata"]["tags"] == ["environment=production"]
    assert (answer["federation"]["backend_id"], answer["federation"]["mode"]) == (backend, "sync")


async def test_secrets_move_to_their_new_paths(reader: Reader, site: Site) -> None:
    await federated(reader, site)
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
