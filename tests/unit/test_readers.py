"""Is an audit file read for who read what, by metadata alone, in bounded memory?"""

import gzip
import json
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.audited import entry, lines
from tests.canary import Canary

from svsync.domain.errors import UsageError
from svsync.domain.ids import RemotePath
from svsync.domain.readers import SLOTS, Coverage, LogBlock, Logged, Login, Readers, whole_path
from svsync.feeds.vault_audit.reads import AuditFiles, logged_of

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)


def said(**changes: Any) -> Logged:
    path = changes.pop("path", "kv/data/a/b")
    return logged_of(json.dumps(entry(NOW, path, **changes)).encode())


# --- one line ---------------------------------------------------------------------------


def test_a_read_is_told_with_who_made_it_and_from_where() -> None:
    assert said() == Logged(
        NOW, Login("approle", "billing", "e-1"), "", "10.0.0.7", (RemotePath("kv/data/a/b"),)
    )


@pytest.mark.parametrize(
    ("path", "names", "maybe"),
    [
        ("kv/data/a/b", ("kv/data/a/b",), ()),
        ("kv/plain", ("kv/plain",), ()),
        ("kv/metadata/a", (), ("kv/metadata/a",)),
        ("kv/subkeys/a", ("kv/data/a",), ("kv/subkeys/a",)),
        ("kv/config", (), ("kv/config",)),
        ("kv/data/../../sys/raw", (), ()),
        ("kv/data/a\x00b", (), ()),
    ],
)
def test_a_secret_is_named_as_listings_name_it(
    path: str, names: tuple[str, ...], maybe: tuple[str, ...]
) -> None:
    found = said(path=path)
    assert (found.paths, found.maybe) == (names, maybe)


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "request"},
        {"error": "permission denied"},
        {"request": {"operation": "list"}},
        {"request": {"operation": "update"}},
        {"request": {"mount_type": "transit"}},
    ],
)
def test_what_gave_nobody_a_value_is_no_read(changes: dict[str, Any]) -> None:
    found = said(**changes)
    assert (found.at, found.paths, found.maybe) == (NOW, (), ())


@pytest.mark.parametrize(
    ("operation", "path", "names"),
    [
        ("update", "kv/data/a", ("kv/data/a",)),
        ("patch", "kv/data/a", ("kv/data/a",)),
        ("create", "kv/undelete/a", ("kv/undelete/a", "kv/data/a")),
        ("delete", "kv/metadata/a", ("kv/metadata/a", "kv/data/a")),
        ("list", "kv/metadata/a", ()),
    ],
)
def test_a_change_is_told(operation: str, path: str, names: tuple[str, ...]) -> None:
    found = said(path=path, request={"operation": operation})
    assert (found.changed, found.paths) == (names, ())
    failed = said(path=path, request={"operation": operation}, error="permission denied")
    assert failed.changed == ()


def test_a_namespace_is_told_whatever_the_mount_point_includes() -> None:
    for mount in ("acme/kv/", "kv/"):
        about = {"namespace": {"path": "acme/"}, "mount_point": mount}
        found = said(request=about)
        assert (found.namespace, found.paths) == ("acme", ("kv/data/a/b",))


def test_an_older_server_tells_no_type_of_the_mount() -> None:
    told = entry(NOW, "kv/data/a")
    del told["request"]["mount_type"]
    assert logged_of(json.dumps(told).encode()).paths == ("kv/data/a",)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"[1]",
        b"not json",
        b'{"time": "2026-11-23T12:00:00Z", "type": "response"}',
        b'{"time": "yesterday", "type": "response", "request": {}}',
        b'{"time": "2026-11-23T12:00:00", "type": "response", "request": {}}',
        b'{"type": "response", "request": {}}',
        b"{" * 10_000 + b"}",
    ],
)
def test_what_is_no_entry_is_refused_without_a_word_of_it(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"^not an audit entry$") as caught:
        logged_of(line)
    assert caught.value.__cause__ is None


@given(st.binary(max_size=200))
def test_no_line_ends_a_reader(noise: bytes) -> None:
    with suppress(ValueError):
        logged_of(noise)


def test_a_value_that_was_logged_raw_is_dropped(canary: Canary) -> None:
    raw = {"response": {"data": {"data": {"k": canary.marker}}}}
    assert canary.marker not in repr(said(**raw))


