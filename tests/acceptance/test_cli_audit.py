"""Can an operator ask the audit log, and tell whether it is whole, as the guides print it?"""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest_asyncio
from tests.house import TENANT, House, house
from tests.moto import KEYS, Bucket, bucket, moto
from tests.postgres import connected
from tests.program import Program

from svsync.anchors.file import FileAnchor
from svsync.domain.audit import Decision, Entry
from svsync.registry import anchors
from svsync.services.checkpoints import Checkpoints

__all__ = ["bucket", "house", "moto"]


@dataclass
class Office:
    """A program beside a house, on its store."""

    house: House
    program: Program
    anchor: Path

    async def record(self, *paths: str, decision: str = Decision.ALLOW) -> None:
        for path in paths:
            entry = Entry(
                TENANT, "service_account", "sa:billing-prod", "secret.read", decision, path, 3,
                None, "req_1", "192.0.2.1",
            )  # fmt: skip
            await self.house.app.recorder.record(entry)

    async def sign(self) -> None:
        app = self.house.app
        await Checkpoints(app.db, app.signing, [FileAnchor(str(self.anchor))]).run()


@pytest_asyncio.fixture
async def office(
    house: House, database_url: str, state_dir: Path, tmp_path: Path
) -> AsyncIterator[Office]:
    environment = {
        "DATABASE_URL": database_url,
        "SVSYNC_STATE_DIR": house.app.settings.state_dir,
    }
    yield Office(house, Program(environment, tmp_path), tmp_path / "anchor.jsonl")


async def test_query_as_the_guide_prints_it(office: Office) -> None:
    await office.record("app/a", "app/b")
    said = await office.program(
        "audit", "query", "--identity-id", "sa:billing-prod", "--start", "1 hour ago", "--json"
    )
    assert said.code == 0
    logs = said.json["logs"]
    assert [(row["action"], row["secret_path"]) for row in logs] == [
        ("secret.read", "app/b"),
        ("secret.read", "app/a"),
    ]
    assert said.json["next_cursor"] is None
    # The look itself is recorded, by whoever runs the program.
    [own] = await office.house.rows("audit", action="audit.query")
    assert (own["identity_type"], own["identity_id"][:4]) == ("operator", "cli:")


async def test_query_has_filters_pages_and_a_table(office: Office) -> None:
    await office.record("app/a", "app/b", "other/c")
    await office.record("app/x", decision=Decision.DENY)
    table = await office.program("audit", "query", "--secret-path", "app/**", "--limit", "2")
    lines = table.out.splitlines()
    assert lines[0].split()[:5] == ["TIME", "IDENTITY", "ACTION", "DECISION", "PATH"]
    assert ["app/x" in lines[1], "app/b" in lines[2]] == [True, True]
    cursor = lines[-1].split("--cursor ")[1].split(",")[0]
    rest = await office.program(
        "audit", "query", "--secret-path", "app/**", "--cursor", cursor, "--json"
    )
    assert [row["secret_path"] for row in rest.json["logs"]] == ["app/a"]
    denied = await office.program("audit", "query", "--decision", "deny", "--json")
    assert [row["secret_path"] for row in denied.json["logs"]] == ["app/x"]
    none = await office.program("audit", "query", "--end", "1 day ago")
    assert (none.code, none.out) == (0, "Nothing was recorded that fits.\n")


async def test_what_cannot_be_asked_is_exit_2_with_its_option(office: Office) -> None:
    for args, option in (
        (("query", "--start", "yesterday"), "--start"),
        (("query", "--end", "soon"), "--end"),
        (("query", "--limit", "0"), "--limit"),
        (("query", "--secret-path", "../x"), "--secret-path"),
        (("query", "--cursor", "x"), "--cursor"),
        (("verify", "--since", "then"), "--since"),
        (("verify", "--anchor", "/none/there"), "--anchor"),
    ):
        said = await office.program("audit", *args)
        assert (said.code, said.out) == (2, ""), args
        assert option in said.sentence


async def test_verify_says_that_all_fits_and_on_what_it_stands(office: Office) -> None:
    await office.record("app/a", "app/b")
    await office.sign()
    await office.record("app/c")
    said = await office.program("audit", "verify", "--anchor", str(office.anchor))
    assert said.code == 0, said.out
    assert said.out.splitlines()[-1] == "Everything fits."
    assert "(rows: 1)" in said.out
    as_json = await office.program("audit", "verify", "--json", "--since", "1 hour ago")
    assert (as_json.code, as_json.json["fits"], as_json.json["rows"]) == (0, True, 3)
    assert as_json.json["on_chain_only"]["rows"] == 1


