"""What svsync makes of AWS Secrets Manager's answers, the bad ones included."""

import base64
import json
from math import ceil

import pytest
from aiohttp import web
from tests.aws import ACCOUNT, REGION, Aws, AwsFront, open_aws

from svsync.backends.aws.backend import AwsBackend
from svsync.clients.aws import transport
from svsync.domain.changes import Entry, RemoteGone, RemoteUnknown, RemoteValue, ScopeOutcome
from svsync.domain.errors import (
    BackendError,
    BackendUnreachableError,
    ConfigError,
    ProtocolError,
    ThrottledError,
)
from svsync.domain.federation import HistoryMode, ManagedBy, RuleSpec
from svsync.domain.ids import RemotePath
from svsync.domain.values import Encoding
from svsync.network import NetworkPolicy

CANARY = "canary-of-aws"


def value(read: object) -> RemoteValue:
    assert isinstance(read, RemoteValue), read
    return read


# --- values -----------------------------------------------------------------------


async def test_object_text_and_bytes_come_as_they_were_written(roto: Aws) -> None:
    text = '{ "n": 1.10,  "k": "ü" }'
    await roto.put("object", text)
    await roto.put("text", "hunter2\n")
    raw = base64.b64encode(b"\x00\xff").decode()
    await roto.put_raw("bytes", {}, SecretBinary=raw)
    async with open_aws(roto.url, roto.prefix) as aws:
        reads = [value(read) for read in await aws.read("object", "text", "bytes")]
    assert [read.payload.encoding for read in reads] == [
        Encoding.JSON,
        Encoding.TEXT,
        Encoding.BINARY,
    ]
    assert [read.payload.reveal() for read in reads] == [
        text.encode(),
        b"hunter2\n",
        b"\x00\xff",
    ]


async def test_gone_is_told_three_ways(roto: Aws) -> None:
    await roto.put("deleted", {"k": "v"})
    await roto.delete("deleted")
    await roto.call("CreateSecret", Name=roto.prefix + "empty", ClientRequestToken="e" * 32)
    async with open_aws(roto.url, roto.prefix) as aws:
        listed = (await aws.listed()).entries
        for reads in (
            await aws.read("deleted", "empty", "never"),
            [read for name in ("deleted", "empty", "never") for read in await aws.read(name)],
        ):
            gone = [read for read in reads if isinstance(read, RemoteGone)]
            assert [read.reason for read in gone] == ["deleted", "no_value", "not_found"]
            assert gone[2].value_token is None
            for read, name in zip(gone, ("deleted", "empty"), strict=False):
                entry = listed[aws.path(name)]
                assert entry.gone
                assert read.value_token == entry.value_token is not None


async def test_tags_come_with_a_single_value_and_with_the_listing(roto: Aws) -> None:
    await roto.put("a", {"k": "v"}, team="x")
    await roto.put("b", {"k": "v"})
    async with open_aws(roto.url, roto.prefix) as aws:
        listed = (await aws.listed()).entries
        [alone] = await aws.read("a")
        together = await aws.read("a", "b")
    assert value(alone).tags == listed[aws.path("a")].tags == {"team": "x"}
    assert value(alone).meta_token == listed[aws.path("a")].meta_token
    assert [value(read).tags for read in together] == [None, None]


async def test_value_is_read_though_its_tags_may_not_be(roto: Aws, aws_front: AwsFront) -> None:
    await roto.put("a", {"k": "v"}, team="x")
    aws_front.refuse_as("^DescribeSecret", "AccessDeniedException")
    async with open_aws(aws_front.url, roto.prefix) as aws:
        [read] = await aws.read("a")
        assert value(read).tags is None
        assert await aws.backend.look_up(aws.path("a")) == RemoteUnknown(
            "denied", "secretsmanager:DescribeSecret is not granted"
        )


async def test_without_the_right_to_batches_values_are_read_one_by_one(
    roto: Aws, aws_front: AwsFront
) -> None:
    for name in ("a", "b", "c"):
        await roto.put(name, {"k": name})
    aws_front.refuse_as("^BatchGetSecretValue", "AccessDeniedException")
    async with open_aws(aws_front.url, roto.prefix) as aws:
        for _ in range(2):
            reads = await aws.read("a", "b", "c")
            assert [json.loads(value(read).payload.reveal())["k"] for read in reads] == [*"abc"]
    assert aws_front.calls("BatchGetSecretValue") == 1, "and it is not asked for again"
    assert aws_front.calls("GetSecretValue") == 6


