"""Reads that pass through to a real OpenBao, while the network between fails or it says no."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.api import Front, open_front
from tests.canary import Canary
from tests.house import BACKEND, backend, open_house
from tests.openbao import Bao, guide_policy
from tests.servers import FaultyTcp
from tests.waiting import try_once
from yarl import URL as Address

from svsync.domain.federation import Mode, RuleSpec, TagTransform
from svsync.domain.ids import BackendId
from svsync.embedded.openbao import OpenBaoServer

URL = "/v1/secrets/ext/a"


@pytest.fixture(autouse=True)
def _tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    try_once(monkeypatch)


@pytest.fixture
async def between(openbao: OpenBaoServer) -> AsyncIterator[FaultyTcp]:
    async with FaultyTcp(("127.0.0.1", openbao.port)) as proxy:
        yield proxy


class Fronts:
    """Opens the API of a house that reads a whole mount through a proxy that may fail."""

    def __init__(
        self, stack: AsyncExitStack, database: tuple[str, str, Path], proxy: FaultyTcp
    ) -> None:
        self._stack = stack
        self._database = database
        self._proxy = proxy

    async def open(self, bao: Bao, *, tags: TagTransform | None = None, token: str = "") -> Front:
        data = "data/" if bao.version == 2 else ""
        rule = RuleSpec("ext/**", f"{bao.mount}/{data}**", tags=tags or TagTransform())
        spec = backend(
            (rule,),
            type="hashicorp-vault",
            mode=Mode.PROXY,
            config={
                "endpoint": self._proxy.url,
                "auth_method": "token",
                "auth_config_path": "env:BAO_TOKEN",
            },
        )
        environ = {"BAO_TOKEN": token or bao.root_token}
        house = await self._stack.enter_async_context(
            open_house(*self._database, spec, environ=environ)
        )
        return await self._stack.enter_async_context(open_front(house))


@pytest.fixture
async def fronts(
    database_url: str, admin_url: str, state_dir: Path, between: FaultyTcp
) -> AsyncIterator[Fronts]:
    async with AsyncExitStack() as stack:
        yield Fronts(stack, (database_url, admin_url, state_dir), between)


async def versions(front: Front) -> list[Any]:
    return await front.house.admin.fetch("SELECT version, backend_id FROM audit ORDER BY seq")


async def test_value_tags_and_version_are_those_of_openbao(fronts: Fronts, kv2: Bao) -> None:
    transform = TagTransform("{key}:{value}", exclude=("hidden",), rename={"team": "group"})
    front = await fronts.open(kv2, tags=transform)
    await kv2.put("a", {"k": "1"})
    await kv2.put("a", {"k": "2", "n": 7})
    await kv2.tag("a", {"team": "billing", "hidden": "x"})
    answer = await front.client.get(URL)
    assert answer.status == 200
    assert (answer.body["data"], answer.body["version"]) == ({"k": "2", "n": 7}, 2)
    assert answer.body["metadata"]["tags"] == ["group:billing"]
    assert answer.body["metadata"]["custom"] == {"team": "billing", "hidden": "x"}
    assert answer.body["created_at"]
    assert [tuple(row) for row in await versions(front)] == [(2, BACKEND)]
    await kv2.put("a", {"k": "3"})
    assert (await front.client.get(URL)).body["data"] == {"k": "3"}, "nothing was kept"


async def test_kv1_has_no_version_to_tell_of(fronts: Fronts, kv1: Bao) -> None:
    front = await fronts.open(kv1)
    await kv1.put("a", {"k": "1"})
    answer = await front.client.get(URL)
    assert (answer.body["version"], answer.body["created_at"]) == (1, None)
    assert "ETag" not in answer.headers
    assert [tuple(row) for row in await versions(front)] == [(None, BACKEND)]


async def test_reads_need_one_login(fronts: Fronts, kv2: Bao, between: FaultyTcp) -> None:
    front = await fronts.open(kv2)
    between.strike("GET /v1/auth/token/lookup-self ", "none", times=100)
    for name in "abc":
        await kv2.put(name, {"k": name})
        assert (await front.client.get(f"/v1/secrets/ext/{name}")).status == 200
    assert between.struck == 1


async def test_token_that_ended_is_replaced_by_what_stands_there_now(
    fronts: Fronts, kv2: Bao
) -> None:
    first = await kv2.token(guide_policy(kv2.mount))
    front = await fronts.open(kv2)
    await kv2.put("a", {"k": "1"})
    await front.house.write("infra/bao", {"token": first})
    config = {**front.house.spec.config, "auth_config_path": "infra/bao"}
    await front.house.configure(config=config)
    assert (await front.client.get(URL)).status == 200
    await front.house.write("infra/bao", {"token": await kv2.token(guide_policy(kv2.mount))})
    await kv2.request("POST", "auth/token/revoke", {"token": first})
    assert (await front.client.get(URL)).body["data"] == {"k": "1"}


@pytest.mark.parametrize("how", ["never", "deleted", "destroyed", "removed"])
async def test_what_openbao_says_is_gone_is_404(fronts: Fronts, kv2: Bao, how: str) -> None:
    front = await fronts.open(kv2)
    if how != "never":
        await kv2.put("a", {"k": "1"})
    if how == "deleted":
        await kv2.delete("a")
    elif how == "destroyed":
        await kv2.destroy("a", [1])
    elif how == "removed":
        await kv2.remove("a")
    assert (await front.client.get(URL)).told == (404, "secret_not_found")


async def test_what_openbao_denies_is_502_and_names_no_token(fronts: Fronts, kv2: Bao) -> None:
    token = await kv2.token(f'path "{kv2.mount}/data/b" {{ capabilities = ["read"] }}')
    front = await fronts.open(kv2, token=token)
    for name in "ab":
        await kv2.put(name, {"k": "1"})
    denied = await front.client.get(URL)
    assert denied.told == (502, "backend_denied")
    assert token not in str(denied.body)
    assert (await front.client.get("/v1/secrets/ext/b")).status == 200


async def test_login_that_is_refused_is_a_denial(fronts: Fronts, kv2: Bao) -> None:
    front = await fronts.open(kv2, token="s.nobody")
    answer = await front.client.get(URL)
    assert answer.told == (502, "backend_denied")
    assert "BAO_TOKEN" not in str(answer.body)


@pytest.mark.parametrize("fault", ["refuse", "reset", "cut"])
async def test_openbao_that_cannot_be_reached_is_502_until_it_can(
    fronts: Fronts, kv2: Bao, between: FaultyTcp, fault: Any
) -> None:
    front = await fronts.open(kv2)
    await kv2.put("a", {"k": "1"})
    between.fault = fault
    assert (await front.client.get(URL)).told == (502, "backend_unreachable")
    [probe] = await front.house.rows("runs", state="queued")
    assert probe["kind"] == "probe"
    between.fault = "none"
    assert (await front.client.get(URL)).body["data"] == {"k": "1"}


async def test_openbao_that_hangs_is_504(fronts: Fronts, kv2: Bao, between: FaultyTcp) -> None:
    front = await fronts.open(kv2)
    await kv2.put("a", {"k": "1"})
    between.strike("GET /v1/.*/data/a ", "mute")
    through = front.house.app.proxying
    usual, through.patience = through.patience, 0.0
    late = await front.client.get(URL)
    await between.kept.wait()
    through.patience = usual
    assert late.told == (504, "backend_unreachable")
    assert (await front.client.get(URL)).body["data"] == {"k": "1"}, "the next call is another"


async def test_standby_server_is_read_while_the_owner_is_away(
    fronts: Fronts, kv2: Bao, between: FaultyTcp
) -> None:
    front = await fronts.open(kv2)
    await kv2.put("a", {"k": "1"})
    owner = front.house.spec
    second = backend(
        owner.rules, BackendId("fed_second"), type=owner.type, mode=Mode.PROXY,
        config={**owner.config, "endpoint": kv2.url}, extra={"standby_for": owner.id},
    )  # fmt: skip
    await front.house.app.federation.apply([owner, second])
    assert (await front.client.get(URL)).headers["X-SVSync-Source"] == "backend"
    between.fault = "reset"
    answer = await front.client.get(URL)
    assert answer.headers["X-SVSync-Source"] == "standby"
    assert answer.body["data"] == {"k": "1"}


@pytest.mark.parametrize(
    "path", ["../sys/raw", "a/%2e%2e/%2e%2e/b", "a%2f..%2fb", "a%252fb", "a//b", "a/..;/b", "a%5cb"]
)
async def test_no_path_leaves_its_mount(
    fronts: Fronts, kv2: Bao, between: FaultyTcp, path: str
) -> None:
    front = await fronts.open(kv2)
    between.strike(
        f"GET /v1/(?!{kv2.mount}/data/|auth/|sys/internal/ui/mounts/{kv2.mount}/)", "none"
    )
    url = Address(f"{front.client.url}/v1/secrets/ext/{path}", encoded=True)
    headers = {"Authorization": f"Bearer {front.client.token}"}
    async with front.client.session.get(url, headers=headers) as answer:
        assert answer.status in (404, 422)
    assert not between.struck


async def test_value_of_openbao_is_nowhere_afterwards(
    canary: Canary, fronts: Fronts, kv2: Bao, between: FaultyTcp, state_dir: Path
) -> None:
    front = await fronts.open(kv2)
    await kv2.put("a", {"k": canary.value()})
    await kv2.put("b", {"k": canary.value("b")})
    assert canary.marker in (await front.client.get(URL)).body["data"]["k"]
    between.cut_after = 400
    between.fault = "cut"
    await front.client.get("/v1/secrets/ext/b")
    between.fault = "none"
    await kv2.delete("b")
    assert (await front.client.get("/v1/secrets/ext/b")).status == 404
    canary.watch_folder(state_dir)
