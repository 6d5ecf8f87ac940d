"""Are all metrics on their page, and does each alert and panel look at one that there is?"""

import json
import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml
from tests.docs.cli_page import commands
from tests.docs.metrics_page import described, table
from tests.docs.test_docs import DOCS, ROOT, first_cells

from svsync.cli.main import build_parser
from svsync.config.model import Settings
from svsync.observe import metrics

PAGE = (DOCS / "reference/metrics.md").read_text("utf-8")
ALERTS = ROOT / "config/alerts.yml"
DASHBOARD = ROOT / "config/grafana/svsync.json"
WORDS = {
    "result": metrics.RESULTS,
    "change": metrics.CHANGES,
    "operation": metrics.OPERATIONS,
    "status of calls": metrics.CALL_STATUSES,
    "status of deliveries": metrics.DELIVERY_STATUSES,
    "mode": metrics.READ_MODES,
    "status of reads": metrics.READ_STATUSES,
    "feed": metrics.FEEDS,
    "outcome": metrics.NOTICE_OUTCOMES,
}


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(ALERTS.read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    return found


def expressions() -> list[str]:
    return [rule["expr"] for rule in rules()] + [
        target["expr"] for panel in panels() for target in panel["targets"]
    ]


def test_the_table_is_that_of_the_code() -> None:
    assert table() in PAGE, "put what `python -m tests.docs.metrics_page` prints on the page"


def test_the_words_of_each_label_are_on_the_page() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    told = {
        row.split(" | ")[0].strip("| ").replace("`", ""): re.findall(r"`([^`]+)`", row)[1:]
        for row in rows
    }
    for label, words in WORDS.items():
        assert told[label] == [word for word in words if word != metrics.OTHER], label


def test_the_numbers_of_the_page_are_those_of_the_code() -> None:
    assert f"more than {metrics.MAX_BACKENDS:,} backends" in PAGE
    assert Settings.__dataclass_fields__["metrics_max_backends"].default == metrics.MAX_BACKENDS
    address = Settings.__dataclass_fields__["metrics_address"].default
    assert f"http://{address}/metrics" in PAGE


def test_what_must_be_measured_is() -> None:
    told = {metric.name: metric.labels for metric in described()}
    for name, labels in {
        "svsync_sync_runs_total": ("tenant", "backend", "result"),
        "svsync_sync_duration_seconds": ("tenant",),
        "svsync_backend_api_calls_total": ("tenant", "backend", "operation", "status"),
        "svsync_last_success_timestamp_seconds": ("tenant", "backend"),
        "svsync_staleness_seconds": ("tenant", "backend"),
        "svsync_conflicts_open": ("tenant", "backend"),
        "svsync_requests_waiting": ("tenant",),
        "svsync_webhook_deliveries_total": ("tenant", "status"),
        "svsync_reads_total": ("tenant", "mode", "status"),
    }.items():
        assert told[name] == labels, name


@pytest.mark.parametrize("expression", expressions())
def test_each_alert_and_panel_looks_at_what_there_is(expression: str) -> None:
    """Metrics by name, with labels that these have, and words that are on their lists."""
    there = {sample: metric for metric in described() for sample in metric.samples}
    scraped = {"job", "instance"}
    found = re.findall(r"\b((?:svsync|process)_\w+|up)(?:\{([^}]*)\})?", expression)
    assert found
    labels = {"le"} | scraped
    for name, matchers in found:
        if name == "up":
            continue
        assert name in there, name
        labels |= set(there[name].labels)
        for label, word in re.findall(r'(\w+)(?:=~|!~|!=|=)"([^"]*)"', matchers):
            assert label in {*there[name].labels, *scraped}, label
            lists = [words for key, words in WORDS.items() if key.split()[0] == label]
            assert not lists or any(word in words for words in lists), word
    for grouped in re.findall(r"\bby \(([^)]*)\)", expression):
        assert set(grouped.split(", ")) <= labels
    assert all(expression.count(a) == expression.count(b) for a, b in ("()", "[]", "{}"))


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: str(rule["alert"]))
def test_each_alert_says_what_it_means_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"Svsync[A-Z]\w+", rule["alert"])
    assert re.fullmatch(r"\d+[mh]", rule.get("for", "0m"))
    assert rule["labels"] in ({"severity": "critical"}, {"severity": "warning"})
    assert rule["annotations"].keys() == {"summary", "description"}
    there = {" ".join(words) for words, _, _ in commands(build_parser())}
    assert set(re.findall(r"`svsync ([a-z -]+)`", rule["annotations"]["description"])) <= there
    used = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
    if by := re.search(r"\bby \(([^)]*)\)", rule["expr"]):
        assert used <= set(by[1].split(", "))


def test_each_alert_has_a_name_of_its_own_and_the_page_names_none_else() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names)
    assert set(re.findall(r"`(Svsync\w+)`", PAGE)) <= set(names)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_prometheus_takes_the_rules() -> None:
    run = subprocess.run(
        ["promtool", "check", "rules", ALERTS], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_panels_do_not_lie_on_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in panels()}) == len(panels())


def test_the_table_of_labels_names_no_other() -> None:
    rows = first_cells(PAGE.partition("\n## Labels\n")[2].partition("\n## ")[0])
    assert [row.replace("`", "") for row in rows][1:] == list(WORDS)
