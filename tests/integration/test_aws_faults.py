"""Cycles over an AWS that refuses, fails, forgets and lags: one reason each, nothing lost.

What AWS answers is by its API reference (Secrets Manager, the page of the call named) and
the IAM User Guide, "Troubleshoot signed requests for AWS APIs".
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.aws import KEYS, Aws, AwsFront
from tests.aws_house import Database, house_of
from tests.house import ENDINGS, WORK, House, counts, failure, skips
from tests.waiting import try_once
from tests.writes import overdue, put, state

from svsync import registry
from svsync.backends.guarded import BackendGuard
from svsync.domain.errors import BackendUnreachableError, SvsyncError, WriteOutcomeUnknownError
from svsync.domain.federation import OnRemoteDelete, Writes
from svsync.domain.runs import Count, RunResult

MARK = "canary-of-aws"
SIGNED_LATE = f"Signature expired: 20261129T080000Z is now earlier than 20261129T085500Z {MARK}"
SIGNED_ELSEWHERE = f"Credential should be scoped to a valid region, not 'eu-west-1'. {MARK}"
VALUES = "^(Batch)?GetSecretValue"


async def kept(house: House) -> dict[str, list[str]]:
    """Everything but what the end of any run writes."""
    return await house.dump(without=WORK | ENDINGS | {"backends"})


# --- the backend as a whole ---------------------------------------------------------


@pytest.mark.parametrize(
    ("calls", "code", "status", "message", "reason"),
    [
        ("^ListSecrets", "ThrottlingException", 400, "", "throttled"),
        ("^ListSecrets", "AccessDeniedException", 400, "", "backend_denied"),
        ("^ListSecrets", "InternalServiceError", 500, "", "backend_unreachable"),
        (VALUES, "ThrottlingException", 400, "", "throttled"),
        (VALUES, "InternalServiceError", 500, "", "backend_unreachable"),
        (VALUES, "ExpiredTokenException", 400, "", "login_failed"),
        ("", "UnrecognizedClientException", 400, "", "login_failed"),
        ("", "RequestTimeTooSkewed", 403, "", "clock_skew"),
        ("", "InvalidSignatureException", 400, SIGNED_LATE, "clock_skew"),
        ("", "InvalidSignatureException", 400, SIGNED_ELSEWHERE, "login_failed"),
    ],
)
async def test_what_aws_answers_ends_a_cycle_with_one_reason_and_changes_nothing(
    roto: Aws,
    aws_front: AwsFront,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    calls: str,
    code: str,
    status: int,
    message: str,
    reason: str,
) -> None:
    try_once(monkeypatch)
    for name in ("a", "b"):
        await roto.put(name, {"k": "1"})
    async with house_of(aws_front.url, roto.prefix, database) as house:
        await house.run()
        await roto.put("a", {"k": "2"})
        await roto.put("new", {"k": "1"})
        before = await kept(house)
        aws_front.refuse_as(calls, code, status, message or MARK)
        ended = await house.run()
        assert (ended.record.result, failure(ended)) == (RunResult.FAILED, reason)
        assert ended.record.error is not None
        assert MARK not in ended.record.error.message
        assert await kept(house) == before
        assert (await house.events())[-1] == "federation.sync.failed"

        aws_front.rules.clear()
        assert counts(await house.run())["created"] == 1
        assert await house.versions("ext/a") == [{"k": "1"}, {"k": "2"}]


async def test_endpoint_of_another_region_is_named_as_that(
    roto: Aws, aws_front: AwsFront, database: Database
) -> None:
    aws_front.refuse_as("", "InvalidSignatureException", message=SIGNED_ELSEWHERE)
    async with house_of(aws_front.url, roto.prefix, database) as house:
        ended = await house.run()
    assert ended.record.error is not None
    assert "config.region" in ended.record.error.message
    assert len(aws_front.seen) == 1, "other keys would not help"


@pytest.mark.usefixtures("bare_machine")
async def test_web_identity_that_has_expired_fails_the_run_and_a_new_one_goes_on(
    roto: Aws,
    aws_front: AwsFront,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """What STS says then is in its API reference, AssumeRoleWithWebIdentity."""
    file = tmp_path / "token"
    file.write_text("first.payload.signature")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(file))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/svsync")
    said = (
        f"<ErrorResponse><Error><Type>Sender</Type><Code>ExpiredTokenException</Code>"
        f"<Message>Token expired: {MARK}</Message></Error></ErrorResponse>"
    )
    expired: set[str] = set()

    async def sts(request: web.Request) -> web.StreamResponse:
        token = (await request.post())["WebIdentityToken"]
        if token in expired:
            return web.Response(status=400, text=said, content_type="text/xml")
        return await aws_front.forward(request)

    aws_front.answer("^AssumeRoleWithWebIdentity", sts)
    await roto.put("a", {"k": "1"})
    config = {"credentials_path": None}
    async with house_of(aws_front.url, roto.prefix, database, config=config) as house:
        await house.run()
        before = await kept(house)
        expired.add("first.payload.signature")
        ended = await house.run()
        assert failure(ended) == "login_failed"
        assert ended.record.error is not None
        assert "AWS_WEB_IDENTITY_TOKEN_FILE has expired" in ended.record.error.message
        assert MARK not in ended.record.error.message
        assert await kept(house) == before
        file.write_text("second.payload.signature")
        assert counts(await house.run()) == {"listed": 1, "unchanged": 1}


async def test_throttling_that_passes_is_waited_for(
    roto: Aws, aws_front: AwsFront, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_wait(seconds: float) -> None: ...

    monkeypatch.setattr(registry, "BackendGuard", partial(BackendGuard, sleep=no_wait))
    for name in ("a", "b"):
        await roto.put(name, {"k": name})
    aws_front.refuse_first("^ListSecrets", "ThrottlingException", times=2)
    aws_front.refuse_first("^BatchGetSecretValue", "InternalServiceError", 500, times=2)
    async with house_of(aws_front.url, roto.prefix, database) as house:
        ended = await house.run()
    assert (ended.record.result, ended.report.throttled) == (RunResult.OK, 2)
    assert {k: n for k, n in ended.report.calls.items() if n} == {"list": 3, "read": 3}


async def test_keys_that_end_in_mid_cycle_are_replaced_and_the_cycle_goes_on(
    roto: Aws, aws_front: AwsFront, database: Database
) -> None:
    n = 45
    for number in range(n):
        await roto.put(f"{number:02}", {"k": str(number)})
    environ = {"AWS_KEYS": KEYS}
    ended_keys: list[str] = []

    async def batch(request: web.Request) -> web.StreamResponse:
        """The first batch is the last that the old keys are good for."""
        if ended_keys and "AKIAEXAMPLE" in request.headers["Authorization"]:
            return web.json_response({"__type": "ExpiredTokenException"}, status=400)
        if not ended_keys:
            ended_keys.append("AKIAEXAMPLE")
            environ["AWS_KEYS"] = KEYS.replace("AKIAEXAMPLE", "AKIANEW")
        return await aws_front.forward(request)

    aws_front.answer("^BatchGetSecretValue", batch)
    async with house_of(aws_front.url, roto.prefix, database, environ=environ) as house:
        ended = await house.run()
        assert (ended.record.result, counts(ended)["created"]) == (RunResult.OK, n)
        assert await house.data("ext/44") == {"k": "44"}


async def test_keys_that_end_for_good_in_mid_cycle_leave_a_store_that_the_next_completes(
    roto: Aws, aws_front: AwsFront, database: Database
) -> None:
    n = 45
    for number in range(n):
        await roto.put(f"{number:02}", {"k": str(number)})
    aws_front.refuse_as(f"^BatchGetSecretValue {roto.prefix}2", "ExpiredTokenException")
    async with house_of(aws_front.url, roto.prefix, database) as house:
        ended = await house.run()
        assert failure(ended) == "login_failed"
        assert ended.record.error is not None
        assert "env:AWS_KEYS" in ended.record.error.message
        aws_front.rules.clear()
        assert failure(await house.run()) is None
        assert [await house.data(path) for path in await house.paths()] == [
            {"k": str(number)} for number in range(n)
        ]


# --- single secrets -----------------------------------------------------------------


@pytest.mark.parametrize("batches", [True, False])
async def test_secret_that_cannot_be_decrypted_is_skipped_and_keeps_its_copy(
    roto: Aws, aws_front: AwsFront, database: Database, batches: bool
) -> None:
    for name in ("a", "b", "c"):
        await roto.put(name, {"k": "1"})
    async with house_of(aws_front.url, roto.prefix, database) as house:
        await house.run()
        for name in ("a", "b", "c"):
            await roto.put(name, {"k": "2"})
        if not batches:
            aws_front.refuse_as("^BatchGetSecretValue", "AccessDeniedException")
        aws_front.cannot_decrypt(roto.prefix + "b")
        ended = await house.run()
        assert ended.record.result is RunResult.PARTIAL
        assert skips(ended) == {roto.prefix + "b": "unreadable"}
        assert "KMS" in ended.report.skipped[0].detail
        assert await house.data("ext/b") == {"k": "1"}
        assert await house.data("ext/c") == {"k": "2"}
        aws_front.rules.clear()
        await house.admin.execute("UPDATE sync_state SET retry_at = NULL")
        await house.run()
        assert await house.versions("ext/b") == [{"k": "1"}, {"k": "2"}]


# --- a listing that is behind ---------------------------------------------------------


async def test_push_that_is_listed_with_its_old_version_moves_nothing(
    roto: Aws, aws_front: AwsFront, database: Database
) -> None:
    await roto.put("a", {"k": "1"})
    settings: dict[str, Any] = {"writes": Writes.WRITE_THROUGH, "extra": {}}
    async with house_of(aws_front.url, roto.prefix, database, **settings) as house:
        await house.run()
        await aws_front.lag(roto)
        await house.write("ext/a", {"k": "2"})
        for _ in range(2):
            ended = await house.run()
            assert ended.record.result is RunResult.OK
            assert counts(ended).keys() <= {"listed", "unchanged", "retokened"}
        assert await house.versions("ext/a") == [{"k": "1"}, {"k": "2"}]
        assert json.loads(await roto.value("a")) == {"k": "2"}
        assert await house.rows("conflicts") == []


async def test_secret_that_a_listing_lacks_is_asked_for_by_name_and_stays(
    roto: Aws, aws_front: AwsFront, database: Database
) -> None:
    await roto.put("a", {"k": "1"})
    removal = OnRemoteDelete.SOFT_DELETE
    async with house_of(
        aws_front.url, roto.prefix, database, on_remote_delete=removal, extra={}
    ) as house:
        await house.run()
        await aws_front.lag(roto)
        await roto.put("b", {"k": "1"})
        await house.run("ext/b")
        aws_front.seen.clear()
        ended = await house.run()
        assert counts(ended)[Count.LISTING_MISSED] == 1
        assert aws_front.seen == ["ListSecrets ", f"DescribeSecret {roto.prefix}b"]
        assert await house.paths() == ["ext/a", "ext/b"]


async def test_secret_is_gone_once_a_look_at_it_says_so(
    roto: Aws, aws_front: AwsFront, database: Database
) -> None:
    """Removed for good, so that no listing tells of it; and listed still, which is no more."""
    for name in ("a", "b"):
        await roto.put(name, {"k": "1"})
    removal = OnRemoteDelete.SOFT_DELETE
    async with house_of(aws_front.url, roto.prefix, database, on_remote_delete=removal) as house:
        await house.run()
        await roto.remove("a")
        aws_front.seen.clear()
        assert counts(await house.run())["deleted"] == 1
        assert aws_front.seen == ["ListSecrets ", f"DescribeSecret {roto.prefix}a"]

        await roto.put("b", {"k": "2"})
        await aws_front.lag(roto)
        await roto.remove("b")
        assert counts(await house.run())["deleted"] == 1
        assert await house.paths() == []


async def test_page_that_is_missing_is_no_deletion(
    roto: Aws, aws_front: AwsFront, database: Database
) -> None:
    n = 105
    for number in range(n):
        await roto.put(f"{number:03}", {"k": "1"})
    removal = OnRemoteDelete.SOFT_DELETE
    async with house_of(aws_front.url, roto.prefix, database, on_remote_delete=removal) as house:
        await house.run()
        before = await kept(house)

        async def answer(request: web.Request) -> web.StreamResponse:
            if b"NextToken" in await request.read():
                return web.json_response({"__type": "InvalidNextTokenException"}, status=400)
            return await aws_front.forward(request)

        aws_front.answer("^ListSecrets", answer)
        ended = await house.run()
        assert failure(ended) == "listing_failed"
        assert await kept(house) == before
        aws_front.rules.clear()
        assert counts(await house.run()) == {"listed": n, "unchanged": n}


async def test_page_that_gives_names_again_and_leaves_others_out_loses_none(
    roto: Aws, aws_front: AwsFront, database: Database
) -> None:
    """Secrets that come and go between two pages move the boundary."""
    n = 103
    for number in range(n):
        await roto.put(f"{number:03}", {"k": "1"})
    removal = OnRemoteDelete.SOFT_DELETE
    async with house_of(aws_front.url, roto.prefix, database, on_remote_delete=removal) as house:
        await house.run()
        listed = await roto.listed()

        async def answer(request: web.Request) -> web.StreamResponse:
            if b"NextToken" in await request.read():
                return web.json_response({"SecretList": listed[98:100]})
            return web.json_response({"SecretList": listed[:100], "NextToken": "more"})

        aws_front.answer("^ListSecrets", answer)
        ended = await house.run()
        assert counts(ended)[Count.LISTING_MISSED] == n - 100
        assert "deleted" not in counts(ended)
        assert len(await house.paths()) == n


# --- writes -------------------------------------------------------------------------


@pytest.mark.parametrize("lost", ["PutSecretValue", "UpdateSecretVersionStage"])
async def test_write_whose_answer_is_lost_is_made_once_whatever_is_sent_again(
    roto: Aws,
    aws_front: AwsFront,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    lost: str,
) -> None:
    """The token of the request is the push's id: AWS takes it again as the same version
    (API reference, PutSecretValue)."""
    try_once(monkeypatch)
    first = await roto.put("a", {"k": "1"})
    writes = Writes.WRITE_THROUGH
    async with house_of(aws_front.url, roto.prefix, database, writes=writes) as house:
        await house.run()
        aws_front.lose(f"^{lost}")
        with pytest.raises(WriteOutcomeUnknownError):
            await house.write("ext/a", {"k": "2"})
        aws_front.rules.clear()
        await overdue(house)
        await house.run()
        push = await house.row("pushes")
        assert push["state"] == "landed"
        assert await roto.versions("a") == {first, push["push_id"]}
        assert await house.versions("ext/a") == [{"k": "1"}, {"k": "2"}]
        assert json.loads(await roto.value("a")) == {"k": "2"}
        again = await house.run()
        assert counts(again).keys() <= {"listed", "unchanged"}


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("ThrottlingException", "push_throttled"),
        ("AccessDeniedException", "backend_denied"),
        ("EncryptionFailure", "push_refused"),
        ("LimitExceededException", "push_refused"),
        ("ExpiredTokenException", "login_failed"),
        ("RequestTimeTooSkewed", "clock_skew"),
    ],
)
async def test_write_that_aws_refuses_is_told_with_one_reason_and_changes_neither_side(
    roto: Aws,
    aws_front: AwsFront,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    code: str,
    reason: str,
) -> None:
    try_once(monkeypatch)
    first = await roto.put("a", {"k": "1"})
    writes = Writes.WRITE_THROUGH
    async with house_of(aws_front.url, roto.prefix, database, writes=writes) as house:
        await house.run()
        aws_front.refuse_as("^PutSecretValue", code, message=MARK)
        with pytest.raises(SvsyncError) as refused:
            await house.write("ext/a", {"k": "2"})
        assert refused.value.code == reason
        assert MARK not in refused.value.message
        assert await roto.versions("a") == {first}
        assert await house.data("ext/a") == {"k": "1"}
        aws_front.rules.clear()
        assert state(await put(house, "ext/a", {"k": "3"})) == "applied"
        assert json.loads(await roto.value("a")) == {"k": "3"}


async def test_write_to_an_aws_that_is_away_changes_nothing(
    roto: Aws, aws_front: AwsFront, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    try_once(monkeypatch)
    await roto.put("a", {"k": "1"})
    writes = Writes.WRITE_THROUGH
    async with house_of(aws_front.url, roto.prefix, database, writes=writes) as house:
        await house.run()
        aws_front.refuse_as("", "InternalServiceError", 500)
        with pytest.raises(BackendUnreachableError):
            await house.write("ext/a", {"k": "2"})
        assert await house.data("ext/a") == {"k": "1"}
