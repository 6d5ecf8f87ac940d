"""What svsync makes of Secret Manager's answers, the bad ones included."""

import json
import logging
from collections.abc import Sequence
from typing import Any

import pytest
from grpc import StatusCode
from tests.canary import Canary
from tests.gcp import GLOBAL, PLACE, PREFIX, REGIONAL, Gcp, open_gcp
from tests.gcp_fake import CANARY, NUMBER, PROJECT

from svsync.backends.gcp.backend import GcpBackend
from svsync.clients.gcp import channel
from svsync.domain.changes import Entry, RemoteGone, RemoteUnknown, RemoteValue, ScopeOutcome
from svsync.domain.errors import (
    BackendError,
    BackendUnreachableError,
    ConfigError,
    LoginError,
    MappingError,
    ProtocolError,
    ThrottledError,
)
from svsync.domain.federation import Mode, RuleSpec, Writes
from svsync.domain.ids import RemotePath
from svsync.domain.values import Encoding
from svsync.network import NetworkPolicy


def value(read: object) -> RemoteValue:
    assert isinstance(read, RemoteValue), read
    return read


# --- values -----------------------------------------------------------------------


async def test_object_text_and_bytes_come_as_they_were_written(gcp: Gcp) -> None:
    stored = [b'{ "n": 1.10,  "k": "\xc3\xbc" }', b"hunter2\n", b"\x00\xff"]
    for name, data in zip(("object", "text", "bytes"), stored, strict=True):
        gcp.put(name, data)
    async with open_gcp(gcp) as google:
        reads = [value(read) for read in await google.read("object", "text", "bytes")]
    assert [read.payload.reveal() for read in reads] == stored
    assert [read.payload.encoding for read in reads] == [
        Encoding.JSON,
        Encoding.TEXT,
        Encoding.BINARY,
    ]


async def test_token_is_the_newest_number_and_its_state(gcp: Gcp) -> None:
    gcp.put("a", {"k": 1})
    gcp.put("a", {"k": 2})
    async with open_gcp(gcp) as google:
        [read] = await google.read("a")
        assert (value(read).value_token, value(read).order) == ("2|enabled", 2)
        gcp.disable("a")
        [gone] = await google.read("a")
        found = await google.backend.look_up(google.path("a"))
    assert isinstance(gone, RemoteGone)
    assert (gone.value_token, gone.order, gone.reason) == ("2|disabled", 2, "disabled")
    assert isinstance(found, Entry)
    assert (found.gone, found.value_token) == (True, gone.value_token)


async def test_gone_is_told_four_ways(gcp: Gcp) -> None:
    gcp.put("disabled", "x")
    gcp.disable("disabled")
    gcp.put("destroyed", "x")
    gcp.destroy("destroyed")
    gcp.fake.make(PREFIX + "empty")
    names = ("disabled", "destroyed", "empty", "never")
    async with open_gcp(gcp) as google:
        for reads in (
            await google.read(*names),
            [read for name in names for read in await google.read(name)],
        ):
            gone = [read for read in reads if isinstance(read, RemoteGone)]
            assert [(read.value_token, read.reason) for read in gone] == [
                ("1|disabled", "disabled"),
                ("1|destroyed", "destroyed"),
                ("0|none", "not_found"),  # it holds no trace of a value
                (None, "not_found"),
            ]


async def test_value_whose_key_is_disabled_is_unreadable_and_never_gone(gcp: Gcp) -> None:
    """Google says FAILED_PRECONDITION of that, as of a version that is disabled."""
    gcp.put("a", "x")
    gcp.put("b", "x")
    gcp.fake.fail(f"^AccessSecretVersion {PREFIX}a", StatusCode.FAILED_PRECONDITION)
    async with open_gcp(gcp) as google:
        read, other = await google.read("a", "b")
        assert isinstance(read, RemoteUnknown)
        assert (read.reason, "Cloud KMS" in read.detail) == ("unreadable", True)
        assert isinstance(other, RemoteValue)
        gcp.fake.deny("versions.get")
        [read] = await google.read("a")
        assert isinstance(read, RemoteUnknown)
        assert (read.reason, "versions.get" in read.detail) == ("unreadable", True)