async def test_one_that_spoils_a_batch_is_told_apart(roto: Aws, aws_front: AwsFront) -> None:
    """A policy of the network's endpoint that denies one denies a batch with it."""
    for name in ("a", "b"):
        await roto.put(name, {"k": name})
    aws_front.refuse_as("^BatchGetSecretValue", "AccessDeniedException")
    aws_front.refuse_as(f"^GetSecretValue {roto.prefix}b", "AccessDeniedException")
    async with open_aws(aws_front.url, roto.prefix) as aws:
        first, second = await aws.read("a", "b")
    assert isinstance(first, RemoteValue)
    assert second == RemoteUnknown("denied")


async def test_what_a_batch_denies_is_not_asked_for_again(roto: Aws, aws_front: AwsFront) -> None:
    errors = [
        {"SecretId": roto.prefix + "a", "ErrorCode": "AccessDeniedException", "Message": CANARY},
        {"SecretId": roto.prefix + "b", "ErrorCode": "DecryptionFailure", "Message": CANARY},
    ]
    body = {"SecretValues": [], "Errors": errors}
    aws_front.answer("^BatchGetSecretValue", lambda _: web.json_response(body))
    async with open_aws(aws_front.url, roto.prefix) as aws:
        reads = await aws.read("a", "b")
    assert [read.reason for read in reads if isinstance(read, RemoteUnknown)] == [
        "denied",
        "unreadable",
    ]
    assert CANARY not in repr(reads)
    assert aws_front.calls("GetSecretValue") == 0


async def test_batch_that_gives_an_earlier_version_is_not_believed(moto: Aws) -> None:
    """This emulator goes on giving the version from before the label was moved."""
    for name in ("a", "b"):
        await moto.put(name, {"k": "old"})
        await moto.put(name, {"k": "new"})
    async with open_aws(moto.url, moto.prefix) as aws:
        reads = await aws.read("a", "b")
    assert [json.loads(value(read).payload.reveal()) for read in reads] == [{"k": "new"}] * 2


async def test_value_whose_key_is_gone_is_unreadable_and_stops_no_other(
    roto: Aws, aws_front: AwsFront
) -> None:
    for name in ("a", "b"):
        await roto.put(name, {"k": name})
    aws_front.refuse_as("^BatchGetSecretValue", "InvalidParameterException")
    aws_front.refuse_as(f"^GetSecretValue {roto.prefix}a", "DecryptionFailure", message=CANARY)
    async with open_aws(aws_front.url, roto.prefix) as aws:
        first, second = await aws.read("a", "b")
    assert isinstance(first, RemoteUnknown)
    assert first.reason == "unreadable"
    assert isinstance(second, RemoteValue)


async def test_value_beyond_the_limit_is_too_large(roto: Aws) -> None:
    await roto.put("a", "x" * 1001)
    await roto.put("b", "x" * 1000)
    async with open_aws(roto.url, roto.prefix, max_value_bytes=1000) as aws:
        first, second = await aws.read("a", "b")
    assert first == RemoteUnknown("value_too_large")
    assert isinstance(second, RemoteValue)


# --- listing ----------------------------------------------------------------------


async def test_listing_costs_a_call_for_a_hundred_names_below_the_prefixes(
    roto: Aws, aws_front: AwsFront
) -> None:
    for number in range(105):
        await roto.put(f"in/{number}", {"k": "v"})
        await roto.put(f"out/{number}", {"k": "v"})
    await roto.put("also/a", {"k": "v"})
    prefixes = [roto.prefix + "in/", roto.prefix + "also/"]
    rules = tuple(RuleSpec(f"ext{n}/**", f"{prefix}**") for n, prefix in enumerate(prefixes))
    async with open_aws(aws_front.url, roto.prefix, rules=rules) as aws:
        connection = await aws.backend.connect(prefixes, probe=False)
        listed = await aws.listed(*prefixes)
    assert connection.identity == f"aws:{ACCOUNT}:{REGION}"
    assert len(listed.names) == len(set(listed.names)) == 106
    assert sorted(scope.prefix for scope in listed.scopes) == sorted(prefixes)
    assert aws_front.seen == ["ListSecrets "] * ceil(106 / 100), "whose store it is told too"


async def test_page_that_told_the_account_begins_no_listing_of_later(roto: Aws) -> None:
    now = 0.0
    async with open_aws(roto.url, roto.prefix) as aws:
        assert isinstance(aws.backend, AwsBackend)
        aws.backend._listing.clock = lambda: now
        await aws.backend.connect([roto.prefix], probe=False)
        await roto.put("a", {"k": "v"})
        now = 61.0
        assert (await aws.listed()).names == [aws.path("a")]


