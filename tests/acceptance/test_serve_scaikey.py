"""Does the service take tokens of ScaiKey, and make its first super_admin, as a process?"""

import json
from typing import Any

import pytest
from tests.acceptance.conftest import Desk
from tests.acceptance.serving import ask, new_token, serving
from tests.postgres import connected
from tests.program import until
from tests.scaikey import Key, ScaiKey, open_scaikey

pytestmark = pytest.mark.asyncio(loop_scope="session")

WHOAMI = "/v1/auth/whoami"
BOSS = "boss@example.com"


def environment(issuer: ScaiKey, **more: str) -> Any:
    """Variables that a process is started with."""
    return {"SCAIKEY_URL": issuer.url, "SVSYNC_ALLOW_LOOPBACK": "true", **more}


async def test_the_service_takes_them_follows_their_keys_and_records_who_failed(desk: Desk) -> None:
    async with open_scaikey() as issuer:
        changes = environment(
            issuer, BOOTSTRAP_SUPER_ADMIN=BOSS, SVSYNC_API_RATE_LIMITS="federation=0.1"
        )
        boss = issuer.token(sub="boss", email=BOSS, email_verified=True)
        async with serving(desk.program, **changes) as served:
            await served.says("issuer_keys")
            assert issuer.jwks_asked == 1
            told = await ask(served.url, WHOAMI, token=issuer.token())
            assert (told.json["identity_id"], told.json["scopes"]) == ("user:ada", ["secrets:read"])
            assert "admin" in (await ask(served.url, WHOAMI, token=boss)).json["scopes"]
            assert served.told("super_admin_made")[0]["identity_id"] == "user:boss"
            backends = "/v1/federation/backends"
            assert (await ask(served.url, backends, token=boss)).status == 200
            assert (await ask(served.url, backends, token=boss)).status == 429
            issuer.keys.insert(0, Key.new("two", "RS256"))  # nobody asked for another one yet
            assert (await ask(served.url, WHOAMI, token=issuer.token())).status == 200
            forged = issuer.token(Key.new("two", "RS256"))
            assert (await ask(served.url, WHOAMI, token=forged)).status == 401
            assert await served.stopped() == 0
        async with connected(desk.database) as admin:
            rows = await admin.fetch("SELECT * FROM audit WHERE action = 'auth.fail'")
        [row] = rows
        assert row["source_ip"] == "127.0.0.1"
        assert json.loads(row["detail"]) == {"count": 1, "codes": {"unauthenticated": 1}}
        async with serving(desk.program, **changes) as again:
            assert again.told("bootstrap_is_over")[0]["level"] == "warn"
            assert await again.stopped() == 0
        for line in served.lines + again.lines:
            assert not [text for text in (boss, forged) if text in json.dumps(line)]


async def test_the_service_starts_without_its_issuer_and_static_tokens_count(desk: Desk) -> None:
    token = await new_token(desk.program)
    async with open_scaikey() as issuer:
        issuer.status = 503
        async with serving(desk.program, **environment(issuer)) as served:
            assert (await served.says("issuer_unavailable"))["error_code"] == "issuer_refuses"
            assert (await ask(served.url, WHOAMI, token=token)).status == 200
            text = issuer.token()
            assert (await ask(served.url, WHOAMI, token=text)).status == 503
            issuer.status = 200

            async def counts() -> bool:
                return (await ask(served.url, WHOAMI, token=text)).status == 200

            await until(counts)
            assert served.told("issuer_answers_again")
            assert await served.stopped() == 0


async def test_an_issuer_that_may_not_be_called_is_one_sentence_and_exit_2(desk: Desk) -> None:
    for url, word in (("http://127.0.0.1:1", "loopback"), ("http://keys.example", "https://")):
        async with serving(desk.program, ready=False, SCAIKEY_URL=url) as served:
            assert await served.code() == 2
        [sentence] = served.sentences
        assert "SCAIKEY_URL" in sentence
        assert word in sentence