async def test_value_that_was_altered_on_the_way_is_not_taken(
    gcp: Gcp, monkeypatch: pytest.MonkeyPatch
) -> None:
    gcp.put("a", "x")
    monkeypatch.setattr("tests.gcp_fake.google_crc32c.value", lambda data: 1)
    monkeypatch.setattr("svsync.backends.gcp.entries.checksum", lambda data: 2)
    async with open_gcp(gcp) as google:
        [read] = await google.read("a")
    assert isinstance(read, RemoteUnknown)
    assert (read.reason, "checksum" in read.detail) == ("unreadable", True)


async def test_access_that_does_not_find_what_is_there_lags(gcp: Gcp) -> None:
    gcp.put("a", "x")
    gcp.fake.fail("^AccessSecretVersion", StatusCode.NOT_FOUND)
    async with open_gcp(gcp) as google:
        [read] = await google.read("a")
    assert isinstance(read, RemoteUnknown)
    assert read.reason == "lagging"


async def test_denied_access_is_unknown_with_what_is_missing(gcp: Gcp) -> None:
    gcp.put("a", "x")
    gcp.put("b", "x")
    gcp.fake.deny("versions.access", "a$")
    async with open_gcp(gcp) as google:
        denied, other = await google.read("a", "b")
    assert denied == RemoteUnknown("denied", "secretmanager.versions.access is not granted")
    assert isinstance(other, RemoteValue)


async def test_identity_that_may_access_alone_reads_and_looks_up(gcp: Gcp) -> None:
    """roles/secretmanager.secretAccessor grants nothing else."""
    gcp.put("a", "x", team="x")
    gcp.fake.deny("secrets.get|versions.get|list")
    async with open_gcp(gcp) as google:
        [read] = await google.read("a")
        assert (value(read).tags, value(read).meta_token) == (None, None)
        assert isinstance(await google.backend.look_up(google.path("a")), RemoteValue)
        assert await google.backend.look_up(google.path("never")) == RemoteGone()
        listed = await google.listed()
    assert [scope.outcome for scope in listed.scopes] == [ScopeOutcome.DENIED]


async def test_labels_and_annotations_are_one_and_the_label_counts(gcp: Gcp) -> None:
    gcp.put("a", "x", team="x", both="label")
    gcp.fake.secret(PREFIX + "a").annotations = {"note": "free text", "both": "annotation"}
    async with open_gcp(gcp) as google:
        [alone] = await google.read("a")
        entry = (await google.listed()).entries[google.path("a")]
    expected = {"team": "x", "both": "label", "note": "free text"}
    assert value(alone).tags == entry.tags == expected
    assert value(alone).meta_token == entry.meta_token
    assert entry.value_token is None, "a listing tells nothing of versions"


async def test_several_values_cost_one_call_each(gcp: Gcp) -> None:
    for name in ("a", "b", "c"):
        gcp.put(name, name)
    async with open_gcp(gcp) as google:
        reads = await google.read("a", "b", "c")
    assert [value(read).tags for read in reads] == [None] * 3
    assert sorted(gcp.fake.seen) == [f"AccessSecretVersion {PREFIX}{name}" for name in "abc"]


async def test_value_beyond_the_limit_is_too_large(gcp: Gcp) -> None:
    gcp.put("a", "x" * 1001)
    gcp.put("b", "x" * 1000)
    async with open_gcp(gcp, max_value_bytes=1000) as google:
        first, second = await google.read("a", "b")
    assert first == RemoteUnknown("value_too_large")
    assert isinstance(second, RemoteValue)


