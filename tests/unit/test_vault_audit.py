"""What an audit device's lines tell, and how they are cut, kept and lost."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.patience import PATIENCE_S

from svsync.domain.errors import ConfigError
from svsync.domain.paths import remote_problem
from svsync.feeds.vault_audit import VaultAuditFeed
from svsync.feeds.vault_audit.entries import notices_of
from svsync.feeds.vault_audit.lines import LineBuffer, LineSplitter, Stream
from svsync.ports import Notice

CANARY = "c4n4ry"


def entry(path: str, operation: str = "update", **changes: Any) -> bytes:
    """A response as OpenBao writes it, less what nobody looks at."""
    mount = changes.pop("mount", path.partition("/")[0] + "/")
    namespace = changes.pop("namespace", "")
    request = {
        "operation": operation,
        "mount_point": namespace + mount,
        "mount_type": changes.pop("mount_type", "kv"),
        "namespace": {"id": "MLEsp9", "path": namespace} if namespace else {"id": "root"},
        "path": path,
        "data": {"data": {"operation": "create", "password": CANARY}},
    }
    told = {"time": "2026-11-24T18:16:37Z", "type": "response", "request": request, **changes}
    return json.dumps(told, separators=(",", ":")).encode()


def told(line: bytes) -> list[str]:
    return [str(notice.path) for notice in notices_of(line)]


# --- one entry ----------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["create", "update", "patch", "delete"])
def test_each_kind_of_change_of_a_value_names_its_secret(operation: str) -> None:
    assert notices_of(entry("kv/data/team/db", operation)) == (Notice("", "kv/data/team/db"),)  # type: ignore[arg-type]


@pytest.mark.parametrize("verb", ["metadata", "delete", "undelete", "destroy"])
def test_other_paths_of_a_secret_are_told_as_the_listing_names_it(verb: str) -> None:
    """And as a v1 mount would have it, for the entry does not tell which it is."""
    assert told(entry(f"kv/{verb}/team/db")) == [f"kv/{verb}/team/db", "kv/data/team/db"]


def test_a_secret_of_kv1_is_told_by_its_own_path() -> None:
    assert told(entry("old/team/db")) == ["old/team/db"]


def test_a_mount_with_slashes_is_cut_where_it_ends() -> None:
    assert told(entry("team/kv/destroy/x", mount="team/kv/")) == [
        "team/kv/destroy/x",
        "team/kv/data/x",
    ]


def test_a_path_within_a_namespace_is_told_with_it() -> None:
    inside = entry("kv/data/x", namespace="acme/finance/")
    assert notices_of(inside) == (Notice("acme/finance", "kv/data/x"),)  # type: ignore[arg-type]


def test_a_mount_point_without_its_namespace_is_understood_too() -> None:
    line = entry("kv/delete/x", namespace="acme/").replace(b'"acme/kv/"', b'"kv/"')
    assert told(line) == ["kv/delete/x", "kv/data/x"]


@pytest.mark.parametrize(
    "line",
    [
        entry("kv/data/x", "read"),
        entry("kv/metadata/x/", "list"),
        entry("kv/data/x", type="request"),
        entry("kv/data/x", error="1 error occurred:\n\t* permission denied\n\n"),
        entry("sys/mounts/kv", mount_type="system"),
        entry("auth/approle/login", mount_type="approle"),
        entry("kv/data/x", mount="other/"),
    ],
)
def test_what_changed_no_secret_is_passed_over(line: bytes) -> None:
    assert told(line) == []


@pytest.mark.parametrize(
    "path", ["kv/data/../../sys/x", "kv/data/", "kv/data/a//b", "kv/data/a%2fb", "kv/data/a\x00b"]
)
def test_a_name_that_a_listing_could_not_give_is_passed_over(path: str) -> None:
    assert told(entry(path, mount="kv/")) == []


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"garbage",
        b"{",
        b'<entry operation="update">',
        b'{"operation":"update"}',
        b'{"operation":"update","request":[]}',
        b'{"operation":"update",' + b"[" * 200_000 + b"}",
        b'{"operation":"update","x":' + b"1" * 5_000 + b"}",
        b'{"operation":"update","request":"\xff"}',
        entry("kv/data/x").replace(b'"path":"kv/data/x"', b'"path":7'),
        entry("kv/data/x").replace(b'"mount_point":"kv/"', b'"mount_point":null'),
        entry("kv/data/x")[:-9] + b"}",
    ],
)
def test_what_is_no_entry_is_refused_without_a_word_of_it(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"^not an audit entry$") as refused:
        notices_of(line)
    assert refused.value.__cause__ is None
    assert not isinstance(refused.value, UnicodeError | json.JSONDecodeError)
    context = refused.value.__context__
    assert context is None, "the error of the parser holds the line"


ANYTHING = (
    st.sampled_from(["create", "response", "kv", "kv/", "acme/", "kv/data/x", "kv/destroy/x"])
    | st.text(max_size=8)
    | st.sampled_from([None, True, 7, -1.5, [], {}, [["kv"]], {"path": "kv/"}])
)


@given(st.lists(ANYTHING, min_size=7, max_size=7))
def test_whatever_its_members_hold_a_line_is_read_or_refused(values: list[Any]) -> None:
    kind, error, operation, mount_type, mount, path, namespace = values
    request = {
        "operation": operation,
        "mount_type": mount_type,
        "mount_point": mount,
        "path": path,
        "namespace": {"path": namespace},
    }
    line = json.dumps({"type": kind, "error": error, "request": request}).encode()
    try:
        notices = notices_of(line)
    except ValueError as refused:
        assert str(refused) == "not an audit entry"  # noqa: PT017
    else:
        assert all(isinstance(notice.path, str) for notice in notices)


@given(st.text(max_size=20) | st.text("./%2eE\\ax", max_size=20))
def test_what_is_told_is_a_name_that_may_be_asked_for(name: str) -> None:
    for verb in ("data", "destroy"):
        for path in told(entry(f"kv/{verb}/{name}")):
            assert remote_problem(path) is None
            assert path.endswith(f"/{name}")


@given(st.binary(max_size=200))
def test_no_bytes_do_more_than_being_refused(line: bytes) -> None:
    with_change = b'{"operation":"update"' + line + b"}"
    for candidate in (line, with_change):
        try:
            assert notices_of(candidate) == ()
        except ValueError as refused:
            assert str(refused) == "not an audit entry"  # noqa: PT017


# --- lines --------------------------------------------------------------------------


@given(
    st.lists(st.binary(max_size=30).map(lambda b: b.replace(b"\n", b"")), max_size=8),
    st.lists(st.integers(1, 40), max_size=20),
)
def test_lines_are_the_same_however_the_blocks_fall(lines: list[bytes], cuts: list[int]) -> None:
    whole = b"".join(line + b"\n" for line in lines)
    splitter = LineSplitter(longest=20)
    got: list[bytes] = []
    lost = at = 0
    for size in [*cuts, len(whole) + 1]:
        block, at = whole[at : at + size], at + size
        ended, dropped = splitter.split(block)
        got += ended
        lost += dropped
    assert got == [line for line in lines if 0 < len(line) <= 20]
    assert lost == sum(len(line) > 20 for line in lines)


def test_a_line_that_was_begun_before_is_left_out() -> None:
    splitter = LineSplitter()
    splitter.skip_line()
    assert splitter.split(b"end of another\nwhole\n") == ([b"whole"], 0)


async def test_a_full_buffer_drops_what_comes_and_says_so_once() -> None:
    buffer = LineBuffer(most_bytes=10)
    stream = Stream(LineSplitter())
    buffer.put(stream, b"12345678\n")
    buffer.put(stream, b"too much\nby far\n")
    buffer.put(stream, b"9\n")
    taken = await buffer.take()
    assert [line for _, lines in taken.blocks for line in lines] == [b"12345678", b"9"]
    assert taken.gap
    assert buffer.lost.overflowed == 2
    buffer.put(stream, b"again\n")
    assert not (await buffer.take()).gap


async def test_what_ended_the_reading_comes_after_all_that_was_read() -> None:
    buffer = LineBuffer()
    buffer.put(Stream(LineSplitter()), b"last\n")
    buffer.end(ConfigError("broke"))
    assert [lines for _, lines in (await buffer.take()).blocks] == [[b"last"]]
    with pytest.raises(ConfigError, match="broke"):
        await asyncio.wait_for(buffer.take(), PATIENCE_S)


# --- addresses ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "listen", ["tcp:0.0.0.0:9390", "tcp:192.0.2.1:9390", "tcp:[::]:9390", "tcp:10.0.0.1:1"]
)
def test_an_address_that_others_reach_is_refused(listen: str) -> None:
    with pytest.raises(ConfigError, match="is no loopback address: let the audit device"):
        VaultAuditFeed(listen)


@pytest.mark.parametrize("listen", ["", "unix:a", "file:a", "tcp:localhost:1", "tcp:127.0.0.1:x"])
def test_an_address_of_another_form_is_refused(listen: str) -> None:
    with pytest.raises(ConfigError, match="must be unix:/path, file:/path or tcp"):
        VaultAuditFeed(listen)
