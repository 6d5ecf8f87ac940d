"""Does each alert come when it should, with the words that it should, and not before or beside?

The rules are run by Prometheus' own promtool over series that are made up, minute by minute.
"""

import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.docs.test_metrics_page import ALERTS, rules

BACKEND = 'tenant="acme",backend="fed_a"'
RULES = {str(rule["alert"]): rule for rule in rules()}


@dataclass(frozen=True)
class Case:
    """What is measured, each minute from the first; and what comes of it.

    Attributes:
        about: what is special about it, in a word or two.
        after: the minute at which one looks.
        told: labels of the alert that is there then; None: there is none.
        summary: what it says.
    """

    alert: str
    about: str
    series: Mapping[str, str]
    after: int
    told: Mapping[str, str] | None = None
    summary: str = ""

    def as_test(self) -> dict[str, Any]:
        """The same in the words of promtool."""
        rule = RULES[self.alert]
        expected = []
        if self.told is not None:
            text = {"summary": self.summary, "description": rule["annotations"]["description"]}
            expected.append(
                {"exp_labels": {**rule["labels"], **self.told}, "exp_annotations": text}
            )
        return {
            "name": f"{self.alert}: {self.about}",
            "interval": "1m",
            "input_series": [
                {"series": name, "values": values} for name, values in self.series.items()
            ],
            "alert_rule_test": [
                {"alertname": self.alert, "eval_time": f"{self.after}m", "exp_alerts": expected}
            ],
        }


@dataclass(frozen=True)
class OfABackend:
    """Cases of an alert over a number that both replicas tell, of one backend."""

    alert: str
    metric: str
    minutes: int
    summary: str
    cases: list[Case] = field(default_factory=list)

    def __iter__(self) -> Any:
        replicas = [f'{self.metric}{{{BACKEND},instance="{name}"}}' for name in ("a", "b")]
        told = {"tenant": "acme", "backend": "fed_a"}
        lasting = dict.fromkeys(replicas, f"3x{self.minutes + 9}")
        over = dict.fromkeys(replicas, f"3x{self.minutes - 3} 0x9")
        yield Case(
            self.alert,
            "once, though two tell it",
            lasting,
            self.minutes + 1,
            told,
            self.summary,
        )
        yield Case(self.alert, "not yet", lasting, self.minutes - 1)
        yield Case(self.alert, "over before it was time", over, self.minutes + 1)


def replica(name: str, metric: str, values: str) -> dict[str, str]:
    return {f'{metric}{{job="svsync",instance="{name}"}}': values}


A = {"job": "svsync", "instance": "a"}
OF_A = {"tenant": "acme", "backend": "fed_a"}
RUNS = 'svsync_sync_runs_total{tenant="acme",backend="fed_a",result="%s",instance="%s"}'
CALLS = 'svsync_backend_api_calls_total{tenant="acme",backend="fed_a",operation="read",status="%s"}'
DELIVERIES = 'svsync_webhook_deliveries_total{tenant="acme",status="%s"}'