# --- history ----------------------------------------------------------------------


async def test_history_that_is_long_is_listed_before_it_is_read(gcp: Gcp) -> None:
    for number in range(1, 41):
        gcp.put("a", f"v{number}")
    gcp.disable("a", 37)
    gcp.destroy("a", 38)
    gcp.fake.page = 3
    async with open_gcp(gcp) as google:
        found = await google.backend.read_history(google.path("a"), above=0, below=40, limit=3)
    assert [version.number for version in found] == [35, 36, 39]
    assert found[0].payload.reveal() == b"v35"
    assert found[0].created_at is not None
    assert gcp.fake.calls("AccessSecretVersion") == 3


async def test_history_without_the_right_to_list_is_read_by_number(gcp: Gcp) -> None:
    for number in range(1, 11):
        gcp.put("a", f"v{number}")
    gcp.fake.deny("versions.list")
    async with open_gcp(gcp) as google:
        found = await google.backend.read_history(google.path("a"), above=0, below=10, limit=2)
    assert [version.number for version in found] == [8, 9]


# --- listing ----------------------------------------------------------------------


async def test_listing_costs_a_call_for_each_page_and_tells_whose_it_is(gcp: Gcp) -> None:
    for number in range(7):
        gcp.put(str(number), "x")
        gcp.fake.add(f"other-{number}", b"x")
    gcp.fake.page = 5
    async with open_gcp(gcp) as google:
        connection = await google.backend.connect([PREFIX], probe=False)
        listed = await google.listed()
    assert connection.identity == f"gcp:{NUMBER}"
    assert sorted(listed.names) == sorted(f"{PREFIX}{number}" for number in range(7))
    assert [scope.prefix for scope in listed.scopes] == [PREFIX]
    assert gcp.fake.seen == ["ListSecrets"] * 3, "whose store it is told too"


async def test_page_that_told_the_project_begins_no_listing_of_later(gcp: Gcp) -> None:
    now = 0.0
    async with open_gcp(gcp) as google:
        assert isinstance(google.backend, GcpBackend)
        google.backend._listing.clock = lambda: now
        await google.backend.connect([PREFIX], probe=False)
        gcp.put("a", "x")
        now = 61.0
        assert (await google.listed()).names == [google.path("a")]


async def test_labels_of_the_filter_are_sent(gcp: Gcp) -> None:
    gcp.put("a", "x", env="prod", team="x")
    gcp.put("b", "x", env="prod")
    filters = {"labels": {"env": "prod", "team": "x"}}
    async with open_gcp(gcp, filters=filters) as google:
        assert (await google.listed()).names == [google.path("a")]


async def test_project_is_known_though_the_filter_shows_no_secret(gcp: Gcp) -> None:
    gcp.put("a", "x")
    async with open_gcp(gcp, filters={"labels": {"env": "none"}}) as google:
        assert (await google.backend.connect([PREFIX])).identity == f"gcp:{NUMBER}"


@pytest.mark.parametrize("labels", [{"env": "a b"}, {"Env": "x"}, {"env": ""}, {"e=f": "x"}])
async def test_label_that_is_none_is_refused_when_it_is_configured(
    gcp: Gcp, labels: dict[str, str]
) -> None:
    given: list[dict[str, Any]] = [{"filters": {"labels": labels}}, {"config": {"labels": labels}}]
    for settings in given:
        with pytest.raises(ConfigError, match=f"labels.{next(iter(labels))}: is no label"):
            async with open_gcp(gcp, **settings):
                pass


@pytest.mark.parametrize("leads", [{}, {"one": "two", "two": "one"}])
async def test_listing_that_leads_to_itself_ends(
    gcp: Gcp, monkeypatch: pytest.MonkeyPatch, leads: dict[str, str]
) -> None:
    gcp.put("a", "x")

    def page(self: object, found: list[Any], request: Any) -> tuple[list[Any], str]:
        return found, leads.get(request.page_token, "one")

    monkeypatch.setattr(type(gcp.fake), "_page", page)
    async with open_gcp(gcp) as google:
        with pytest.raises(BackendError) as raised:
            await google.listed()
    assert raised.value.code == "listing_unbounded"


