"""Event Grid's other way in: tokens of Microsoft Entra ID, held against what a backend pins."""

import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from io import StringIO
from typing import Any

import pytest
import pytest_asyncio
from tests.api import BACKENDS, Answer, Client, Front, open_front
from tests.entra import AUDIENCE, DIRECTORY, EVENT_GRID_APP, OTHER, PINNED, Entra, open_entra
from tests.house import BACKEND, House
from tests.scaikey import Key, hmac_sign, joined
from tests.waiting import queued

from svsync.clients.entra.directories import Directories
from svsync.clients.scaikey.keys import FRESH_S
from svsync.config.model import LogFormat, LogLevel
from svsync.domain.federation import RuleSpec
from svsync.domain.ids import TenantId
from svsync.network import NetworkPolicy
from svsync.observe.logs import configure
from svsync.services.feed_tokens import FeedTokens

DOOR = f"/v1/events/azure-eventgrid/{BACKEND}"
TELLS = [{"eventType": "Microsoft.KeyVault.SecretNewVersionCreated", "data": {"ObjectName": "a"}}]
NOW = int(time.time())


@dataclass
class Grid:
    """A front whose backend pins a directory of `entra`; `clock` is that by which keys age."""

    front: Front
    entra: Entra
    clock: list[float] = field(default_factory=lambda: [0.0])

    def with_token(self, text: str) -> Client:
        return self.front.client.with_token(text)

    async def tell(self, text: str, at: str = DOOR) -> Answer:
        return await self.with_token(text).post(at, json=TELLS)

    async def notices(self) -> list[Any]:
        sql = "SELECT * FROM audit WHERE action = 'feed.notice' ORDER BY at, chain_id, seq"
        return list(await self.front.house.admin.fetch(sql))


@pytest_asyncio.fixture
async def grid(house: House) -> AsyncIterator[Grid]:
    """Flat names, as an Azure vault has them."""
    await house.configure(
        events=(PINNED,),
        rules=(RuleSpec("ext/*", "*"),),
        config={"vault_url": "https://acme.vault.azure.net"},
    )
    clock = [0.0]
    async with open_entra() as entra:
        directories = Directories(
            NetworkPolicy(allow_loopback=True),
            authority=entra.url,
            tls=entra.tls,
            clock=lambda: clock[0],
        )
        tokens = FeedTokens(house.app.db, directories, now=time.time)
        async with open_front(house, feed_tokens=tokens) as front:
            yield Grid(front, entra, clock)


@pytest.mark.parametrize("version", ["version_1", "token"])
async def test_a_token_of_either_version_opens_the_door(grid: Grid, version: str) -> None:
    answer = await grid.tell(getattr(grid.entra, version)())
    assert (answer.status, answer.body) == (202, {"paths": 1, "full_run": False})
    assert await queued(grid.front.house) == [("targeted", "feed")]
    [row] = await grid.notices()
    assert (row["identity_type"], row["identity_id"]) == ("feed", f"feed:entra.{BACKEND}")
    assert (row["decision"], row["backend_id"]) == ("allow", BACKEND)


async def test_cloud_events_and_both_handshakes_are_taken(grid: Grid) -> None:
    client = grid.with_token(grid.entra.token())
    one = {"specversion": "1.0", "type": TELLS[0]["eventType"], "data": TELLS[0]["data"]}
    assert (await client.post(DOOR, json=one)).status == 202
    asked = {
        "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent",
        "data": {"validationCode": "512d38b6"},
    }
    answer = await client.post(DOOR, json=[asked])
    assert (answer.status, answer.body) == (200, {"validationResponse": "512d38b6"})
    origin = {"WebHook-Request-Origin": "eventgrid.azure.net"}
    answer = await client.call("OPTIONS", DOOR, headers=origin)
    assert answer.headers["WebHook-Allowed-Origin"] == "eventgrid.azure.net"
    stranger = grid.with_token(grid.entra.token(aud="api://other"))
    assert (await stranger.post(DOOR, json=[asked])).status == 401
    assert (await stranger.call("OPTIONS", DOOR, headers=origin)).status == 401


async def test_a_secret_goes_on_counting_beside(grid: Grid) -> None:
    made = await grid.front.client.post(
        f"{BACKENDS}/{BACKEND}/feed-secrets", json={"feed": "azure-eventgrid"}
    )
    assert (await grid.tell(made.body["secret"])).status == 202


