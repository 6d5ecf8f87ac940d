"""What svsync makes of Key Vault's answers, the bad ones included."""

import base64
import json
from math import ceil
from typing import Any

import pytest
from aiohttp import web
from tests.azure import azure_spec, open_azure
from tests.azure_fake import AzureFake
from tests.azure_vault import Vault

from svsync.backends.azure import AzureDriver
from svsync.backends.azure.backend import FEATURES
from svsync.clients.azure import transport
from svsync.domain.changes import (
    Entry,
    RemoteGone,
    RemoteRead,
    RemoteUnknown,
    RemoteValue,
    ScopeOutcome,
)
from svsync.domain.errors import (
    BackendError,
    BackendUnreachableError,
    ConfigError,
    DeniedError,
    ListingError,
    ProtocolError,
    ThrottledError,
)
from svsync.domain.federation import ManagedBy, Mode, RuleSpec, Writes
from svsync.domain.ids import LocalPath, RemotePath
from svsync.domain.mapping import Mapped, RuleSet
from svsync.domain.values import Encoding
from svsync.network import NetworkPolicy

CANARY = "canary-of-azure"


def value(read: RemoteRead) -> RemoteValue:
    assert isinstance(read, RemoteValue), read
    return read


def gone(read: RemoteRead) -> RemoteGone:
    assert isinstance(read, RemoteGone), read
    return read


# --- values -----------------------------------------------------------------------


async def test_object_and_text_come_as_they_were_written(
    azure_fake: AzureFake, vault: Vault
) -> None:
    text = '{ "n": 1.10,  "k": "ü" }'
    vault.put("object", text)
    vault.put("text", "hunter2\n")
    vault.put("bytes", base64.b64encode(b"\x00\xff").decode())
    async with open_azure(azure_fake, vault) as azure:
        reads = [value(read) for read in await azure.read("object", "text", "bytes")]
    assert [read.payload.encoding for read in reads] == [
        Encoding.JSON,
        Encoding.TEXT,
        Encoding.TEXT,
    ]
    assert [read.payload.reveal() for read in reads] == [text.encode(), b"hunter2\n", b"AP8="]


async def test_gone_is_told_four_ways(azure_fake: AzureFake, vault: Vault) -> None:
    for name in ("deleted", "disabled", "expired"):
        vault.put(name, "v")
    vault.touch("disabled", enabled=False)
    vault.touch("expired", exp=vault.now)
    vault.delete("deleted")
    names = ("deleted", "disabled", "expired")
    async with open_azure(azure_fake, vault) as azure:
        reads = [gone(read) for read in await azure.read(*names, "never")]
        listed = (await azure.listed()).entries
        looked = [await azure.backend.look_up(RemotePath(name)) for name in names]
    assert [read.reason for read in reads] == [*names, "not_found"]
    assert reads[3].value_token is None
    for read, name, look in zip(reads, names, looked, strict=False):
        entry = listed[name]
        assert entry.gone
        assert read.value_token == entry.value_token is not None
        assert isinstance(look, Entry | RemoteGone)
        assert look.value_token == entry.value_token


async def test_secret_that_is_not_valid_yet_is_no_answer_and_not_gone(
    azure_fake: AzureFake, vault: Vault
) -> None:
    vault.put("a", "v", nbf=vault.now + 1000)
    async with open_azure(azure_fake, vault) as azure:
        [read] = await azure.read("a")
        early = (await azure.listed()).entries["a"]
        vault.now += 2000
        [later] = await azure.read("a")
    assert isinstance(read, RemoteUnknown)
    assert read.reason == "unreadable"
    assert not early.gone
    assert value(later).value_token != early.value_token, "so that the next cycle reads it"


async def test_deleted_secret_that_may_not_be_seen_is_gone_all_the_same(
    azure_fake: AzureFake, vault: Vault
) -> None:
    vault.put("a", "v")
    vault.delete("a")
    azure_fake.refuse_as("deletedsecrets", 403, "Forbidden", "ForbiddenByRbac")
    async with open_azure(azure_fake, vault) as azure:
        [read] = await azure.read("a")
        listed = await azure.listed()
    assert gone(read).value_token is None
    assert listed.entries == {}
    assert [scope.outcome for scope in listed.scopes] == [ScopeOutcome.COMPLETE]


