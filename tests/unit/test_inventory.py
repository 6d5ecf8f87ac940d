"""Is each engine and secret given the advice of the guides, and is what is kept bounded?"""

from typing import Any

import pytest

from svsync.domain import inventory
from svsync.domain.changes import Scope, ScopeOutcome
from svsync.domain.ids import RemotePath
from svsync.domain.inventory import (
    Advice,
    Engine,
    Surveyed,
    SurveyPage,
    Tally,
    Trait,
    judge,
    judge_engine,
)

KV2 = Engine("kv/", "kv-v2", "kv/data/")


def secrets(*paths: str, **about: Any) -> tuple[Surveyed, ...]:
    return tuple(Surveyed(RemotePath(path), **about) for path in paths)


def told(*pages: SurveyPage, depth: int = 1, most: int = 10) -> dict[str, Any]:
    tally = Tally(depth, lambda path: path.endswith("!"), most)
    for page in pages:
        tally.take(page)
    return tally.report()


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        ("kv-v2", Advice.FEDERATE),
        ("kv-v1", Advice.FEDERATE),
        ("pki", Advice.RECREATE),
        ("database", Advice.RECREATE),
        ("aws", Advice.RECREATE),
        ("azure", Advice.RECREATE),
        ("gcp", Advice.RECREATE),
        ("transit", Advice.LEAVE),
        ("totp", Advice.LEAVE),
        ("whatever-comes", Advice.LEAVE),
    ],
)
def test_an_engine_is_given_the_advice_of_the_guide(kind: str, advice: Advice) -> None:
    assert judge_engine(Engine("x/", kind)).advice is advice


@pytest.mark.parametrize(
    ("about", "name", "reason"),
    [
        ({}, "a/b", "secret"),
        ({"gone": True, "traits": frozenset({Trait.ROTATED})}, "a b", "no_value"),
        ({"traits": frozenset({Trait.OWNED, Trait.ROTATED})}, "rds!db", "owned"),
        ({"traits": frozenset({Trait.ROTATED})}, "a b", "name_not_local"),
        ({"traits": frozenset({Trait.ROTATED, Trait.REPLICA})}, "a", "rotated"),
        ({"traits": frozenset({Trait.REPLICA})}, "a", "replica"),
    ],
)
def test_what_speaks_against_moving_a_secret_is_asked_first(
    about: dict[str, Any], name: str, reason: str
) -> None:
    assert judge(Surveyed(RemotePath("kv/data/" + name), **about), name).reason == reason


def test_secrets_are_counted_by_folder_below_their_engine() -> None:
    nested = Engine("kv/data/x/", "kv-v1", "kv/data/x/")
    found = told(
        SurveyPage((KV2, nested)),
        SurveyPage(secrets=secrets("kv/data/top", "kv/data/a/b/c", "kv/data/a/d!")),
        SurveyPage(secrets=secrets("kv/data/x/inner/e"), rejected=(("kv/data/\\x00", "x"),)),
    )
    counted = {f["prefix"]: (f["secrets"], f["federated"]) for f in found["folders"]}
    assert counted == {"kv/data/": (2, 0), "kv/data/a/": (2, 1), "kv/data/x/inner/": (1, 0)}
    assert (found["secrets"], found["advice"]["recreate"]) == (5, 1)
    flat = told(SurveyPage(secrets=secrets("a/b/c", "a/d", "e")), depth=0)
    assert [f["prefix"] for f in flat["folders"]] == [""]


def test_what_is_kept_of_a_survey_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory, "MOST_FOLDERS", 3)
    page = SurveyPage(secrets=secrets(*(f"f{n}/a b" for n in range(20))))
    found = told(page, most=5)
    assert (len(found["notable"]), found["notable_more"]) == (5, 15)
    assert len(found["folders"]) <= 4
    denied = tuple(Scope(f"d{n}/", ScopeOutcome.DENIED, "denied") for n in range(8))
    refused = told(SurveyPage(scopes=denied[:3]), SurveyPage(scopes=denied[3:]), most=5)
    assert (len(refused["not_listed"]), refused["not_listed_more"]) == (5, 3)
    assert sum(f["secrets"] for f in found["folders"]) == 20


def test_a_few_secrets_of_kv_v2_alone_are_simple() -> None:
    page = SurveyPage(secrets=secrets("kv/data/a"), scopes=(Scope("kv/", ScopeOutcome.COMPLETE),))
    assert told(SurveyPage((KV2,)), page)["simple"]
    assert not told(SurveyPage((KV2, Engine("pki/", "pki"))), page)["simple"]
    many = SurveyPage(secrets=secrets(*(f"kv/data/{n}" for n in range(301))))
    assert not told(SurveyPage((KV2,)), many)["simple"]
    denied = SurveyPage(scopes=(Scope("kv/data/x/", ScopeOutcome.DENIED, "denied"),))
    assert not told(SurveyPage((KV2,)), page, denied)["simple"]


def test_a_survey_that_was_refused_everywhere_saw_nothing() -> None:
    tally = Tally(1, lambda path: False)
    tally.take(SurveyPage((KV2,), scopes=(Scope("kv/data/", ScopeOutcome.DENIED, "denied"),)))
    assert tally.saw_nothing
    tally.take(SurveyPage(scopes=(Scope("old/", ScopeOutcome.COMPLETE),)))
    assert not tally.saw_nothing
    assert tally.report()["not_listed"] == [
        {"prefix": "kv/data/", "outcome": "denied", "reason": "denied"}
    ]