@pytest.mark.parametrize(
    "wrong",
    [
        {"iss": f"https://login.microsoftonline.com/{OTHER}/v2.0"},
        {"iss": f"https://login.microsoftonline.com/{DIRECTORY}/v2.0/"},
        {"iss": f"https://sts.windows.net/{DIRECTORY}"},
        {"iss": f"https://login.microsoftonline.com.evil.example/{DIRECTORY}/v2.0"},
        {"iss": None},
        {"iss": [f"https://sts.windows.net/{DIRECTORY}/"]},
        {"tid": OTHER},
        {"tid": None},
        {"aud": "api://other"},
        {"aud": [AUDIENCE]},
        {"aud": None},
        {"azp": "11111111-2222-3333-4444-555555555555"},
        {"azp": None, "appid": EVENT_GRID_APP},
        {"azp": None},
        {"exp": NOW - 3600},
        {"exp": None},
        {"exp": "never"},
        {"nbf": NOW + 3600},
        {"nbf": None},
    ],
)
async def test_each_wrong_claim_is_refused_in_the_same_words(
    grid: Grid, wrong: dict[str, Any]
) -> None:
    answer = await grid.tell(grid.entra.token(**wrong))
    unknown = await grid.tell("svf_1_wrong")
    assert answer.told == unknown.told == (401, "unauthenticated")
    assert answer.body["error"]["message"] == unknown.body["error"]["message"]
    assert await queued(grid.front.house) == []
    assert await grid.notices() == []
    assert (await grid.tell(grid.entra.token())).status == 202


async def test_version_1_is_held_against_its_own_claim(grid: Grid) -> None:
    other = "11111111-2222-3333-4444-555555555555"
    assert (await grid.tell(grid.entra.version_1(appid=other))).status == 401
    assert (await grid.tell(grid.entra.version_1(appid=None, azp=EVENT_GRID_APP))).status == 401


async def test_without_an_application_any_of_the_directory_may_tell(grid: Grid) -> None:
    events = ({name: value for name, value in PINNED.items() if name != "entra_app_id"},)
    await grid.front.house.configure(events=events)
    assert (await grid.tell(grid.entra.token(azp=OTHER))).status == 202


async def test_no_other_signature_counts(grid: Grid) -> None:
    [key] = grid.entra.keys
    claims = grid.entra.claims()
    about = {"kid": key.kid, "typ": "JWT"}
    curve = Key.new("curve", "ES256")
    grid.entra.keys.append(curve)
    forged = [
        joined(about | {"alg": "none"}, claims, lambda _: b""),
        joined(about | {"alg": "none"}, claims, key.sign),
        joined(about | {"alg": "HS256"}, claims, hmac_sign(key.pem)),
        joined(about | {"alg": "RS256"}, claims, Key.new("one", "RS256").sign),
        joined(about | {"alg": "RS256", "jwk": key.jwk}, claims, hmac_sign(key.pem)),
        grid.entra.token(curve),
        grid.entra.token()[:-4] + "AAAA",
        "a.b.c",
        "..",
    ]
    for text in forged:
        answer = await grid.tell(text)
        assert answer.told == (401, "unauthenticated")
        assert text not in json.dumps(answer.body)
    assert await queued(grid.front.house) == []
    assert (await grid.tell(grid.entra.token())).status == 202


async def test_a_key_that_was_withdrawn_soon_counts_no_more(grid: Grid) -> None:
    old = grid.entra.token()
    assert (await grid.tell(old)).status == 202
    grid.entra.keys[:] = [Key.new("two", "RS256")]
    assert (await grid.tell(old)).status == 202  # until the keys are had anew
    grid.clock[0] += FRESH_S
    assert (await grid.tell(old)).told == (401, "unauthenticated")
    assert (await grid.tell(grid.entra.token())).status == 202


async def test_a_new_key_is_looked_for_at_most_once_a_minute(grid: Grid) -> None:
    assert (await grid.tell(grid.entra.token())).status == 202
    grid.entra.keys.append(Key.new("two", "RS256"))
    grid.clock[0] += 61
    assert (await grid.tell(grid.entra.token(grid.entra.keys[1]))).status == 202
    asked = grid.entra.keys_asked
    for n in range(5):
        await grid.tell(grid.entra.token(replace(grid.entra.keys[0], kid=f"unknown-{n}")))
    assert grid.entra.keys_asked == asked


async def test_a_key_for_somebody_elses_tokens_does_not_count(grid: Grid) -> None:
    grid.entra.key_issuer = f"{grid.entra.url}/{OTHER}/v2.0"
    assert (await grid.tell(grid.entra.token())).status == 401
    grid.entra.key_issuer = grid.entra.url + "/{tenantid}/v2.0"
    grid.clock[0] += FRESH_S
    assert (await grid.tell(grid.entra.token())).status == 202


async def test_while_entra_does_not_answer_known_keys_count_and_others_do_not(grid: Grid) -> None:
    grid.entra.status = 500
    answer = await grid.tell(grid.entra.token())
    assert answer.told == (401, "unauthenticated")
    grid.entra.status = 200
    grid.clock[0] += 60
    assert (await grid.tell(grid.entra.token())).status == 202
    grid.entra.status = 500
    grid.clock[0] += FRESH_S
    assert (await grid.tell(grid.entra.token())).status == 202


