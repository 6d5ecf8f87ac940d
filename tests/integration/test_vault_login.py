"""Signing in to a real OpenBao: what is made, renewed, replaced, revoked, refused."""

import asyncio
from collections.abc import Mapping

import pytest
from aiohttp import web
from tests.openbao import Bao, guide_policy, new_mount
from tests.servers import FaultyTcp, Front, hanging_server
from tests.vaults import session_of, source_of

from svsync.clients.vault import VaultSession, VaultSettings
from svsync.domain.errors import (
    BackendError,
    BackendUnreachableError,
    ConfigError,
    DeniedError,
    LoginError,
    ProtocolError,
    ThrottledError,
)
from svsync.domain.values import Credential
from svsync.embedded.openbao import OpenBaoServer, TlsFiles
from svsync.network import NetworkPolicy

SELF = (
    'path "auth/token/renew-self" { capabilities = ["update"] }\n'
    'path "auth/token/revoke-self" { capabilities = ["update"] }\n'
)


async def get(session: VaultSession, bao: Bao, name: str = "a") -> int:
    path = f"{bao.mount}/data/{name}"
    return (await session.request("GET", path, operation="read", shown=path)).status


async def fields_of(bao: Bao, policy: str, **options: object) -> dict[str, str]:
    login = await bao.approle(policy, **options)
    return {"role_id": login.role_id, "secret_id": login.secret_id}


async def is_alive(bao: Bao, accessor: str) -> bool:
    accessors = (await bao.request("LIST", "auth/token/accessors"))["data"]
    assert isinstance(accessors, dict)
    return accessor in accessors["keys"]


async def own_accessor(session: VaultSession) -> str:
    answer = await session.request("GET", "auth/token/lookup-self", operation="login")
    return str(answer.json()["data"]["accessor"])


