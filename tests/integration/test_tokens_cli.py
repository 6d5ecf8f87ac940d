"""Does the command line hand a token out once, and take it back?"""

import sys
from pathlib import Path

import pytest
from tests.program import Program


@pytest.fixture
def program(database_url: str, state_dir: Path) -> Program:
    environment = {"DATABASE_URL": database_url, "SVSYNC_STATE_DIR": str(state_dir)}
    return Program(environment, state_dir)


async def test_the_life_of_a_token(program: Program) -> None:
    made = await program(
        "tokens", "create", "--identity", "sa:ci", "--scope", "federation:read",
        "federation:write", "--expires", "12h", "--json",
    )  # fmt: skip
    assert made.code == 0, made.err
    assert made.json["scopes"] == ["federation:read", "federation:write"]
    assert (made.json["identity_type"], made.json["identity_id"]) == ("service_account", "sa:ci")
    assert made.json["token"].startswith("svt_1_")
    assert made.json["expires_at"].endswith("Z")

    revoked = await program("tokens", "revoke", made.json["token_id"])
    assert revoked.code == 0
    listed = await program("tokens", "list", "--json")
    [shown] = listed.json["tokens"]
    assert (shown["token_id"], shown["state"]) == (made.json["token_id"], "revoked")
    assert shown["created_by"].startswith("cli:")
    assert made.json["token"] not in listed.out + listed.err


async def test_a_token_for_people_is_shown_with_a_word_of_warning(program: Program) -> None:
    made = await program(
        "tokens", "create", "--identity", "user:ada", "--scope", "admin", "--expires", "never"
    )
    assert made.code == 0
    assert "never" in made.out
    assert "shown this once" in made.out
    pasted = await program("tokens", "revoke", made.out.split()[0])
    assert pasted.code == 1
    assert made.out.split()[0] not in pasted.err
    assert "user:ada" in (await program("tokens", "list")).out


@pytest.mark.parametrize(
    "words",
    [
        ("create", "--identity", "ci", "--scope", "admin"),
        ("create", "--identity", "sa:ci", "--scope", "everything"),
        ("create", "--identity", "sa:ci"),
        ("create", "--identity", "sa:ci", "--scope", "admin", "--expires", "soon"),
        ("create", "--identity", "sa:ci", "--scope", "admin", "--expires", "1s"),
    ],
)
def test_what_cannot_be_made_is_a_wrong_use(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    from svsync.cli.main import main

    assert main(["tokens", *words]) == 2
    assert capsys.readouterr().err.startswith("svsync: ")
    assert sys.exc_info() == (None, None, None)
