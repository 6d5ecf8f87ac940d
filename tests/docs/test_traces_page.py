"""Is each span and attribute that is sent on the page of traces, and no other?"""

import re
from pathlib import Path
from typing import get_args

from svsync.domain.runs import Stage
from svsync.observe import otel
from svsync.ports import Operation

PAGE = (Path(__file__).parents[2] / "docs/reference/traces.md").read_text("utf-8")
CODE = Path(otel.__file__).read_text("utf-8")
TABLE = [line for line in PAGE.splitlines() if line.startswith("| `")]


def test_each_attribute_of_the_code_is_on_the_page_and_no_other() -> None:
    made = set(re.findall(r'"((?:svsync|http|error)\.[a-z_.]+)"', CODE)) | {"svsync.count.created"}
    told = set(re.findall(r"`((?:svsync|http|error)\.[a-z_.]+)`", PAGE))
    assert told == made


def test_each_stage_and_each_call_is_on_the_page_by_the_name_of_its_span() -> None:
    names = {name for line in TABLE for name in re.findall(r"`([^`]+)`", line.split(" | ")[0])}
    assert names >= set(map(str, Stage))
    assert {name for name in names if name.startswith("backend ")} == {
        f"backend {operation}" for operation in get_args(Operation)
    }


def test_the_numbers_of_the_page_are_those_of_the_code() -> None:
    assert f"within {otel.FLUSH_S:.0f} seconds" in PAGE
