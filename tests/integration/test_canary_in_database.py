"""Does the canary find a marker in a database, also where no row shows it any more?"""

import pytest
from tests.canary import Canary, database_contents
from tests.postgres import connected


@pytest.mark.parametrize(
    ("statement", "encoding"),
    [
        ("INSERT INTO nest (t) VALUES ($1)", "raw"),
        ("INSERT INTO nest (b) VALUES (convert_to($1, 'UTF8'))", "hex"),
        ("INSERT INTO nest (t) VALUES (encode(convert_to($1, 'UTF8'), 'base64'))", "base64"),
        ("INSERT INTO nest (j) VALUES (jsonb_build_object('a', $1::text))", "raw"),
    ],
)
async def test_marker_in_a_row_is_found(
    database_url: str, admin_url: str, statement: str, encoding: str
) -> None:
    bird = Canary()
    async with connected(database_url) as connection:
        await connection.execute("CREATE TABLE nest (t text, b bytea, j jsonb)")
        assert bird.found_in(await database_contents(admin_url)) == set()
        await connection.execute(statement, bird.value("name"))
    assert encoding in bird.found_in(await database_contents(admin_url))


async def test_marker_in_a_deleted_row_is_found(database_url: str, admin_url: str) -> None:
    bird = Canary()
    async with connected(database_url) as connection:
        await connection.execute("CREATE TABLE nest (t text)")
        await connection.execute("INSERT INTO nest VALUES ($1)", bird.value())
        await connection.execute("DELETE FROM nest")
    assert bird.found_in(await database_contents(admin_url)) == {"raw"}


async def test_test_that_leaks_nothing_passes(database_url: str, canary: Canary) -> None:
    async with connected(database_url) as connection:
        await connection.execute("SELECT $1::text", canary.value())