async def test_disabled_secret_whose_versions_may_not_be_listed_is_gone(
    azure_fake: AzureFake, vault: Vault
) -> None:
    vault.put("a", "v", enabled=False)
    vault.permissions.discard("list")
    async with open_azure(azure_fake, vault) as azure:
        [read] = await azure.read("a")
    assert gone(read).reason == "disabled"


async def test_secret_without_the_right_to_list_is_read_by_its_name(
    azure_fake: AzureFake, vault: Vault
) -> None:
    vault.put("a", "v")
    vault.permissions.discard("list")
    async with open_azure(azure_fake, vault) as azure:
        assert isinstance(await azure.backend.look_up(RemotePath("a")), RemoteValue)
        [scope] = (await azure.listed()).scopes
    assert scope.outcome is ScopeOutcome.DENIED


async def test_denied_read_is_unknown(azure_fake: AzureFake, vault: Vault) -> None:
    vault.put("a", "v")
    vault.put("b", "v")
    vault.denied = {("get", "b")}
    async with open_azure(azure_fake, vault) as azure:
        first, second = await azure.read("a", "b")
    assert isinstance(first, RemoteValue)
    assert isinstance(second, RemoteUnknown)
    assert second.reason == "denied"


async def test_secret_that_is_being_deleted_is_not_decided_about(
    azure_fake: AzureFake, vault: Vault
) -> None:
    vault.put("a", "v")
    azure_fake.refuse_as("^GET /secrets/a", 409, "Conflict", "ObjectIsBeingDeleted")
    async with open_azure(azure_fake, vault) as azure:
        [read] = await azure.read("a")
    assert isinstance(read, RemoteUnknown)
    assert read.reason == "lagging"


async def test_version_made_by_a_push_tells_its_id_and_hides_its_tag(
    azure_fake: AzureFake, vault: Vault
) -> None:
    tags = {"svsync-push": "psh_1", "team": "x"}
    vault.put("a", "v", tags=tags, content_type="text/plain", exp=vault.now + 9999)
    async with open_azure(azure_fake, vault) as azure:
        [read] = await azure.read("a")
        listed = (await azure.listed()).entries["a"]
    assert value(read).made_by == ("psh_1",)
    assert value(read).tags == listed.tags == {"team": "x"}
    assert value(read).dropped_fields == ("contentType", "exp")


async def test_history_has_the_readable_versions_of_one_second_too(
    azure_fake: AzureFake, vault: Vault
) -> None:
    vault.put("a", "1")
    vault.touch("a", enabled=False)
    vault.put("a", "2")
    vault.add("a", "3")
    newest = vault.add("a", "4").newest
    vault.now += 10
    async with open_azure(azure_fake, vault) as azure:
        found = await azure.backend.look_up(RemotePath("a"))
        assert isinstance(found, Entry)
        assert found.order is not None
        history = await azure.backend.read_history(
            RemotePath("a"), above=0, below=found.order, limit=9
        )
    assert newest.created == vault.live["a"].versions[2].created
    assert {version.payload.reveal() for version in history} == {b"2", b"3"}
    assert len({version.number for version in history}) == 2


async def test_name_whose_versions_are_an_empty_list_is_not_there(
    azure_fake: AzureFake, vault: Vault
) -> None:
    """No page says how a name that is not there is answered; both ways are understood."""
    body: dict[str, Any] = {"value": [], "nextLink": None}
    azure_fake.answer("/versions$", lambda _: web.json_response(body))
    async with open_azure(azure_fake, vault) as azure:
        assert await azure.backend.look_up(RemotePath("a")) == RemoteGone()


# --- names ------------------------------------------------------------------------


