"""Reading and listing a real OpenBao, where it differs from what one would expect."""

import json
from typing import Any

import pytest
from aiohttp import web
from tests.openbao import Bao, detailed_policy, guide_policy, new_mount
from tests.servers import FaultyTcp, Front
from tests.vaults import opened, spec_of

from svsync.backends.guarded import BackendGuard
from svsync.backends.vault import VaultDriver
from svsync.domain.changes import (
    Entry,
    RemoteGone,
    RemoteUnknown,
    RemoteValue,
    Scope,
    ScopeOutcome,
)
from svsync.domain.errors import ConfigError, ListingError, MappingError, ProtocolError
from svsync.domain.federation import ManagedBy, RuleSpec
from svsync.domain.ids import RemotePath
from svsync.embedded.openbao import OpenBaoServer
from svsync.network import NetworkPolicy
from svsync.testing.conformance import CountingGuard, list_all


def path(bao: Bao, name: str) -> RemotePath:
    return RemotePath(f"{bao.mount}/data/{name}" if bao.version == 2 else f"{bao.mount}/{name}")


async def test_three_kinds_of_404_are_told_apart(kv2: Bao) -> None:
    await kv2.put("deleted", {"k": "v"})
    await kv2.delete("deleted")
    await kv2.put("destroyed", {"k": "v"})
    await kv2.destroy("destroyed", [1])
    async with opened(spec_of(kv2), kv2.root_token) as backend:
        deleted, destroyed, never = [
            (await backend.read([path(kv2, name)]))[0] for name in ("deleted", "destroyed", "never")
        ]
        await kv2.request("DELETE", f"sys/mounts/{kv2.mount}")
        (unmounted,) = await backend.read([path(kv2, "deleted")])
        looked_up = await backend.look_up(path(kv2, "deleted"))
        listed = await list_all(backend, [path(kv2, "")])
    assert isinstance(deleted, RemoteGone)
    assert isinstance(destroyed, RemoteGone)
    assert isinstance(never, RemoteGone)
    assert (deleted.reason, destroyed.reason, never.reason) == (
        "deleted",
        "destroyed",
        "not_found",
    )
    assert isinstance(unmounted, RemoteUnknown)
    assert isinstance(looked_up, RemoteUnknown)
    assert [scope.outcome for scope in listed.scopes] == [ScopeOutcome.FAILED]


async def test_the_text_of_a_value_is_kept_as_it_was_sent(kv2: Bao) -> None:
    await kv2.put("a", {"n": 1.10, "big": 12345678901234567890123, "s": "<&>\u2028"})
    async with opened(spec_of(kv2), kv2.root_token) as backend:
        (read,) = await backend.read([path(kv2, "a")])
    assert isinstance(read, RemoteValue)
    # OpenBao itself made doubles of the numbers; svsync changes nothing more.
    assert b'"n":1.1' in read.payload.reveal()
    assert b'"big":1.2345678901234568e+22' in read.payload.reveal()
    assert json.loads(read.payload.reveal())["s"] == "<&>\u2028"


async def test_a_version_that_expires_changes_its_token(kv2: Bao) -> None:
    await kv2.put("a", {"k": "v"})
    async with Front(kv2.url) as front:
        date = "Thu, 01 Jan 2026 00:00:00 GMT"

        async def at_the_time(request: web.Request) -> web.StreamResponse:
            answer = await front.forward(request)
            assert isinstance(answer, web.Response)
            assert isinstance(answer.body, bytes)
            body: dict[str, Any] = json.loads(answer.body)
            body["data"]["versions"]["1"]["deletion_time"] = "2026-06-01T00:00:00.123456789Z"
            return web.json_response(body, headers={"Date": date})

        front.answer("GET .*/metadata/a", at_the_time)
        async with opened(spec_of(kv2, url=front.url), kv2.root_token) as backend:
            before = await backend.look_up(path(kv2, "a"))
            date = "Wed, 01 Jul 2026 00:00:00 GMT"
            after = await backend.look_up(path(kv2, "a"))
    assert isinstance(before, Entry)
    assert isinstance(after, Entry)
    assert (before.gone, after.gone) == (False, True)
    assert before.value_token != after.value_token


