"""The pure parts of the audit log: moments, hashes, and a checkpoint as a line."""

import contextlib
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svsync.config.load import load
from svsync.domain.audit import (
    FIRST,
    Anchored,
    Checkpoint,
    Decision,
    Entry,
    Head,
    anchor_text,
    anchored_of,
    genesis,
    heads_of,
    heads_text,
    link,
    root_of,
)
from svsync.domain.audit_report import SHOWN, Misfit, Report
from svsync.domain.errors import ConfigError
from svsync.domain.ids import TenantId
from svsync.domain.moments import parse_moment

NOW = datetime(2026, 11, 23, 10, 0, 0, 123456, tzinfo=UTC)
ENTRY = Entry(TenantId(1), "service_account", "sa:a", "secret.read", Decision.ALLOW, "app/a", 3)
MADE = Checkpoint(1, 7, NOW, root_of(heads_text([Head(4, 2, b"\x01")])), FIRST)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-23T10:00:00Z", NOW.replace(microsecond=0)),
        ("2026-11-23t10:00:00.5z", NOW.replace(microsecond=500_000)),
        ("2026-11-23 10:00:00.123456789Z", NOW),
        ("2026-11-23T12:00:00+02:00", NOW.replace(microsecond=0)),
        ("2026-11-23T12:00:00 02:00", NOW.replace(microsecond=0)),  # a plus that nobody escaped
        ("2026-11-23T08:30:00-01:30", NOW.replace(microsecond=0)),
        ("1 hour ago", NOW - timedelta(hours=1)),
        ("90 seconds ago", NOW - timedelta(seconds=90)),
        ("2days ago", NOW - timedelta(days=2)),
        ("15 Minutes Ago", NOW - timedelta(minutes=15)),
        (" 0 seconds ago ", NOW),
    ],
)
def test_moment_is_read_as_people_and_programs_write_it(text: str, moment: datetime) -> None:
    assert parse_moment(text, NOW) == moment
    there = NOW.astimezone(timezone(timedelta(hours=5)))
    assert parse_moment(text, there) == moment


@pytest.mark.parametrize(
    "text",
    [
        "", "yesterday", "2026-11-23", "2026-11-23T10:00:00", "2026-W48-1T10:00:00Z", "-1 hour ago",
        "1 month ago", "1 hour", "2026-02-30T10:00:00Z", "2026-11-23T25:00:00Z", "999999 days ago",
        "0001-01-01T00:00:00+14:00", "1700000000", "1 hour ago; DROP", "\u0661 hour ago",
    ],
)  # fmt: skip
def test_what_names_no_moment_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_moment(text, NOW)


