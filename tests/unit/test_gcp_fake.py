"""The stand-in for Secret Manager does what Google's pages say, as the SDK's client sees it.

Pages are of docs.cloud.google.com/secret-manager/docs, unless another is named.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import google_crc32c
import pytest
from google.api_core import exceptions
from tests.gcp import PLACE, Gcp, sdk_client
from tests.gcp_fake import CANARY, MAX_PAYLOAD, NUMBER, PROJECT

Call = Callable[..., Awaitable[Any]]

PARENT = f"projects/{PROJECT}"
SECRET = f"{PARENT}/secrets/a"
AUTOMATIC: dict[str, Any] = {"replication": {"automatic": {}}}


@pytest.fixture
async def call(gcp: Gcp) -> AsyncIterator[Call]:
    async with sdk_client(gcp) as made:
        yield made


async def make(call: Call, id: str = "a", **secret: Any) -> Any:
    return await call("create_secret", parent=PARENT, secret_id=id, secret={**AUTOMATIC, **secret})


async def add(call: Call, data: bytes = b"v", **payload: Any) -> Any:
    return await call("add_secret_version", parent=SECRET, payload={"data": data, **payload})


async def state(call: Call, verb: str, number: int = 1, **more: Any) -> Any:
    return await call(f"{verb}_secret_version", name=f"{SECRET}/versions/{number}", **more)


# --- who asks ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "reason"), [(None, "CREDENTIALS_MISSING"), ("old", "ACCESS_TOKEN_EXPIRED")]
)
async def test_request_without_a_good_token_is_unauthenticated(
    gcp: Gcp, token: str | None, reason: str
) -> None:
    """google.api.ErrorReason."""
    async with sdk_client(gcp, token) as call:
        gcp.fake.tokens.clear()
        with pytest.raises(exceptions.Unauthenticated) as raised:
            await call("list_secrets", parent=PARENT)
    assert raised.value.reason == reason


async def test_project_that_is_not_there_is_denied_as_a_consumer(call: Call) -> None:
    """google.api.ErrorReason, CONSUMER_INVALID."""
    with pytest.raises(exceptions.PermissionDenied) as raised:
        await call("list_secrets", parent="projects/none")
    assert raised.value.reason == "CONSUMER_INVALID"


async def test_denied_is_said_before_whether_it_is_there(gcp: Gcp, call: Call) -> None:
    """access-control; iam/docs/troubleshoot-access."""
    gcp.fake.deny("secrets.get")
    for name in (SECRET, f"{PARENT}/secrets/never"):
        with pytest.raises(exceptions.PermissionDenied):
            await call("get_secret", name=name)


async def test_permissions_are_tested_of_what_is_there_alone(gcp: Gcp, call: Call) -> None:
    """reference/rpc, TestIamPermissions."""
    await make(call)
    gcp.fake.deny("versions.add")
    asked = ["secretmanager.versions.access", "secretmanager.versions.add"]
    held = await call("test_iam_permissions", resource=SECRET, permissions=asked)
    none = await call("test_iam_permissions", resource=f"{PARENT}/secrets/b", permissions=asked)
    assert (list(held.permissions), list(none.permissions)) == (asked[:1], [])


# --- secrets ----------------------------------------------------------------------------


async def test_names_are_told_by_the_projects_number(call: Call) -> None:
    """reference/rpc, Secret."""
    assert (await make(call)).name == f"projects/{NUMBER}/secrets/a"


@pytest.mark.parametrize("id", ["a/b", "a.b", "", "x" * 256, "ü"])
async def test_id_that_google_forbids_is_refused(call: Call, id: str) -> None:
    """reference/rpc, CreateSecretRequest.secret_id."""
    with pytest.raises(exceptions.InvalidArgument):
        await make(call, id)


async def test_secret_is_made_once(call: Call) -> None:
    """reference/rpc, CreateSecret."""
    await make(call)
    with pytest.raises(exceptions.AlreadyExists):
        await make(call)


async def test_secret_of_the_project_needs_replication_and_one_of_a_location_takes_none(
    call: Call,
) -> None:
    """create-secret; regional-secrets/create-regional-secrets."""
    place = f"{PARENT}/locations/{PLACE}"
    for parent, secret in ((PARENT, {}), (place, AUTOMATIC)):
        with pytest.raises(exceptions.InvalidArgument):
            await call("create_secret", parent=parent, secret_id="a", secret=secret)
    made = await call("create_secret", parent=place, secret_id="a", secret={})
    assert made.name == f"projects/{NUMBER}/locations/{PLACE}/secrets/a"
    with pytest.raises(exceptions.NotFound):
        await call("get_secret", name=SECRET)


@pytest.mark.parametrize(
    "pairs",
    [
        {"labels": {"Upper": "x"}},
        {"labels": {"1st": "x"}},
        {"labels": {"a": "x" * 64}},
        {"labels": {"a": "b c"}},
        {"labels": {f"k{n}": "" for n in range(65)}},
        {"annotations": {"-a": "x"}},
        {"annotations": {"a": "x" * 16 * 1024}},
    ],
)
async def test_label_or_annotation_that_google_forbids_is_refused(
    call: Call, pairs: dict[str, Any]
) -> None:
    """reference/rpc, Secret.labels and Secret.annotations; creating-and-managing-labels."""
    with pytest.raises(exceptions.InvalidArgument):
        await make(call, **pairs)


async def test_pairs_that_google_takes_are_told(call: Call) -> None:
    """The same."""
    made = await make(call, labels={"ü-1": "", "a_b": "0"}, annotations={"A.b/c"[:3]: "x y"})
    assert (dict(made.labels), dict(made.annotations)) == (
        {"ü-1": "", "a_b": "0"},
        {"A.b": "x y"},
    )


async def test_listing_has_pages_and_the_newest_first(gcp: Gcp, call: Call) -> None:
    """reference/rpc, ListSecretsRequest and ListSecretsResponse."""
    for id in ("a", "b", "c"):
        await make(call, id)
    first = await call("list_secrets", parent=PARENT, page_size=2)
    assert [secret.name[-1] for secret in first._response.secrets] == ["c", "b"]
    again = await call("list_secrets", parent=PARENT, page_token=first.next_page_token)
    assert [secret.name[-1] for secret in again._response.secrets] == ["a"]
    assert again.next_page_token == ""


async def test_listing_is_filtered_by_labels(call: Call) -> None:
    """filtering."""
    await make(call, "a", labels={"env": "prod", "team": "x"})
    await make(call, "b", labels={"env": "prod"})
    found = await call("list_secrets", parent=PARENT, filter="labels.env=prod AND labels.team=x")
    assert [secret.name[-1] for secret in found._response.secrets] == ["a"]
    with pytest.raises(exceptions.InvalidArgument):
        await call("list_secrets", parent=PARENT, filter="labels.env prod")


# --- versions ---------------------------------------------------------------------------


async def test_versions_are_numbered_from_one_and_come_back_with_their_checksum(
    call: Call,
) -> None:
    """reference/rpc, SecretVersion; data-integrity."""
    await make(call)
    assert (await add(call, b"1")).name.endswith("/versions/1")
    assert (await add(call, b"2")).name.endswith("/versions/2")
    read = await call("access_secret_version", name=f"{SECRET}/versions/latest")
    assert (read.name, read.payload.data) == (f"projects/{NUMBER}/secrets/a/versions/2", b"2")
    assert read.payload.data_crc32c == google_crc32c.value(b"2")


async def test_checksum_that_does_not_fit_is_refused(call: Call) -> None:
    """data-integrity."""
    await make(call)
    assert (await add(call, b"v", data_crc32c=google_crc32c.value(b"v"))).name
    with pytest.raises(exceptions.InvalidArgument):
        await add(call, b"v", data_crc32c=1)


@pytest.mark.parametrize("data", [b"", b"x" * (MAX_PAYLOAD + 1)])
async def test_value_is_neither_nothing_nor_more_than_64_kib(call: Call, data: bytes) -> None:
    """quotas."""
    await make(call)
    with pytest.raises(exceptions.InvalidArgument):
        await add(call, data)


async def test_latest_is_the_version_made_last_whatever_its_state(call: Call) -> None:
    """access-secret-version; external-secrets issue 4042."""
    await make(call)
    latest = f"{SECRET}/versions/latest"
    with pytest.raises(exceptions.NotFound):
        await call("access_secret_version", name=latest)
    await add(call, b"1")
    await add(call, b"2")
    for verb, said in (("disable", "DISABLED"), ("destroy", "DESTROYED")):
        await state(call, verb, 2)
        with pytest.raises(exceptions.FailedPrecondition):
            await call("access_secret_version", name=latest)
        assert (await call("get_secret_version", name=latest)).state.name == said
    assert (await call("access_secret_version", name=f"{SECRET}/versions/1")).payload.data == b"1"


async def test_what_is_destroyed_stays_so(call: Call) -> None:
    """reference/rpc, SecretVersion.State."""
    await make(call)
    await add(call)
    await state(call, "destroy")
    with pytest.raises(exceptions.FailedPrecondition):
        await state(call, "enable")


async def test_versions_are_listed_newest_first(call: Call) -> None:
    """reference/rpc, ListSecretVersionsResponse."""
    await make(call)
    await add(call)
    await add(call)
    found = await call("list_secret_versions", parent=SECRET)
    assert [version.name[-1] for version in found._response.versions] == ["2", "1"]


# --- etags ------------------------------------------------------------------------------


async def test_stale_etag_is_a_failed_precondition(call: Call) -> None:
    """etags."""
    made = await make(call)
    first = await add(call)
    update = {"name": SECRET, "labels": {"a": "1"}}
    mask = {"paths": ["labels"]}
    await call("update_secret", secret={**update, "etag": made.etag}, update_mask=mask)
    with pytest.raises(exceptions.FailedPrecondition):
        await call("update_secret", secret={**update, "etag": made.etag}, update_mask=mask)
    await state(call, "disable", etag=first.etag)
    with pytest.raises(exceptions.FailedPrecondition):
        await state(call, "enable", etag=first.etag)


async def test_change_that_changes_nothing_makes_a_new_etag(call: Call) -> None:
    """etags."""
    await make(call)
    first = await add(call)
    assert (await state(call, "enable")).etag != first.etag


async def test_new_version_leaves_the_etag_of_the_secret(call: Call) -> None:
    """etags."""
    made = await make(call)
    await add(call)
    assert (await call("get_secret", name=SECRET)).etag == made.etag


# --- what a test sets -------------------------------------------------------------------


async def test_fault_is_told_with_its_details(gcp: Gcp, call: Call) -> None:
    """google.rpc.Status, RetryInfo."""
    await make(call)
    code = exceptions.ResourceExhausted
    gcp.fake.fail("^GetSecret a", code.grpc_status_code, reason="RATE_LIMIT_EXCEEDED", pause=2.5)
    with pytest.raises(code, match=CANARY) as raised:
        await call("get_secret", name=SECRET)
    assert raised.value.reason == "RATE_LIMIT_EXCEEDED"
    [_, retry] = raised.value.details
    assert (retry.retry_delay.seconds, retry.retry_delay.nanos) == (2, 500_000_000)
    gcp.fake.heal()
    assert (await call("get_secret", name=SECRET)).name
