"""The guide from .env files, followed to its end: imported, granted, read, rolled back."""

import json
from dataclasses import replace

import pytest
import pytest_asyncio
from tests.acceptance.serving import ask
from tests.guides.conftest import Site
from tests.guides.programs import SCAIVAULT, Reader, needs_curl_and_jq

pytestmark = [needs_curl_and_jq, pytest.mark.asyncio(loop_scope="session")]

BILLING = "environments/production/billing"
ENV = {
    "STRIPE_SECRET_KEY": "sk_live_1",
    "SALESFORCE_CLIENT_ID": "3MVG9",
    "SALESFORCE_CLIENT_SECRET": "s-1",
    "DATABASE_URL": "postgresql://env@db.internal/billing",
}
NAMES = {
    "scaivault ": "svsync ",
    "scaivault_sdk": "svsync.client",
    "SyncScaiVaultClient": "SyncClient",
    "ScaiVaultClient": "SyncClient",
    "ScaiVaultError": "SvsyncError",
    "base_url=..., token=...": (
        'base_url=os.environ["SCAIVAULT_URL"], token=os.environ["SCAIVAULT_TOKEN"]'
    ),
}
SHOW = "\nimport json\nprint(json.dumps(load_config()))\n"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def reader(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """Their commands ask the service, as their programs do."""
    token = await site.token("user:migrator", "admin")
    return Reader(
        "from_env.md",
        tmp_path_factory.mktemp("reader"),
        {
            "SVSYNC_URL": site.url,
            "SVSYNC_TOKEN": token,
            "SCAIVAULT_URL": site.url,
            "SCAIVAULT_TOKEN": token,
            "TOKEN": token,
        },
        {SCAIVAULT: site.url, **NAMES},
    )


@pytest.fixture
def operator(reader: Reader, site: Site) -> Reader:
    """The same guide, by commands on the store itself."""
    own = ("SVSYNC_URL", "SVSYNC_TOKEN")
    kept = {name: text for name, text in reader.environment.items() if name not in own}
    return replace(reader, environment={**kept, **site.program.environment})


async def bring_in(reader: Reader) -> None:
    """The third step. The store's address has the name of one of the variables."""
    await reader.follow("import", **{**ENV, **reader.environment})


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(reader: Reader, site: Site) -> str:
    """A token of the service, once the third and fourth step were taken."""
    await bring_in(reader)
    policy, binding = reader.program("grant")[1].split("# Bind\n")
    made = json.loads(await reader.run("bash", policy))
    bound = json.loads(await reader.run("bash", binding.replace("pol_billing_prod", made["id"])))
    assert bound["identity_id"] == "sa:billing-prod"
    return await site.token("sa:billing-prod", "secrets:read")


@pytest.mark.usefixtures("service")
async def test_one_service_is_imported(reader: Reader, site: Site) -> None:
    token = reader.environment["TOKEN"]
    stripe = await site.get(f"/v1/secrets/{BILLING}/stripe", token)
    assert (stripe["data"], stripe["secret_type"]) == ({"secret_key": "sk_live_1"}, "api_key")
    assert stripe["metadata"]["tags"] == ["billing", "production", "stripe"]
    salesforce = await site.get(f"/v1/secrets/{BILLING}/salesforce", token)
    assert salesforce["data"] == {"client_id": "3MVG9", "client_secret": "s-1"}
    database = await site.get(f"/v1/secrets/{BILLING}/database", token)
    assert database["data"]["port"] == 5432
    listed = await reader.follow("list")
    for name in ("stripe", "salesforce", "database"):
        assert f"{BILLING}/{name} " in listed


async def test_service_reads_its_own_credentials_and_nothing_else(
    reader: Reader, site: Site, service: str
) -> None:
    own = await site.get(f"/v1/secrets/{BILLING}/stripe", service)
    assert own["data"] == {"secret_key": "sk_live_1"}
    other = "environments/production/reporting/stripe"
    await site.program("secrets", "write", other, "k=v")
    refused = await ask(site.url, f"/v1/secrets/{other}", token=service)
    assert (refused.status, refused.json["error"]["code"]) == (404, "secret_not_found")
    # What the guide tells people to look at then.
    whoami = await reader.run("bash", "svsync auth whoami", SVSYNC_TOKEN=service)
    assert "sa:billing-prod" in whoami
    test = f"svsync policies test {BILLING}/stripe read --identity sa:billing-prod"
    assert "billing-prod-reader" in await reader.run("bash", test)


async def test_log_shows_the_service_on_the_imported_paths(
    reader: Reader, operator: Reader, site: Site, service: str
) -> None:
    await site.get(f"/v1/secrets/{BILLING}/stripe", service)
    for who in (reader, operator):
        moment, action, path = (await who.follow("audit")).splitlines()[0].split()
        assert moment.endswith("Z")
        assert (action, path) == ("secret.read", f"{BILLING}/stripe")


@pytest.mark.usefixtures("service")
async def test_commands_do_the_same_on_the_store_itself(operator: Reader, reader: Reader) -> None:
    await bring_in(operator)
    assert await operator.follow("list") == await reader.follow("list")


async def test_service_takes_its_configuration_where_it_is_told_to(
    reader: Reader, service: str
) -> None:
    _, program = reader.program("service")
    by_env = {
        "stripe_secret_key": "sk_live_1",
        "salesforce_client_id": "3MVG9",
        "salesforce_client_secret": "s-1",
        "database_url": ENV["DATABASE_URL"],
    }
    assert json.loads(await reader.run("python", program + SHOW, **ENV)) == by_env
    # Nothing of the environment is needed any more.
    own = {"USE_SCAIVAULT": "true", "SCAIVAULT_TOKEN": service}
    found = json.loads(await reader.run("python", program + SHOW, **own))
    assert found == {
        **by_env,
        "database_url": "postgresql://billing_app:...@db.internal:5432/billing",
    }


async def test_service_falls_back_to_its_environment_where_that_is_allowed(
    reader: Reader, site: Site
) -> None:
    _, program = reader.program("service")
    # Somebody whom no policy lets know of the secrets is told as if they were not there.
    told = {"USE_SCAIVAULT": "true", "SCAIVAULT_TOKEN": await site.token("sa:new", "secrets:read")}
    allowed = {**told, "SCAIVAULT_FALLBACK_ALLOWED": "true"}
    missing = (await reader.run("python", program + SHOW, **ENV, **allowed)).splitlines()
    assert missing[0] == "WARN: ScaiVault failed (secret_not_found); falling back to env"
    assert json.loads(missing[1])["database_url"] == ENV["DATABASE_URL"]
    gone = {**allowed, "SCAIVAULT_URL": "http://127.0.0.1:9"}
    away = (await reader.run("python", program + SHOW, **ENV, **gone)).splitlines()
    assert away[0] == "WARN: ScaiVault failed (service_unreachable); falling back to env"
    assert json.loads(away[1])["stripe_secret_key"] == "sk_live_1"
    fails = "try:\n    load_config()\nexcept SvsyncError as error:\n    print(error.code)\n"
    hard = await reader.run("python", f"{program}\n{fails}", **ENV, **told)
    assert hard == "secret_not_found\n", "without the fallback it fails"


async def test_fleet_is_imported_and_again(reader: Reader, site: Site) -> None:
    for service in ("billing", "reporting", "scheduler"):
        folder = reader.folder / "deploy" / service
        folder.mkdir(parents=True)
        lines = [f"{name}={service}-{value}" for name, value in ENV.items()]
        (folder / ".env.production").write_text("\n".join([*lines, "SENTRY_DSN=https://x", ""]))
    told = (await reader.follow("fleet")).splitlines()
    assert told == [
        f"imported environments/production/{service}/{name}"
        for service in ("billing", "reporting", "scheduler")
        for name in ("stripe", "salesforce", "database")
    ]
    assert (await reader.follow("fleet")).splitlines() == told
    path = "/v1/secrets/environments/production/reporting/salesforce"
    found = await site.get(path, reader.environment["TOKEN"])
    assert found["data"] == {"client_id": "reporting-3MVG9", "client_secret": "reporting-s-1"}
    assert found["metadata"]["tags"] == ["production", "reporting", "salesforce"]
    assert (found["metadata"]["owner"], found["version"]) == ("team:reporting", 2)