async def test_name_in_another_case_is_not_taken_for_it(
    azure_fake: AzureFake, vault: Vault
) -> None:
    vault.put("DbPass", "v")
    async with open_azure(azure_fake, vault) as azure:
        for spelling in ("dbpass", "DBPASS"):
            [read] = await azure.read(spelling)
            assert isinstance(read, RemoteUnknown)
            assert read.reason == "collision"
            assert isinstance(await azure.backend.look_up(RemotePath(spelling)), RemoteUnknown)
        assert isinstance((await azure.read("DbPass"))[0], RemoteValue)


def rules(*specs: RuleSpec) -> RuleSet:
    return RuleSet.compile(
        specs,
        separator=FEATURES.separator,
        segment=FEATURES.segment,
        case_sensitive=FEATURES.case_sensitive,
        max_name=FEATURES.max_name,
    )


def test_separator_and_escape_give_names_that_a_vault_can_hold() -> None:
    mapping = rules(RuleSpec("ext/**", "prod--**", separator="--", escape=True))
    there = mapping.to_remote(LocalPath("ext/team/db.main"))
    assert isinstance(there, Mapped)
    assert there.remote == "prod--team--db-x2Emain"
    back = mapping.to_local(there.remote)
    assert isinstance(back, Mapped)
    assert back.local == "ext/team/db.main"


@pytest.mark.parametrize(
    ("remote", "separator"), [("team/*", None), ("a_b-*", None), ("*", "_"), ("*", "/")]
)
def test_rule_whose_names_no_vault_can_hold_is_refused(
    azure_fake: AzureFake, vault: Vault, remote: str, separator: str | None
) -> None:
    spec = azure_spec(azure_fake, vault, rules=(RuleSpec("ext/*", remote, separator=separator),))
    with pytest.raises(ConfigError, match=r"path_mapping\[0\]"):
        AzureDriver().check_config(spec)


def test_rules_that_differ_in_case_only_are_refused() -> None:
    with pytest.raises(ConfigError, match="case"):
        rules(RuleSpec("a/*", "Team-*"), RuleSpec("b/*", "team-*"))


async def test_listing_keeps_to_what_the_rules_begin_with(
    azure_fake: AzureFake, vault: Vault
) -> None:
    for name in ("prod--a", "prod--b--c", "test--a"):
        vault.put(name, "v")
    mapping = (RuleSpec("ext/**", "prod--**", separator="--"),)
    async with open_azure(azure_fake, vault, rules=mapping) as azure:
        listed = await azure.listed()
        outside = await azure.read("test--a")
    assert set(listed.names) == {"prod--a", "prod--b--c", "test--a"}, "a vault has one listing"
    assert outside == [RemoteUnknown("illegal_path", "the path lies outside of every rule")]


async def test_only_secrets_with_the_tags_of_the_filter_are_listed(
    azure_fake: AzureFake, vault: Vault
) -> None:
    vault.put("a", "v", tags={"team": "x", "env": "prod"})
    vault.put("b", "v", tags={"team": "y", "env": "prod"})
    vault.put("c", "v")
    filters = {"tags": {"team": "x", "env": "prod"}}
    async with open_azure(azure_fake, vault, filters=filters) as azure:
        assert (await azure.listed()).names == ["a"]


async def test_name_of_a_listing_that_may_not_be_used_is_told_of(
    azure_fake: AzureFake, vault: Vault
) -> None:
    odd = [f"{vault.url}/secrets/{name}" for name in ("..", "a_b", "x" * 128)]
    told = [*odd, "nothing", f"{vault.url}/secrets/a"]
    body = {"value": [{"id": address, "attributes": {}} for address in told], "nextLink": None}
    azure_fake.answer("^GET /secrets$", lambda _: web.json_response(body))
    async with open_azure(azure_fake, vault) as azure:
        listed = await azure.listed()
    assert listed.names == ["a"]
    assert [code for _, code in listed.rejected] == [
        "illegal_path",
        "name_not_allowed",
        "name_not_allowed",
    ]


# --- listings ---------------------------------------------------------------------


