"""Cycles over a project that is not the one that was meant, does not let svsync in, or holds
what no plain secret is: one sentence and one reason each, nothing lost.

What Google answers is by the pages that `tests.gcp_fake` and `tests.gcp_tokens` name.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from grpc import StatusCode
from tests.aws_house import Database
from tests.gcp import LOOPBACK, PLACE, PREFIX, Gcp, gcp_spec
from tests.gcp_fake import CANARY, PROJECT
from tests.gcp_tokens import federation
from tests.house import BACKEND, ENDINGS, TENANT, WORK, House, counts, failure, open_house, skips
from tests.waiting import try_once
from tests.writes import put, state

from svsync.backends.gcp import GcpDriver
from svsync.clients.gcp import Dial
from svsync.domain.errors import SvsyncError
from svsync.domain.federation import Mode, OnRemoteDelete, RuleSpec, Writes
from svsync.domain.runs import RunResult
from svsync.services.backend_trials import try_backend

SUBJECT = "header.payload.signature"
Break = Callable[[Gcp], Any]


@asynccontextmanager
async def house_of(
    gcp: Gcp,
    database: Database,
    *,
    dial: Dial | None = None,
    key: str | None = None,
    **settings: Any,
) -> AsyncIterator[House]:
    """A house that syncs what is below a prefix to `ext/**`, and believes Google at once."""
    given = {"mode": Mode.SYNC, "extra": {"consistency_window": 0}, **settings}
    spec = gcp_spec(id=BACKEND, name=str(BACKEND), **given)
    drivers = {"gcp-secret-manager": GcpDriver(LOOPBACK, dial or gcp.dial)}
    environ = {"GCP_KEY": key or gcp.tokens.key.json()}
    async with open_house(*database, spec, environ=environ, drivers=drivers) as house:
        yield house


async def kept(house: House) -> dict[str, list[str]]:
    """Everything but what the end of any run writes."""
    return await house.dump(without=WORK | ENDINGS | {"backends"})


def sentence(ended: Any) -> str:
    """What the run's end says, which is one sentence and nothing of Google's."""
    assert ended.record.error is not None
    said: str = ended.record.error.message
    assert CANARY not in said
    assert "\n" not in said
    assert ". " not in said
    return said


HEALTH = {
    "backend_unreachable": "unreachable",
    "protocol_error": "degraded",
    "throttled": "degraded",
}
"""What a connection test says of a backend for each code; denied for any other."""


async def tried(house: House, reason: str, says: str) -> None:
    """The connection test says the same, in one sentence."""
    trial = await try_backend(house.app.db, house.app.registry, house.spec, TENANT, stored=True)
    assert trial.status == HEALTH.get(reason, "denied")
    if trial.warnings:
        [said] = trial.warnings
        assert says in said
        assert CANARY not in said
        assert ". " not in said
    else:
        assert all(check.hint for check in trial.checks if check.state == "missing")


# --- the project as a whole -----------------------------------------------------------


def _denied(reason: str) -> Break:
    return lambda gcp: gcp.fake.fail("", StatusCode.PERMISSION_DENIED, reason=reason)


def _ends(code: StatusCode) -> Break:
    return lambda gcp: gcp.fake.fail("", code)


def _no_right(gcp: Gcp) -> None:
    gcp.fake.deny("secretmanager")


def _key_deleted(gcp: Gcp) -> None:
    gcp.tokens.fault = (400, '{"error": "invalid_grant", "error_description": "' + CANARY + '"}')


def _clock(gcp: Gcp) -> None:
    gcp.tokens.skew = 7200


@pytest.mark.parametrize(
    ("breaks", "reason", "says"),
    [
        (_denied("CONSUMER_INVALID"), "login_failed", "config.project_id"),
        (_denied("SERVICE_DISABLED"), "login_failed", "config.project_id"),
        (_no_right, "backend_denied", "may list nothing"),
        (_key_deleted, "login_failed", "deleted or disabled"),
        (_clock, "clock_skew", "clock"),
        (_ends(StatusCode.UNAUTHENTICATED), "login_failed", "account is enabled"),
        (_ends(StatusCode.RESOURCE_EXHAUSTED), "throttled", "slow down"),
        (_ends(StatusCode.INTERNAL), "backend_unreachable", "failed"),
        (_ends(StatusCode.UNIMPLEMENTED), "protocol_error", "no answer of Google"),
    ],
)
async def test_project_that_cannot_be_used_ends_a_cycle_with_one_reason_and_changes_nothing(
    gcp: Gcp,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    breaks: Break,
    reason: str,
    says: str,
) -> None:
    try_once(monkeypatch)
    gcp.put("a", {"k": "1"})
    gcp.put("b", {"k": "1"})
    settings: dict[str, Any] = {
        "on_remote_delete": OnRemoteDelete.SOFT_DELETE,
        "writes": Writes.WRITE_THROUGH,
    }
    async with house_of(gcp, database, **settings) as house:
        await house.run()
        gcp.put("a", {"k": "2"})
        gcp.fake.delete(PREFIX + "b")
        before = await kept(house)
        breaks(gcp)
        ended = await house.run()
        assert (ended.record.result, failure(ended)) == (RunResult.FAILED, reason)
        assert says in sentence(ended)
        assert await kept(house) == before
        await tried(house, reason, says)
        with pytest.raises(SvsyncError) as refused:
            await put(house, "ext/a", {"k": "mine"})
        assert CANARY not in refused.value.message
        assert [await house.data(f"ext/{name}") for name in "ab"] == [{"k": "1"}] * 2
        assert len(gcp.fake.secret(PREFIX + "a").versions) == 2
        assert (await house.events())[-1] == "federation.sync.failed"

        gcp.fake.heal()
        gcp.tokens.fault, gcp.tokens.skew = None, 0.0
        assert failure(await house.run()) is None
        assert await house.data("ext/a") == {"k": "2"}
        assert await house.paths() == ["ext/a"]


async def test_project_that_does_not_exist_deletes_nothing_and_is_put_right(
    gcp: Gcp, database: Database
) -> None:
    gcp.put("a", {"k": "1"})
    settings: dict[str, Any] = {
        "on_remote_delete": OnRemoteDelete.SOFT_DELETE,
        "writes": Writes.WRITE_THROUGH,
        "propagate_deletes": True,
    }
    async with house_of(gcp, database, **settings) as house:
        await house.run()
        config = house.spec.config
        await house.configure(config={**config, "project_id": "no-such-project"})
        ended = await house.run()
        assert failure(ended) == "login_failed"
        assert "config.project_id" in sentence(ended)
        assert await house.data("ext/a") == {"k": "1"}
        await house.configure(config={**config, "project_id": PROJECT})
        await house.run()
        assert await house.status("ext/a") == "in_sync"
        assert await house.versions("ext/a") == [{"k": "1"}]
    assert gcp.value("a") == {"k": "1"}


@pytest.mark.parametrize("first", [True, False])
async def test_location_that_is_none_deletes_nothing_and_is_put_right(
    gcp: Gcp, database: Database, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    try_once(monkeypatch)
    gcp.fake.add(PREFIX + "a", b'{"k": "1"}', PLACE)

    async def resolve(host: str, port: int) -> Sequence[tuple[str, int]]:
        if "mars" in host:
            raise OSError
        return await gcp.dial.resolve(host, port)

    right = gcp_spec(config={"location": PLACE}).config
    wrong = {**right, "location": "mars-north1"}
    config = wrong if first else right
    async with house_of(gcp, database, dial=Dial(resolve, gcp.roots), config=config) as house:
        if not first:
            await house.run()
            await house.configure(config=wrong)
        had = await house.paths()
        ended = await house.run()
        assert failure(ended) == "backend_unreachable"
        assert "config.location" in sentence(ended)
        assert await house.paths() == had
        await house.configure(config=right)
        await house.run()
        assert await house.status("ext/a") == "in_sync"
        assert await house.versions("ext/a") == [{"k": "1"}]


async def test_location_of_another_place_detaches_and_deletes_nothing(
    gcp: Gcp, database: Database
) -> None:
    """Secrets of the project and those of a location are not the same ("Create a regional
    secret")."""
    gcp.fake.add(PREFIX + "a", b'{"k": "1"}', PLACE)
    right = gcp_spec(config={"location": PLACE}).config
    wrong = {key: text for key, text in right.items() if key != "location"}
    removal = OnRemoteDelete.SOFT_DELETE
    async with house_of(gcp, database, config=right, on_remote_delete=removal) as house:
        await house.run()
        await house.configure(config=wrong)
        assert counts(await house.run()) == {"detached": 1}
        assert await house.data("ext/a") == {"k": "1"}
        await house.configure(config=right)
        await house.run()
        assert await house.status("ext/a") == "in_sync"


async def test_federated_token_that_has_expired_fails_the_run_and_a_new_one_goes_on(
    gcp: Gcp, database: Database, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text(SUBJECT)
    gcp.tokens.subjects = {SUBJECT}
    gcp.put("a", {"k": "1"})
    async with house_of(gcp, database, key=federation({"file": str(file)})) as house:
        await house.run()
        before = await kept(house)
        gcp.tokens.subjects = {"newer.payload.signature"}
        ended = await house.run()
        assert failure(ended) == "login_failed"
        assert "expired" in sentence(ended)
        assert SUBJECT not in sentence(ended)
        assert await kept(house) == before
        file.write_text("newer.payload.signature")
        assert counts(await house.run()) == {"listed": 1, "unchanged": 1}


# --- secrets that are no plain value with a plain name ------------------------------------


async def test_each_odd_secret_has_its_reason_and_the_others_come(
    gcp: Gcp, database: Database
) -> None:
    gcp.put("plain", {"k": "v"})
    gcp.put("bytes", b"\x00\xff")
    gcp.put("twice", '{"k": 1, "k": 2}')
    gcp.put("large", "x" * 2001)
    gcp.put("off", "v")
    gcp.disable("off")
    gcp.put("destroyed", "v")
    gcp.destroy("destroyed")
    gcp.fake.make(PREFIX + "empty")
    gcp.put("a---b", {"k": "v"})
    settings: dict[str, Any] = {"max_value_bytes": 2000, "max_error_ratio": 1.0}
    async with house_of(gcp, database, **settings) as house:
        for _ in range(2):
            ended = await house.run()
            assert ended.record.result is RunResult.PARTIAL
            assert skips(ended) == {
                PREFIX + "large": "value_too_large",
                PREFIX + "a---b": "ambiguous_separator",
            }
        assert await house.paths() == ["ext/bytes", "ext/plain", "ext/twice"]
        assert await house.data("ext/bytes") == {"value_base64": "AP8="}
        assert await house.data("ext/twice") == {"value": '{"k": 1, "k": 2}'}


@pytest.mark.parametrize("gone", ["disabled", "destroyed", "deleted", "without a version"])
async def test_secret_that_goes_is_deleted_here_recoverably_and_comes_again(
    gcp: Gcp, database: Database, gone: str
) -> None:
    """A version that is scheduled to be destroyed is disabled until then ("Delay destruction
    of secret versions"); a secret whose time is over is deleted ("Secret expiration")."""
    gcp.put("a", {"k": "1"})
    gcp.put("b", {"k": "1"})
    removal = OnRemoteDelete.SOFT_DELETE
    async with house_of(gcp, database, on_remote_delete=removal) as house:
        await house.run()
        if gone == "disabled":
            gcp.disable("a")
        elif gone == "destroyed":
            gcp.destroy("a")
        else:
            gcp.fake.delete(PREFIX + "a")
        if gone == "without a version":
            gcp.fake.make(PREFIX + "a")
        ended = await house.run()
        assert (skips(ended), counts(ended)["deleted"]) == ({}, 1)
        assert await house.paths() == ["ext/b"]
        assert await house.data("ext/a", 1) == {"k": "1"}, "its history stays"
        gcp.put("a", {"k": "2"})
        await house.run()
        assert await house.data("ext/a") == {"k": "2"}


@pytest.mark.parametrize(
    ("path", "size", "reason"),
    [
        ("ext/" + "n" * 256, 10, "name_not_allowed"),
        ("ext/a.b", 10, "name_not_allowed"),
        ("ext/a---b", 10, "ambiguous_separator"),
        ("ext/a", 64 * 1024 + 1, "value_too_large"),
    ],
)
async def test_write_that_google_would_not_take_is_not_sent(
    gcp: Gcp, database: Database, path: str, size: int, reason: str
) -> None:
    """An id has 255 letters, digits, dashes and underscores (CreateSecretRequest), a value
    64 KiB at most ("Secret Manager quotas and limits")."""
    async with house_of(gcp, database, writes=Writes.WRITE_THROUGH) as house:
        await house.run()
        with pytest.raises(SvsyncError) as refused:
            await put(house, path, {"k": "x" * size})
        assert refused.value.code == reason
        assert "x" * 10 not in refused.value.message
        assert gcp.fake.secrets == {}
        assert await house.paths() == []
        assert state(await put(house, "ext/b", {"k": "v"})) == "applied"
        assert failure(await house.run()) is None


async def test_name_that_google_would_not_take_stays_a_local_one_where_it_is_there_already(
    gcp: Gcp, database: Database
) -> None:
    elsewhere = (RuleSpec("other/**", f"{PREFIX}**", separator="--"),)
    async with house_of(gcp, database, rules=elsewhere) as house:
        await house.write("ext/a.b", {"k": "1"})
        rules = (RuleSpec("ext/**", f"{PREFIX}**", separator="--"),)
        await house.configure(rules=rules, writes=Writes.WRITE_THROUGH)
        assert state(await put(house, "ext/a.b", {"k": "2"})) == "not_configured"
        assert failure(await house.run()) is None
        assert await house.data("ext/a.b") == {"k": "2"}
    assert gcp.fake.secrets == {}
