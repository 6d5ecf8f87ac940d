"""Writes to a real OpenBao: what is touched, what is left alone, what is refused."""

import json
from collections.abc import Awaitable, Callable, Mapping

import pytest
from aiohttp import web
from tests.openbao import Bao
from tests.servers import Front
from tests.vault_writes import NEW, metadata, older_policy, order, ready_for, write, writing_policy
from tests.vaults import opened, spec_of

from svsync.domain.changes import RemoteValue, Tags
from svsync.domain.decide import PushKind
from svsync.domain.errors import BackendError, ProtocolError, ThrottledError
from svsync.domain.ids import PushId, RemotePath
from svsync.domain.pushes import REMOTE_CHANGED, Landed, Ready, Refused, RemoteWrite
from svsync.domain.values import Payload
from svsync.embedded.openbao import openbao_server

# --- what is touched -----------------------------------------------------------------


@pytest.mark.parametrize("policy", [writing_policy, older_policy])
async def test_settings_that_others_made_stay(kv2: Bao, policy: Callable[[str], str]) -> None:
    made = {"max_versions": 7, "cas_required": True, "delete_version_after": "30h"}
    await kv2.request("POST", f"{kv2.mount}/metadata/a", {**made, "custom_metadata": {"a": "1"}})
    before = await metadata(kv2)
    async with opened(spec_of(kv2), await kv2.token(policy(kv2.mount))) as backend:
        await write(backend, kv2, PushKind.CREATE, {"a": "1", "b": "2"})
        await write(backend, kv2, PushKind.METADATA, {"b": "3"})
        await write(backend, kv2, PushKind.DELETE)
    after = await metadata(kv2)
    assert {key: after[key] for key in made} == {key: before[key] for key in made}
    assert after["custom_metadata"] == {"b": "3"}


async def test_pair_that_somebody_set_between_check_and_write_stays(kv2: Bao) -> None:
    await kv2.put("a", {"k": "v"})
    await kv2.tag("a", {"mine": "1", "gone": "1"})
    async with opened(spec_of(kv2), kv2.root_token) as backend:
        asked = await order(backend, kv2, PushKind.PUT)
        ready = await ready_for(backend, asked)
        await kv2.tag("a", {"mine": "1", "gone": "1", "theirs": "1"})
        landed = await backend.write(asked, ready, {"mine": "2"})
    assert isinstance(landed, Landed)
    assert landed.tags == (await metadata(kv2))["custom_metadata"] == {"mine": "2", "theirs": "1"}


async def test_mount_that_demands_a_condition_is_written(kv2: Bao) -> None:
    await kv2.request("POST", f"{kv2.mount}/config", {"cas_required": True})
    async with opened(spec_of(kv2), kv2.root_token) as backend:
        assert isinstance(await write(backend, kv2, PushKind.CREATE), Landed)
        assert isinstance(await write(backend, kv2, PushKind.PUT), Landed)


async def test_version_that_will_expire_tells_its_token_when_written(kv2: Bao) -> None:
    await kv2.request("POST", f"{kv2.mount}/config", {"delete_version_after": "1h"})
    async with opened(spec_of(kv2), kv2.root_token) as backend:
        landed = await write(backend, kv2, PushKind.CREATE)
        [read] = await backend.read([RemotePath(f"{kv2.mount}/data/a")])
    assert isinstance(landed, Landed)
    assert isinstance(read, RemoteValue)
    assert landed.value_token == read.value_token
    assert read.value_token.count("T") == 2  # made, and to be deleted


async def test_name_with_tags_and_no_version_is_created(kv2: Bao) -> None:
    await kv2.tag("a", {"owner": "me"})
    async with opened(spec_of(kv2), kv2.root_token) as backend:
        asked = await order(backend, kv2, PushKind.CREATE)
        ready = await ready_for(backend, asked)
        assert ready.tags == {"owner": "me"}
        assert isinstance(await backend.write(asked, ready, None), Landed)


async def test_text_of_a_value_goes_out_unchanged(kv2: Bao) -> None:
    text = '{ "n": 1.10,"big":1E5 , "u":"\\u00e9\u00e9" }'
    sent: list[bytes] = []
    async with Front(kv2.url) as front:

        async def keep(request: web.Request) -> web.StreamResponse:
            sent.append(await request.read())
            return await front.forward(request)

        front.answer("^POST .*/data/", keep)
        async with opened(spec_of(kv2, url=front.url), kv2.root_token) as backend:
            await write(backend, kv2, PushKind.CREATE, payload=Payload.from_json_text(text))
    assert sent == [b'{"options":{"cas":0},"data":' + text.encode() + b"}"]


