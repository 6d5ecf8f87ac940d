"""Has each alert its section, and is what the sections tell people to type there?"""

import re

from tests.docs.cli_page import commands
from tests.docs.test_docs import section, text_of
from tests.docs.test_metrics_page import rules

from svsync.cli.main import build_parser
from svsync.domain.runs import SkipReason
from svsync.services.findings import State

PAGE = "docs/runbook.md"


def test_each_alert_has_its_section_in_the_order_of_the_rules() -> None:
    headings = re.findall(r"^## (.*)$", text_of(PAGE), re.MULTILINE)
    assert headings == ["First", *(rule["alert"] for rule in rules())]


def test_each_command_of_the_runbook_is_there_with_its_flags() -> None:
    there = {" ".join(words): parser for words, parser, _ in commands(build_parser())}
    told = re.findall(r"(?:`|^)svsync ([^`\n#]+)", text_of(PAGE), re.MULTILINE)
    assert len(told) > 20
    for line in told:
        names = [name for name in there if f"{line} ".startswith(f"{name} ")]
        assert names, line
        flags = there[max(names, key=len)].format_help()
        assert all(flag in flags for flag in re.findall(r"--[a-z-]+", line)), line


def test_reasons_that_the_runbook_names_are_on_the_list() -> None:
    named = re.search(
        r"skipped paths say why \(([^;]*) and others", section(PAGE, "SvsyncPushesPending")
    )
    assert named is not None
    assert set(re.findall(r"`(\w+)`", named[1])) <= {str(reason) for reason in SkipReason}


def test_the_runbook_names_the_states_of_a_finding() -> None:
    assert ", ".join(list(State)[:-1]) + f" or {list(State)[-1]}" in text_of(PAGE)
