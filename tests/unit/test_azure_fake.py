"""What the stand-in for Azure Key Vault does, rule by rule.

Each test names the page that its rule is from, [title, path below learn.microsoft.com/azure
or rest/api/keyvault/secrets]; where none says it, that it was seen, or taken.
"""

import re
import ssl
from typing import Any

import aiohttp
import pytest
from tests.azure_fake import AUTHORITY, CLIENT, RESOURCE, SECRET, TENANT, AzureFake
from tests.azure_vault import MAX_VALUE, PAGE, Refusal, Vault

V = {"api-version": "7.4"}


@pytest.fixture
def kv() -> Vault:
    return Vault("kv", TENANT)


def put(kv: Vault, name: str, value: str = "v", **more: Any) -> Any:
    return kv.handle("PUT", f"/secrets/{name}", V, {"value": value, **more})


def refused(kv: Vault, method: str, path: str, body: Any = None, **query: str) -> tuple[int, str]:
    """Status and the innermost code."""
    with pytest.raises(Refusal) as raised:
        kv.handle(method, path, {**V, **query}, body or {})
    error = raised.value.body["error"]
    return raised.value.status, error.get("innererror", error)["code"]


# --- [Set Secret], [Get Secret], [Update Secret] --------------------------------------


def test_set_makes_a_new_version_and_a_read_without_one_gives_the_newest(kv: Vault) -> None:
    first, second = put(kv, "a", "1"), put(kv, "a", "2")
    assert first["id"] != second["id"]
    assert re.fullmatch(r"https://kv\.vault\.azure\.net/secrets/a/[0-9a-f]{32}", second["id"])
    for path in ("/secrets/a", "/secrets/a/"):
        assert kv.handle("GET", path, V, {})["value"] == "2"
    old = kv.handle("GET", f"/secrets/a/{first['id'].rpartition('/')[2]}", V, {})
    assert old["value"] == "1"


def test_new_version_has_nothing_of_the_one_before(kv: Vault) -> None:
    put(kv, "a", tags={"t": "1"}, contentType="text/plain", attributes={"exp": 1_900_000_000})
    after = put(kv, "a")
    assert "tags" not in after
    assert "contentType" not in after
    assert "exp" not in after["attributes"]


def test_update_changes_what_it_names_and_no_version_is_made(kv: Vault) -> None:
    made = put(kv, "a", tags={"t": "1"}, contentType="text/plain")
    path = made["id"].partition(".net")[2]
    kv.now += 5
    told = kv.handle("PATCH", path, V, {"tags": {"u": "2"}})
    assert (told["tags"], told["contentType"]) == ({"u": "2"}, "text/plain")
    assert told["attributes"]["created"] == made["attributes"]["created"]
    assert told["attributes"]["updated"] == made["attributes"]["updated"] + 5
    assert "value" not in told
    assert refused(kv, "PATCH", "/secrets/a/" + "0" * 32) == (404, "SecretNotFound")


@pytest.mark.parametrize("name", ["a_b", "a.b", "ü", "x" * 128])
def test_names_hold_letters_digits_and_dashes(kv: Vault, name: str) -> None:
    """[Azure Key Vault keys, secrets and certificates overview: object identifiers,
    key-vault/general/about-keys-secrets-certificates]"""
    assert refused(kv, "PUT", f"/secrets/{name}", {"value": "v"}) == (400, "BadParameter")


def test_names_are_the_same_in_any_case(kv: Vault) -> None:
    """[The same page: identifiers are compared without case.] That the spelling of the first
    is told is taken."""
    put(kv, "DbPass", "1")
    put(kv, "dbpass", "2")
    told = kv.handle("GET", "/secrets/DBPASS/", V, {})
    assert (told["value"], told["id"].split("/")[4]) == ("2", "DbPass")
    assert len(kv.handle("GET", "/secrets", V, {})["value"]) == 1


def test_value_has_25_kb_at_most_and_a_secret_15_tags(kv: Vault) -> None:
    """[About Azure Key Vault secrets, key-vault/secrets/about-secrets]"""
    put(kv, "a", "x" * MAX_VALUE, tags={str(n): "" for n in range(15)})
    for body in (
        {"value": "x" * (MAX_VALUE + 1)},
        {"value": "v", "tags": {str(n): "" for n in range(16)}},
        {"value": "v", "tags": {"k": "x" * 513}},
        {"value": "v", "contentType": "x" * 256},
        {},
    ):
        assert refused(kv, "PUT", "/secrets/a", body) == (400, "BadParameter")