# --- tags that cannot be written -----------------------------------------------------


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"k": ""}, "push_refused"),
        ({"k": "v" * 513}, "push_refused"),
        ({f"k{n}": "v" for n in range(65)}, "push_refused"),
    ],
)
async def test_tags_that_the_server_does_not_take_leave_the_value_landed(
    kv2: Bao, tags: Mapping[str, str], reason: str
) -> None:
    await kv2.put("a", {"k": "v"})
    await kv2.tag("a", {"old": "1"})
    async with opened(spec_of(kv2), kv2.root_token) as backend:
        landed = await write(backend, kv2, PushKind.PUT, tags)
        alone = await write(backend, kv2, PushKind.METADATA, tags)
    assert isinstance(landed, Landed)
    assert (landed.order, landed.tags, landed.tags_refused) == (2, {"old": "1"}, reason)
    assert isinstance(alone, Refused)
    assert alone.reason == reason
    assert (await metadata(kv2))["custom_metadata"] == {"old": "1"}


@pytest.mark.parametrize(
    ("status", "reason", "told"),
    [
        (403, "denied", {"old": "1"}),
        (429, "push_throttled", {"old": "1"}),
        (503, "write_outcome_unknown", None),
    ],
)
async def test_tags_whose_write_fails_leave_the_value_landed(
    kv2: Bao, status: int, reason: str, told: Tags | None
) -> None:
    await kv2.put("a", {"k": "v"})
    await kv2.tag("a", {"old": "1"})
    async with Front(kv2.url) as front:
        front.refuse("^(PATCH|POST) .*/metadata/", status)
        async with opened(spec_of(kv2, url=front.url), kv2.root_token) as backend:
            landed = await write(backend, kv2, PushKind.PUT, {"new": "1"})
    assert isinstance(landed, Landed)
    assert (landed.order, landed.tags, landed.tags_refused) == (2, told, reason)
    assert (landed.meta_token is None) == (told is None)


@pytest.mark.parametrize("status", [403, 405, 415])
async def test_tags_are_sent_whole_where_no_single_key_may_be_sent(kv2: Bao, status: int) -> None:
    await kv2.put("a", {"k": "v"})
    await kv2.tag("a", {"old": "1", "kept": "1"})
    async with Front(kv2.url) as front:
        front.refuse("^PATCH ", status)
        async with opened(spec_of(kv2, url=front.url), kv2.root_token) as backend:
            landed = await write(backend, kv2, PushKind.PUT, {"kept": "1", "new": "1"})
    assert isinstance(landed, Landed)
    assert landed.tags_refused == ""
    assert (await metadata(kv2))["custom_metadata"] == {"kept": "1", "new": "1"}


# --- deletes -------------------------------------------------------------------------


Meanwhile = Callable[[Bao], Awaitable[object]]


async def overtaken(bao: Bao) -> None:
    await bao.put("a", {"k": "theirs"})


async def made_anew(bao: Bao) -> None:
    await bao.remove("a")
    await bao.put("a", {"k": "theirs"})


@pytest.mark.parametrize("meanwhile", [overtaken, made_anew])
@pytest.mark.parametrize("policy", [writing_policy, older_policy])
async def test_delete_that_met_somebody_elses_version_is_undone(
    kv2: Bao, policy: Callable[[str], str], meanwhile: Meanwhile
) -> None:
    await kv2.put("a", {"k": "v"})
    async with opened(spec_of(kv2), await kv2.token(policy(kv2.mount))) as backend:
        asked = await order(backend, kv2, PushKind.DELETE)
        ready = await ready_for(backend, asked)
        await meanwhile(kv2)
        assert await backend.write(asked, ready, None) == Refused(REMOTE_CHANGED)
    versions = (await metadata(kv2))["versions"].values()
    assert [version["deletion_time"] for version in versions] == [""] * len(versions)


async def test_delete_that_could_not_be_undone_is_not_made(kv2: Bao) -> None:
    await kv2.put("a", {"k": "v"})
    policy = "\n".join(older_policy(kv2.mount).splitlines()[:-1])
    async with opened(spec_of(kv2), await kv2.token(policy)) as backend:
        ended = await write(backend, kv2, PushKind.DELETE)
        [read] = await backend.read([RemotePath(f"{kv2.mount}/data/a")])
    assert isinstance(ended, Refused)
    assert ended.reason == "denied"
    assert isinstance(read, RemoteValue)