async def test_destroying_what_was_deleted_changes_the_token_once_more(kv2: Bao) -> None:
    await kv2.put("a", {"k": "v"})
    async with opened(spec_of(kv2), kv2.root_token) as backend:
        await kv2.delete("a")
        deleted = await backend.look_up(path(kv2, "a"))
        await kv2.destroy("a", [1])
        destroyed = await backend.look_up(path(kv2, "a"))
    assert isinstance(deleted, Entry)
    assert isinstance(destroyed, Entry)
    assert destroyed.gone
    assert deleted.value_token != destroyed.value_token


async def test_metadata_without_a_version_is_gone_the_same_way_in_all_answers(kv2: Bao) -> None:
    await kv2.tag("a", {"owner": "me"})
    async with opened(spec_of(kv2), kv2.root_token) as backend:
        entry = (await list_all(backend, [path(kv2, "")])).entries[path(kv2, "a")]
        (read,) = await backend.read([path(kv2, "a")])
    assert entry.gone
    assert isinstance(read, RemoteGone)
    assert read.value_token == entry.value_token


async def test_a_value_of_two_megabytes_is_too_large_and_nothing_else_fails(kv2: Bao) -> None:
    await kv2.put("large", {"k": "x" * 2_000_000})
    await kv2.put("small", {"k": "v"})
    async with opened(spec_of(kv2), kv2.root_token) as backend:
        (large,) = await backend.read([path(kv2, "large")])
        (small,) = await backend.read([path(kv2, "small")])
    assert isinstance(large, RemoteUnknown)
    assert large.reason == "value_too_large"
    assert isinstance(small, RemoteValue)


async def test_an_answer_over_eight_megabytes_is_cut_off_while_it_is_read(kv2: Bao) -> None:
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        await answer.prepare(request)
        for _ in range(1000):
            await answer.write(b" " * 100_000)
            sent += 100_000
        return answer

    async with Front(kv2.url) as front:
        front.answer(f"^GET /v1/{kv2.mount}/data/a", endless)
        async with opened(spec_of(kv2, url=front.url), kv2.root_token) as backend:
            (read,) = await backend.read([path(kv2, "a")])
    assert isinstance(read, RemoteUnknown)
    assert read.reason == "value_too_large"
    assert sent < 50_000_000


async def test_a_version_that_holds_no_data_is_undecodable(kv2: Bao) -> None:
    await kv2.request("POST", f"{kv2.mount}/data/a", {"data": None})
    async with opened(spec_of(kv2), kv2.root_token) as backend:
        (read,) = await backend.read([path(kv2, "a")])
    assert isinstance(read, RemoteUnknown)
    assert read.reason == "undecodable"


async def test_a_path_outside_of_every_rule_is_never_asked_for(kv2: Bao, kv1: Bao) -> None:
    guard = CountingGuard()
    spec = spec_of(kv2, remote=f"{kv2.mount}/data/apps/**")
    async with opened(spec, kv2.root_token, guard) as backend:
        for outside in (path(kv2, "other/a"), path(kv1, "a"), RemotePath("sys/raw/x")):
            (read,) = await backend.read([outside])
            assert isinstance(read, RemoteUnknown)
            assert read.reason == "illegal_path"
    assert guard.calls == []


async def test_mounts_may_hold_slashes(openbao: OpenBaoServer) -> None:
    bao = await new_mount(openbao, prefix="team/a/kv")
    await bao.put("x/y", {"k": "v"})
    async with opened(spec_of(bao), bao.root_token) as backend:
        assert (await backend.connect([path(bao, "")])).status == "healthy"
        assert set((await list_all(backend, [path(bao, "")])).names) == {path(bao, "x/y")}


# --- listing ------------------------------------------------------------------------