async def test_folder_of_names_is_all_that_begins_so(gcp: Gcp) -> None:
    gcp.put("a", "x")
    gcp.put("b--c", "x")
    async with open_gcp(gcp) as google:
        found = await google.backend.list_folder(PREFIX)
    assert sorted(entry.remote_path for entry in found.entries) == [PREFIX + "a", PREFIX + "b--c"]
    assert found.scope.outcome is ScopeOutcome.COMPLETE


# --- names ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a/b", "a.b", "ü", "x" * 256])
async def test_name_that_google_forbids_is_never_asked_for(gcp: Gcp, name: str) -> None:
    async with open_gcp(gcp) as google:
        [read] = await google.backend.read([google.path(name)])
        outside = await google.backend.look_up(RemotePath("other"))
    assert isinstance(read, RemoteUnknown)
    assert read.reason == "name_not_allowed"
    assert isinstance(outside, RemoteUnknown)
    assert gcp.fake.seen == []


async def test_rule_with_a_slash_is_refused_when_it_is_configured(gcp: Gcp) -> None:
    with pytest.raises(MappingError):
        async with open_gcp(gcp, rules=(RuleSpec("ext/**", "app/**"),)):
            pass


# --- the connection test ----------------------------------------------------------


@pytest.mark.parametrize(
    ("denied", "state", "status", "role"),
    [
        ("secrets.list", "missing", "denied", "viewer"),
        ("versions.access", "missing", "denied", "secretAccessor"),
        ("secrets.get", "missing", "degraded", "viewer"),
        ("versions.list", "missing_optional", "healthy", "viewer"),
        ("versions.add", "missing", "degraded", "secretVersionManager"),
        ("secrets.update", "missing_optional", "healthy", "admin"),
        ("versions.disable", "missing", "degraded", "secretVersionManager"),
    ],
)
async def test_right_that_is_missing_is_named_with_the_role_that_grants_it(
    gcp: Gcp, denied: str, state: str, status: str, role: str
) -> None:
    gcp.put("a", "x")
    if denied == "secrets.list":
        gcp.fake.deny("secrets.list$")
    else:
        gcp.fake.deny(f"{denied}$")
    settings: dict[str, Any] = {
        "mode": Mode.SYNC,
        "writes": Writes.WRITE_THROUGH,
        "propagate_deletes": True,
    }
    async with open_gcp(gcp, **settings) as google:
        found = await google.backend.connect([PREFIX])
    assert found.status == status
    [lacking] = [check for check in found.checks if check.state != "granted"]
    assert lacking.state == state
    assert lacking.hint == (
        f"grant roles/secretmanager.{role} on projects/{PROJECT} (secretmanager.{denied})"
    )
    assert gcp.states("a") == ["ENABLED"]


@pytest.mark.parametrize("denied", ["versions.access", "secrets.get", "versions.list"])
async def test_right_is_tried_by_call_where_there_is_no_secret(gcp: Gcp, denied: str) -> None:
    async with open_gcp(gcp, mode=Mode.SYNC) as google:
        assert (await google.backend.connect([PREFIX])).status == "healthy"
        gcp.fake.deny(denied)
        found = await google.backend.connect([PREFIX])
    [lacking] = [check for check in found.checks if check.state != "granted"]
    assert denied in lacking.hint
    assert gcp.fake.calls("TestIamPermissions") == 0