async def test_version_that_could_not_be_brought_back_is_named(kv2: Bao) -> None:
    await kv2.put("a", {"k": "v"})
    policy = "\n".join(writing_policy(kv2.mount).splitlines()[:-1])
    async with opened(spec_of(kv2), await kv2.token(policy)) as backend:
        asked = await order(backend, kv2, PushKind.DELETE)
        ready = await ready_for(backend, asked)
        await overtaken(kv2)
        ended = await backend.write(asked, ready, None)
    assert ended == Refused(REMOTE_CHANGED, "could not bring back version 1")


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (429, "{}", ThrottledError),
        (404, '{"errors":["no handler for route"]}', ProtocolError),
        (200, '{"data":{}}', ProtocolError),
    ],
)
async def test_delete_whose_look_afterwards_fails_may_have_been_made(
    kv2: Bao, status: int, body: str, kind: type[BackendError]
) -> None:
    await kv2.put("a", {"k": "v"})
    async with (
        Front(kv2.url) as front,
        opened(spec_of(kv2, url=front.url), kv2.root_token) as backend,
    ):
        asked = await order(backend, kv2, PushKind.DELETE)
        ready = await ready_for(backend, asked)
        front.refuse("^GET .*/metadata/", status, body)
        with pytest.raises(kind) as raised:
            await backend.write(asked, ready, None)
    assert raised.value.sent


# --- what is refused -----------------------------------------------------------------


async def test_mount_that_vanished_refuses(kv2: Bao) -> None:
    async with opened(spec_of(kv2), kv2.root_token) as backend:
        asked = await order(backend, kv2, PushKind.CREATE)
        ready = await ready_for(backend, asked)
        await kv2.request("DELETE", f"sys/mounts/{kv2.mount}")
        for refused in (await backend.check(asked), await backend.write(asked, ready, None)):
            assert isinstance(refused, Refused)
            assert refused.reason == "push_refused"


async def test_name_removed_during_its_delete_is_refused(kv2: Bao) -> None:
    await kv2.put("a", {"k": "v"})
    async with opened(spec_of(kv2), kv2.root_token) as backend:
        asked = await order(backend, kv2, PushKind.DELETE)
        ready = await ready_for(backend, asked)
        await kv2.remove("a")
        ended = await backend.write(asked, ready, None)
    assert ended == Refused(REMOTE_CHANGED, "the name was removed meanwhile")


async def test_path_outside_of_every_rule_is_not_written(kv2: Bao) -> None:
    async with opened(spec_of(kv2, remote=f"{kv2.mount}/data/app/**"), kv2.root_token) as backend:
        path = RemotePath(f"{kv2.mount}/data/other")
        asked = RemoteWrite(PushId("push_1"), path, PushKind.CREATE, None, None, NEW)
        for refused in (await backend.check(asked), await backend.write(asked, Ready(0), None)):
            assert isinstance(refused, Refused)
            assert refused.reason == "illegal_path"


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (413, "http: request body too large", "value_too_large"),
        (500, "put failed due to value being too large; got 156 bytes", "value_too_large"),
        (400, "refused JSON input due to high complexity", "push_refused"),
        (400, "check-and-set parameter did not match the current version", REMOTE_CHANGED),
    ],
)
async def test_refusal_is_told_by_its_reason(kv2: Bao, status: int, body: str, reason: str) -> None:
    async with Front(kv2.url) as front:
        front.refuse("^POST .*/data/", status, json.dumps({"errors": [body]}))
        async with opened(spec_of(kv2, url=front.url), kv2.root_token) as backend:
            refused = await write(backend, kv2, PushKind.CREATE)
    assert isinstance(refused, Refused)
    assert refused.reason == reason
    assert body not in refused.detail


async def test_value_that_storage_does_not_take_is_too_large(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Raft limits an entry to 1 MiB, and an entry holds more than the value."""
    async with openbao_server(tmp_path_factory.mktemp("raft"), storage="raft") as server:
        await server.request("POST", "sys/mounts/kv", {"type": "kv", "options": {"version": "1"}})
        bao = Bao(server, "kv", 1)
        blind = {"allow_blind_push": True}
        async with opened(spec_of(bao, extra=blind), server.root_token) as backend:
            large = Payload.from_fields({"k": "v" * (1024 * 1024 - 20)})
            ended = await write(backend, bao, PushKind.CREATE, payload=large)
            assert ended == Refused("value_too_large")
            assert isinstance(await write(backend, bao, PushKind.CREATE), Landed)


async def test_kv1_is_written_only_where_blind_pushes_are_allowed(kv1: Bao) -> None:
    async with opened(spec_of(kv1), kv1.root_token) as backend:
        asked = await order(backend, kv1, PushKind.CREATE)
        refused = await backend.check(asked)
    assert isinstance(refused, Refused)
    assert refused.reason == "blind_push"
