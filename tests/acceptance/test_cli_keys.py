"""Keys by commands: shown, replaced, all that is sealed brought under those of now; and killed."""

from pathlib import Path

import pytest
from tests.house import TENANT, House
from tests.program import Program, until
from tests.sealed import keys_named, texts

from svsync.services.rewrapping import ROWS


@pytest.fixture
def program(house: House, database_url: str, state_dir: Path, tmp_path: Path) -> Program:
    """Works on the store of the house, in processes of its own."""
    environment = {"DATABASE_URL": database_url, "SVSYNC_STATE_DIR": str(state_dir)}
    return Program(environment, tmp_path)


async def test_keys_are_replaced_by_commands_while_a_process_serves(
    house: House, program: Program
) -> None:
    for n in range(3):
        await house.write(f"own/{n}", {"k": program.canary.value(str(n))})
    said = await texts(house)
    [old] = await keys_named(house)
    rotated = (await program("keys", "rotate", "--json")).json["rotated"]
    assert [(r["tenant"], r["purpose"], r["old"]) for r in rotated] == [("default", "value", old)]
    again = await program("keys", "rewrap", "--json")
    [told] = again.json["tenants"]
    assert (again.code, told["sealed"], told["left"]) == (0, 3, 0)
    assert (told["keys_removed"], told["keys_waiting"]) == ([], [old])
    root = await program("keys", "rotate", "--root", "--json")
    assert (root.code, root.json["root"]) == (0, {"old": 1, "new": 2})
    assert root.json["data_keys_wrapped"] == len(await house.rows("data_keys"))
    assert root.json["root_keys_removed"] == [1]
    assert await texts(house) == said
    house.app.sealing._tenants.clear()
    assert await texts(house) == said, "the house learnt of both, and was not begun anew"
    status = await program("keys", "status", "--json")
    keys = {(key["kind"], key["id"]): key for key in status.json["keys"]}
    assert set(keys) >= {("root", 2), ("data", old), ("data", rotated[0]["new"])}
    assert keys["data", old]["sealed"] == 0
    assert keys["data", old]["emptied_at"] is not None
    assert keys["data", rotated[0]["new"]]["sealed"] == 3
    [service] = status.json["key_services"]
    assert (service["role"], service["state"]) == ("primary", "opens")


async def test_people_are_told_in_words(house: House, program: Program) -> None:
    assert "there is no key to replace" in (await program("keys", "rotate")).out
    await house.write("own/a", {"k": "1"})
    rotated = (await program("keys", "rotate", "--all-tenants")).out
    assert "`svsync keys rewrap` seals it anew" in rotated
    rewrapped = (await program("keys", "rewrap", "--all-tenants")).out
    assert "default: sealed anew: 1 of 1" in rewrapped
    assert "default: 1 values were sealed anew." in rewrapped
    assert "seals nothing any more; retention removes it" in rewrapped
    await house.admin.execute("UPDATE data_keys SET emptied_at = now() - interval '1 day'")
    assert "seals nothing any more, and is gone" in (await program("keys", "rewrap")).out
    root = (await program("keys", "rotate", "--root")).out
    assert "Root key 2 wraps from now on, in place of 1." in root
    assert "Root key 1 wraps nothing any more, and is gone." in root
    table = (await program("keys", "status")).out
    assert "KEY SERVICE" in table
    assert "root 2" in table
    both = await program("keys", "rotate", "--root", "--all-tenants")
    assert (both.code, both.out) == (2, "")


async def test_what_is_left_is_told_by_the_exit_code(house: House, program: Program) -> None:
    await house.write("own/a", {"k": "1"})
    await house.admin.execute("UPDATE versions SET nonce = '\\x000000000000000000000000'")
    await program("keys", "rotate")
    said = await program("keys", "rewrap")
    assert said.code == 1
    assert "does not open, and is left as it is" in said.out


async def test_a_rewrap_that_is_killed_is_gone_on_with(house: House, program: Program) -> None:
    """It dies in the transaction of its second page, which is held up there."""
    house.there.generate("kv/", 2 * ROWS + 100)
    await house.run()
    said = await texts(house)
    [old] = await keys_named(house)
    [made] = await house.app.keys.rotate(TENANT)
    await house.admin.execute(
        "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" IF (SELECT count(*) FROM versions WHERE key_id = {made.new}) > {ROWS} THEN"
        "   PERFORM pg_advisory_xact_lock(4711); END IF; RETURN NULL; END $$;"
        "CREATE TRIGGER hold AFTER UPDATE ON versions FOR EACH STATEMENT EXECUTE FUNCTION hold();"
        "SELECT pg_advisory_lock(4711)"
    )
    process = await program.start("keys", "rewrap", "--json")

    async def is_held() -> bool:
        waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        return bool(await house.admin.fetchval(waits))

    await until(is_held)
    process.kill()
    await process.wait()
    await house.admin.execute("SELECT pg_advisory_unlock(4711); DROP TRIGGER hold ON versions")
    under = "SELECT key_id, count(*) FROM versions GROUP BY key_id"
    counts = {row["key_id"]: row["count"] for row in await house.admin.fetch(under)}
    assert counts == {made.new: ROWS, old: ROWS + 100}
    assert await texts(house) == said
    done = await program("keys", "rewrap", "--json")
    assert done.json["tenants"][0]["sealed"] == ROWS + 100
    assert await keys_named(house) == {made.new}
    assert await texts(house) == said
