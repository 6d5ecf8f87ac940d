"""What lies below folders that could not be listed is counted exactly, however much it is."""

from tests.house import BACKEND, TENANT, House, counts, skips

from svsync.domain.guards import Allow
from svsync.domain.runs import RunResult

MANY = 10_050
"""More than a report names."""
COLUMNS = (
    "secret_id, rule_ord, mapping_hash, base_pair, status, base_kind, base_fp, base_fp_key,"
    " base_value_token, settled_version"
)
SEED = (
    f"INSERT INTO sync_state (tenant_id, backend_id, remote_path, path, {COLUMNS})"
    f" SELECT tenant_id, backend_id, 'kv/shut/' || n, 'ext/shut/' || n, {COLUMNS}"
    " FROM sync_state, generate_series(1, $1::int) AS n WHERE path = 'ext/a'"
)
"""As many pairs as asked for below `kv/shut/`."""


async def test_more_blind_pairs_than_a_report_names_are_counted_to_the_last(house: House) -> None:
    house.there.put("kv/a", {"k": "1"})
    for n in range(5):
        house.there.put(f"kv/open/{n}", {"k": "1"})
    await house.run()
    await house.admin.execute(SEED, MANY)
    house.there.put("kv/shut/1", {"k": "1"})
    house.there.denied.add("kv/shut/")
    for n in range(2):  # two of six: too few of them all to trip a guard, were they all seen
        house.there.remove(f"kv/open/{n}")
    ended = await house.run(allow=Allow())
    assert ended.report.reasons == {"denied": MANY}
    assert counts(ended)["unlisted"] == 2
    assert counts(ended)["unchanged"] == 4


async def test_denied_folder_beside_one_good_secret_is_partial(house: House) -> None:
    house.there.put("kv/a/x", {"k": "1"})
    house.there.put("kv/b/x", {"k": "1"})
    house.there.denied.add("kv/b/")
    ended = await house.run()
    assert ended.record.result is RunResult.PARTIAL
    assert skips(ended) == {"kv/b/": "denied"}
    assert await house.paths() == ["ext/a/x"]
    status = await house.app.federation.status(TENANT, BACKEND)
    assert status["status"] == "degraded"


async def test_folder_whose_pairs_are_not_among_those_named_is_counted_by_its_pairs(
    house: House,
) -> None:
    for name in ("a", "b", "zz/1", "zz/2", "zz/3"):
        house.there.put(f"kv/{name}", {"k": "1"})
    await house.run()
    await house.admin.execute(SEED, MANY)
    house.there.put("kv/shut/1", {"k": "1"})
    house.there.denied.add("kv/shut/")
    house.there.failed.add("kv/zz/")
    ended = await house.run(allow=Allow())
    assert ended.report.reasons == {"denied": MANY, "unlisted": 3}
    assert counts(ended) == {"listed": 2, "unchanged": 2}