async def test_quiet_cycle_costs_a_call_a_page_and_one_for_what_is_deleted(
    azure_fake: AzureFake, vault: Vault
) -> None:
    n = 60
    for number in range(n):
        vault.add(f"n{number}", "v")
    async with open_azure(azure_fake, vault) as azure:
        await azure.backend.connect([""], probe=False)
        azure.guard.calls.clear()
        assert len((await azure.listed()).names) == n
        calls = list(azure.guard.calls)
        assert calls == ["list"] * ceil(n / 25), "the first page was asked for already"
        azure.guard.calls.clear()
        await azure.listed()
        assert azure.guard.calls == ["list"] * (ceil(n / 25) + 1)


async def test_what_was_not_asked_for_is_counted(azure_fake: AzureFake, vault: Vault) -> None:
    for number in range(30):
        vault.add(f"other-{number}", "v")
    vault.add("app-a", "v")
    async with open_azure(azure_fake, vault) as azure:
        pages = [page async for page in azure.backend.list_entries(["app-"], tokens=True)]
    assert sum(page.passed_over for page in pages) == 30
    assert [entry.remote_path for page in pages for entry in page.entries] == ["app-a"]


async def test_page_that_leads_to_itself_ends_the_listing(
    azure_fake: AzureFake, vault: Vault
) -> None:
    body = {"value": [], "nextLink": f"{vault.url}/secrets?api-version=7.4&$skiptoken=x"}
    azure_fake.answer("^GET /secrets$", lambda _: web.json_response(body))
    async with open_azure(azure_fake, vault) as azure:
        with pytest.raises(ListingError) as raised:
            await azure.listed()
    assert raised.value.code == "listing_unbounded"


@pytest.mark.parametrize(
    "link", ["https://evil.example/secrets?x", "/secrets?x", 7, "https://{}.vault.azure.net/keys?x"]
)
async def test_link_to_another_place_is_not_followed(
    azure_fake: AzureFake, vault: Vault, link: Any
) -> None:
    link = link.replace("{}", vault.name) if isinstance(link, str) else link
    body = {"value": [], "nextLink": link}
    azure_fake.answer("^GET /secrets$", lambda _: web.json_response(body))
    async with open_azure(azure_fake, vault) as azure:
        with pytest.raises(ProtocolError):
            await azure.listed()
    assert azure_fake.calls("^GET /secrets$") == 1
    assert "evil.example" not in azure_fake.resolver.asked


async def test_vault_with_more_names_than_allowed_ends_the_listing(
    azure_fake: AzureFake, vault: Vault
) -> None:
    for number in range(4):
        vault.add(f"n{number}", "v")
    async with open_azure(azure_fake, vault, max_secrets=3) as azure:
        with pytest.raises(ListingError, match="max_secrets"):
            await azure.listed()


# --- faults -----------------------------------------------------------------------


async def test_throttling_is_told_with_the_time_to_wait(
    azure_fake: AzureFake, vault: Vault
) -> None:
    azure_fake.refuse_as("", 429, "Throttled", Retry_After="7")
    async with open_azure(azure_fake, vault) as azure:
        with pytest.raises(ThrottledError) as raised:
            await azure.read("a")
    assert raised.value.retry_after == 7
    assert not raised.value.sent
    assert len(azure_fake.seen) == 1, "the SDK does not try again"


async def test_server_that_fails_is_no_answer(azure_fake: AzureFake, vault: Vault) -> None:
    azure_fake.refuse_as("", 500, "InternalServerError")
    async with open_azure(azure_fake, vault) as azure:
        with pytest.raises(BackendUnreachableError):
            await azure.read("a")
    assert len(azure_fake.seen) == 1


@pytest.mark.parametrize("status", [200, 404, 403])
async def test_page_that_is_no_answer_is_not_taken_for_one(
    azure_fake: AzureFake, vault: Vault, status: int
) -> None:
    azure_fake.answer("", lambda _: web.Response(status=status, text=f"<html>{CANARY}"))
    async with open_azure(azure_fake, vault) as azure:
        with pytest.raises(ProtocolError, match="vault_url") as raised:
            await azure.read("a")
        with pytest.raises(ProtocolError):
            await azure.listed()
    assert CANARY not in str(raised.value)


