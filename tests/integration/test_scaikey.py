"""Do tokens of ScaiKey count when they should, and never otherwise?"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from tests.api import Answer, Front, open_front
from tests.house import TENANT, House, house
from tests.integration.test_reading import allow, logs
from tests.scaikey import Key, ScaiKey, b64, hmac_sign, joined, open_scaikey

from svsync.clients.scaikey.documents import MAX_DOCUMENT, Documents
from svsync.clients.scaikey.keys import AGAIN_S, FIRST_S, KEPT_S, IssuerKeys
from svsync.domain.access import Identity, Scope
from svsync.domain.errors import ConfigError
from svsync.domain.scaikey import Terms
from svsync.network import NetworkPolicy
from svsync.services.access import Access
from svsync.services.scaikey import VOUCHED_S, SignIn, Vouching

__all__ = ["house"]

WHOAMI = "/v1/auth/whoami"
NOW = 1_700_000_000
DAY = 24 * 3600


@dataclass
class Door:
    """A front that takes tokens of an issuer.

    Attributes:
        now: seconds since 1970 by svsync's clock.
        ticks: what its clock that never goes back shows.
    """

    front: Front
    issuer: ScaiKey
    keys: IssuerKeys
    now: list[float]
    ticks: list[float]

    async def whoami(self, text: str) -> Answer:
        return await self.front.client.with_token(text).get(WHOAMI)

    async def refused(self, text: str) -> str:
        """The sentence with which a token is turned away."""
        answer = await self.whoami(text)
        assert answer.told == (401, "unauthenticated")
        message: str = answer.body["error"]["message"]
        assert text not in message
        self.front.now[0] += 10  # so many failures are none too many
        return message

    async def read(self, text: str, path: str) -> Answer:
        return await self.front.client.with_token(text).get(f"/v1/secrets/{path}")


@asynccontextmanager
async def open_door(
    house: House, *, bootstrap: str | None = None, jwks_url: str | None = None, **terms: Any
) -> AsyncIterator[Door]:
    now, ticks = [float(NOW)], [0.0]
    async with open_scaikey() as issuer:
        issuer.now = lambda: NOW
        policy = NetworkPolicy(allow_loopback=True, file_managed=True)
        keys = IssuerKeys(
            Documents(issuer.url, jwks_url and issuer.url + jwks_url, policy).keys,
            clock=lambda: ticks[0],
        )
        sign_in = SignIn(
            house.app.db,
            house.app.recorder,
            keys,
            Terms(issuer.url, **({"audience": "scaivault"} | terms)),
            bootstrap=bootstrap,
            now=lambda: now[0],
        )
        access: Access = house.app.access
        async with open_front(house, voucher=Vouching(access, sign_in)) as front:
            yield Door(front, issuer, keys, now, ticks)


@pytest.fixture
async def door(house: House) -> AsyncIterator[Door]:
    async with open_door(house) as opened:
        yield opened


# --- whom a token speaks for --------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
async def test_a_token_speaks_for_its_holder(door: Door, algorithm: str) -> None:
    door.issuer.keys = [Key.new("k", algorithm)]
    told = await door.whoami(door.issuer.token(groups=["ops", "dev"]))
    assert told.status == 200
    said = told.body
    assert (said["identity_id"], said["tenant"]) == ("user:ada", "default")
    assert (said["scopes"], said["groups"]) == (["secrets:read"], ["dev", "ops"])
    assert said["token_id"].startswith("jwt_")


@pytest.mark.parametrize(
    ("claims", "identity"),
    [
        ({"sub": "sa:billing-prod"}, "sa:billing-prod"),
        ({"sub": "user:ada@example.com"}, "user:ada@example.com"),
        ({"sub": "0190-aa", "client_id": "0190-aa"}, "sa:0190-aa"),
        ({"sub": "0190-aa", "client_id": "other"}, "user:0190-aa"),
        ({"sub": "0190-aa"}, "user:0190-aa"),
    ],
)
async def test_the_subject_becomes_an_identity(
    door: Door, claims: dict[str, Any], identity: str
) -> None:
    assert (await door.whoami(door.issuer.token(**claims))).body["identity_id"] == identity


@pytest.mark.parametrize("subject", ["a/b", "auth0|ada", "group:ops", "", " ada", "a\n", 7])
async def test_a_subject_of_other_letters_is_nobody(door: Door, subject: object) -> None:
    assert "sub names nobody" in await door.refused(door.issuer.token(sub=subject))


async def test_scopes_of_others_mean_nothing_and_scp_is_read_where_scope_is_missing(
    door: Door,
) -> None:
    token = door.issuer.token
    for claims, scopes in (
        ({"scope": "a secrets:read  b audit:read"}, ["audit:read", "secrets:read"]),
        ({"scope": "secrets:read2 SECRETS:READ", "scp": ["admin"]}, []),
        ({"scope": None, "scp": ["secrets:read", "x"]}, ["secrets:read"]),
        ({"scope": None, "scp": "secrets:read x"}, ["secrets:read"]),
        ({"scope": None}, []),
    ):
        assert sorted((await door.whoami(token(**claims))).body["scopes"]) == scopes
    assert "scope is neither" in await door.refused(token(scope={"admin": True}))


async def test_claims_have_the_names_that_are_configured(house: House) -> None:
    async with open_door(
        house, audience="https://v/api", tenant="org", groups="roles", scopes="permissions"
    ) as door:
        claims: dict[str, Any] = {
            "aud": ["x", "https://v/api"], "org": "default", "tenant": "other",
            "roles": ["a"], "groups": ["b"], "permissions": ["audit:read"], "scope": "admin",
        }  # fmt: skip
        said = (await door.whoami(door.issuer.token(**claims))).body
    assert (said["scopes"], said["groups"]) == (["audit:read"], ["a"])


async def test_a_tenant_that_is_not_there_or_shut_lets_nobody_in(door: Door) -> None:
    for tenant in ("other", "DEFAULT", "1", "", 1, None, ["default"]):
        assert "tenant names no tenant" in await door.refused(door.issuer.token(tenant=tenant))
    await door.front.house.admin.execute("UPDATE tenants SET status = 'suspended'")
    assert (await door.whoami(door.issuer.token())).told == (403, "tenant_shut")


async def test_a_token_for_another_tenant_sees_that_one_alone(door: Door) -> None:
    await door.front.house.write("app/a", {"k": "1"})
    await door.front.house.admin.execute("INSERT INTO tenants (slug) VALUES ('other')")
    token = door.issuer.token(tenant="other", scope="admin")
    assert (await door.whoami(token)).body["tenant"] == "other"
    assert (await door.read(token, "app/a")).told == (404, "secret_not_found")


# --- tokens that do not count -------------------------------------------------------


@pytest.mark.parametrize(
    ("claims", "word"),
    [
        ({"exp": NOW - 60}, "has expired"),
        ({"nbf": NOW + 61}, "not count yet"),
        ({"iat": NOW + 61}, "not count yet"),
        ({"exp": NOW + DAY, "nbf": NOW - 1, "iat": NOW - 1}, "claim exp is more than 24 hours"),
        ({"exp": NOW + DAY, "nbf": NOW, "iat": NOW - 60}, "claim exp is more than 24 hours"),
        ({"aud": "scaidrive"}, "aud does not name scaivault"),
        ({"aud": ["scaidrive", "Scaivault"]}, "aud does not name scaivault"),
        ({"aud": {"scaivault": 1}}, "aud does not name scaivault"),
        ({"iss": "https://other.example.com"}, "iss names another"),
        ({"iss": ["x"]}, "iss names another"),
        ({"exp": str(NOW + 60)}, "exp is no moment"),
        ({"exp": True}, "exp is no moment"),
        ({"exp": 10**400}, "exp is no moment"),
        ({"exp": -1}, "exp is no moment"),
        ({"groups": "ops"}, "groups is no list"),
        ({"groups": ["ops", 1]}, "groups is no list"),
    ],
)
async def test_claims_that_do_not_fit_are_named(
    door: Door, claims: dict[str, Any], word: str
) -> None:
    assert word in await door.refused(door.issuer.token(**claims))


@pytest.mark.parametrize("claim", ["iss", "aud", "exp", "nbf", "sub", "tenant"])
async def test_none_of_the_claims_may_be_missing(door: Door, claim: str) -> None:
    assert f"its claim {claim}" in await door.refused(door.issuer.token(**{claim: None}))


async def test_clocks_may_differ_by_a_minute(door: Door) -> None:
    token = door.issuer.token
    for claims in ({"exp": NOW - 59}, {"nbf": NOW + 60, "iat": NOW + 60}, {"iat": None}):
        assert (await door.whoami(token(**claims))).status == 200
    assert (await door.whoami(token(exp=NOW + DAY - 1, nbf=NOW - 1, iat=NOW))).status == 200
    assert (await door.whoami(token(iss=door.issuer.url + "/"))).status == 200


async def test_whoever_forges_a_token_is_told_nothing(door: Door) -> None:
    mine, theirs = door.issuer.keys[0], Key.new("one")
    good = door.issuer.token()
    header, payload, signature = good.split(".")
    other = b64(json.dumps(door.issuer.claims(sub="root", scope="admin")).encode())
    rsa = Key.new("rsa", "RS256")
    ec = Key.new("ec", "ES256")
    door.issuer.keys += [rsa, ec]
    claims = door.issuer.claims()

    def made(header: dict[str, Any], sign: Any) -> str:
        return joined({"typ": "JWT"} | header, claims, sign)

    forged = {
        "another payload": f"{header}.{other}.{signature}",
        "another key": door.issuer.token(theirs),
        "no signature": f"{header}.{payload}.",
        "none": made({"alg": "none", "kid": "one"}, lambda data: b""),
        "none with a signature": made({"alg": "none", "kid": "one"}, mine.sign),
        "None": made({"alg": "None", "kid": "one"}, mine.sign),
        "HS256 with the PEM": made({"alg": "HS256", "kid": "rsa"}, hmac_sign(rsa.pem)),
        "HS256 with the bytes": made({"alg": "HS256", "kid": "one"}, hmac_sign(mine.pem)),
        "RS384": made({"alg": "RS384", "kid": "rsa"}, rsa.sign),
        "PS256": made({"alg": "PS256", "kid": "rsa"}, rsa.sign),
        "a key of another type": made({"alg": "RS256", "kid": "one"}, rsa.sign),
        "a key of another type too": made({"alg": "ES256", "kid": "rsa"}, ec.sign),
        "no kid": made({"alg": "EdDSA"}, mine.sign),
        "kid is no text": made({"alg": "EdDSA", "kid": ["one"]}, mine.sign),
        "no alg": made({"kid": "one"}, mine.sign),
        "alg is a list": made({"alg": ["EdDSA"], "kid": "one"}, mine.sign),
        "crit": made({"alg": "EdDSA", "kid": "one", "crit": ["exp"]}, mine.sign),
        "b64": made({"alg": "EdDSA", "kid": "one", "crit": ["b64"], "b64": False}, mine.sign),
        "another kind": made({"alg": "EdDSA", "kid": "one", "typ": "logout+jwt"}, mine.sign),
        "its own key": made(
            {"alg": "EdDSA", "kid": "one", "jwk": theirs.jwk}, theirs.sign
        ),
        "keys elsewhere": made(
            {"alg": "EdDSA", "kid": "one", "jku": f"{door.issuer.url}/mine"}, theirs.sign
        ),
        "a certificate elsewhere": made(
            {"alg": "EdDSA", "kid": "one", "x5u": f"{door.issuer.url}/mine"}, theirs.sign
        ),
        "five parts": f"{good}.a.b",
        "padded": f"{header}=.{payload}.{signature}",
        "no base64": f"a.{payload}.{signature}",
        "no JSON": f"{b64(b'{')}.{payload}.{signature}",
        "deep": f"{b64(b'[' * 3000)}.{payload}.{signature}",
        "equal keys": joined_raw(b'{"alg":"none","alg":"EdDSA","kid":"one"}', payload, mine),
        "too long": f"{header}.{'A' * 9000}.{signature}"[:8000] + "..",
        "nothing": "..",
    }  # fmt: skip
    for name, text in forged.items():
        assert await door.refused(text) == "the token is not valid here", name
    assert (await door.whoami(good)).status == 200
    assert not [path for path in door.issuer.asked if "mine" in path]


def joined_raw(header: bytes, payload: str, key: Key) -> str:
    text = f"{b64(header)}.{payload}"
    return f"{text}.{b64(key.sign(text.encode()))}"


async def test_what_a_header_names_beside_its_key_is_not_looked_at(door: Door) -> None:
    mine = door.issuer.keys[0]
    header = {"alg": "EdDSA", "kid": "one", "jwk": Key.new("x").jwk, "jku": "https://evil.example"}
    assert (await door.whoami(joined(header, door.issuer.claims(), mine.sign))).status == 200


@pytest.mark.parametrize(
    "payload",
    [b"[]", b"1", b"{", b"\xff", b'{"iss":NaN}', b'{"sub":"a","sub":"b"}', b"[" * 5000, b""],
)
async def test_a_payload_that_is_no_object_does_not_count(door: Door, payload: bytes) -> None:
    mine = door.issuer.keys[0]
    text = joined({"alg": "EdDSA", "kid": "one"}, payload, mine.sign)
    assert await door.refused(text) == "the token is not valid here"


async def test_static_tokens_count_beside_them(door: Door) -> None:
    assert (await door.front.client.get(WHOAMI)).body["identity_id"] == "sa:robot"
    assert await door.refused("svt_1_x") == "the token is not valid here"


async def test_without_an_issuer_no_such_token_counts(house: House) -> None:
    async with open_scaikey() as issuer:
        issuer.now = lambda: NOW
        async with open_front(house, voucher=Vouching(house.app.access, None)) as front:
            answer = await front.client.with_token(issuer.token()).get(WHOAMI)
        assert answer.told == (401, "unauthenticated")
        assert not issuer.asked


# --- the issuer's keys --------------------------------------------------------------


@pytest.mark.parametrize(
    "entry",
    [
        Key.new("k", "RS256", bits=1024).jwk,
        Key.new("k", "RS256").jwk | {"use": "enc"},
        Key.new("k", "RS256").jwk | {"key_ops": ["encrypt"]},
        Key.new("k", "RS256").jwk | {"alg": "RS512"},
        Key.new("k", "RS256").jwk | {"d": "AQAB"},
        Key.new("k", "RS256").jwk | {"n": "!"},
        Key.new("k", "ES256").jwk | {"crv": "P-384"},
        Key.new("k", "ES256").jwk | {"y": b64(b"\1" * 32)},
        Key.new("k").jwk | {"crv": "X25519"},
        Key.new("k").jwk | {"kid": 1},
        {"kty": "oct", "kid": "k", "k": b64(b"0" * 32), "alg": "HS256"},
        "no key",
    ],
    ids=range(12),
)
async def test_keys_that_cannot_be_used_are_left_out_and_the_others_count(
    door: Door, entry: Any
) -> None:
    door.issuer.published = {"keys": [entry, door.issuer.keys[0].jwk]}
    assert (await door.whoami(door.issuer.token())).status == 200
    assert list(door.keys._known()) == [("one", "EdDSA")]


async def test_a_key_that_is_not_known_is_asked_for_once_a_minute(door: Door) -> None:
    assert (await door.whoami(door.issuer.token())).status == 200
    assert door.issuer.jwks_asked == 1
    rotated = Key.new("two")
    door.issuer.keys.insert(0, rotated)
    assert await door.refused(door.issuer.token()) == "the token is not valid here"
    assert door.issuer.jwks_asked == 1
    door.ticks[0] += AGAIN_S
    assert (await door.whoami(door.issuer.token())).status == 200
    assert (await door.whoami(door.issuer.token(door.issuer.keys[1]))).status == 200
    assert door.issuer.jwks_asked == 2
    for n in range(5):
        await door.refused(door.issuer.token(Key.new(f"nobody{n}")))
    assert door.issuer.jwks_asked == 2
    door.ticks[0] += AGAIN_S
    for n in range(5):
        await door.refused(door.issuer.token(Key.new(f"nobody{n}")))
    assert door.issuer.jwks_asked == 3


async def test_many_who_come_at_once_ask_once(door: Door) -> None:
    token = door.issuer.token()
    answers = await asyncio.gather(*(door.whoami(token) for _ in range(10)))
    assert [answer.status for answer in answers] == [200] * 10
    assert door.issuer.jwks_asked == 1


async def test_a_key_that_was_withdrawn_counts_no_more_once_keys_were_had_anew(door: Door) -> None:
    old = door.issuer.token()
    assert (await door.whoami(old)).status == 200
    door.issuer.keys = [Key.new("two")]
    await door.keys.refresh()
    assert await door.refused(old) == "the token is not valid here"
    assert (await door.whoami(door.issuer.token())).status == 200


async def test_known_keys_count_for_a_day_while_the_issuer_is_down(door: Door) -> None:
    token = door.issuer.token()
    assert (await door.whoami(token)).status == 200
    door.issuer.status = 503
    door.ticks[0] += KEPT_S - 1
    await door.keys.refresh()
    assert (await door.whoami(token)).status == 200
    stranger = await door.whoami(door.issuer.token(Key.new("two")))
    assert stranger.told == (503, "issuer_unavailable")
    assert stranger.headers["Retry-After"] == "1"
    door.ticks[0] += 1
    assert (await door.whoami(token)).told == (503, "issuer_unavailable")
    door.issuer.status = 200
    door.ticks[0] += FIRST_S
    assert (await door.whoami(token)).status == 200


async def test_whoever_cannot_be_told_is_not_taken_for_somebody_who_guesses(door: Door) -> None:
    door.issuer.status = 503
    token = door.issuer.token()
    told = {(await door.whoami(token)).told for _ in range(30)}
    assert told == {(503, "issuer_unavailable")}


async def test_without_any_key_the_issuer_is_not_asked_at_each_request(door: Door) -> None:
    door.issuer.status = 500
    for _ in range(3):
        assert (await door.whoami(door.issuer.token())).told == (503, "issuer_unavailable")
    assert len(door.issuer.asked) == 1


@pytest.mark.parametrize(
    "published",
    [
        b"[]",
        b"{",
        b'{"keys": {}}',
        b'{"keys": [' + b",".join([b"{}"] * 101) + b"]}",
        b'{"keys": []' + b" " * MAX_DOCUMENT + b"}",
        b"[" * 100_000,
    ],
    ids=range(6),
)
async def test_what_is_no_set_of_keys_changes_nothing(door: Door, published: bytes) -> None:
    token = door.issuer.token()
    assert (await door.whoami(token)).status == 200
    door.issuer.published = published
    await door.keys.refresh()
    assert (await door.whoami(token)).status == 200


async def test_the_issuer_must_be_the_one_that_is_configured(door: Door) -> None:
    door.issuer.named = "https://other.example.com"
    assert (await door.whoami(door.issuer.token())).told == (503, "issuer_unavailable")
    assert door.issuer.jwks_asked == 0


@pytest.mark.parametrize(
    "place",
    ["{elsewhere}/keys", "{elsewhere}/keys?x", "https://10.0.0.1/keys", "file:///keys", "//x"],
)
async def test_keys_that_are_announced_elsewhere_are_not_fetched_from_within(
    door: Door, place: str
) -> None:
    door.issuer.announced = place.format(elsewhere=door.issuer.elsewhere)
    assert (await door.whoami(door.issuer.token())).told == (503, "issuer_unavailable")
    assert door.issuer.jwks_asked == 0
    door.issuer.announced = None
    door.ticks[0] += FIRST_S
    assert (await door.whoami(door.issuer.token())).status == 200


async def test_no_redirect_is_followed(door: Door) -> None:
    door.issuer.status, door.issuer.headers = 302, {"Location": "/keys"}
    assert (await door.whoami(door.issuer.token())).told == (503, "issuer_unavailable")
    assert door.issuer.jwks_asked == 0


async def test_where_the_keys_are_named_nothing_is_asked_but_they(house: House) -> None:
    async with open_door(house, jwks_url="/keys") as door:
        assert (await door.whoami(door.issuer.token())).status == 200
        assert door.issuer.asked == ["/keys"]


@pytest.mark.parametrize("url", ["http://192.0.2.1", "https://169.254.169.254", "http://127.0.0.1"])
def test_an_issuer_that_may_not_be_called_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="scaikey_url"):
        Documents(url, None, NetworkPolicy(file_managed=True))


# --- what a caller may --------------------------------------------------------------


async def test_policies_hold_for_them_and_so_does_taking_one_away(door: Door) -> None:
    await door.front.house.write("app/a", {"k": "1"})
    token = door.issuer.token(sub="sa:billing")
    assert (await door.read(token, "app/a")).told == (404, "secret_not_found")
    await allow(door.front, "app/**", "read", identity="sa:billing")
    for _ in range(3):
        assert (await door.read(token, "app/a")).status == 200
    await door.front.house.admin.execute("DELETE FROM policies")
    await door.front.house.admin.execute("UPDATE tenants SET auth_epoch = auth_epoch + 1")
    assert (await door.read(token, "app/a")).told == (404, "secret_not_found")
    rows = [row for row in await logs(door.front) if row["action"] == "secret.read"]
    assert {row["identity_id"] for row in rows} == {"sa:billing"}
    assert sorted(row["decision"] for row in rows) == ["allow"] * 3 + ["deny"] * 2


async def bind_group(front: Front, group: str) -> None:
    await allow(front, "app/**", "read", identity="sa:nobody")
    await front.house.admin.execute(
        "INSERT INTO bindings (tenant_id, policy_id, identity_type, identity_id)"
        " VALUES (1, 'pol_1', 'group', $1)",
        group,
    )


async def groups_of(door: Door, identity: str = "user:ada") -> Any:
    return await door.front.house.admin.fetchval(
        "SELECT groups FROM identity_groups WHERE identity_id = $1", identity
    )


async def test_groups_of_a_token_count_and_are_kept_for_when_none_are_told(door: Door) -> None:
    await door.front.house.write("app/a", {"k": "1"})
    await bind_group(door.front, "ops")
    silent = door.issuer.token()
    assert (await door.read(silent, "app/a")).status == 404
    assert (await door.read(door.issuer.token(groups=["ops", "\n", "x"]), "app/a")).status == 200
    assert await groups_of(door) == ["ops", "x"]
    assert (await door.read(silent, "app/a")).status == 200
    assert (await door.read(door.issuer.token(groups=[]), "app/a")).status == 404
    told = [
        json.loads(r["detail"]) for r in await logs(door.front) if r["action"] == "identity.groups"
    ]
    assert told == [{"groups": ["ops", "x"]}]


async def test_what_a_token_changes_is_recorded_with_where_it_came_from(door: Door) -> None:
    first = await door.whoami(door.issuer.token(groups=["ops"]))
    door.now[0] += 1
    door.issuer.now = lambda: NOW + 1
    second = await door.read(door.issuer.token(groups=["dev"]), "app/a")
    rows = [row for row in await logs(door.front) if row["action"] == "identity.groups"]
    assert sorted((row["request_id"], row["source_ip"]) for row in rows) == sorted(
        (answer.headers["X-Request-Id"], "127.0.0.1") for answer in (first, second)
    )


async def test_losing_a_group_holds_at_once_for_those_who_do_not_tell(door: Door) -> None:
    await door.front.house.write("app/a", {"k": "1"})
    await bind_group(door.front, "ops")
    silent = door.issuer.token()
    await door.whoami(door.issuer.token(groups=["ops"], iat=NOW - 50, nbf=NOW - 50))
    assert (await door.read(silent, "app/a")).status == 200
    await door.whoami(door.issuer.token(groups=["dev"], iat=NOW - 40, nbf=NOW - 40))
    assert (await door.read(silent, "app/a")).status == 404


async def test_an_older_token_does_not_change_what_a_newer_one_said(door: Door) -> None:
    newer = door.issuer.token(groups=["new"], iat=NOW - 10)
    older = door.issuer.token(groups=["old"], iat=NOW - 20)
    await door.whoami(newer)
    epoch = "SELECT auth_epoch FROM tenants WHERE tenant_id = 1"
    before = await door.front.house.admin.fetchval(epoch)
    for _ in range(3):
        assert (await door.whoami(older)).body["groups"] == ["old"]
        assert (await door.whoami(newer)).body["groups"] == ["new"]
    assert await groups_of(door) == ["new"]
    assert await door.front.house.admin.fetchval(epoch) == before


async def test_more_groups_than_anybody_has_are_refused(door: Door) -> None:
    names = [f"{n:x}" for n in range(501)]
    assert (await door.whoami(door.issuer.token(groups=names[:500]))).status == 200
    assert "groups names more than 500" in await door.refused(door.issuer.token(groups=names))


async def test_a_token_is_remembered_no_longer_than_it_lasts(door: Door) -> None:
    """Its end is met although nothing else changes."""
    await door.front.house.write("app/a", {"k": "1"})
    await allow(door.front, "app/**", "read", identity="sa:ada")
    token = door.issuer.token(
        sub="sa:ada", exp=NOW
    )  # over, but for the leeway: not remembered at all
    assert (await door.read(token, "app/a")).status == 200
    door.now[0] += 60
    assert (await door.read(token, "app/a")).told == (401, "unauthenticated")


async def test_a_remembered_token_asks_nobody(door: Door) -> None:
    await door.front.house.write("app/a", {"k": "1"})
    await allow(door.front, "app/**", "read", identity="sa:ada")
    token = door.issuer.token(sub="sa:ada")
    assert (await door.read(token, "app/a")).status == 200
    door.ticks[0] += KEPT_S  # no key is known any more, and none can be had
    door.issuer.status = 500
    assert (await door.read(token, "app/a")).status == 200
    assert (await door.whoami(token)).told == (503, "issuer_unavailable")


async def test_the_issuer_is_asked_once_a_minute_whether_it_still_vouches(door: Door) -> None:
    await door.front.house.write("app/a", {"k": "1"})
    await allow(door.front, "app/**", "read", identity="sa:ada")
    token = door.issuer.token(sub="sa:ada")
    assert (await door.read(token, "app/a")).status == 200
    door.issuer.keys = [Key.new("two")]
    await door.keys.refresh()
    door.front.now[0] += VOUCHED_S - 1
    assert (await door.read(token, "app/a")).status == 200
    door.front.now[0] += 1
    assert (await door.read(token, "app/a")).told == (401, "unauthenticated")


# --- the first super_admin ----------------------------------------------------------

BOSS = "Boss@Example.com"


async def admins(door: Door) -> list[tuple[int, str, str]]:
    rows = await door.front.house.admin.fetch("SELECT * FROM super_admins ORDER BY identity_id")
    return [(row["tenant_id"], row["identity_id"], row["by"]) for row in rows]


def boss(door: Door, **changes: Any) -> str:
    claims: dict[str, Any] = {"sub": "boss", "email": "bOSS@example.COM", "email_verified": True}
    return door.issuer.token(**(claims | changes))


async def test_the_first_with_the_address_becomes_super_admin(house: House) -> None:
    async with open_door(house, bootstrap=BOSS) as door:
        answer = await door.whoami(boss(door, scope=None))
        assert answer.body["scopes"] == ["admin"]
        assert await admins(door) == [(TENANT, "user:boss", "bootstrap")]
        [row] = [row for row in await logs(door.front) if row["action"] == "super_admin.promote"]
        assert (row["identity_id"], row["decision"]) == ("user:boss", "allow")
        came_from = answer.headers["X-Request-Id"], "127.0.0.1"
        assert (row["request_id"], row["source_ip"]) == came_from
        # Without the address from now on: the identity is what counts.
        assert (await door.whoami(door.issuer.token(sub="boss"))).body["scopes"] == [
            "admin",
            "secrets:read",
        ]
    async with open_door(house, bootstrap=None) as door:
        assert "admin" in (await door.whoami(door.issuer.token(sub="boss"))).body["scopes"]


@pytest.mark.parametrize(
    "changes",
    [
        {"email_verified": False},
        {"email_verified": "true"},
        {"email_verified": 1},
        {"email_verified": None},
        {"email": "boss@example.com.evil.org"},
        {"email": ["boss@example.com"]},
        {"email": None},
        {"sub": "sa:boss"},
        {"tenant": "other"},
    ],
    ids=str,
)
async def test_nobody_else_does(house: House, changes: dict[str, Any]) -> None:
    await house.admin.execute("INSERT INTO tenants (slug) VALUES ('other')")
    async with open_door(house, bootstrap=BOSS) as door:
        assert "admin" not in (await door.whoami(boss(door, **changes))).body["scopes"]
        assert await admins(door) == []


async def test_letters_that_only_look_alike_are_not_the_same(house: House) -> None:
    async with open_door(house, bootstrap="mike@example.com") as door:
        kelvin = "mi\u212ae@example.com"
        assert kelvin.casefold() == "mike@example.com"
        await door.whoami(boss(door, email=kelvin))
        assert await admins(door) == []


async def test_it_happens_once(house: House) -> None:
    async with open_door(house, bootstrap=BOSS) as door:
        await door.whoami(boss(door))
        assert "admin" not in (await door.whoami(boss(door, sub="second"))).body["scopes"]
        assert await admins(door) == [(TENANT, "user:boss", "bootstrap")]


async def test_of_two_who_come_at_once_one_is_made(house: House) -> None:
    async with open_door(house, bootstrap=BOSS) as door:
        await door.whoami(door.issuer.token())  # the keys are known
        texts = [boss(door, sub=f"boss{n}") for n in range(8)] + [boss(door, sub="boss0", jti="2")]
        answers = await asyncio.gather(*map(door.whoami, texts))
        [(_, winner, _)] = await admins(door)
        for answer in answers:
            said = answer.body
            assert ("admin" in said["scopes"]) == (said["identity_id"] == winner)
        made = [row for row in await logs(door.front) if row["action"] == "super_admin.promote"]
        assert [row["identity_id"] for row in made] == [winner]


async def test_what_cannot_be_recorded_makes_nobody(house: House) -> None:
    async with open_door(house, bootstrap=BOSS) as door:
        await house.admin.execute("ALTER TABLE audit RENAME TO elsewhere")
        answer = await door.whoami(boss(door, groups=["ops"]))
        assert answer.told == (503, "audit_unavailable")
        assert await admins(door) == []
        assert await groups_of(door, "user:boss") is None
        await house.admin.execute("ALTER TABLE elsewhere RENAME TO audit")
        assert "admin" in (await door.whoami(boss(door))).body["scopes"]


async def test_a_static_token_makes_nobody_and_gains_nothing(house: House) -> None:
    async with open_door(house, bootstrap=BOSS) as door:
        made = await house.app.access.create(
            TENANT, Identity.parse("user:boss"), [Scope.SECRETS_READ], expires_in=60, by="x"
        )
        text = made.text.reveal()
        assert (await door.whoami(text)).body["scopes"] == ["secrets:read"]
        await door.whoami(boss(door))
        assert (await door.whoami(text)).body["scopes"] == ["secrets:read"]