async def test_a_token_opens_this_feed_of_a_backend_that_pins_it_and_nothing_else(
    grid: Grid,
) -> None:
    text = grid.entra.token()
    for at in (
        "/v1/events/azure-eventgrid/fed_other",
        f"/v1/events/http/{BACKEND}",
        f"/v1/events/nothing/{BACKEND}",
    ):
        assert (await grid.tell(text, at)).told == (401, "unauthenticated")
    assert (await grid.with_token(text).get(BACKENDS)).told == (401, "unauthenticated")
    query = await grid.tell(text, f"{DOOR}?code=x")
    assert query.told == (401, "secret_in_query")
    await grid.front.house.configure(events=({"feed": "azure-eventgrid"},))
    assert (await grid.tell(text)).told == (401, "unauthenticated")


async def test_what_the_api_manages_pins_nothing(grid: Grid) -> None:
    await grid.front.house.admin.execute("UPDATE backends SET managed_by = 'api'")
    assert (await grid.tell(grid.entra.token())).status == 401


async def test_a_suspended_tenant_hears_nothing(grid: Grid) -> None:
    await grid.front.house.admin.execute(
        "UPDATE tenants SET status = 'suspended' WHERE tenant_id = 1"
    )
    assert (await grid.tell(grid.entra.token())).told == (401, "unauthenticated")


async def second_tenant(grid: Grid, events: tuple[dict[str, Any], ...]) -> TenantId:
    """Another tenant, with a backend of the same id."""
    house = grid.front.house
    other = TenantId(
        await house.admin.fetchval("INSERT INTO tenants (slug) VALUES ('x') RETURNING tenant_id")
    )
    spec = replace(house.spec, tenant="x", events=events)
    await house.app.federation.apply([house.spec, spec])
    return other


async def test_the_audience_tells_two_tenants_apart(grid: Grid) -> None:
    other = await second_tenant(grid, (PINNED | {"entra_audience": "api://theirs"},))
    assert (await grid.tell(grid.entra.token())).status == 202
    assert {row["tenant_id"] for row in await grid.front.house.rows("dirty_paths")} == {1}
    assert (await grid.tell(grid.entra.token(aud="api://theirs"))).status == 202
    assert {row["tenant_id"] for row in await grid.front.house.rows("dirty_paths")} == {1, other}


async def test_a_token_that_fits_two_tenants_opens_neither(grid: Grid) -> None:
    await second_tenant(grid, (PINNED,))
    stream = StringIO()
    configure(LogLevel.INFO, LogFormat.JSON, stream)
    try:
        assert (await grid.tell(grid.entra.token())).told == (401, "unauthenticated")
    finally:
        configure(LogLevel.INFO, LogFormat.JSON)
    assert "feed_token_fits_two" in stream.getvalue()
    assert await grid.front.house.rows("dirty_paths") == []


async def test_the_log_names_the_claim_of_a_signed_token_and_nothing_of_a_forged_one(
    grid: Grid,
) -> None:
    stream = StringIO()
    signed = grid.entra.token(aud="CANARY")
    forged = grid.entra.token(Key.new("one", "RS256"), aud="CANARY")
    configure(LogLevel.INFO, LogFormat.JSON, stream)
    try:
        await grid.tell(forged)
        assert "feed_token_refused" not in stream.getvalue()
        await grid.tell(signed)
    finally:
        configure(LogLevel.INFO, LogFormat.JSON)
    assert "the claim aud is not as entra_audience says" in stream.getvalue()
    assert "CANARY" not in stream.getvalue()
    assert signed not in stream.getvalue()


async def test_the_service_asks_entra_itself(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    def at_fake(_: NetworkPolicy) -> Directories:
        allowed = NetworkPolicy(allow_loopback=True)
        return Directories(allowed, authority=grid.entra.url, tls=grid.entra.tls)

    monkeypatch.setattr("svsync.clients.entra.directories.Directories", at_fake)
    sender = await grid.front.house.app.feed_tokens.vouch(grid.entra.token(), BACKEND)
    assert (sender.backend, sender.caller.tenant) == (BACKEND, 1)


async def test_wrong_tokens_are_counted_by_address(grid: Grid) -> None:
    text = grid.entra.token(aud="api://other")
    answers = [await grid.tell(text) for _ in range(21)]
    assert [answer.status for answer in answers] == [401] * 20 + [429]
    assert (await grid.tell(grid.entra.token())).status == 202
    await grid.front.house.app.strangers.record()
    [row] = await grid.front.house.admin.fetch("SELECT * FROM audit WHERE action = 'auth.fail'")
    assert json.loads(row["detail"])["count"] == 21
