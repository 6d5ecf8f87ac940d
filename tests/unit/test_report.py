"""How does a run account for itself, and when is it ok, partial or failed?"""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svsync.domain.errors import GuardError, ListingError
from svsync.domain.ids import BackendId, RunId
from svsync.domain.runs import (
    FAILURES,
    INTENDED,
    MAX_SKIPPED,
    Count,
    Report,
    Run,
    RunError,
    RunKind,
    RunResult,
    RunState,
    Skipped,
    SkipReason,
    Stage,
    Trigger,
    quarantine_delay,
    run_json,
)

BEGAN = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
ENDED = BEGAN + timedelta(milliseconds=812)
RUN = Run(
    run_id=RunId("run_1"),
    backend_id=BackendId("fed_abc"),
    kind=RunKind.FULL,
    trigger=Trigger.SCHEDULE,
    state=RunState.COMPLETED,
    result=RunResult.OK,
    started_at=BEGAN,
    ended_at=ENDED,
)
FAILED = RunError("listing_failed", "list", "The listing did not end.")


def report(listed: int = 0, *reasons: SkipReason) -> Report:
    made = Report()
    made.add(Count.LISTED, listed)
    for n, reason in enumerate(reasons):
        made.skip(f"kv/data/{n}", reason)
    return made


def result(of: Report, ratio: float = 0.5) -> RunResult:
    return of.result(None, ratio)[0]


# --- ok, partial, failed ----------------------------------------------------------


def test_a_run_that_skipped_nothing_is_ok() -> None:
    assert report(10).result(None, 0.5) == (RunResult.OK, None)


def test_an_empty_run_is_ok_also_where_no_error_is_let_through() -> None:
    assert report(0).result(None, 0.0) == (RunResult.OK, None)


@pytest.mark.parametrize("reason", sorted(set(SkipReason) - INTENDED))
def test_one_skip_of_many_makes_a_run_partial(reason: SkipReason) -> None:
    assert report(10, reason).result(None, 0.5) == (RunResult.PARTIAL, None)


@pytest.mark.parametrize("reason", sorted(INTENDED))
def test_what_is_not_federated_on_purpose_makes_no_run_partial(reason: SkipReason) -> None:
    made = report(10, reason, reason)
    assert result(made) is RunResult.OK
    assert made.skipped == []
    assert made.counts()["skipped"] == 0
    assert made.counts()["skipped_by_reason"] == {reason: 2}


def test_an_error_of_the_run_makes_it_failed_and_stays_its_error() -> None:
    made = report(1, SkipReason.DENIED)
    assert made.result(FAILED, 0.5) == (RunResult.FAILED, FAILED)


def test_more_than_the_ratio_of_failures_makes_a_run_failed() -> None:
    half = [SkipReason.UNDECODABLE] * 5
    assert result(report(10, *half)) is RunResult.PARTIAL
    failed, error = report(10, *half, SkipReason.DENIED).result(None, 0.5)
    assert failed is RunResult.FAILED
    assert error is not None
    assert (error.code, error.message.split(",")[0]) == (
        "too_many_errors",
        "6 of 10 secrets failed",
    )


def test_unlisted_secrets_are_of_the_run_too() -> None:
    made = report(4, *[SkipReason.UNLISTED] * 6)
    assert result(made) is RunResult.FAILED
    made.add(Count.UNLISTED, 8)
    assert result(made) is RunResult.PARTIAL


@pytest.mark.parametrize("reason", sorted(set(SkipReason) - FAILURES - INTENDED))
def test_names_rules_and_bad_moments_never_make_a_run_failed(reason: SkipReason) -> None:
    assert result(report(10, *[reason] * 10)) is RunResult.PARTIAL


def test_a_backend_whose_secrets_are_all_quarantined_stays_failed() -> None:
    assert result(report(3, *[SkipReason.QUARANTINED] * 3)) is RunResult.FAILED


