"""Does a bucket keep each checkpoint for good, and is whatever happens to it there found?

The S3 is moto's.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from botocore.exceptions import ClientError
from tests.house import TENANT, House, house
from tests.integration.test_audit_checkpoints import record
from tests.moto import KEYS, Bucket, bucket, moto, new_bucket
from tests.servers import FaultyTcp, Front

from svsync.anchors.s3 import S3Anchor, open_anchor
from svsync.domain.audit import anchored_of
from svsync.domain.audit_report import Report
from svsync.domain.errors import AnchorError, ConfigError
from svsync.registry import anchors
from svsync.services import checkpoints as services
from svsync.services.checkpoints import Checkpoints
from svsync.store import checkpoints as store

__all__ = ["bucket", "house", "moto"]

LINE = json.dumps(
    {
        "svsync_audit_checkpoint": 1, "tenant": "default", "tenant_id": 1, "n": 7, "at": 0,
        "root": "00" * 32, "prev_hash": "00" * 32, "key_id": 1, "signature": "00" * 64,
    },
    separators=(",", ":"),
)  # fmt: skip
CREDENTIAL = json.dumps(KEYS)


def entry_of(there: Bucket, /, **changes: Any) -> dict[str, Any]:
    given = {
        "anchor": "s3",
        "bucket": there.name,
        "prefix": "log/prod",
        "endpoint_url": there.url,
        "credentials_path": "env:KEYS",
    }
    return given | changes


def anchor_of(house: House, there: Bucket, *without: str, **changes: Any) -> S3Anchor:
    given = entry_of(there, **changes)
    entry = {key: value for key, value in given.items() if key not in without}
    opened = open_anchor(entry, house.app.settings, {"KEYS": CREDENTIAL})
    assert isinstance(opened, S3Anchor)
    return opened


def with_anchor(house: House, anchor: S3Anchor) -> Checkpoints:
    return Checkpoints(house.app.db, house.app.signing, [anchor])


async def anchored(house: House, anchor: S3Anchor, many: int) -> None:
    """So many more checkpoints, all of them there."""
    for _ in range(many):
        await record(house)
        await with_anchor(house, anchor).run()


async def verified(house: House, anchor: S3Anchor, since: datetime | None = None) -> Report:
    return await house.app.verification.verify(TENANT, places=[anchor], since=since)


def found(report: Report) -> list[tuple[str, int | None]]:
    return [(misfit.kind, misfit.checkpoint) for misfit in report.misfits]


# --- kept -----------------------------------------------------------------------------


async def test_each_checkpoint_is_an_object_whose_name_sorts(house: House, bucket: Bucket) -> None:
    anchor = anchor_of(house, bucket)
    await anchored(house, anchor, 11)
    keys = await bucket.keys()
    assert [key.rpartition("-")[0] for key in keys] == [f"log/prod/1/{n:012}" for n in range(1, 12)]
    rows = await house.admin.fetch("SELECT n, hash FROM audit_checkpoints ORDER BY n")
    for key, row in zip(keys, rows, strict=True):
        line = anchored_of(await bucket.text(key))
        assert line is not None
        assert (line.checkpoint.n, line.checkpoint.hash) == (row["n"], row["hash"])
        assert key.endswith(f"-{row['hash'].hex()[:16]}.json")
    assert anchor.place == f"s3:{bucket.url}/{bucket.name}/log/prod"


async def test_what_is_there_is_never_written_over(house: House, bucket: Bucket) -> None:
    anchor = anchor_of(house, bucket)
    await anchor.keep([LINE])
    [key] = await bucket.keys()
    assert await bucket.text(key) == f"{LINE}\n"
    await anchor.keep([LINE])
    await bucket.put(key, "of the bucket's owner")
    await anchor.keep([LINE])
    assert await bucket.text(key) == "of the bucket's owner"
    assert await bucket.keys() == [key]


async def test_place_that_was_away_is_given_all_it_lacks(house: House, bucket: Bucket) -> None:
    host, _, port = bucket.url.removeprefix("http://").rpartition(":")
    async with FaultyTcp((host, int(port))) as relay:
        anchor = anchor_of(house, bucket, endpoint_url=f"http://127.0.0.1:{relay.port}")
        relay.fault = "reset"
        await anchored(house, anchor, 12)
        assert await bucket.keys() == []
        relay.fault = "none"
        await house.admin.execute(
            "INSERT INTO audit_anchors (tenant_id, place, first_n, last_n) VALUES (1, $1, 1, 1)",
            anchor.place,
        )
        await with_anchor(house, anchor).run()
    assert len(await bucket.keys()) == 11


async def test_object_is_kept_under_its_lock(house: House, moto: str) -> None:
    async with new_bucket(moto, ObjectLockEnabledForBucket=True) as bucket:
        anchor = anchor_of(house, bucket, lock="compliance", retain=400 * 86_400)
        began = datetime.now(UTC) - timedelta(seconds=2)
        await anchor.keep([LINE])
        [key] = await bucket.keys()
        shown = await bucket.client.head_object(Bucket=bucket.name, Key=key)
        assert shown["ObjectLockMode"] == "COMPLIANCE"
        assert shown["ObjectLockRetainUntilDate"] >= began + timedelta(days=400)
        with pytest.raises(ClientError, match="AccessDenied"):
            await bucket.client.delete_object(
                Bucket=bucket.name, Key=key, VersionId=shown["VersionId"]
            )


# --- read back ------------------------------------------------------------------------


async def test_what_is_there_fits_and_tells_until_when(house: House, bucket: Bucket) -> None:
    anchor = anchor_of(house, bucket)
    await anchored(house, anchor, 20)
    await bucket.put("log/prod/1/note.txt", "of somebody")
    report = await verified(house, anchor)
    assert report.fits, report.as_json()
    assert (report.anchored, report.anchored_until) == (20, report.signed_until)


async def test_one_of_another_tenant_is_not_looked_at(house: House, bucket: Bucket) -> None:
    anchor = anchor_of(house, bucket)
    await anchored(house, anchor, 1)
    await bucket.put("log/prod/2/000000000001-0000000000000000.json", "x")
    assert (await verified(house, anchor)).fits


Strike = Callable[[Bucket, list[str]], Awaitable[None]]


async def change(bucket: Bucket, keys: list[str]) -> None:
    await bucket.put(keys[2], (await bucket.text(keys[2])).replace('"n":3', '"n":4'))


async def empty(bucket: Bucket, keys: list[str]) -> None:
    await bucket.put(keys[2], "")


async def swell(bucket: Bucket, keys: list[str]) -> None:
    await bucket.put(keys[2], (await bucket.text(keys[2])) + " " * 70_000)


async def exchange(bucket: Bucket, keys: list[str]) -> None:
    await bucket.put(keys[2], await bucket.text(keys[1]))


async def remove(bucket: Bucket, keys: list[str]) -> None:
    await bucket.delete(keys[2])


async def cut_off(bucket: Bucket, keys: list[str]) -> None:
    for key in keys[2:]:
        await bucket.delete(key)


@pytest.mark.parametrize("strike", [change, empty, swell, exchange, remove, cut_off])
async def test_object_that_was_changed_or_removed_is_found(
    house: House, bucket: Bucket, strike: Strike
) -> None:
    anchor = anchor_of(house, bucket)
    await anchored(house, anchor, 5)
    assert (await verified(house, anchor)).fits
    await strike(bucket, await bucket.keys())
    assert found(await verified(house, anchor)) == [("anchor", 3)]


async def test_bucket_that_was_emptied_is_found_and_its_own_retention_is_not(
    house: House, bucket: Bucket
) -> None:
    anchor = anchor_of(house, bucket)
    await anchored(house, anchor, 4)
    keys = await bucket.keys()
    for key in keys[:2]:
        await bucket.delete(key)
    assert (await verified(house, anchor)).fits
    for key in keys[2:]:
        await bucket.delete(key)
    report = await verified(house, anchor)
    assert found(report) == [("anchor", 1)]
    assert "checkpoints 1 to 4" in report.misfits[0].what


async def test_checkpoints_that_were_cut_off_here_are_found_there(
    house: House, bucket: Bucket
) -> None:
    anchor = anchor_of(house, bucket)
    await anchored(house, anchor, 3)
    for table in ("audit", "audit_checkpoints"):
        await house.admin.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
    for table in ("audit", "audit_checkpoints", "audit_chains", "audit_anchors"):
        await house.admin.execute(f"DELETE FROM {table}")
    assert found(await verified(house, anchor)) == [("anchor", n) for n in (1, 2, 3)]


async def test_what_was_written_before_since_is_believed_and_must_be_there(
    house: House, bucket: Bucket
) -> None:
    anchor = anchor_of(house, bucket)
    await anchored(house, anchor, 3)
    keys = await bucket.keys()
    later = datetime.now(UTC) + timedelta(hours=1)
    await bucket.put(keys[1], "changed, and believed")
    report = await verified(house, anchor, later)
    assert (report.fits, report.anchored) == (True, 0)
    await bucket.delete(keys[1])
    assert found(await verified(house, anchor, later)) == [("anchor", 2)]


async def test_place_that_was_away_for_too_long_has_no_gap(
    house: House, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "_MOST", 2)
    anchor = anchor_of(house, bucket)
    await anchored(house, anchor, 1)
    for _ in range(4):
        await record(house)
        await house.app.checkpoints.run()
    await anchored(house, anchor, 1)
    async with house.app.db.transaction(TENANT, read_only=True) as tx:
        assert await store.span(tx, anchor.place) == (5, 6)
    assert (await verified(house, anchor)).fits


# --- what fails -----------------------------------------------------------------------


async def sentence(anchor: S3Anchor) -> str:
    """What is told of a place that takes no checkpoint; the same of one that is read."""
    with pytest.raises(AnchorError) as kept:
        await anchor.keep([LINE])
    with pytest.raises(AnchorError) as read:
        async for _ in anchor.kept(TENANT):
            pass
    told = str(kept.value)
    assert str(read.value) == told
    assert told.startswith(f"{anchor.place} ")
    assert not any(secret in told for secret in KEYS.values())
    assert kept.value.__cause__ is None
    assert kept.value.__suppress_context__
    return told


async def test_bucket_that_is_missing_is_told(house: House, bucket: Bucket) -> None:
    assert "make the bucket" in await sentence(anchor_of(house, bucket, bucket="nobodys-bucket"))


@asynccontextmanager
async def suspicious(url: str) -> AsyncIterator[None]:
    """moto looks at who asks."""

    async def look_after(calls: str) -> None:
        async with aiohttp.ClientSession() as session:
            made = session.post(f"{url}/moto-api/reset-auth", data=calls.encode())
            async with made as answer:
                assert answer.status == 200

    await look_after("0")
    try:
        yield
    finally:
        await look_after("inf")


async def test_login_that_nobody_knows_is_told(house: House, bucket: Bucket) -> None:
    async with suspicious(bucket.url):
        assert "denies access" in await sentence(anchor_of(house, bucket))


def refusing(status: int, code: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        text = f"<Error><Code>{code}</Code><Message>of {KEYS['access_key_id']}</Message></Error>"
        return web.Response(status=status, text=text, content_type="application/xml")

    return answer


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (403, "AccessDenied", "denies access"),
        (403, "SignatureDoesNotMatch", "denies access"),
        (501, "NotImplemented", "on a condition"),
        (409, "ConditionalRequestConflict", "takes no checkpoint"),
        (503, "SlowDown", "takes no checkpoint"),
        (500, KEYS["access_key_id"], "takes no checkpoint"),
    ],
)
async def test_refusal_is_told_by_what_is_known_of_it(
    house: House, bucket: Bucket, status: int, code: str, words: str
) -> None:
    async with Front(bucket.url) as front:
        front.answer(".*", refusing(status, code))
        assert words in await sentence(anchor_of(house, bucket, endpoint_url=front.url))
        assert len(front.seen) == 2, "it is asked once each time"


async def test_lock_that_the_bucket_does_not_know_is_told(house: House, bucket: Bucket) -> None:
    with pytest.raises(AnchorError, match="Object Lock"):
        await anchor_of(house, bucket, lock="governance", retain=86_400).keep([LINE])


async def test_place_that_is_away_is_told(house: House, bucket: Bucket) -> None:
    host, _, port = bucket.url.removeprefix("http://").rpartition(":")
    async with FaultyTcp((host, int(port))) as relay:
        anchor = anchor_of(house, bucket, endpoint_url=f"http://127.0.0.1:{relay.port}")
        relay.fault = "reset"
        assert "cannot be reached" in await sentence(anchor)


async def test_machine_without_a_login_is_told(
    house: House, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    assert "has no login" in await sentence(anchor_of(house, bucket, "credentials_path"))


async def test_login_of_the_machine_is_used_where_none_is_named(
    house: House, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(f"AWS_{name.upper()}", value)
    # An endpoint of the environment is somebody else's.
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    await anchor_of(house, bucket, "credentials_path").keep([LINE])
    assert len(await bucket.keys()) == 1


async def test_credential_that_is_missing_is_told_by_its_reference(
    house: House, bucket: Bucket
) -> None:
    told = await sentence(anchor_of(house, bucket, credentials_path="env:NONE"))
    assert "env:NONE" in told


async def test_a_redirect_of_the_store_is_not_followed(house: House, bucket: Bucket) -> None:
    async def elsewhere(request: web.Request) -> web.Response:
        raise web.HTTPTemporaryRedirect(f"{bucket.url}{request.path_qs}")

    async with Front(bucket.url) as front:
        front.answer(".*", elsewhere)
        told = await sentence(anchor_of(house, bucket, endpoint_url=front.url))
        assert "sends elsewhere" in told
        assert len(front.seen) == 2
    assert await bucket.keys() == []


async def test_address_that_may_not_be_called_is_not_connected_to(
    house: House, bucket: Bucket
) -> None:
    shut = replace(house.app.settings, allow_loopback=False)
    with pytest.raises(ConfigError, match="audit_anchors"):
        anchors(replace(shut, audit_anchors=(entry_of(bucket),)), {})
    host, _, port = bucket.url.removeprefix("http://").rpartition(":")
    async with FaultyTcp((host, int(port))) as relay:
        inwards = entry_of(bucket, endpoint_url=f"https://localhost:{relay.port}")
        [anchor] = anchors(replace(shut, audit_anchors=(inwards,)), {"KEYS": CREDENTIAL})
        with pytest.raises(AnchorError, match="cannot be reached"):
            await anchor.keep([LINE])
        assert relay.connections == 0