class Naps:
    """Sleeps that end when the test says so."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[float] = asyncio.Queue()
        self.wake = asyncio.Queue[None]()

    async def sleep(self, seconds: float) -> None:
        self.asked.put_nowait(seconds)
        await self.wake.get()


async def test_approle_reads_with_the_guides_policy(kv2: Bao) -> None:
    await kv2.put("a", {"k": "v"})
    fields = await fields_of(kv2, guide_policy(kv2.mount))
    async with session_of(kv2.url, fields) as session:
        assert await get(session, kv2) == 200


async def test_a_login_made_here_is_revoked_at_the_end(kv2: Bao) -> None:
    fields = await fields_of(kv2, guide_policy(kv2.mount))
    async with session_of(kv2.url, fields) as session:
        accessor = await own_accessor(session)
        assert await is_alive(kv2, accessor)
    assert not await is_alive(kv2, accessor)


async def test_a_token_that_was_given_is_not_revoked(kv2: Bao) -> None:
    await kv2.put("a", {"k": "v"})
    token = await kv2.token(guide_policy(kv2.mount))
    for _ in range(2):
        async with session_of(kv2.url, token) as session:
            assert await get(session, kv2) == 200


async def test_concurrent_first_calls_share_one_login(kv2: Bao) -> None:
    await kv2.put("a", {"k": "v"})
    fields = await fields_of(kv2, guide_policy(kv2.mount))
    async with Front(kv2.url) as front, session_of(front.url, fields) as session:
        assert await asyncio.gather(*(get(session, kv2) for _ in range(8))) == [200] * 8
        assert front.seen.count("POST /v1/auth/approle/login") == 1


async def test_a_wrapped_secret_id_is_unwrapped_once_and_serves_later_logins(kv2: Bao) -> None:
    await kv2.put("a", {"k": "v"})
    login = await kv2.approle(guide_policy(kv2.mount))
    wrapped = await kv2.wrapped_secret_id(login.role)
    fields = {"role_id": login.role_id, "wrapped_secret_id": wrapped}
    async with Front(kv2.url) as front, session_of(front.url, fields) as session:
        accessor = await own_accessor(session)
        await kv2.request("POST", "auth/token/revoke-accessor", {"accessor": accessor})
        assert await get(session, kv2) == 200
        assert front.seen.count("POST /v1/sys/wrapping/unwrap") == 1
    with pytest.raises(LoginError, match="unwrapped before or has expired"):
        async with session_of(kv2.url, fields) as session:
            await session.sign_in()


async def test_a_dead_token_is_replaced_once_with_what_the_source_gives_now(kv2: Bao) -> None:
    await kv2.put("a", {"k": "v"})
    policy = guide_policy(kv2.mount)
    tokens = [await kv2.token(policy), await kv2.token(policy)]
    asked = 0

    async def credential() -> Credential:
        nonlocal asked
        asked += 1
        return Credential.parse(tokens[asked - 1], "infra/vault")

    async with session_of(kv2.url, "", credential=credential) as session:
        assert await get(session, kv2) == 200
        await kv2.request("POST", "auth/token/revoke", {"token": tokens[0]})
        assert await get(session, kv2) == 200
    assert asked == 2


async def test_a_dead_token_without_a_new_one_fails_the_call(kv2: Bao) -> None:
    token = await kv2.token(guide_policy(kv2.mount))
    async with session_of(kv2.url, token) as session:
        await session.sign_in()
        await kv2.request("POST", "auth/token/revoke", {"token": token})
        with pytest.raises(LoginError, match="no longer accepted") as caught:
            await get(session, kv2)
    assert token not in str(caught.value)


async def test_token_for_a_connection_is_replaced_where_the_server_forgot_it(kv2: Bao) -> None:
    """A connection that is not a call has to ask for the token itself, and to be told once."""
    fields = await fields_of(kv2, SELF)
    async with Front(kv2.url) as front, session_of(front.url, fields) as session:
        first = await session.token()
        assert await session.token_instead_of(first) is None
        await kv2.request("POST", "auth/token/revoke", {"token": first.reveal()})
        second = await session.token_instead_of(first)
        assert second is not None
        assert second != first
        assert await session.token() is second
        asked = len(front.seen)
        assert await session.token_instead_of(first) is second
        assert len(front.seen) == asked, "what is newer already is given without a question"


@pytest.mark.parametrize("default_policy", [True, False])
async def test_a_denied_path_is_not_taken_for_a_dead_token(kv2: Bao, default_policy: bool) -> None:
    fields = await fields_of(
        kv2, guide_policy(kv2.mount), token_no_default_policy=not default_policy
    )
    async with Front(kv2.url) as front, session_of(front.url, fields) as session:
        with pytest.raises(DeniedError) as caught:
            await session.request("GET", "sys/mounts", operation="metadata", shown="sys/mounts")
        assert front.seen == ["POST /v1/auth/approle/login", "GET /v1/sys/mounts"]
    assert (caught.value.operation, caught.value.path) == ("metadata", "sys/mounts")
    assert caught.value.status == 403


@pytest.mark.parametrize("default_policy", [True, False])
async def test_a_refusal_in_other_words_is_asked_about(kv2: Bao, default_policy: bool) -> None:
    """Whether the token lives is then asked of the server, which may refuse that too."""
    fields = await fields_of(
        kv2, guide_policy(kv2.mount), token_no_default_policy=not default_policy
    )
    async with Front(kv2.url) as front, session_of(front.url, fields) as session:
        front.refuse(f"^GET /v1/{kv2.mount}/", 403, '{"errors":["no"]}')
        with pytest.raises(DeniedError):
            await get(session, kv2)
        assert front.seen.count("GET /v1/auth/token/lookup-self") == 1
        assert front.seen.count("POST /v1/auth/approle/login") == 1


async def test_a_wrong_token_is_refused_without_being_named(kv2: Bao) -> None:
    async with session_of(kv2.url, "s.wrongtoken") as session:
        with pytest.raises(LoginError, match="infra/vault") as caught:
            await session.sign_in()
    assert "wrongtoken" not in repr(caught.value)


async def test_a_wrong_secret_id_is_refused_without_being_named(kv2: Bao) -> None:
    fields = {**await fields_of(kv2, SELF), "secret_id": "wrong-secret-id"}
    async with session_of(kv2.url, fields) as session:
        with pytest.raises(LoginError) as caught:
            await session.sign_in()
    assert "wrong-secret-id" not in repr(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("fields", [{"role_id": "r"}, {"secret_id": "s"}])
async def test_a_credential_that_lacks_a_field_names_it(
    kv2: Bao, fields: Mapping[str, str]
) -> None:
    async with session_of(kv2.url, fields) as session:
        with pytest.raises(ConfigError, match="infra/vault"):
            await session.sign_in()


@pytest.mark.parametrize(
    ("method", "says"),
    [
        ("ldap", "not a login method: token, approle, kubernetes, aws and gcp are"),
        ("kubernetes", "config.role: is missing; kubernetes signs in as a role"),
    ],
)
async def test_login_that_is_not_configured_whole_says_what_is_missing(
    method: str, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        VaultSettings("https://vault.internal", method).check(NetworkPolicy())


async def test_a_login_is_renewed_at_two_thirds_of_its_life(kv2: Bao) -> None:
    naps = Naps()
    fields = await fields_of(kv2, guide_policy(kv2.mount), token_ttl="300s")
    async with (
        Front(kv2.url) as front,
        session_of(front.url, fields, clock=lambda: 0.0, sleep=naps.sleep) as session,
    ):
        await session.sign_in()
        assert await naps.asked.get() == pytest.approx(200)
        naps.wake.put_nowait(None)
        assert await naps.asked.get() == pytest.approx(200)
        assert (
            front.seen.count("PUT /v1/auth/token/renew-self")
            + front.seen.count("POST /v1/auth/token/renew-self")
            == 1
        )
        assert front.seen.count("POST /v1/auth/approle/login") == 1


async def test_a_login_that_may_not_renew_itself_is_made_anew(kv2: Bao) -> None:
    await kv2.put("a", {"k": "v"})
    naps = Naps()
    fields = await fields_of(kv2, guide_policy(kv2.mount), token_no_default_policy=True)
    async with (
        Front(kv2.url) as front,
        session_of(front.url, fields, clock=lambda: 0.0, sleep=naps.sleep) as session,
    ):
        await session.sign_in()
        await naps.asked.get()
        naps.wake.put_nowait(None)
        assert session._renewal is not None
        await session._renewal
        assert await get(session, kv2) == 200
        assert front.seen.count("POST /v1/auth/approle/login") == 2


async def test_self_service_needs_three_lines_without_the_default_policy(kv2: Bao) -> None:
    policy = guide_policy(kv2.mount) + SELF
    fields = await fields_of(kv2, policy, token_no_default_policy=True)
    login = await kv2.request("POST", "auth/approle/login", fields)
    assert isinstance(login["auth"], dict)
    async with Front(kv2.url) as front:
        async with session_of(front.url, fields) as session:
            await session.sign_in()
        assert front.seen[-1].endswith("/v1/auth/token/revoke-self")


async def test_a_namespace_is_sent_and_a_missing_one_is_named(openbao: OpenBaoServer) -> None:
    await openbao.request("PUT", "sys/namespaces/acme")
    bao = await new_mount(openbao, namespace="acme")
    await bao.put("a", {"k": "v"})
    async with session_of(bao.url, bao.root_token, namespace="acme") as session:
        assert await get(session, bao) == 200
    async with session_of(bao.url, bao.root_token, namespace="nowhere") as session:
        with pytest.raises(BackendError, match="no namespace nowhere"):
            await get(session, bao)


async def test_tls_by_a_private_authority_and_without_it(
    openbao_tls: OpenBaoServer, tls_files: TlsFiles
) -> None:
    token = openbao_tls.root_token
    for verify in (str(tls_files.ca), tls_files.ca.read_text(), False):
        async with session_of(openbao_tls.url, token, tls_verify=verify) as session:
            await session.sign_in()
    async with session_of(openbao_tls.url, token) as session:
        with pytest.raises(BackendUnreachableError, match="certificate is not trusted"):
            await session.sign_in()


async def test_a_sign_in_page_is_not_taken_for_a_vault(kv2: Bao) -> None:
    for status in (200, 404, 403):
        async with Front(kv2.url) as front, session_of(front.url, kv2.root_token) as session:
            front.html("/v1/", status)
            with pytest.raises(ProtocolError, match="not JSON"):
                await session.sign_in()


async def test_a_redirect_is_refused_and_the_token_stays_here(kv2: Bao) -> None:
    async with Front(kv2.url) as other, Front(kv2.url) as front:
        elsewhere = {"Location": f"{other.url}/v1/sys/mounts"}
        front.answer("/v1/", lambda _: web.Response(status=307, headers=elsewhere))
        async with session_of(front.url, kv2.root_token) as session:
            with pytest.raises(ProtocolError, match="redirects"):
                await session.sign_in()
        assert other.seen == []
        assert len(front.seen) == 1


@pytest.mark.parametrize(
    ("status", "error", "says"),
    [
        (429, ThrottledError, "slow down"),
        (500, BackendUnreachableError, "500"),
        (502, BackendUnreachableError, "502"),
        (412, BackendUnreachableError, "412"),
        (405, BackendError, "405"),
    ],
)
async def test_statuses_become_errors_without_the_body(
    kv2: Bao, status: int, error: type[BackendError], says: str
) -> None:
    async with Front(kv2.url) as front, session_of(front.url, kv2.root_token) as session:
        await session.sign_in()
        front.refuse("/v1/", status, '{"errors":["body-canary"]}')
        with pytest.raises(error, match=says) as caught:
            await get(session, kv2)
    assert "body-canary" not in repr(caught.value)
    assert caught.value.status == status


async def test_a_sealed_server_is_unreachable_and_says_sealed(kv2: Bao) -> None:
    async with Front(kv2.url) as front, session_of(front.url, kv2.root_token) as session:
        front.refuse("/v1/", 503, '{"errors":["Vault is sealed"]}')
        with pytest.raises(BackendUnreachableError, match="sealed") as caught:
            await session.sign_in()
    assert caught.value.code == "backend_unreachable"


@pytest.mark.parametrize("fault", ["refuse", "reset", "cut"])
async def test_a_broken_connection_is_unreachable(kv2: Bao, fault: str) -> None:
    async with FaultyTcp(("127.0.0.1", kv2.server.port)) as proxy:
        proxy.fault, proxy.cut_after = fault, 40  # type: ignore[assignment]
        async with session_of(f"http://127.0.0.1:{proxy.port}", kv2.root_token) as session:
            with pytest.raises(BackendUnreachableError):
                await session.sign_in()


async def test_a_server_that_does_not_answer_is_unreachable_in_time() -> None:
    async with hanging_server() as url, session_of(url, "t", timeout=0.2) as session:
        with pytest.raises(BackendUnreachableError, match="in time"):
            await session.sign_in()


async def test_an_address_that_the_policy_refuses_is_not_connected_to(kv2: Bao) -> None:
    url = kv2.url.replace("http://127.0.0.1", "https://localhost")
    settings = VaultSettings(url, "token")
    policy = NetworkPolicy(file_managed=True)
    async with VaultSession(settings, source_of("t"), policy) as session:
        with pytest.raises(BackendError, match="loopback") as caught:
            await session.sign_in()
    assert caught.value.code == "endpoint_refused"