async def test_what_cannot_be_told_of_writes_is_said(gcp: Gcp) -> None:
    settings: dict[str, Any] = {"mode": Mode.SYNC, "writes": Writes.WRITE_THROUGH}
    async with open_gcp(gcp, **settings) as google:
        found = await google.backend.connect([PREFIX])
        assert [said for said in found.warnings if "cannot be told" in said] == list(found.warnings)
        assert len(found.warnings) == 1
        gcp.put("a", "x")
        assert (await google.backend.connect([PREFIX])).warnings == ()
    async with open_gcp(gcp, mode=Mode.SYNC) as google:
        assert (await google.backend.connect([PREFIX])).warnings == ()


async def test_proxied_backend_needs_no_listing(gcp: Gcp) -> None:
    gcp.put("a", "x")
    gcp.fake.deny("secrets.list$")
    async with open_gcp(gcp, mode=Mode.PROXY) as google:
        assert (await google.backend.connect([PREFIX])).status == "healthy"


# --- addresses --------------------------------------------------------------------


async def test_secrets_of_a_location_are_asked_for_at_its_own_address(gcp: Gcp) -> None:
    gcp.put("a", "global")
    gcp.fake.add(PREFIX + "a", b"regional", PLACE)
    async with open_gcp(gcp, config={"location": PLACE}) as google:
        [read] = await google.read("a")
        identity = (await google.backend.connect([PREFIX])).identity
    assert value(read).payload.reveal() == b"regional"
    assert identity == f"gcp:{NUMBER}:{PLACE}"
    assert REGIONAL in gcp.looked_up
    assert GLOBAL not in gcp.looked_up


async def test_location_that_is_none_is_a_name_that_cannot_be_resolved(gcp: Gcp) -> None:
    async def resolve(host: str, port: int) -> Sequence[tuple[str, int]]:
        if host.startswith("secretmanager"):
            raise OSError
        return await gcp.dial.resolve(host, port)

    dial = type(gcp.dial)(resolve, gcp.roots)
    async with open_gcp(gcp, dial=dial, config={"location": "mars-north1"}) as google:
        with pytest.raises(BackendUnreachableError, match=r"config\.location") as raised:
            await google.listed()
    assert not raised.value.sent


async def test_certificate_of_another_name_is_not_trusted(gcp: Gcp) -> None:
    gcp.put("a", "x")
    async with open_gcp(gcp, config={"location": "europe-west1"}) as google:
        with pytest.raises(BackendUnreachableError) as raised:
            await google.listed()
    assert not raised.value.sent
    assert gcp.fake.seen == []


async def test_authority_that_nobody_knows_is_named_as_the_reason(gcp: Gcp) -> None:
    dial = type(gcp.dial)(gcp.dial.resolve, None)
    async with open_gcp(gcp, dial=dial) as google:
        with pytest.raises(BackendUnreachableError, match="GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"):
            await google.listed()


async def test_address_that_may_not_be_called_is_not(gcp: Gcp) -> None:
    gcp.put("a", "x")
    own = frozenset({("127.0.0.1", gcp.port)})
    policies = [
        NetworkPolicy(allow_loopback=True, own_listeners=own),
        NetworkPolicy(),
    ]
    for policy in policies:
        async with open_gcp(gcp, policy=policy) as google:
            with pytest.raises(BackendError) as raised:
                await google.listed()
        assert (raised.value.code, raised.value.sent) == ("endpoint_refused", False)
    gcp.addresses = ("169.254.169.254",)
    async with open_gcp(gcp) as google:
        with pytest.raises(BackendError, match="metadata") as raised:
            await google.listed()
    assert gcp.fake.seen == []


async def test_of_several_addresses_those_that_may_not_be_called_are_left_out(gcp: Gcp) -> None:
    gcp.put("a", "x")
    gcp.addresses = ("169.254.169.254", "127.0.0.1", "::1")
    assert await gcp.dial.target(GLOBAL, NetworkPolicy(allow_loopback=True)) == (
        f"ipv4:127.0.0.1:{gcp.port}"
    )