def test_disabled_secret_is_not_read_and_an_expired_one_is(kv: Vault) -> None:
    """[About Azure Key Vault secrets: date-time controlled operations]; the inner code of a
    disabled one as reports of it have it."""
    put(kv, "off", attributes={"enabled": False})
    put(kv, "old", attributes={"exp": kv.now - 5})
    put(kv, "soon", attributes={"nbf": kv.now + 500})
    assert refused(kv, "GET", "/secrets/off/") == (403, "SecretDisabled")
    for name in ("old", "soon"):
        assert kv.handle("GET", f"/secrets/{name}/", V, {})["value"] == "v"


# --- [Get Secrets], [Get Secret Versions], [Get Deleted Secrets] ----------------------------


def test_listing_has_25_a_page_a_whole_link_and_no_versions(kv: Vault) -> None:
    for number in range(PAGE + 1):
        put(kv, f"n{number:02}", tags={"t": "1"})
    page = kv.handle("GET", "/secrets", V, {})
    assert len(page["value"]) == PAGE
    assert page["value"][0]["id"] == "https://kv.vault.azure.net/secrets/n00"
    assert page["value"][0]["tags"] == {"t": "1"}
    address, _, query = page["nextLink"].partition("?")
    assert (address, "$skiptoken=" in query) == ("https://kv.vault.azure.net:443/secrets", True)
    last = kv.handle("GET", "/secrets", dict(p.split("=") for p in query.split("&")), {})
    assert (len(last["value"]), last["nextLink"]) == (1, None)
    assert refused(kv, "GET", "/secrets", maxresults="26") == (400, "BadParameter")


def test_listing_tells_the_attributes_of_the_newest_version(kv: Vault) -> None:
    """Seen by those who build on it; the page says "attributes" alone."""
    put(kv, "a")
    second = put(kv, "a", attributes={"enabled": False})
    [item] = kv.handle("GET", "/secrets", V, {})["value"]
    assert item["attributes"] == second["attributes"]


def test_versions_come_in_the_order_of_their_ids(kv: Vault) -> None:
    """Seen; no page says it."""
    made = {put(kv, "a", str(n))["id"] for n in range(9)}
    told = [item["id"] for item in kv.handle("GET", "/secrets/a/versions", V, {})["value"]]
    assert told == sorted(made)


# --- [Delete Secret], [Get Deleted Secret], [Recover Deleted Secret], [Purge Deleted Secret] -----


def test_deleted_secret_waits_until_it_is_recovered_with_all_versions(kv: Vault) -> None:
    put(kv, "a", "1")
    put(kv, "a", "2")
    told = kv.handle("DELETE", "/secrets/a", V, {})
    assert told["recoveryId"] == "https://kv.vault.azure.net/deletedsecrets/a"
    assert told["scheduledPurgeDate"] > told["deletedDate"]
    assert "value" not in told
    assert refused(kv, "GET", "/secrets/a/") == (404, "SecretNotFound")
    assert refused(kv, "GET", "/secrets/a/versions") == (404, "SecretNotFound")
    assert len(kv.handle("GET", "/deletedsecrets", V, {})["value"]) == 1
    kv.handle("POST", "/deletedsecrets/a/recover", V, {})
    assert list(kv.values("a")) == ["1", "2"]
    assert refused(kv, "GET", "/deletedsecrets/a") == (404, "SecretNotFound")


def test_deleted_name_is_in_the_way_of_a_new_secret(kv: Vault) -> None:
    """[Azure Key Vault recovery management with soft delete and purge protection,
    key-vault/general/key-vault-recovery]; the inner code as reports of it have it."""
    put(kv, "a")
    kv.handle("DELETE", "/secrets/a", V, {})
    taken = (409, "ObjectIsDeletedButRecoverable")
    assert refused(kv, "PUT", "/secrets/a", {"value": "v"}) == taken
    kv.permissions.add("purge")
    assert kv.handle("DELETE", "/deletedsecrets/a", V, {}) is None
    put(kv, "a")


