"""Is every code on the page of errors and in the document, and no other?"""

import re

from tests.api import DOCUMENT
from tests.docs.error_codes import PAGE, in_source, told
from tests.unit.test_http_errors import kinds, made

from svsync.domain.errors import SvsyncError
from svsync.domain.runs import SkipReason
from svsync.http import server
from svsync.http.openapi import codes

ANSWERED = {code: statuses for code, statuses in told().items() if statuses}


def test_each_code_of_the_source_is_on_the_page_and_the_reverse() -> None:
    found, _, unknown = in_source()
    assert unknown == set()
    assert found == set(told())


def test_the_document_has_what_the_page_says_is_answered() -> None:
    assert codes() == set(ANSWERED)
    listed = DOCUMENT["components"]["schemas"]["ErrorCode"]["enum"]
    assert listed == sorted(set(listed))
    code = DOCUMENT["components"]["schemas"]["Error"]["properties"]["error"]["properties"]["code"]
    assert code == {"$ref": "#/components/schemas/ErrorCode"}


def test_a_code_beside_its_status_has_it_on_the_page() -> None:
    _, pairs, _ = in_source()
    assert len(pairs) > 10
    assert [(status, code) for status, code in pairs if status not in told()[code]] == []


def test_what_the_table_of_statuses_says_is_on_the_page() -> None:
    """Of each class by its own code, which is told where an error brings one that is not known."""
    for kind in kinds(SvsyncError):
        error = made(kind)
        status = server.status_of(error)
        if status == 500 or kind.__name__ == "RequestError":
            continue
        assert status in ANSWERED[error.code], kind
    for code, status in server._OF_CODES.items():
        assert status in told()[code]
    for code in server._STATES:
        assert told()[code] == {409}
    for code in server._LOST:
        assert told()[code] == {500}


def test_the_page_has_each_reason_to_skip() -> None:
    assert set(SkipReason) <= set(ANSWERED)


def test_each_row_says_what_to_do() -> None:
    rows = re.findall(r"^\| `[a-z0-9_]+` \| [0-9, ]+ \|(.*)\|$", PAGE.read_text("utf-8"), re.M)
    assert len(rows) == len(ANSWERED)
    assert all(len(row.split(" | ")) == 2 for row in rows)
