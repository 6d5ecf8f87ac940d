"""Is whatever somebody does to the log found, and named? By its owner, with triggers disabled."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.api import front
from tests.house import TENANT, House, house

from svsync.anchors.file import FileAnchor
from svsync.domain.audit import Checkpoint, Decision, Entry, link
from svsync.domain.audit_report import Report
from svsync.services import verification
from svsync.services.checkpoints import Checkpoints
from svsync.services.recording import _Slot
from svsync.store import verification as store

__all__ = ["front", "house"]

HOUR = timedelta(hours=1)


async def record(house: House, many: int = 1, action: str = "secret.read") -> None:
    """Rows, one after another: each a batch of its own."""
    for n in range(many):
        entry = Entry(TENANT, "service_account", "sa:a", action, Decision.ALLOW, f"app/{n}", n)
        await house.app.recorder.record(entry)


async def verified(house: House, *anchors: Path, since: datetime | None = None) -> Report:
    lines = [anchor.read_text().splitlines() for anchor in anchors]
    return await house.app.verification.verify(TENANT, lines, since=since)


@pytest.fixture
async def written(house: House) -> House:
    """Forty rows in two chains, under four checkpoints."""
    for _ in range(4):
        await record(house, 10)
        assert await house.app.checkpoints.run() == 1
    return house


async def tamper(house: House, *statements: str) -> None:
    for table in ("audit", "audit_checkpoints"):
        await house.admin.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
    for statement in statements:
        done = await house.admin.execute(statement)
        assert not done.endswith(" 0"), statement


async def a_chain(house: House) -> int:
    """The longest one."""
    found: int = await house.admin.fetchval(
        "SELECT chain_id FROM audit GROUP BY chain_id ORDER BY count(*) DESC LIMIT 1"
    )
    return found


async def test_log_that_nobody_touched_fits(written: House) -> None:
    await record(written, 3)
    report = await verified(written)
    assert report.fits, report.as_json()
    assert (report.rows, report.checkpoints) == (43, 4)
    assert report.on_chain_only == 3
    assert report.unsigned_from is not None
    assert report.signed_until is not None
    assert report.unsigned_from > report.signed_until


async def test_rows_are_written_once_for_the_role_itself(written: House) -> None:
    for statement in (
        "UPDATE audit SET action = 'x'",
        "DELETE FROM audit",
        "DELETE FROM audit_checkpoints",
        "UPDATE audit_checkpoints SET heads = '[]'",
    ):
        with pytest.raises(Exception, match="is written once"):
            await written.admin.execute(statement)


FIELDS = {
    "at": "at + interval '1 microsecond'",
    "identity_type": "'user'",
    "identity_id": "'sa:b'",
    "action": "'secret.list'",
    "secret_path": "'app/other'",
    "decision": "'deny'",
    "version": "77",
    "backend_id": "'fed_x'",
    "request_id": "'mine'",
    "source_ip": "'::1'",
    "detail": "'{}'",
    "hash": "sha256('x')",
}


@pytest.mark.parametrize("field", FIELDS)
async def test_any_field_of_a_row_that_was_changed_is_found(written: House, field: str) -> None:
    chain = await a_chain(written)
    await tamper(
        written,
        f"UPDATE audit SET {field} = {FIELDS[field]} WHERE chain_id = {chain} AND seq = 5",
    )
    report = await verified(written)
    first = report.first
    assert first is not None
    assert (first.kind, first.chain, first.seq) == ("row", chain, 5)
    assert first.at == await written.admin.fetchval(
        "SELECT at FROM audit WHERE chain_id = $1 AND seq = 5", chain
    )


async def _removed(house: House, chain: int) -> None:
    await tamper(house, f"DELETE FROM audit WHERE chain_id = {chain} AND seq = 5")


async def _swapped(house: House, chain: int) -> None:
    await tamper(
        house,
        f"UPDATE audit SET seq = 999 WHERE chain_id = {chain} AND seq = 5",
        f"UPDATE audit SET seq = 5 WHERE chain_id = {chain} AND seq = 6",
        f"UPDATE audit SET seq = 6 WHERE chain_id = {chain} AND seq = 999",
    )


async def _renumbered(house: House, chain: int) -> None:
    await tamper(
        house,
        f"DELETE FROM audit WHERE chain_id = {chain} AND seq = 5",
        f"UPDATE audit SET seq = seq - 1 WHERE chain_id = {chain} AND seq > 5",
    )


async def _added(house: House, chain: int) -> None:
    await tamper(
        house,
        "INSERT INTO audit (tenant_id, chain_id, seq, at, identity_type, identity_id, action,"
        " decision, hash) SELECT tenant_id, chain_id, seq, at + interval '1 us', 'user', 'user:x',"
        f" 'x', 'allow', hash FROM audit WHERE chain_id = {chain} AND seq = 5",
    )


async def _moved_to_another_chain(house: House, chain: int) -> None:
    await tamper(
        house, f"UPDATE audit SET chain_id = {chain + 1000} WHERE chain_id = {chain} AND seq = 5"
    )


@pytest.mark.parametrize(
    "done", [_removed, _swapped, _renumbered, _added, _moved_to_another_chain],
    ids=lambda done: done.__name__,
)  # fmt: skip
async def test_rows_that_were_removed_added_or_moved_are_found(
    written: House, done: Callable[[House, int], Awaitable[None]]
) -> None:
    chain = await a_chain(written)
    await done(written, chain)
    report = await verified(written)
    rows = [(m.chain, m.seq) for m in report.misfits if m.kind == "row"]
    assert {(chain, 5), (chain, 6)} & set(rows), report.as_json()
    first = report.first
    assert first is not None
    assert first.seq in (5, 6)


async def test_beginning_that_was_cut_off_is_found(written: House) -> None:
    chain = await a_chain(written)
    hash_3 = await written.admin.fetchval(
        "SELECT hash FROM audit WHERE chain_id = $1 AND seq = 3", chain
    )
    await tamper(written, f"DELETE FROM audit WHERE chain_id = {chain} AND seq <= 3")
    report = await verified(written)
    assert any((m.chain, m.seq) == (chain, 4) for m in report.misfits)
    # As if retention had done it: but retention says so in the log.
    await written.admin.execute(
        "UPDATE audit_chains SET trimmed_seq = 3, trimmed_hash = $2 WHERE chain_id = $1",
        chain, hash_3,
    )  # fmt: skip
    report = await verified(written)
    assert any("not by retention" in m.what for m in report.misfits), report.as_json()


async def test_end_that_was_cut_off_is_found_by_a_checkpoint(written: House) -> None:
    chain = await a_chain(written)
    last = await written.admin.fetchval("SELECT max(seq) FROM audit WHERE chain_id = $1", chain)
    await tamper(written, f"DELETE FROM audit WHERE chain_id = {chain} AND seq > {last - 2}")
    report = await verified(written)
    assert any(
        (m.kind, m.chain, m.seq, m.checkpoint) == ("row", chain, last, 4) for m in report.misfits
    )


async def test_end_that_was_cut_off_before_a_checkpoint_is_found_by_the_end_of_the_chain(
    house: House,
) -> None:
    await record(house, 9)
    for slot in house.app.recorder._slots:
        await slot.close()
    chain = await a_chain(house)
    last = await house.admin.fetchval("SELECT max(seq) FROM audit WHERE chain_id = $1", chain)
    assert (await verified(house)).fits
    await tamper(house, f"DELETE FROM audit WHERE chain_id = {chain} AND seq = {last}")
    report = await verified(house)
    assert [(m.chain, m.seq) for m in report.misfits] == [(chain, last)]


async def test_chain_that_is_gone_as_a_whole_is_found(written: House) -> None:
    chain = await a_chain(written)
    await tamper(
        written,
        f"DELETE FROM audit WHERE chain_id = {chain}",
        f"DELETE FROM audit_chains WHERE chain_id = {chain}",
    )
    report = await verified(written)
    assert any(m.chain == chain and m.checkpoint == 4 for m in report.misfits)


async def test_chain_that_was_made_anew_is_found_by_its_checkpoints(written: House) -> None:
    """Whoever can write the table can compute hashes as well as we do."""
    chain = await a_chain(written)
    rows = await written.admin.fetch("SELECT * FROM audit WHERE chain_id = $1 ORDER BY seq", chain)
    before = rows[3]["hash"]
    await tamper(written)
    for row in rows[4:]:
        entry = Entry(TENANT, "user", "user:nobody", row["action"], row["decision"])
        before = link(before, chain, row["seq"], row["at"], entry)
        await written.admin.execute(
            "UPDATE audit SET identity_type = 'user', identity_id = 'user:nobody', version = NULL,"
            " secret_path = NULL, hash = $3 WHERE chain_id = $1 AND seq = $2",
            chain, row["seq"], before,
        )  # fmt: skip
    report = await verified(written)
    assert report.misfits
    assert all("with another hash" in m.what for m in report.misfits), report.as_json()


@pytest.mark.parametrize("n", [1, 2, 4])
async def test_checkpoint_that_was_removed_is_found(written: House, n: int) -> None:
    await tamper(written, f"DELETE FROM audit_checkpoints WHERE n = {n}")
    report = await verified(written)
    assert n in [m.checkpoint for m in report.misfits], report.as_json()


async def test_checkpoint_that_was_changed_is_found(written: House) -> None:
    heads = "replace(heads, '[[', '[[9,1,\"00\"],[')"
    for change in (f"heads = {heads}", "at = at + interval '1 us'", "prev_hash = sha256('x')"):
        saved = await written.row("audit_checkpoints", n=2)
        await tamper(written, f"UPDATE audit_checkpoints SET {change} WHERE n = 2")
        report = await verified(written)
        assert 2 in [m.checkpoint for m in report.misfits], change
        await written.admin.execute(
            "UPDATE audit_checkpoints SET heads = $1, at = $2, prev_hash = $3 WHERE n = 2",
            saved["heads"], saved["at"], saved["prev_hash"],
        )  # fmt: skip
        assert (await verified(written)).fits


async def _forge(house: House, n: int, key: Ed25519PrivateKey) -> None:
    """The checkpoint of a number again, and those after it, signed by another key."""
    rows = await house.admin.fetch("SELECT * FROM audit_checkpoints WHERE n >= $1 ORDER BY n", n)
    before = rows[0]["prev_hash"]
    for row in rows:
        made = Checkpoint(TENANT, row["n"], row["at"] - HOUR, row["root"], before)
        await house.admin.execute(
            "UPDATE audit_checkpoints SET at = $2, prev_hash = $3, hash = $4, signature = $5"
            " WHERE n = $1",
            made.n, made.at, made.prev_hash, made.hash, key.sign(made.signed_text()),
        )  # fmt: skip
        before = made.hash


async def test_checkpoints_that_another_key_signed_are_found(written: House) -> None:
    await tamper(written)
    await _forge(written, 3, Ed25519PrivateKey.generate())
    report = await verified(written)
    assert [(m.kind, m.checkpoint) for m in report.misfits if "signature" in m.what] == [
        ("checkpoint", 3),
        ("checkpoint", 4),
    ]


async def test_key_that_was_brought_in_beside_ours_does_not_count(written: House) -> None:
    await tamper(
        written,
        "INSERT INTO data_keys (tenant_id, key_id, purpose, root_id, wrapped, state)"
        " SELECT tenant_id, 99, purpose, root_id, sha256('x') || sha256('y'), 'decrypt_only'"
        " FROM data_keys WHERE purpose = 'audit_sign'",
        "UPDATE audit_checkpoints SET key_id = 99 WHERE n = 4",
    )
    report = await verified(written)
    assert [m.checkpoint for m in report.misfits] == [4]


# --- anchors ----------------------------------------------------------------------


async def anchored(house: House, path: Path) -> Checkpoints:
    return Checkpoints(house.app.db, house.app.signing, [FileAnchor(str(path))])


async def test_checkpoints_cut_off_after_they_were_anchored_are_found(
    house: House, tmp_path: Path
) -> None:
    kept = tmp_path / "anchor"
    checkpoints = await anchored(house, kept)
    for _ in range(3):
        await record(house, 4)
        await checkpoints.run()
    report = await verified(house, kept)
    assert report.fits
    assert report.anchored == 3
    assert report.anchored_until == report.signed_until
    chain = await a_chain(house)
    # All that the last two checkpoints tell of, and whatever remembers them.
    await tamper(
        house,
        "DELETE FROM audit_checkpoints WHERE n > 1",
        "DELETE FROM audit WHERE at > (SELECT at FROM audit_checkpoints WHERE n = 1)",
        "UPDATE audit_chains c SET covered_seq = coalesce((SELECT max(seq) FROM audit a"
        " WHERE a.chain_id = c.chain_id), 0)",
    )
    assert (await verified(house)).fits, chain
    report = await verified(house, kept)
    assert [(m.kind, m.line, m.checkpoint) for m in report.misfits] == [
        ("anchor", 2, 2),
        ("anchor", 3, 3),
    ]


async def test_checkpoints_that_the_owner_of_the_key_made_anew_are_found_by_an_anchor(
    house: House, tmp_path: Path
) -> None:
    kept = tmp_path / "anchor"
    checkpoints = await anchored(house, kept)
    for _ in range(2):
        await record(house, 4)
        await checkpoints.run()
    signer = await house.app.signing.signer(TENANT)
    await tamper(house)
    await _forge(house, 1, signer._key)
    assert (await verified(house)).fits
    report = await verified(house, kept)
    assert [(m.kind, m.checkpoint) for m in report.misfits] == [("anchor", 1), ("anchor", 2)]


async def test_line_of_an_anchor_that_nobody_signed_is_found(house: House, tmp_path: Path) -> None:
    kept = tmp_path / "anchor"
    await record(house)
    await (await anchored(house, kept)).run()
    kept.write_text("Nov 12 svsync: " + kept.read_text().replace('"n":1', '"n":2') + "something\n")
    report = await verified(house, kept)
    assert [(m.kind, m.line) for m in report.misfits] == [("anchor", 1)]


# --- since, and what is no misfit ---------------------------------------------------


async def test_since_believes_what_is_older(written: House) -> None:
    chain = await a_chain(written)
    middle = await written.admin.fetchval("SELECT at FROM audit_checkpoints WHERE n = 2")
    assert (await verified(written, since=middle)).fits
    await tamper(written, f"UPDATE audit SET action = 'x' WHERE chain_id = {chain} AND seq = 2")
    report = await verified(written, since=middle)
    assert report.fits
    assert report.rows == 20
    assert not (await verified(written)).fits
    last = await written.admin.fetchval("SELECT max(seq) FROM audit WHERE chain_id = $1", chain)
    await tamper(
        written, f"UPDATE audit SET action = 'x' WHERE chain_id = {chain} AND seq = {last}"
    )
    assert not (await verified(written, since=middle)).fits


async def test_a_log_that_grows_meanwhile_fits(written: House, monkeypatch: Any) -> None:
    """Rows, chains, ends and checkpoints that come while it is looked at are no misfits."""
    monkeypatch.setattr(verification, "_ROWS", 3)
    monkeypatch.setattr(verification, "_CHECKPOINTS", 2)
    rows = store.rows

    async def meanwhile(*args: Any) -> Any:
        found = await rows(*args)
        await record(written, 2)
        for slot in written.app.recorder._slots:
            await slot.close()
        await written.app.checkpoints.run()
        return found if len(found) < 3 or found[-1]["chain_id"] < 40 else found[:0]

    monkeypatch.setattr(store, "rows", meanwhile)
    report = await verified(written)
    assert report.fits, report.as_json()
    assert report.rows > 40


async def test_rows_of_another_tenant_are_not_looked_at(written: House) -> None:
    other = await written.admin.fetchval(
        "INSERT INTO tenants (slug) VALUES ('other') RETURNING tenant_id"
    )
    report = await written.app.verification.verify(other)
    assert report.fits
    assert (report.rows, report.checkpoints, report.chains) == (0, 0, 0)


async def test_times_go_on_where_the_clock_is_set_back(house: House) -> None:
    slot = _Slot(house.app.db, "test:1", 2.0)
    now = datetime.now(UTC)
    entry = Entry(TENANT, "user", "user:a", "secret.read", Decision.ALLOW)
    await house.append(slot, [entry], now)
    await house.append(slot, [entry], now - HOUR)
    await house.append(slot, [entry], now)
    assert [row["at"] for row in await house.rows("audit")] == [now] * 3
    assert (await verified(house)).fits
