"""A backend that asks for fewer writes, or refuses keys by a status: what a writer is told,
and what a run makes of it."""

import pytest
from tests.api import Front, open_front
from tests.house import House, counts, failure, skips
from tests.writes import there, written_through

from svsync.domain.errors import LoginError, ThrottledError
from svsync.domain.federation import ConflictPolicy
from svsync.domain.runs import RunResult

URL = "/v1/secrets/ext/a"


@pytest.fixture
async def through(house: House, monkeypatch: pytest.MonkeyPatch) -> House:
    """A house with one secret that is written through."""
    return await written_through(house, monkeypatch)


def slow_down(house: House, seconds: float | None = 7.0) -> None:
    """The next write is answered so, with a status, as a cloud does."""
    house.there.fail(
        "write",
        ThrottledError("slow down", operation="write", status=400, retry_after=seconds, sent=False),
    )


async def write(front: Front, value: str) -> tuple[int, str | None, str]:
    answer = await front.client.call("PUT", URL, json={"data": {"k": value}})
    code = answer.code if answer.status >= 400 else ""
    return answer.status, answer.headers.get("Retry-After"), code


@pytest.mark.parametrize(("asked", "told"), [(7.0, "7"), (None, "1")])
async def test_throttled_write_is_told_when_to_come_again_and_changes_nothing(
    through: House, asked: float | None, told: str
) -> None:
    async with open_front(through) as front:
        slow_down(through, asked)
        assert await write(front, "2") == (429, told, "push_throttled")
        assert await through.versions("ext/a") == [{"k": "1"}]
        assert there(through, "kv/a") == {"k": "1"}
        assert (await write(front, "3"))[0] == 200
    assert there(through, "kv/a") == {"k": "3"}


async def test_throttled_push_of_a_run_keeps_back_its_own_path_alone(through: House) -> None:
    through.there.put("kv/b", {"k": "1"})
    await through.configure(conflict_resolution=ConflictPolicy.LOCAL_WINS)
    await through.run()
    for path in ("ext/a", "ext/b"):
        slow_down(through)
        await through.write(path, {"k": "2"})
    slow_down(through)
    ended = await through.run()
    assert (ended.record.result, counts(ended)["pushed"]) == (RunResult.PARTIAL, 1)
    [reason] = skips(ended).values()
    assert reason == "push_throttled"
    assert counts(await through.run())["pushed"] == 1
    assert [there(through, path) for path in ("kv/a", "kv/b")] == [{"k": "2"}] * 2


async def test_clock_that_is_refused_by_a_status_ends_the_run_as_that(through: House) -> None:
    await through.configure(conflict_resolution=ConflictPolicy.LOCAL_WINS)
    slow_down(through)
    await through.write("ext/a", {"k": "2"})
    skewed = LoginError("wrong clock", operation="write", code="clock_skew", status=403, sent=False)
    through.there.fail("write", skewed)
    assert failure(await through.run()) == "clock_skew"
    assert counts(await through.run())["pushed"] == 1