async def test_proxy_of_the_environment_is_not_used(
    gcp: Gcp, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "grpc_proxy", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    gcp.put("a", "x")
    async with open_gcp(gcp) as google:
        assert (await google.listed()).names == [google.path("a")]


# --- what goes wrong --------------------------------------------------------------


async def test_throttling_is_raised_and_repeated_by_nobody_but_the_guard(gcp: Gcp) -> None:
    gcp.fake.fail("", StatusCode.RESOURCE_EXHAUSTED, reason="RATE_LIMIT_EXCEEDED", pause=7.5)
    async with open_gcp(gcp) as google:
        with pytest.raises(ThrottledError) as raised:
            await google.read("a", "b")
    assert (raised.value.retry_after, raised.value.sent) == (7.5, False)
    assert CANARY not in raised.value.message
    assert len(gcp.fake.seen) <= 2


@pytest.mark.parametrize(
    ("code", "sent"),
    [
        (StatusCode.INTERNAL, True),
        (StatusCode.UNKNOWN, True),
        (StatusCode.UNAVAILABLE, True),
        (StatusCode.DEADLINE_EXCEEDED, True),
        (StatusCode.ABORTED, False),
    ],
)
async def test_failing_service_is_called_once(gcp: Gcp, code: StatusCode, sent: bool) -> None:
    gcp.fake.fail("", code)
    async with open_gcp(gcp) as google:
        with pytest.raises(BackendUnreachableError) as raised:
            await google.backend.look_up(google.path("a"))
        with pytest.raises(BackendUnreachableError):
            await google.listed()
    assert raised.value.sent is sent
    assert CANARY not in raised.value.message
    assert gcp.fake.calls("GetSecret") <= 1


@pytest.mark.parametrize("reason", ["CONSUMER_INVALID", "SERVICE_DISABLED", "BILLING_DISABLED"])
async def test_project_that_is_not_served_fails_as_a_whole(gcp: Gcp, reason: str) -> None:
    gcp.fake.fail("", StatusCode.PERMISSION_DENIED, reason=reason)
    async with open_gcp(gcp) as google:
        with pytest.raises(LoginError, match=r"config\.project_id"):
            await google.listed()


async def test_project_that_does_not_exist_is_no_empty_one(gcp: Gcp) -> None:
    async with open_gcp(gcp, config={"project_id": "no-such-project"}) as google:
        with pytest.raises(LoginError, match=r"config\.project_id"):
            await google.backend.connect([PREFIX])


async def test_something_else_than_secret_manager_is_no_answer(
    gcp: Gcp, monkeypatch: pytest.MonkeyPatch
) -> None:
    gcp.fake.fail("", StatusCode.UNIMPLEMENTED)
    async with open_gcp(gcp) as google:
        with pytest.raises(ProtocolError):
            await google.listed()


async def test_answer_without_end_is_cut_off(gcp: Gcp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "MAX_ANSWER", 1000)
    gcp.put("a", "x" * 2000)
    async with open_gcp(gcp) as google:
        with pytest.raises(ProtocolError, match="larger"):
            await google.read("a")


async def test_server_that_is_not_there_is_unreachable_and_found_again_elsewhere(
    gcp: Gcp,
) -> None:
    gcp.put("a", "x")
    right, gcp.port = gcp.port, 9
    async with open_gcp(gcp) as google:
        with pytest.raises(BackendUnreachableError) as raised:
            await google.listed()
        assert not raised.value.sent
        gcp.port = right
        assert (await google.listed()).names == [google.path("a")], "the name was looked up anew"


async def test_log_of_the_sdk_shows_neither_token_nor_value(
    gcp: Gcp, canary: Canary, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    marker = canary.value("gcp")
    gcp.put("a", {"k": marker})
    async with open_gcp(gcp) as google:
        [read] = await google.read("a")
    assert marker in json.loads(value(read).payload.reveal())["k"]
    assert marker not in caplog.text
    assert "ya29." not in caplog.text