async def test_verify_names_the_first_row_that_does_not_fit(office: Office) -> None:
    await office.record("app/a", "app/b", "app/c", "app/d")
    await office.sign()
    admin = office.house.admin
    chain = await admin.fetchval("SELECT min(chain_id) FROM audit")
    await admin.execute("ALTER TABLE audit DISABLE TRIGGER USER")
    await admin.execute(
        "UPDATE audit SET identity_id = 'sa:other' WHERE chain_id = $1 AND seq = 1", chain
    )
    row = await office.house.row("audit", chain_id=chain, seq=1)
    said = await office.program("audit", "verify")
    assert said.code == 1
    assert said.sentences[-1] == (
        f"svsync: the audit log does not fit: first chain {chain} row 1: it does not follow on the"
        " row before: one was changed"
    )
    assert row["at"].isoformat(timespec="microseconds").replace("+00:00", "Z") in said.out
    as_json = await office.program("audit", "verify", "--json")
    assert as_json.code == 1
    first = as_json.json["first_misfit"]
    assert (first["kind"], first["chain"], first["seq"]) == ("row", chain, 1)


async def test_checkpoints_cut_off_after_anchoring_are_found_with_the_anchor(
    office: Office,
) -> None:
    await office.record("app/a")
    await office.sign()
    admin = office.house.admin
    for table in ("audit", "audit_checkpoints"):
        await admin.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
    for table in ("audit", "audit_checkpoints", "audit_chains"):
        await admin.execute(f"DELETE FROM {table}")
    assert (await office.program("audit", "verify")).code == 0
    said = await office.program("audit", "verify", "--anchor", str(office.anchor))
    assert said.code == 1
    assert "line 1, checkpoint 1" in said.sentences[-1]


async def test_places_of_the_configuration_are_fetched(office: Office, bucket: Bucket) -> None:
    entry = {
        "anchor": "s3",
        "bucket": bucket.name,
        "prefix": "log",
        "endpoint_url": bucket.url,
        "credentials_path": "env:AUDIT_KEYS",
    }
    config = office.program.folder / "svsync.yaml"
    config.write_text(json.dumps({"allow_loopback": True, "audit_anchors": [entry]}))
    settings = replace(office.house.app.settings, audit_anchors=(entry,))
    keys = {"AUDIT_KEYS": json.dumps(KEYS)}
    await office.record("app/a")
    app = office.house.app
    await Checkpoints(app.db, app.signing, anchors(settings, keys)).run()
    asked = ("audit", "verify", "--config", str(config), "--anchor")
    place = f"s3:{bucket.url}/{bucket.name}/log"
    said = await office.program(*asked, place, "--json", AUDIT_KEYS=keys["AUDIT_KEYS"])
    assert (said.code, said.json["fits"], said.json["anchored"]) == (0, True, 1)
    [key] = await bucket.keys()
    await bucket.put(key, "{}")
    said = await office.program(*asked, place, AUDIT_KEYS=keys["AUDIT_KEYS"])
    assert said.code == 1
    assert "first checkpoint 1: " in said.sentences[-1]
    said = await office.program(*asked, f"{place}/other", AUDIT_KEYS=keys["AUDIT_KEYS"])
    assert said.code == 2
    assert place in said.sentence
    said = await office.program(*asked, place)
    assert said.code == 1
    assert "env:AUDIT_KEYS" in said.sentences[-1]


async def test_key_is_the_public_half_that_signatures_are_checked_with(office: Office) -> None:
    shown = await office.program("audit", "key", "--json")
    [key] = shown.json["keys"]
    assert (key["algorithm"], key["state"], len(key["public_key"])) == ("Ed25519", "active", 64)
    [ours] = (await office.house.app.signing.public_keys(TENANT)).values()
    assert key["public_key"] == ours.key.hex()
    table = await office.program("audit", "key")
    assert key["public_key"] in table.out
    private = (await office.house.app.signing.signer(TENANT))._key.private_bytes_raw().hex()
    assert private not in shown.out + table.out


async def test_another_tenants_log_is_its_own(office: Office, database_url: str) -> None:
    await office.record("app/a")
    await office.house.admin.execute("INSERT INTO tenants (slug) VALUES ('other')")
    said = await office.program("audit", "query", "--tenant", "other", "--json")
    assert [row["action"] for row in said.json["logs"]] == ["audit.query"]
    async with connected(database_url) as own:
        assert await own.fetch("SELECT FROM audit") == []