@given(st.integers(0, 30), st.integers(0, 30), st.floats(0, 1))
def test_more_failures_never_make_a_better_result(listed: int, bad: int, ratio: float) -> None:
    order = list(RunResult)
    fewer = report(listed, *[SkipReason.DENIED] * bad)
    more = report(listed, *[SkipReason.DENIED] * (bad + 1))
    assert order.index(result(fewer, ratio)) <= order.index(result(more, ratio))


# --- counting ---------------------------------------------------------------------


def test_each_counter_is_shown_also_where_it_is_zero() -> None:
    counts = report(3).counts()
    assert {str(c) for c in Count} < set(counts)
    assert (counts["listed"], counts["created"], counts["skipped_by_reason"]) == (3, 0, {})


def test_the_first_ten_thousand_skipped_are_named_and_all_are_counted() -> None:
    made = Report()
    for n in range(MAX_SKIPPED + 3):
        made.skip(f"kv/data/{n}", SkipReason.ILLEGAL_PATH)
    assert len(made.skipped) == MAX_SKIPPED
    assert made.skipped[-1].remote_path == f"kv/data/{MAX_SKIPPED - 1}"
    assert made.counts()["skipped"] == MAX_SKIPPED + 3
    assert made.counts()["skipped_by_reason"] == {"illegal_path": MAX_SKIPPED + 3}


def test_time_calls_bytes_and_throttling_add_up() -> None:
    made = report(1)
    made.call("read", 2)
    made.call("read")
    made.spend(Stage.LIST, 1.4)
    made.spend(Stage.LIST, 1.4)
    made.throttled += 1
    made.bytes_read += 150
    shown = made.to_run_json(RUN)
    assert shown["stages_ms"] == {"list": 3}
    assert shown["api_calls"] == {
        "list": 0,
        "metadata": 0,
        "read": 3,
        "write": 0,
        "delete": 0,
        "login": 0,
    }
    assert (made.counts()["throttled"], made.counts()["bytes"]) == (1, 150)


def test_a_guard_s_numbers_stand_in_the_report() -> None:
    made = report(2)
    stopped = GuardError("Too many.", code="mass_delete_guard", plan={"known": 9, "unlisted": 9})
    made.plan = stopped.plan
    assert made.counts()["plan"] == {"known": 9, "unlisted": 9}


def test_an_unpublished_reason_is_counted_as_unreadable() -> None:
    assert SkipReason.of("shadowed") is SkipReason.SHADOWED
    assert SkipReason.of("of my own") is SkipReason.UNREADABLE


# --- the run as others see it -----------------------------------------------------


def test_a_run_is_given_with_exactly_these_fields() -> None:
    made = report(2, SkipReason.DENIED)
    made.skip("kv/data/a b", SkipReason.ILLEGAL_PATH, "a space at position 9")
    shown = made.to_run_json(replace(RUN, result=RunResult.PARTIAL))
    counts = shown.pop("counts")
    assert shown == {
        "run_id": "run_1",
        "backend_id": "fed_abc",
        "kind": "full",
        "trigger": "schedule",
        "state": "completed",
        "result": "partial",
        "started_at": "2026-11-23T10:00:00.000Z",
        "ended_at": "2026-11-23T10:00:00.812Z",
        "duration_ms": 812,
        "stages_ms": {},
        "api_calls": made.api_calls(),
        "skipped": [
            {"remote_path": "kv/data/0", "reason": "denied"},
            {
                "remote_path": "kv/data/a b",
                "reason": "illegal_path",
                "detail": "a space at position 9",
            },
        ],
        "error": None,
    }
    assert counts == made.counts()
    assert json.loads(json.dumps(shown)) == shown


def test_a_queued_run_has_no_result_and_no_times() -> None:
    queued = Run(RunId("run_2"), BackendId("fed_abc"), RunKind.DRY, Trigger.API, RunState.QUEUED)
    shown = report().to_run_json(queued)
    assert [shown[f] for f in ("state", "result", "started_at", "ended_at", "duration_ms")] == [
        "queued",
        None,
        None,
        None,
        None,
    ]