@pytest.mark.parametrize(
    "told",
    [
        '{"value": "a text"}',
        '{"value": {"id": "a"}}',
        '{"value": [1]}',
        '{"value": [], "nextLink": ["a"]}',
        "[" * 100_000,
    ],
)
async def test_listing_of_another_form_is_no_answer(
    azure_fake: AzureFake, vault: Vault, told: str
) -> None:
    page = web.Response(text=told, content_type="application/json")
    azure_fake.answer("^GET /secrets", lambda _: page)
    async with open_azure(azure_fake, vault) as azure:
        with pytest.raises(ProtocolError):
            await azure.listed()


async def test_redirect_is_not_followed(azure_fake: AzureFake, vault: Vault) -> None:
    there = {"Location": "https://evil.example/secrets"}
    azure_fake.answer("", lambda _: web.Response(status=307, headers=there))
    async with open_azure(azure_fake, vault) as azure:
        with pytest.raises(ProtocolError, match="redirects"):
            await azure.read("a")
    assert "evil.example" not in azure_fake.resolver.asked


async def test_answer_without_end_is_not_read(
    azure_fake: AzureFake, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport._Answer, "most", 10_000)
    azure_fake.answer("", lambda _: web.json_response({"id": "x", "value": "v" * 20_000}))
    async with open_azure(azure_fake, vault) as azure:
        with pytest.raises(ProtocolError) as raised:
            await azure.read("a")
    assert raised.value.code == "value_too_large"


async def test_what_key_vault_says_is_never_repeated(azure_fake: AzureFake, vault: Vault) -> None:
    body = {"error": {"code": CANARY, "message": CANARY, "innererror": {"code": CANARY}}}
    azure_fake.answer("", lambda _: web.json_response(body, status=400))
    async with open_azure(azure_fake, vault) as azure:
        [read] = await azure.read("a")
    assert isinstance(read, RemoteUnknown)
    assert CANARY not in repr(read)


async def test_vault_that_is_not_there_is_told_by_its_setting(
    azure_fake: AzureFake, vault: Vault
) -> None:
    azure_fake.resolver.unknown.add("no-such-vault.vault.azure.net")
    config = {"vault_url": "https://no-such-vault.vault.azure.net"}
    async with open_azure(azure_fake, vault, config=config) as azure:
        with pytest.raises(BackendUnreachableError, match=r"config\.vault_url") as raised:
            await azure.read("a")
    assert not raised.value.sent


async def test_authority_that_is_not_trusted_is_told(azure_fake: AzureFake, vault: Vault) -> None:
    async with open_azure(azure_fake, vault, config={"tls_verify": True}) as azure:
        with pytest.raises(BackendUnreachableError, match="tls_verify"):
            await azure.read("a")
    assert azure_fake.seen == []


async def test_name_that_leads_to_this_machine_is_not_called(
    azure_fake: AzureFake, vault: Vault
) -> None:
    async with open_azure(azure_fake, vault, policy=NetworkPolicy()) as azure:
        with pytest.raises(BackendError, match="loopback") as raised:
            await azure.read("a")
    assert raised.value.code == "endpoint_refused"
    assert azure_fake.entra.forms == []


async def test_challenge_for_something_else_is_not_answered(
    azure_fake: AzureFake, vault: Vault
) -> None:
    told = (
        f'Bearer authorization="https://login.microsoftonline.com/x", resource="https://{CANARY}"'
    )
    azure_fake.challenge = told
    async with open_azure(azure_fake, vault) as azure:
        with pytest.raises(ProtocolError, match="vault_url"):
            await azure.read("a")
    assert azure_fake.seen == [], "no token was sent"


# --- the connection test -------------------------------------------------------------


async def test_identity_is_that_of_the_vault_and_its_directory(
    azure_fake: AzureFake, vault: Vault
) -> None:
    async with open_azure(azure_fake, vault) as azure:
        connection = await azure.backend.connect([""], probe=False)
    host = f"{vault.name}.vault.azure.net"
    assert connection.identity == f"azure:{host}:{azure_fake.entra.tenant}"


