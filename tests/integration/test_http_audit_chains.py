"""Is it told how far the chains of the audit log go, and how far that is signed and kept?"""

import json
from pathlib import Path

import pytest
from tests.api import Front
from tests.house import TENANT, House

from svsync.anchors.file import FileAnchor
from svsync.domain.access import Scope
from svsync.services.audit_chains import AuditChains
from svsync.services.checkpoints import Checkpoints

CHAINS = "/v1/audit/chains"


async def test_a_chain_is_told_up_to_its_last_row(front: Front) -> None:
    for _ in range(3):
        told = (await front.client.get(CHAINS)).body
    rows = {(row["chain_id"], row["seq"]): row for row in await front.house.rows("audit")}
    assert sum(chain["rows"] for chain in told["chains"]) == len(rows) == 3
    for chain in told["chains"]:
        last = rows[chain["chain"], chain["rows"]]
        assert (chain["head"]["seq"], chain["head"]["hash"]) == (last["seq"], last["hash"].hex())
        assert (chain["state"], chain["end_reason"], chain["covered_seq"]) == ("open", None, 0)
    assert (told["uncovered"], told["checkpoint"], told["anchors"]) == (3, None, [])


async def test_what_a_checkpoint_covers_is_told(front: Front) -> None:
    await front.client.get(CHAINS)
    await front.house.app.checkpoints.run()
    told = (await front.client.get(CHAINS)).body
    assert (told["uncovered"], told["checkpoint"]["n"]) == (1, 1)
    [covered] = [chain for chain in told["chains"] if chain["covered_seq"]]
    assert (covered["covered_seq"], covered["covered_at"]) == (1, told["checkpoint"]["at"])


async def test_chains_are_paged_newest_first_and_say_how_they_stand(house: House) -> None:
    await house.admin.execute(
        "INSERT INTO audit_chains (tenant_id, chain_id, writer, at_rest, trimmed_seq, end_reason)"
        " VALUES (1, 1000, 'w', true, 0, 'closed'), (1, 1001, 'w', true, 7, NULL),"
        " (1, 1002, 'w', false, 0, NULL)"
    )
    chains = AuditChains(house.app.db, [])
    first = await chains.look(TENANT, limit=2)
    told = [(one["chain"], one["state"], one["rows"], one["head"]) for one in first["chains"]]
    assert told == [(1002, "open", 0, None), (1001, "at_rest", 0, None)]
    second = await chains.look(TENANT, limit=2, before=int(first["next_cursor"]))
    [last] = second["chains"]
    assert (last["chain"], last["state"], last["end_reason"]) == (1000, "ended", "closed")
    assert second["next_cursor"] is None


async def test_how_far_a_place_outside_is_behind_is_told_without_where_it_is(
    front: Front, tmp_path: Path
) -> None:
    app = front.house.app
    await front.client.get(CHAINS)
    anchor = FileAnchor(str(tmp_path / "anchors"))
    await Checkpoints(app.db, app.signing, [anchor]).run()
    await front.client.get(CHAINS)
    await app.checkpoints.run()  # which gives it to nobody
    chains = AuditChains(app.db, [anchor.place, "syslog:/dev/log"])
    told = await chains.look(TENANT, limit=1)
    [file, syslog] = told["anchors"]
    assert (file["kind"], file["in_use"], file["last_n"], file["behind"]) == ("file", True, 1, 1)
    assert (syslog["kind"], syslog["last_n"], syslog["behind"]) == ("syslog", None, 2)
    assert str(tmp_path) not in json.dumps(told)
    [gone] = (await AuditChains(app.db, []).look(TENANT, limit=1))["anchors"]
    assert (gone["kind"], gone["in_use"]) == ("file", False)


async def test_another_tenants_chains_are_not_told(front: Front) -> None:
    await front.client.get(CHAINS)
    await front.house.app.checkpoints.run()
    stranger = front.client.with_token(await front.other_tenant())
    told = (await stranger.get(CHAINS)).body
    assert [one["rows"] for one in told["chains"]] == [1]  # of this look itself
    assert told["checkpoint"] is None


async def test_without_the_scope_nothing_is_told_of_the_log(front: Front) -> None:
    lesser = front.client.with_token(
        await front.token(*(set(Scope) - {Scope.ADMIN, Scope.AUDIT_READ}))
    )
    assert (await lesser.get(CHAINS)).told == (403, "forbidden")


@pytest.mark.parametrize("query", ["limit=0", "cursor=0", "cursor=x", f"cursor={10**18}"])
async def test_what_names_no_page_is_refused(front: Front, query: str) -> None:
    refused = await front.client.get(f"{CHAINS}?{query}")
    assert refused.told == (422, "invalid_field")