def counts(front: Front) -> tuple[int, int, int]:
    """Detailed pages, plain folders, metadata reads that were sent."""
    detailed = sum("/detailed-metadata/" in line for line in front.seen)
    metadata = [line for line in front.seen if "/metadata/" in line]
    folders = sum(line.endswith("/") for line in metadata)
    return detailed, folders, len(metadata) - folders


async def test_what_a_listing_costs(kv2: Bao) -> None:
    for name in ("a", "b", "d/c"):
        await kv2.put(name, {"k": "v"})
    async with Front(kv2.url) as front:
        spec = spec_of(kv2, url=front.url)
        prefix = path(kv2, "")
        async with opened(spec, kv2.root_token) as backend:
            await list_all(backend, [prefix])
        assert counts(front) == (4, 0, 0), "a page and an end for each of two folders"
        front.seen.clear()
        token = await kv2.token(guide_policy(kv2.mount))
        async with opened(spec, token) as backend:
            await list_all(backend, [prefix])
            assert counts(front) == (1, 2, 3), "names, then metadata one by one"
            front.seen.clear()
            await list_all(backend, [prefix], tokens=False)
            assert counts(front) == (1, 2, 0), "a first sync reads the values anyway"


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (404, '{"errors":[]}', "application/json"),
        (404, '{"errors":["1 error occurred: unsupported path"]}', "application/json"),
        (405, '{"errors":["1 error occurred: unsupported operation"]}', "application/json"),
        (400, '{"errors":["no"]}', "application/json"),
        (403, "<html>blocked</html>", "text/html"),
    ],
)
async def test_without_a_detailed_listing_the_plain_one_tells_the_same(
    kv2: Bao, status: int, body: str, kind: str
) -> None:
    for name in ("a", "d/c"):
        await kv2.put(name, {"k": "v"})
    async with Front(kv2.url) as front:
        spec = spec_of(kv2, url=front.url)
        async with opened(spec, kv2.root_token) as backend:
            detailed = await list_all(backend, [path(kv2, "")])
            front.answer(
                "/detailed-metadata/",
                lambda _: web.Response(status=status, text=body, content_type=kind),
            )
            plain = await list_all(backend, [path(kv2, "")])
    assert plain.entries == detailed.entries
    assert len(plain.entries) == 2
    assert sorted(plain.scopes, key=str) == sorted(detailed.scopes, key=str)