def test_a_failed_run_tells_code_stage_and_sentence() -> None:
    error = RunError.of(ListingError("The listing does not end.", operation="list"), Stage.LIST)
    shown = report().to_run_json(replace(RUN, result=RunResult.FAILED, error=error))
    assert shown["error"] == {
        "code": "listing_failed",
        "stage": "list",
        "message": "The listing does not end.",
    }


def test_stored_rows_are_shown_as_the_live_report_was() -> None:
    made = report(2, SkipReason.DENIED)
    stored = run_json(
        RUN,
        counts=made.counts(),
        api_calls=made.api_calls(),
        stages_ms={},
        skipped=[Skipped("kv/data/0", SkipReason.DENIED)],
    )
    assert stored == made.to_run_json(RUN)


def test_a_moment_of_another_zone_is_shown_in_utc() -> None:
    moment = BEGAN.astimezone(timezone(timedelta(hours=2)))
    assert report().to_run_json(replace(RUN, started_at=moment))["started_at"] == (
        "2026-11-23T10:00:00.000Z"
    )


def test_the_event_of_a_run_has_exactly_these_fields() -> None:
    made = report(1200, SkipReason.DENIED)
    for count, n in (
        (Count.UNCHANGED, 1187),
        (Count.CREATED, 2),
        (Count.UPDATED, 9),
        (Count.CONFLICTS, 1),
        (Count.RETOKENED, 5),
    ):
        made.add(count, n)
    run = replace(RUN, result=RunResult.PARTIAL)
    event = made.to_event(run, backend_name="hashicorp-production", tenant="default", sequence=4711)
    assert event == {
        "backend_id": "fed_abc",
        "backend_name": "hashicorp-production",
        "tenant": "default",
        "run_id": "run_1",
        "trigger": "schedule",
        "result": "partial",
        "started_at": "2026-11-23T10:00:00.000Z",
        "duration_ms": 812,
        "counts": {
            "listed": 1200,
            "unchanged": 1187,
            "created": 2,
            "updated": 9,
            "pushed": 0,
            "deleted": 0,
            "conflicts": 1,
            "skipped": 1,
        },
        "sequence": 4711,
    }


def test_the_event_of_a_failed_run_adds_its_error() -> None:
    run = replace(RUN, state=RunState.FAILED, result=RunResult.FAILED, error=FAILED)
    event = report().to_event(run, backend_name="b", tenant="default", sequence=1)
    assert event["error"] == {
        "code": "listing_failed",
        "stage": "list",
        "message": "The listing did not end.",
    }
    assert event["result"] == "failed"


# --- quarantine -------------------------------------------------------------------

MINUTE, HOUR = 60.0, 3600.0


@pytest.mark.parametrize(
    ("failures", "delay"),
    [
        (0, 0.0),
        (2, 0.0),
        (3, 15 * MINUTE),
        (4, 30 * MINUTE),
        (5, HOUR),
        (9, 16 * HOUR),
        (10, 24 * HOUR),
        (10_000, 24 * HOUR),
    ],
)
def test_the_third_failure_in_a_row_begins_a_quarantine_that_grows_to_a_day(
    failures: int, delay: float
) -> None:
    assert quarantine_delay(failures, 0.0) == delay


@given(st.integers(0, 100), st.floats(0, 1))
def test_jitter_only_shortens_by_a_fifth_at_most(failures: int, jitter: float) -> None:
    longest = quarantine_delay(failures, 0.0)
    assert longest * 0.8 - 1e-6 <= quarantine_delay(failures, jitter) <= longest
    assert quarantine_delay(failures, jitter) <= quarantine_delay(failures + 1, jitter)


def test_a_run_that_lists_again_counts_its_listing_once_and_keeps_what_it_committed() -> None:
    report = Report()
    for _ in range(2):
        report.list_again()
        report.add(Count.LISTED, 5)
        report.skip("kv/data/odd", SkipReason.ILLEGAL_PATH)
        report.add(Count.CREATED, 1)
    counts = report.counts()
    assert (counts["listed"], counts["skipped"], counts["created"]) == (5, 1, 2)
    assert len(report.skipped) == 1