def test_deletion_and_recovery_show_after_some_looks(kv: Vault) -> None:
    """Seen: ObjectIsBeingDeleted and ObjectIsBeingRecovered."""
    put(kv, "a")
    kv.lag = 1
    kv.handle("DELETE", "/secrets/a", V, {})
    assert refused(kv, "POST", "/deletedsecrets/a/recover") == (409, "ObjectIsBeingDeleted")
    kv.handle("POST", "/deletedsecrets/a/recover", V, {})
    assert refused(kv, "PUT", "/secrets/a", {"value": "v"}) == (409, "ObjectIsBeingRecovered")
    put(kv, "a")


# --- [Azure Key Vault REST API error codes, key-vault/general/rest-error-codes] --------------


@pytest.mark.parametrize(
    ("permission", "method", "path"),
    [
        ("get", "GET", "/secrets/a/"),
        ("get", "GET", "/deletedsecrets/a"),
        ("list", "GET", "/secrets"),
        ("list", "GET", "/secrets/a/versions"),
        ("list", "GET", "/deletedsecrets"),
        ("set", "PUT", "/secrets/a"),
        ("set", "PATCH", "/secrets/a/1"),
        ("delete", "DELETE", "/secrets/a"),
        ("recover", "POST", "/deletedsecrets/a/recover"),
        ("purge", "DELETE", "/deletedsecrets/a"),
    ],
)
def test_each_operation_has_its_permission(
    kv: Vault, permission: str, method: str, path: str
) -> None:
    put(kv, "a")
    kv.permissions.discard(permission)
    assert refused(kv, method, path, {"value": "v"}) == (403, "AccessDenied")


def test_what_a_policy_forbids_and_a_firewall(kv: Vault) -> None:
    kv.policy = {"a"}
    assert refused(kv, "PUT", "/secrets/a", {"value": "v"}) == (403, "ForbiddenByPolicy")
    kv.forbids = "ForbiddenByFirewall"
    assert refused(kv, "GET", "/secrets") == (403, "ForbiddenByFirewall")


# --- over HTTPS -----------------------------------------------------------------------


async def test_call_without_a_token_is_told_where_to_get_one(
    azure_fake: AzureFake, vault: Vault
) -> None:
    """[Authentication, requests and responses,
    key-vault/general/authentication-requests-and-responses]; tokens by [The OAuth 2.0 client
    credentials flow, entra/identity-platform/v2-oauth2-client-creds-grant-flow]."""
    tls = ssl.create_default_context(cadata=azure_fake.pem)
    connector = aiohttp.TCPConnector(resolver=azure_fake.resolver, ssl=tls)
    async with aiohttp.ClientSession(connector=connector) as session:
        url = f"{vault.url}/secrets?api-version=7.4"
        async with session.get(url) as answer:
            assert answer.status == 401
            told = answer.headers["WWW-Authenticate"]
        assert f'authorization="https://{AUTHORITY}/{TENANT}"' in told
        assert f'resource="{RESOURCE}"' in told
        form = {
            "grant_type": "client_credentials",
            "client_id": CLIENT,
            "client_secret": SECRET,
            "scope": f"{RESOURCE}/.default",
        }
        async with session.post(
            f"https://{AUTHORITY}/{TENANT}/oauth2/v2.0/token", data=form
        ) as answer:
            token = (await answer.json())["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        async with session.get(url, headers=headers) as answer:
            assert (answer.status, (await answer.json())["value"]) == (200, [])
        azure_fake.entra.revoke()
        async with session.get(url, headers=headers) as answer:
            assert answer.status == 401


def test_who_is_not_signed_in_is_told_by_a_number(azure_fake: AzureFake) -> None:
    """[Microsoft Entra authentication and authorization error codes,
    entra/identity-platform/reference-error-codes]"""
    entra = azure_fake.entra
    good = {"client_id": CLIENT, "client_secret": SECRET}
    for tenant, form, number in (
        ("other", good, 90002),
        (TENANT, {**good, "client_id": "nobody"}, 700016),
        (TENANT, {**good, "client_secret": "wrong"}, 7000215),
    ):
        status, body = entra.sign_in(tenant, form)
        assert (status >= 400, body["error_codes"]) == (True, [number])
    assert entra.sign_in(TENANT, good)[0] == 200