async def test_other_names_that_a_filter_lets_through_are_left_out(roto: Aws) -> None:
    """This emulator does not tell cases apart; a filter of one's own replaces the prefix."""
    await roto.put("a", {"k": "v"})
    shouted = Aws(roto.url, roto.prefix.upper())
    await shouted.put("a", {"k": "v"})
    async with open_aws(roto.url, roto.prefix) as aws:
        assert (await aws.listed()).names == [aws.path("a")]
    async with open_aws(roto.url, roto.prefix, filters={"name": [roto.prefix[:1]]}) as aws:
        assert (await aws.listed()).names == [aws.path("a")]


async def test_filters_are_sent_along(roto: Aws) -> None:
    await roto.put("a", {"k": "v"}, team="x")
    await roto.put("b", {"k": "v"}, team="y")
    async with open_aws(roto.url, roto.prefix, filters={"tag-value": ["x"]}) as aws:
        assert (await aws.listed()).names == [aws.path("a")]


async def test_names_that_aws_would_not_take_are_rejected(roto: Aws) -> None:
    await roto.put("a", {"k": "v"})
    await roto.put("we ird", {"k": "v"})
    await roto.put("x/../y", {"k": "v"})
    async with open_aws(roto.url, roto.prefix) as aws:
        listed = await aws.listed()
    assert listed.names == [aws.path("a")]
    assert sorted(listed.rejected) == [
        (roto.prefix + "we ird", "name_not_allowed"),
        (roto.prefix + "x/../y", "illegal_path"),
    ]


async def test_one_folder_is_listed_alone(roto: Aws) -> None:
    for name in ("in/a", "in/b", "in/b/c", "in/d/e/f", "out/g"):
        await roto.put(name, {"k": "v"})
    async with open_aws(roto.url, roto.prefix) as aws:
        found = await aws.backend.list_folder(roto.prefix + "in/")
        none = await aws.backend.list_folder(roto.prefix + "none/")
    assert sorted(entry.remote_path for entry in found.entries) == [
        roto.prefix + "in/a",
        roto.prefix + "in/b",
    ]
    assert sorted(found.folders) == [roto.prefix + "in/b/", roto.prefix + "in/d/"]
    assert found.scope.outcome is none.scope.outcome is ScopeOutcome.COMPLETE
    assert (none.entries, none.folders) == ((), ())


async def test_listing_that_is_denied_is_no_empty_one(roto: Aws, aws_front: AwsFront) -> None:
    await roto.put("a", {"k": "v"})
    aws_front.refuse_as("^ListSecrets", "AccessDeniedException")
    async with open_aws(aws_front.url, roto.prefix) as aws:
        listed = await aws.listed()
        found = await aws.backend.list_folder(roto.prefix)
    assert [scope.outcome for scope in listed.scopes] == [ScopeOutcome.DENIED]
    assert found.scope.outcome is ScopeOutcome.DENIED


async def test_listing_that_breaks_off_fails(roto: Aws, aws_front: AwsFront) -> None:
    page = {
        "SecretList": [{"Name": roto.prefix + "a", "ARN": "arn:aws:x"}],
        "NextToken": "more",
    }

    async def answer(request: web.Request) -> web.StreamResponse:
        if b"NextToken" in await request.read():
            body = {"__type": "InvalidNextTokenException"}
            return web.json_response(body, status=400)
        return web.json_response(page)

    aws_front.answer("^ListSecrets", answer)
    async with open_aws(aws_front.url, roto.prefix) as aws:
        listed = await aws.listed()
    assert listed.names == [aws.path("a")]
    assert [scope.outcome for scope in listed.scopes] == [ScopeOutcome.FAILED]


async def test_listing_that_leads_to_itself_ends(roto: Aws, aws_front: AwsFront) -> None:
    page = {"SecretList": [], "NextToken": "again"}
    aws_front.answer("^ListSecrets", lambda _: web.json_response(page))
    async with open_aws(aws_front.url, roto.prefix) as aws:
        with pytest.raises(BackendError) as raised:
            await aws.listed()
    assert raised.value.code == "listing_unbounded"


# --- what goes wrong --------------------------------------------------------------


async def test_throttling_is_raised_and_repeated_by_nobody_but_the_guard(
    roto: Aws, aws_front: AwsFront
) -> None:
    def busy(_: web.Request) -> web.Response:
        body = {"__type": "ThrottlingException", "Message": CANARY}
        return web.json_response(body, status=400, headers={"Retry-After": "7"})

    aws_front.answer("", busy)
    async with open_aws(aws_front.url, roto.prefix) as aws:
        with pytest.raises(ThrottledError) as raised:
            await aws.backend.look_up(aws.path("a"))
    assert (raised.value.retry_after, raised.value.sent) == (7.0, False)
    assert CANARY not in raised.value.message
    assert len(aws_front.seen) == 1