async def test_pages_are_followed_to_the_end(kv2: Bao, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("svsync.backends.vault.listing._PAGE", 2)
    names = [f"n{number}" for number in range(7)] + ["n3/x"]
    for name in names:
        await kv2.put(name, {"k": name})
    async with opened(spec_of(kv2), kv2.root_token) as backend:
        listed = await list_all(backend, [path(kv2, "")])
    assert sorted(listed.names) == sorted(path(kv2, name) for name in names)


@pytest.mark.parametrize("hidden", ["b", "cd", "bcd"])
async def test_keys_hidden_from_a_page_do_not_end_the_listing(
    kv2: Bao, monkeypatch: pytest.MonkeyPatch, hidden: str
) -> None:
    """A page whose keys are all hidden is answered like the end of the folder."""
    monkeypatch.setattr("svsync.backends.vault.listing._PAGE", 2)
    mount = kv2.mount
    for name in "abcdefgh":
        await kv2.put(name, {"k": "v"})
    policy = (
        guide_policy(mount)
        + f'path "{mount}/detailed-metadata/*" {{ capabilities = ["list"]\n'
        + f'  list_scan_response_keys_filter_path = "{mount}/metadata/{{{{ .key }}}}" }}\n'
        + "".join(
            f'path "{mount}/metadata/{name}" {{ capabilities = ["deny"] }}\n' for name in hidden
        )
    )
    async with opened(spec_of(kv2), await kv2.token(policy)) as backend:
        listed = await list_all(backend, [path(kv2, "")])
    assert set(listed.names) == {path(kv2, name) for name in "abcdefgh" if name not in hidden}


async def test_names_that_may_not_be_used_are_rejected_and_shown_escaped(kv2: Bao) -> None:
    bad = ["..", "back\\slash", "nul\x00", "e\u0301", "%2e%2e", "..%2F", "a/b"]
    await kv2.put("good", {"k": "v"})
    async with Front(kv2.url) as front:
        names = {"errors": None, "data": {"keys": [*bad, "../", "good"]}}
        front.answer("GET .*/metadata/$", lambda _: web.json_response(names))
        token = await kv2.token(guide_policy(kv2.mount))
        async with opened(spec_of(kv2, url=front.url), token) as backend:
            listed = await list_all(backend, [path(kv2, "")])
        assert not [line for line in front.seen if ".." in line]
    assert listed.names == [path(kv2, "good")]
    assert len(listed.rejected) == len(bad) + 1
    assert {reason for _, reason in listed.rejected} == {"illegal_path"}
    assert all(shown.isprintable() and shown.isascii() for shown, _ in listed.rejected)


@pytest.mark.parametrize("detailed", [True, False])
async def test_a_listing_that_does_not_end_is_stopped(kv2: Bao, detailed: bool) -> None:
    made = 0

    def endless(request: web.Request) -> web.Response:
        nonlocal made
        made += 1
        limit = int(request.query.get("limit", "50"))
        keys = [f"k{made:08d}-{n:04d}" for n in range(limit)] + ([] if detailed else ["more/"])
        return web.json_response({"data": {"keys": keys, "key_info": {}}})

    async with Front(kv2.url) as front:
        front.answer("GET .*/detailed-metadata/" if detailed else "GET .*/metadata/", endless)
        token = kv2.root_token if detailed else await kv2.token(guide_policy(kv2.mount))
        async with opened(spec_of(kv2, url=front.url, max_secrets=5000), token) as backend:
            with pytest.raises(ListingError, match="max_secrets") as caught:
                await list_all(backend, [path(kv2, "")], tokens=detailed)
    assert caught.value.code == "listing_unbounded"


async def test_a_page_that_is_given_again_is_stopped(kv2: Bao) -> None:
    keys = [f"k{n:04d}" for n in range(500)]
    page = {"data": {"keys": keys, "key_info": {}}}
    async with Front(kv2.url) as front:
        front.answer("GET .*/detailed-metadata/", lambda _: web.json_response(page))
        async with opened(spec_of(kv2, url=front.url), kv2.root_token) as backend:
            with pytest.raises(ListingError, match="repeats") as caught:
                await list_all(backend, [path(kv2, "")])
    assert caught.value.code == "listing_unbounded"


async def test_large_pages_are_asked_for_in_smaller_ones(kv2: Bao) -> None:
    for name in "abc":
        await kv2.put(name, {"k": "v"})
    limits: list[str] = []

    async with Front(kv2.url) as front:

        async def padded(request: web.Request) -> web.StreamResponse:
            limits.append(request.query.get("limit", "all"))
            answer = await front.forward(request)
            if int(request.query.get("limit", "0")) > 100:
                assert isinstance(answer, web.Response)
                assert isinstance(answer.body, bytes)
                answer.body += b" " * 9_000_000
            return answer

        front.answer("GET .*/detailed-metadata/", padded)
        async with opened(spec_of(kv2, url=front.url), kv2.root_token) as backend:
            listed = await list_all(backend, [path(kv2, "")])
    assert len(listed.names) == 3
    assert limits == ["500", "125", "31", "all"]


async def test_a_folder_that_vanishes_while_listing_is_failed(kv2: Bao) -> None:
    await kv2.put("a/x", {"k": "v"})
    await kv2.put("b/y", {"k": "v"})
    async with Front(kv2.url) as front:
        front.refuse(r"metadata/b/", 404, '{"errors":[]}')
        async with opened(spec_of(kv2, url=front.url), kv2.root_token) as backend:
            listed = await list_all(backend, [path(kv2, "")])
            nested = await list_all(backend, [path(kv2, "nothing/here/")])
    assert Scope(path(kv2, "b/"), ScopeOutcome.FAILED, "folder_missing") in listed.scopes
    assert set(listed.names) == {path(kv2, "a/x")}
    assert [scope.outcome for scope in nested.scopes] == [ScopeOutcome.COMPLETE]


async def test_a_mount_that_no_policy_reaches_is_a_denied_scope(kv2: Bao) -> None:
    token = await kv2.token('path "elsewhere/*" { capabilities = ["read"] }')
    async with opened(spec_of(kv2), token) as backend:
        listed = await list_all(backend, [path(kv2, "")])
        connection = await backend.connect([path(kv2, "")])
        (read,) = await backend.read([path(kv2, "a")])
    assert [scope.outcome for scope in listed.scopes] == [ScopeOutcome.DENIED]
    assert connection.status == "denied"
    assert isinstance(read, RemoteUnknown)
    assert read.reason == "denied"


async def test_logins_and_their_renewals_are_counted_apart(kv2: Bao) -> None:
    await kv2.put("a", {"k": "v"})
    guard = BackendGuard()
    login = await kv2.approle(guide_policy(kv2.mount))
    fields = {"role_id": login.role_id, "secret_id": login.secret_id}
    spec = spec_of(kv2, config={"auth_method": "approle"})
    async with opened(spec, fields, guard) as backend:
        await list_all(backend, [path(kv2, "")])
        await backend.read([path(kv2, "a")])
    calls = guard.snapshot().calls
    assert (calls["login"], calls["read"], calls["metadata"]) == (1, 1, 1)


async def test_an_outage_is_bridged_by_the_guard(kv2: Bao) -> None:
    await kv2.put("a", {"k": "v"})

    async def no_wait(_: float) -> None:
        proxy.fault = "none"

    async with FaultyTcp(("127.0.0.1", kv2.server.port)) as proxy:
        guard = BackendGuard(sleep=no_wait)
        spec = spec_of(kv2, url=f"http://127.0.0.1:{proxy.port}")
        async with opened(spec, kv2.root_token, guard) as backend:
            await backend.read([path(kv2, "a")])
            proxy.fault = "reset"
            (read,) = await backend.read([path(kv2, "a")])
    assert isinstance(read, RemoteValue)
    assert guard.snapshot().statuses["read", "unreachable"] == 1


# --- connect and configuration ------------------------------------------------------


async def test_the_connection_test_names_each_permission_and_its_line(kv2: Bao) -> None:
    mount = kv2.mount
    token = await kv2.token(f'path "{mount}/metadata/*" {{ capabilities = ["list", "read"] }}')
    async with opened(spec_of(kv2), token) as backend:
        found = await backend.connect([path(kv2, "")])
    checks = {check.name: check for check in found.checks}
    assert checks[f"list {mount}/data/"].state == "granted"
    read = checks[f"read {mount}/data/"]
    assert read.state == "missing"
    assert read.hint == f'path "{mount}/data/*" {{ capabilities = ["read"] }}'
    fast = checks[f"fast listing of {mount}/data/ (OpenBao)"]
    assert fast.state == "missing_optional"
    assert fast.hint + "\n" == detailed_policy(mount)
    assert found.status == "denied"
    assert any("token_no_default_policy" in warning for warning in found.warnings)


async def test_a_partly_denied_mapping_is_degraded(kv2: Bao, kv1: Bao) -> None:
    rules = (
        RuleSpec("one/**", f"{kv2.mount}/data/**"),
        RuleSpec("two/**", f"{kv1.mount}/**"),
    )
    token = await kv2.token(guide_policy(kv2.mount))
    async with opened(spec_of(kv2, rules=rules), token) as backend:
        found = await backend.connect([f"{kv2.mount}/data/", f"{kv1.mount}/"])
    assert found.status == "degraded"


async def test_the_identity_is_the_clusters_and_needs_no_permission(
    kv2: Bao, openbao: OpenBaoServer
) -> None:
    health = await openbao.request("GET", "sys/health")
    token = await kv2.token(guide_policy(kv2.mount), no_default_policy=True)
    async with opened(spec_of(kv2), token) as backend:
        found = await backend.connect([path(kv2, "")])
    assert found.identity == health["cluster_id"]
    assert found.version == health["version"]
    assert found.latency_ms > 0


@pytest.mark.parametrize(
    ("remote", "corrected"), [("**", "data/**"), ("metadata/apps/*", "data/apps/*")]
)
async def test_a_kv2_rule_without_data_is_refused_with_the_right_one(
    kv2: Bao, remote: str, corrected: str
) -> None:
    spec = spec_of(kv2, remote=f"{kv2.mount}/{remote}")
    prefix = f"{kv2.mount}/{remote}".partition("*")[0]
    local = "external/**" if remote.endswith("**") else "external/*"
    spec = spec_of(kv2, rules=(RuleSpec(local, f"{kv2.mount}/{remote}"),))
    async with opened(spec, kv2.root_token) as backend:
        with pytest.raises(MappingError, match="KV v2") as caught:
            await backend.connect([prefix])
    assert f"{kv2.mount}/{corrected}".replace("*", "") in caught.value.message.replace("*", "")
    assert caught.value.where == "path_mapping[0].remote"


async def test_another_engine_is_not_a_kv_mount(kv2: Bao) -> None:
    spec = spec_of(kv2, remote="transit/**")
    await_mount = {"type": "transit"}
    await kv2.request("POST", "sys/mounts/transit", await_mount)
    async with opened(spec, kv2.root_token) as backend:
        with pytest.raises(ProtocolError, match="KV engine"):
            await backend.connect(["transit/"])
    await kv2.request("DELETE", "sys/mounts/transit")


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"endpoint": ""}, "config.endpoint: is missing"),
        ({"endpoint": 5}, "config.endpoint: is a text"),
        ({"endpoint": "http://vault.internal"}, "config.endpoint: must be an https"),
        ({"auth_method": "ldap"}, "config.auth_method"),
        ({"auth_method": "kubernetes"}, "config.role"),
        ({"namespaces": "acme"}, "did you mean namespace"),
        ({"namespace": "a b"}, "config.namespace"),
        ({"auth_mount": "../x"}, "config.auth_mount"),
        ({"tls_verify": "/nowhere"}, "config.tls_verify"),
    ],
)
def test_a_configuration_that_cannot_work_names_the_setting(
    config: dict[str, object], says: str
) -> None:
    good = {"endpoint": "https://vault.internal:8200", "auth_method": "token"}
    bao = Bao(None, "kv", 2)  # type: ignore[arg-type]
    spec = spec_of(bao, url="https://vault.internal", config={**good, **config})
    with pytest.raises(ConfigError, match=says):
        VaultDriver().check_config(spec)
    VaultDriver().check_config(spec_of(bao, url="x", config=good))


def test_the_api_may_neither_switch_verification_off_nor_name_files() -> None:
    bao = Bao(None, "kv", 2)  # type: ignore[arg-type]
    for verify in (False, "/etc/ca.pem"):
        spec = spec_of(
            bao,
            url="https://vault.internal",
            config={"tls_verify": verify},
            managed_by=ManagedBy.API,
        )
        with pytest.raises(ConfigError, match="operator's file"):
            VaultDriver(NetworkPolicy(file_managed=True)).check_config(spec)


@pytest.mark.parametrize("remote", ["**", "*/data/**", "sys/**", "auth/token/*", "kv"])
def test_rules_that_name_no_kv_mount_are_refused(remote: str) -> None:
    local = "external/**" if "**" in remote else "external/*" if "*" in remote else "external"
    if remote == "*/data/**":
        local = "external/*/**"
    bao = Bao(None, "kv", 2)  # type: ignore[arg-type]
    spec = spec_of(bao, url="https://vault.internal", rules=(RuleSpec(local, remote),))
    with pytest.raises(MappingError, match=r"path_mapping\[0\]"):
        VaultDriver().check_config(spec)