# --- files ------------------------------------------------------------------------------


def blocks(*files: Path) -> list[LogBlock]:
    return list(AuditFiles([str(file) for file in files]).blocks())


def counts(found: list[LogBlock]) -> tuple[int, int, int]:
    return (
        sum(block.lines for block in found),
        sum(block.broken for block in found),
        sum(len(block.entries) for block in found),
    )


def test_only_files_that_were_rotated_are_of_the_same_log(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    names = (
        "audit.log",
        "audit.log.1",
        "audit.log.12.gz",
        "audit.log-20261101",
        "audit.log.2026-11-01T00",
    )
    others = ("audit.log.bak", "audit.log2", "my-audit.log.1", "audit.log.1.zip", "audit.log.x.gz")
    for name in (*names, *others):
        data = lines([entry(NOW, "kv/data/a")])
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    (tmp_path / "audit.log.9").mkdir()
    read = {Path(block.file).name for block in blocks(log)}
    assert read == set(names)
    assert counts(blocks(log, log, tmp_path / "audit.log.1")) == (5, 0, 5)  # none twice


def test_a_packed_file_that_ends_too_early_is_a_broken_one(tmp_path: Path) -> None:
    packed = gzip.compress(lines(entry(NOW, f"kv/data/{n}") for n in range(3_000)))
    (tmp_path / "a.gz").write_bytes(packed[: len(packed) // 2])
    read, broken, entries = counts(blocks(tmp_path / "a.gz"))
    assert (broken, entries, read) == (1, read - 1, read)
    assert 0 < entries < 3_000


def test_a_line_that_is_too_long_is_passed_over(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    long = b'{"type": "' + b"x" * 3_000_000 + b'"}\n'
    log.write_bytes(long + lines([entry(NOW, "kv/data/a")]))
    assert counts(blocks(log)) == (2, 1, 1)


def test_only_what_is_being_written_may_end_in_the_middle_of_a_line(tmp_path: Path) -> None:
    whole = lines([entry(NOW, "kv/data/a")])
    (tmp_path / "audit.log").write_bytes(whole + whole[:40])
    (tmp_path / "audit.log.1").write_bytes(whole + whole[:40])
    assert counts(blocks(tmp_path / "audit.log")) == (4, 1, 2)


def test_a_file_that_is_no_log_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("one\ntwo\n")
    with pytest.raises(UsageError, match="holds no entry of a Vault audit device"):
        blocks(tmp_path / "notes")
    (tmp_path / "empty").write_text("")
    assert counts(blocks(tmp_path / "empty")) == (0, 0, 0)
    for name in ("missing", "."):
        with pytest.raises(UsageError, match="--audit-log"):
            AuditFiles([str(tmp_path / name)])


@pytest.mark.parametrize("truncates", [False, True])
def test_a_log_that_is_rotated_meanwhile_is_not_taken_for_a_whole_one(
    tmp_path: Path, truncates: bool
) -> None:
    log = tmp_path / "audit.log"
    log.write_bytes(lines([entry(NOW, "kv/data/a")]))
    files = AuditFiles([str(log)])
    if truncates:
        log.write_bytes(b"")
    else:
        log.rename(tmp_path / "audit.log.1")
        log.write_bytes(lines([entry(NOW, "kv/data/a"), entry(NOW, "kv/data/b")]))
    with pytest.raises(UsageError, match="was rotated meanwhile"):
        list(files.blocks())


def test_a_long_log_is_read_in_little_memory(tmp_path: Path) -> None:
    line = lines([entry(NOW, "kv/data/a", filler="x" * 2_000)])
    with gzip.open(tmp_path / "long.gz", "wb", compresslevel=1) as file:
        for _ in range(20_000):
            file.write(line)
    readers = Readers(lambda path: True)
    tracemalloc.start()
    for block in AuditFiles([str(tmp_path / "long.gz")]).blocks():
        readers.take(block)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert readers.entries == 20_000  # of 47 MB
    assert most < 8_000_000


# --- what is kept -----------------------------------------------------------------------


def read(at: datetime, path: str, who: str = "a") -> Logged:
    return Logged(at, Login(who), "", f"from {at:%H}", (RemotePath(path),))


def readers_of(*entries: Logged, **how: Any) -> Readers:
    readers = Readers(how.pop("wanted", lambda path: True), **how)
    readers.take(LogBlock("f", len(entries), 0, entries))
    return readers


def found(readers: Readers) -> Iterator[tuple[str, str, int]]:
    return ((path, who.name, reader.reads) for _, path, who, reader in readers.found())


def test_reads_are_counted_in_whatever_order_their_files_come() -> None:
    entries = [read(NOW, "b"), read(NOW - DAY, "a"), read(NOW, "a", "z"), read(NOW - 2 * DAY, "a")]
    for order in (entries, entries[::-1]):
        readers = readers_of(*order)
        assert list(found(readers)) == [("a", "z", 1), ("a", "a", 2), ("b", "a", 1)]
        assert (readers.begin, readers.end) == (NOW - 2 * DAY, NOW)
        [last] = [r for _, p, w, r in readers.found() if (p, w.name) == ("a", "a")]
        assert (last.first, last.last, last.address) == (NOW - 2 * DAY, NOW - DAY, "from 12")


def test_what_is_not_asked_about_is_not_kept() -> None:
    readers = readers_of(
        read(NOW, "a"), read(NOW - DAY, "a"), read(NOW, "b"),
        wanted=lambda path: path == "a", since=NOW - timedelta(hours=1),
    )  # fmt: skip
    assert list(found(readers)) == [("a", "a", 1)]
    assert readers.begin == NOW - DAY


def test_readers_without_end_are_counted_and_not_kept() -> None:
    readers = readers_of(*(read(NOW, f"p{n}") for n in range(10)), most=4)
    assert (len(readers.found()), readers.left_off) == (4, 6)


def test_what_may_be_a_secret_counts_where_that_is_asked_for() -> None:
    doubtful = Logged(NOW, maybe=(RemotePath("old/metadata/a"),))
    assert list(found(readers_of(doubtful))) == []
    assert list(found(readers_of(doubtful, doubtful=True))) == [("old/metadata/a", "", 1)]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (Login("approle", "r", "e"), Login("approle", "other", "e"), True),
        (Login("approle", "r", "e"), Login("approle", "r", "f"), False),
        (Login("approle", "r", "e"), Login("approle", "r"), False),
        (Login("approle", "r"), Login("approle", "r"), True),
        (Login("token"), Login("token"), False),
    ],
)
def test_only_who_can_be_told_from_others_is_the_same(one: Login, other: Login, same: bool) -> None:
    assert one.is_same(other) is same
    assert other.is_same(one) is same


def test_a_path_is_asked_about_by_its_name_from_the_root() -> None:
    assert whole_path("team/", "kv/data/a") == whole_path("", "team/kv/data/a") == "team/kv/data/a"
    assert whole_path("root", "kv/data/a") == "kv/data/a"
    counted = Readers(lambda path: path.startswith("team/kv/"))
    counted.take(LogBlock("f", 2, 0, [said(request={"namespace": {"path": "team/"}}), said()]))
    assert [(namespace, path) for namespace, path, *_ in counted.found()] == [
        ("team", "kv/data/a/b")
    ]


# --- coverage ---------------------------------------------------------------------------


def gap(*tenths: float) -> tuple[float, float] | None:
    coverage = Coverage(NOW - DAY, NOW)
    for tenth in tenths:
        coverage.saw(NOW - DAY + DAY * tenth / SLOTS)
    told = coverage.gap()
    return told and tuple(round((at - NOW + DAY) / DAY * SLOTS, 3) for at in told)  # type: ignore[return-value]


def test_a_log_is_whole_where_no_silence_is_longer_than_a_tenth() -> None:
    whole = [n + 0.5 for n in range(SLOTS)]
    assert gap(*whole) is None
    assert gap(*whole, 10.4) is None  # just now
    assert gap(*whole[:-1], 12.0) == (8.5, 10)  # a clock that is ahead tells nothing of today
    assert gap(*whole[3:]) == (0, 3.5)
    assert gap(*whole[:4], *whole[6:]) == (3.5, 6.5)
    assert gap(*whole[:8]) == (7.5, 10)
    assert gap(-1.0) == (0, 10)


def test_a_hole_is_told_whole_though_each_tenth_holds_an_entry() -> None:
    holed = [0.5, 1.5, 2.5, 3.5, 4.0, 5.9, 6.5, 7.5, 8.5, 9.5]
    assert gap(*holed) == gap(*reversed(holed)) == (4.0, 5.9)