async def test_failing_service_is_called_once(roto: Aws, aws_front: AwsFront) -> None:
    aws_front.refuse_as("", "InternalServiceError", 500, CANARY)
    async with open_aws(aws_front.url, roto.prefix) as aws:
        with pytest.raises(BackendUnreachableError) as raised:
            await aws.read("a", "b")
    assert raised.value.sent
    assert CANARY not in raised.value.message
    assert len(aws_front.seen) == 1


async def test_page_of_something_else_is_no_answer(roto: Aws, aws_front: AwsFront) -> None:
    for status in (200, 404):
        aws_front.rules.clear()
        aws_front.html("", status)
        async with open_aws(aws_front.url, roto.prefix) as aws:
            with pytest.raises(ProtocolError):
                await aws.listed()


async def test_empty_answer_is_no_empty_listing(roto: Aws, aws_front: AwsFront) -> None:
    aws_front.answer("", lambda _: web.json_response({}))
    async with open_aws(aws_front.url, roto.prefix) as aws:
        with pytest.raises(ProtocolError):
            await aws.listed()
        with pytest.raises(ProtocolError):
            await aws.read("a")
        with pytest.raises(ProtocolError):
            await aws.backend.look_up(aws.path("a"))


async def test_redirect_is_not_followed(roto: Aws, aws_front: AwsFront) -> None:
    elsewhere = {"Location": f"{roto.url}/"}
    aws_front.answer("", lambda _: web.Response(status=307, headers=elsewhere))
    async with open_aws(aws_front.url, roto.prefix) as aws:
        with pytest.raises(ProtocolError, match="redirects"):
            await aws.listed()
    assert len(aws_front.seen) == 1


async def test_answer_without_end_is_cut_off(
    roto: Aws, aws_front: AwsFront, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport._Answer, "most", 1000)
    aws_front.answer("", lambda _: web.json_response({"SecretList": [], "x": "y" * 2000}))
    async with open_aws(aws_front.url, roto.prefix) as aws:
        with pytest.raises(ProtocolError, match="larger"):
            await aws.listed()


async def test_address_that_may_not_be_called_is_not(roto: Aws, aws_front: AwsFront) -> None:
    with pytest.raises(ConfigError, match="loopback"):
        async with open_aws(aws_front.url, roto.prefix, policy=NetworkPolicy()):
            pass
    host, port = aws_front.url.removeprefix("http://").split(":")
    own = NetworkPolicy(allow_loopback=True, own_listeners=frozenset({(host, int(port))}))
    url = f"http://localhost:{port}"
    async with open_aws(url, roto.prefix, policy=own, managed_by=ManagedBy.API) as aws:
        with pytest.raises(BackendError) as raised:
            await aws.listed()
    assert (raised.value.code, raised.value.sent) == ("endpoint_refused", False)
    assert aws_front.seen == []


async def test_proxy_of_the_environment_is_not_used(
    roto: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    await roto.put("a", {"k": "v"})
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with open_aws(roto.url, roto.prefix) as aws:
        assert isinstance(await aws.backend.look_up(aws.path("a")), Entry)


async def test_endpoint_that_is_not_there_is_unreachable(roto: Aws) -> None:
    async with open_aws("http://127.0.0.1:9", roto.prefix) as aws:
        with pytest.raises(BackendUnreachableError) as raised:
            await aws.listed()
    assert not raised.value.sent


async def test_name_that_cannot_be_resolved_points_at_the_region(roto: Aws) -> None:
    """So it is with a region that does not exist: AWS's address is made of its name."""
    async with open_aws("https://nowhere.invalid", roto.prefix) as aws:
        with pytest.raises(BackendUnreachableError, match=r"config\.region") as raised:
            await aws.listed()
    assert not raised.value.sent


async def test_path_beyond_the_rules_is_never_asked_for(roto: Aws, aws_front: AwsFront) -> None:
    async with open_aws(aws_front.url, roto.prefix) as aws:
        [read] = await aws.backend.read([aws.path("../x")])
        outside = await aws.backend.look_up(RemotePath("other/x"))
    assert isinstance(read, RemoteUnknown)
    assert isinstance(outside, RemoteUnknown)
    assert aws_front.seen == []


async def test_history_in_full_is_refused_when_it_is_configured(roto: Aws) -> None:
    with pytest.raises(ConfigError, match="full"):
        async with open_aws(roto.url, roto.prefix, history=HistoryMode.FULL):
            pass