async def test_each_permission_that_is_missing_is_named_with_what_grants_it(
    azure_fake: AzureFake, vault: Vault
) -> None:
    vault.permissions.clear()
    settings: dict[str, Any] = {
        "mode": Mode.SYNC,
        "writes": Writes.WRITE_THROUGH,
        "propagate_deletes": True,
    }
    async with open_azure(azure_fake, vault, **settings) as azure:
        connection = await azure.backend.connect([""])
    hints = {check.name: check.hint for check in connection.checks}
    states = {check.name: check.state for check in connection.checks}
    assert states == {
        "list secrets": "missing",
        "read secrets": "missing",
        "see deleted secrets": "missing_optional",
        "write secrets and their tags": "missing",
        "recover secrets": "missing_optional",
        "delete secrets": "missing",
    }
    assert "Key Vault Secrets User" in hints["read secrets"]
    assert "vaults/secrets/getSecret/action" in hints["read secrets"]
    assert "the secret permission get" in hints["read secrets"]
    assert "Key Vault Secrets Officer" in hints["delete secrets"]
    assert connection.status == "denied"


async def test_backend_that_only_reads_asks_for_no_more_and_changes_nothing(
    azure_fake: AzureFake, vault: Vault
) -> None:
    vault.put("a", "v")
    vault.permissions = {"get", "list"}
    async with open_azure(azure_fake, vault, mode=Mode.SYNC) as azure:
        connection = await azure.backend.connect([""])
    assert connection.status == "healthy"
    assert {check.state for check in connection.checks} == {"granted"}
    assert not [line for line in azure_fake.seen if not line.startswith("GET")]


async def test_probes_of_writing_meet_no_name_that_is_there(
    azure_fake: AzureFake, vault: Vault
) -> None:
    vault.put("svsync-connection-test", "v")
    before = json.dumps(vault.handle("GET", "/secrets", {"api-version": "7.4"}, {}))
    settings: dict[str, Any] = {"writes": Writes.WRITE_THROUGH, "propagate_deletes": True}
    async with open_azure(azure_fake, vault, **settings) as azure:
        assert (await azure.backend.connect([""])).status == "healthy"
    assert json.dumps(vault.handle("GET", "/secrets", {"api-version": "7.4"}, {})) == before


async def test_firewall_of_the_vault_is_named(azure_fake: AzureFake, vault: Vault) -> None:
    vault.forbids = "ForbiddenByFirewall"
    async with open_azure(azure_fake, vault) as azure:
        [read] = await azure.read("a")
        for probe in (True, False):
            with pytest.raises(DeniedError, match="firewall"):
                await azure.backend.connect([""], probe=probe)
        with pytest.raises(DeniedError, match="firewall"):
            await azure.listed()
    assert isinstance(read, RemoteUnknown)
    assert "firewall" in read.detail


# --- configuration -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"vault_ur": "x"}, r"config\.vault_ur.*vault_url"),
        ({"vault_url": None}, r"config\.vault_url"),
        ({"auth_method": None}, r"config\.auth_method"),
        ({"vault_url": "https://acme.example.com"}, r"config\.vault_url"),
        ({"vault_url": "http://acme.vault.azure.net"}, r"config\.vault_url"),
        ({"tls_verify": "-----BEGIN nothing"}, r"config\.tls_verify"),
    ],
)
def test_configuration_that_cannot_be_used_is_named(
    azure_fake: AzureFake, vault: Vault, config: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        AzureDriver().check_config(azure_spec(azure_fake, vault, config=config))


def test_backend_of_the_api_is_not_let_off_its_certificates(
    azure_fake: AzureFake, vault: Vault
) -> None:
    spec = azure_spec(azure_fake, vault, config={"tls_verify": False}, managed_by=ManagedBy.API)
    with pytest.raises(ConfigError, match="tls_verify"):
        AzureDriver().check_config(spec)