@given(st.text())
def test_whatever_is_given_is_a_moment_or_refused(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert parse_moment(text, NOW).tzinfo is UTC


def test_hash_of_a_row_covers_each_field_its_place_and_the_row_before() -> None:
    first = genesis(1, 5, "host:1:1")
    whole = link(first, 5, 1, NOW, ENTRY)
    changed = {
        link(genesis(1, 5, "host:1:2"), 5, 1, NOW, ENTRY),
        link(genesis(2, 5, "host:1:1"), 5, 1, NOW, ENTRY),
        link(first, 6, 1, NOW, ENTRY),
        link(first, 5, 2, NOW, ENTRY),
        link(first, 5, 1, NOW + timedelta(microseconds=1), ENTRY),
    }
    other: dict[str, Any] = {"version": 4, "tenant": TenantId(2)}
    for name in Entry._fields:
        value = other.get(name, "other")
        changed.add(link(first, 5, 1, NOW, ENTRY._replace(**{name: value})))
    assert len(changed) == 5 + len(Entry._fields)
    assert whole not in changed


def test_hashes_are_those_of_ever() -> None:
    """Rows of years ago have to verify: these texts never change."""
    assert genesis(1, 5, "host:1:1").hex()[:16] == "16a0559250f56326"
    assert link(genesis(1, 5, "host:1:1"), 5, 1, NOW, ENTRY).hex()[:16] == "640688b822776c23"
    assert MADE.hash.hex()[:16] == "a00c1fe3cf74c7e2"


def test_heads_are_read_as_they_were_written_in_the_order_of_their_chains() -> None:
    heads = [Head(9, 1, b"\x09"), Head(4, 2, b"\x01")]
    assert heads_of(heads_text(heads)) == [heads[1], heads[0]]
    for broken in ("", "{}", "[1]", "[[1,2]]", '[[1,2,"zz"]]', '[["a",2,"00"]]'):
        with pytest.raises(ValueError, match=r"."):
            heads_of(broken)


def test_line_of_an_anchor_holds_all_that_the_signature_covers() -> None:
    line = anchor_text(MADE, "default", 3, b"s" * 64)
    assert "\n" not in line
    for written in (line, f"<109>1 2026-11-23T10:00:00Z host svsync 1 audit - {line}", f"{line} x"):
        assert anchored_of(written) == Anchored(MADE, 3, b"s" * 64)
    found = anchored_of(line)
    assert found is not None
    assert found.checkpoint.signed_text() == MADE.signed_text()


def test_other_lines_are_no_checkpoints_and_broken_ones_are_told() -> None:
    line = anchor_text(MADE, "default", 3, b"s" * 64)
    for other in ("", "something", '{"n": 1}', line[1:]):
        assert anchored_of(other) is None
    for broken in (
        line[:-5],
        line.replace('"n":7', '"n":"x"'),
        line.replace('"root":"', '"root":"z'),
    ):
        with pytest.raises(ValueError, match="no whole checkpoint"):
            anchored_of(broken)


def test_the_first_misfit_is_the_oldest_row() -> None:
    report = Report()
    report.add(Misfit("checkpoint", "c", checkpoint=1))
    report.add(Misfit("row", "late", 1, 9, NOW))
    report.add(Misfit("row", "early", 2, 1, NOW - timedelta(hours=1)))
    assert report.first is not None
    assert report.first.what == "early"
    for _ in range(SHOWN):
        report.add(Misfit("checkpoint", "c", checkpoint=1))
    assert (len(report.misfits), report.more) == (SHOWN, 3)
    assert not report.fits


# --- where anchors are configured -----------------------------------------------------


@pytest.mark.parametrize(
    "entry",
    [
        "{anchor: file, path: /var/lib/anchor.jsonl}",
        "{anchor: syslog, address: stderr}",
        "{anchor: syslog, address: 'unix:/dev/log'}",
        "{anchor: syslog, address: 'udp:siem.internal:514'}",
        "{anchor: syslog, address: 'udp:[::1]:514'}",
        "{anchor: s3, bucket: acme-audit, region: eu-central-1}",
        "{anchor: s3, bucket: acme-audit, prefix: a/b, endpoint_url: 'https://minio.internal:9000',"
        " ca_file: /ca.pem, credentials_path: 'env:KEYS', lock: compliance, retain: 400d}",
    ],
)
def test_place_outside_is_configured(tmp_path: Path, entry: str) -> None:
    file = tmp_path / "svsync.yaml"
    file.write_text(f"audit_anchors: [{entry}]")
    settings = load(str(file), {"SVSYNC_STATE_DIR": "/srv/svsync"})
    assert len(settings.audit_anchors) == 1


@pytest.mark.parametrize(
    "entry",
    [
        "{anchor: file}",
        "{anchor: file, path: relative}",
        "{anchor: file, path: /x, address: stderr}",
        "{anchor: syslog}",
        "{anchor: syslog, address: 'tcp:x:1'}",
        "{anchor: syslog, address: 'udp:x:99999'}",
        "{anchor: s3, path: /x}",
        "{anchor: s3, bucket: acme-audit}",
        "{anchor: s3, bucket: Acme, region: eu-central-1}",
        "{anchor: s3, bucket: acme-audit, region: eu-central-1, path: /x}",
        "{anchor: s3, bucket: acme-audit, region: eu-central-1, prefix: a/../b}",
        "{anchor: s3, bucket: acme-audit, region: eu-central-1, prefix: /a}",
        "{anchor: s3, bucket: acme-audit, region: eu-central-1, lock: compliance}",
        "{anchor: s3, bucket: acme-audit, region: eu-central-1, retain: 400d}",
        "{anchor: s3, bucket: acme-audit, region: eu-central-1, credentials_path: infra/aws/audit}",
        "{anchor: s3, bucket: acme-audit, endpoint_url: 'https://minio.internal/path'}",
        "{anchor: file, path: /x, bucket: acme-audit}",
        "{path: /x}",
        "{anchor: file, path: /x}, {anchor: file, path: /x}",
    ],
)
def test_place_that_cannot_be_one_is_refused_with_its_line(tmp_path: Path, entry: str) -> None:
    file = tmp_path / "svsync.yaml"
    file.write_text(f"audit_anchors: [{entry}]")
    with pytest.raises(ConfigError, match=r"svsync.yaml:1: audit_anchors\["):
        load(str(file), {"SVSYNC_STATE_DIR": "/srv/svsync"})


@pytest.mark.parametrize(
    "endpoint", ["http://minio.internal:9000", "https://127.0.0.1:9000", "https://169.254.169.254"]
)
def test_store_that_may_not_be_called_is_refused_with_its_line(
    tmp_path: Path, endpoint: str
) -> None:
    file = tmp_path / "svsync.yaml"
    entry = f"{{anchor: s3, bucket: acme-audit, endpoint_url: '{endpoint}'}}"
    file.write_text(f"audit_anchors: [{entry}]")
    with pytest.raises(ConfigError, match=r"svsync.yaml:1: audit_anchors: endpoint_url "):
        load(str(file), {"SVSYNC_STATE_DIR": "/srv/svsync"})
