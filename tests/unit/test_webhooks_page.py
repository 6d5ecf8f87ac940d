"""The page of events says what the code does, and its sample code works."""

import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from svsync.clients import webhook
from svsync.domain import webhooks
from svsync.domain.webhooks import EventType, Failure

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reference/events.md").read_text("utf-8")


def section(heading: str) -> str:
    return PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def first_cells(text: str) -> list[str]:
    return re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)


def sample() -> Any:
    """The function of the page."""
    [code] = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    return names["verified"]


def test_each_type_is_on_the_page_and_no_other() -> None:
    assert first_cells(section("Types")) == [str(kind) for kind in EventType]
    assert webhooks.TEST_TYPE in section("Types")


def test_each_code_of_a_failure_is_on_the_page_and_no_other() -> None:
    assert set(first_cells(section("Delivery"))) - {"error_code"} == set(Failure)


def test_the_numbers_of_the_page_are_those_of_the_code() -> None:
    for told in (
        f"within {webhook.TIMEOUT_S:.0f} seconds",
        f"after {webhooks.retry_delay(1, 0):.0f} seconds",
        f"for {webhooks.GIVE_UP_S / 3600:.0f} hours",
        f"signs as well for {webhooks.OVERLAP_S / 3600:.0f} hours",
        f"{webhook.MAX_ANSWER // 1024} KiB",
        f"{webhooks.SECRET_BYTES} random bytes",
    ):
        assert told in PAGE
    assert webhooks.OUTAGE_AFTER == 3
    assert "three failures in a row" in PAGE


@pytest.mark.parametrize("at", [0, 1])
def test_the_sample_accepts_what_is_sent_under_either_secret(at: int) -> None:
    secrets = [webhooks.make_secret(bytes), webhooks.make_secret(lambda size: b"\x01" * size)]
    body = webhooks.body_of("a", datetime.now(UTC), "{}")
    headers = dict(webhooks.signed_headers("evt_1", int(time.time()), body, secrets))
    assert sample()(secrets[at], headers, body)
    assert not sample()(secrets[at], headers, body + b" ")
    assert not sample()(webhooks.make_secret(lambda size: b"\x02" * size), headers, body)


def test_the_sample_refuses_what_is_old() -> None:
    secret = webhooks.make_secret(bytes)
    headers = dict(webhooks.signed_headers("evt_1", int(time.time()) - 301, b"{}", [secret]))
    assert not sample()(secret, headers, b"{}")