CASES = [
    Case(
        "SvsyncDown",
        "one of two",
        {**replica("a", "up", "0x9"), **replica("b", "up", "1x9")},
        6,
        A,
        "svsync on a gives no metrics",
    ),
    Case("SvsyncDown", "a start anew", replica("a", "up", "0x3 1x9"), 6),
    *OfABackend(
        "SvsyncBackendDown",
        "svsync_backends_down",
        10,
        "fed_a of acme cannot be reached, or refuses svsync",
    ),
    *OfABackend(
        "SvsyncBackendStale",
        "svsync_backends_stale",
        5,
        "fed_a of acme has not been synced for too long",
    ),
    Case(
        "SvsyncRunsFail",
        "at both replicas",
        {RUNS % ("failed", "a"): "0+1x90", RUNS % ("failed", "b"): "0+1x90"},
        80,
        OF_A,
        "Every cycle of fed_a of acme fails",
    ),
    Case(
        "SvsyncRunsFail",
        "one in between succeeds",
        {RUNS % ("failed", "a"): "0+1x90", RUNS % ("ok", "b"): "0+1x90"},
        80,
    ),
    *OfABackend(
        "SvsyncConflictsWait",
        "svsync_conflicts_open",
        60,
        "3 conflicts of fed_a of acme wait for a person",
    ),
    Case(
        "SvsyncPushesPending",
        "for hours",
        {f"svsync_pushes_pending{{{BACKEND}}}": "2x200"},
        150,
        OF_A,
        "Local changes have been on their way to fed_a of acme for two hours",
    ),
    Case(
        "SvsyncPushesPending",
        "others each hour",
        {f"svsync_pushes_pending{{{BACKEND}}}": "2x50 0x9 2x50 0x9 2x50"},
        160,
    ),
    *OfABackend(
        "SvsyncSecretsQuarantined",
        "svsync_secrets_quarantined",
        60,
        "3 secrets of fed_a of acme fail again and again",
    ),
    Case(
        "SvsyncBackendThrottles",
        "a fifth of the calls",
        {CALLS % "throttled": "0+2x60", CALLS % "ok": "0+8x60"},
        40,
        OF_A,
        "fed_a of acme asks svsync to slow down",
    ),
    Case(
        "SvsyncBackendThrottles",
        "one in a hundred",
        {CALLS % "throttled": "0+1x60", CALLS % "ok": "0+99x60"},
        40,
    ),
    Case(
        "SvsyncRequestsWait",
        "told by both",
        {
            f'svsync_oldest_request_seconds{{tenant="acme",instance="{name}"}}': "1000x20"
            for name in ("a", "b")
        },
        6,
        {"tenant": "acme"},
        "A run of acme has waited for a worker for 16m 40s",
    ),
    Case(
        "SvsyncRequestsWait",
        "an ordinary queue",
        {'svsync_oldest_request_seconds{tenant="acme"}': "600x20"},
        6,
    ),
    Case(
        "SvsyncWebhooksDead",
        "one",
        {DELIVERIES % "dead": "0x10 1x20", DELIVERIES % "delivered": "0+5x30"},
        20,
        {"tenant": "acme"},
        "Events of acme were not delivered and were given up",
    ),
    Case("SvsyncWebhooksDead", "none", {DELIVERIES % "dead": "4x30"}, 20),
    Case(
        "SvsyncFeedDown",
        "on one of two",
        {
            'svsync_feeds_down{feed="vault-audit",instance="a"}': "1x20",
            'svsync_feeds_down{feed="vault-audit",instance="b"}': "0x20",
        },
        11,
        {"feed": "vault-audit", "instance": "a"},
        "A change feed (vault-audit) does not listen on a",
    ),
    Case(
        "SvsyncFeedDown",
        "for a moment",
        {'svsync_feeds_down{feed="vault-audit",instance="a"}': "1x5 0x20"},
        11,
    ),
    Case(
        "SvsyncSignalsLost",
        "it had them",
        replica("a", "svsync_signals_shared", "1x5 0x20"),
        20,
        A,
        "svsync on a has lost Redis",
    ),
    Case("SvsyncSignalsLost", "it never had", replica("a", "svsync_signals_shared", "0x30"), 20),
    Case(
        "SvsyncKeyServicesAway",
        "long enough",
        replica("a", "svsync_key_services_away_seconds", "0+60x20"),
        12,
        A,
        "No key service has opened the root key of a for 12m 0s",
    ),
    Case(
        "SvsyncKeyServicesAway",
        "some minutes",
        replica("a", "svsync_key_services_away_seconds", "0+60x20"),
        9,
    ),
    Case(
        "SvsyncLoopLags",
        "all the time",
        replica("a", "svsync_event_loop_lag_seconds", "5x20"),
        6,
        A,
        "svsync on a comes late to its work",
    ),
    Case(
        "SvsyncLoopLags",
        "once",
        replica("a", "svsync_event_loop_lag_seconds", "0x4 9 0x9"),
        6,
    ),
]


def test_each_alert_has_a_case_in_which_it_comes_and_one_in_which_it_does_not() -> None:
    for wanted in (True, False):
        assert {case.alert for case in CASES if (case.told is not None) is wanted} == set(RULES)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_alerts_come_when_they_should(tmp_path: Path) -> None:
    file = tmp_path / "cases.json"  # JSON is YAML
    tests = [case.as_test() for case in CASES]
    document = {"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": tests}
    file.write_text(json.dumps(document, indent=1))
    run = subprocess.run(
        ["promtool", "test", "rules", file], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
