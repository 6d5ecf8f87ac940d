"""Who may write a path and not read it: no answer tells whether a value is the one there."""

from typing import Any

import pytest
from tests.api import Answer, Front, open_front
from tests.house import House
from tests.integration.test_http_secrets import put, recorded, writer
from tests.writes import there, through

from svsync.domain.access import Scope
from svsync.domain.federation import ConflictPolicy

__all__ = ["through"]

A = "/v1/secrets/ext/a"
SKIP = {"skip_if_equal": True}


async def ask(client: Any, guess: str, path: str = A) -> Answer:
    return await put(client, path, {"k": guess}, options=SKIP)


async def test_a_guess_is_refused_alike_whether_it_is_right_and_whether_anything_is_there(
    front: Front,
) -> None:
    await front.house.write("app/a", {"k": "1"})
    client = await writer(front, "write", "list", "delete")
    answers = [
        await ask(client, guess, f"/v1/secrets/app/{name}")
        for guess, name in (("1", "a"), ("2", "a"), ("1", "b"))
    ]
    assert {answer.told for answer in answers} == {(403, "forbidden")}
    messages = [answer.body["error"]["message"] for answer in answers]
    assert "skip_if_equal" in messages[0]
    assert messages[0] == messages[1] == messages[2].replace("app/b", "app/a")
    assert await recorded(front) == [
        ("secret.write", f"app/{name}", "deny") for name in ("a", "a", "b")
    ]
    assert len(await front.house.rows("versions")) == 1


async def test_to_compare_takes_the_scope_of_reading_too(front: Front) -> None:
    await front.house.write("app/a", {"k": "1"})
    await writer(front, "write", "read", pattern="app/**")
    client = front.client.with_token(await front.token(Scope.SECRETS_WRITE))
    assert (await ask(client, "1", "/v1/secrets/app/a")).told == (403, "forbidden")
    client = front.client.with_token(await front.token(Scope.SECRETS_WRITE, Scope.SECRETS_READ))
    assert (await ask(client, "1", "/v1/secrets/app/a")).body["version"] == 1


async def test_who_may_not_write_either_is_told_as_without_the_option(front: Front) -> None:
    await front.house.write("app/a", {"k": "1"})
    client = await writer(front)
    asked = await ask(client, "1", "/v1/secrets/app/a")
    plain = await put(client, "/v1/secrets/app/a", {"k": "1"})
    assert asked.told == plain.told
    assert asked.body["error"]["message"] == plain.body["error"]["message"]


@pytest.mark.parametrize("policy", ConflictPolicy)
async def test_a_value_that_the_backend_has_is_sent_like_any_other(
    through: House, policy: ConflictPolicy
) -> None:
    await through.configure(conflict_resolution=policy)
    async with open_front(through) as front:
        blind = await writer(front, "write", "list", pattern="ext/**")
        right = await put(blind, A, {"k": "1"})
        wrong = await put(blind, A, {"k": "2"})
        for answer in (right, wrong):
            assert answer.body["write_through"]["state"] == "applied"
            assert answer.body["write_through"]["push_id"] is not None
        assert there(through, "kv/a") == {"k": "2"}
        known = await put(front.client, A, {"k": "2"})
        assert known.body["write_through"] == {"state": "applied", "push_id": None}


async def test_a_version_that_is_brought_back_is_sent_whatever_it_is(through: House) -> None:
    async with open_front(through) as front:
        blind = await writer(front, "write", pattern="ext/**")
        same = await blind.post(f"{A}/restore", json={"version": 1})
        assert same.body["write_through"]["push_id"] is not None
        known = await front.client.post(f"{A}/restore", json={"version": 1})
        assert known.body["write_through"]["push_id"] is None
