"""Policies, groups and whoami on the command line, and what the audit log tells of it."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.postgres import connected
from tests.program import Program

BILLING = "environments/production/billing"
WHO = "sa:billing-prod"


@pytest.fixture
def program(database_url: str, state_dir: Path) -> Program:
    environment = {"DATABASE_URL": database_url, "SVSYNC_STATE_DIR": str(state_dir)}
    return Program(environment, state_dir)


async def recorded(admin_url: str) -> list[Any]:
    """Rows of the log in the order of their commits, `detail` parsed."""
    async with connected(admin_url) as admin:
        rows = await admin.fetch("SELECT * FROM audit ORDER BY at, chain_id, seq")
    return [{**row, "detail": json.loads(row["detail"] or "null")} for row in rows]


async def made(program: Program, name: str = "billing-prod-reader") -> Any:
    said = await program(
        "policies", "create", name, "--rule", f"{BILLING}/**=read,list", "--json"
    )  # fmt: skip
    assert said.code == 0, said.err
    return said.json


async def test_the_life_of_a_policy(program: Program) -> None:
    policy = await made(program)
    assert policy["id"].startswith("pol_")
    assert policy["created_by"].startswith("cli:")
    bound = await program("policies", "bind", policy["id"], WHO)
    assert (bound.code, "is bound to sa:billing-prod" in bound.out) == (0, True)
    shown = (await program("policies", "show", policy["name"], "--json")).json
    assert [one["identity_id"] for one in shown["bound_to"]] == [WHO]
    assert WHO in (await program("policies", "show", policy["name"])).out
    listed = await program("policies", "list")
    assert f"{BILLING}/**" in listed.out
    [one] = (await program("policies", "list", "--json")).json["policies"]
    assert one == {**policy, "bindings": 1}
    assert (await program("policies", "unbind", policy["name"], WHO)).code == 0
    gone = await program("policies", "unbind", policy["name"], WHO, "--json")
    assert (gone.code, gone.json["error"]["code"]) == (1, "binding_not_found")
    assert (await program("policies", "delete", policy["id"])).code == 0
    gone = await program("policies", "delete", policy["id"], "--json")
    assert (gone.code, gone.json["error"]["code"]) == (1, "policy_not_found")
    assert "There are no policies" in (await program("policies", "list")).out


async def test_a_policy_is_made_of_a_file_as_the_api_takes_it(program: Program) -> None:
    rules = [{"path_pattern": "apps/*", "permissions": ["read", "use"]}]
    given = {"name": "apps", "description": "of a file", "rules": rules}
    text = json.dumps(given).encode()
    said = await program("policies", "create", "apps", "--file", "-", "--json", stdin=text)
    assert said.code == 0, said.err
    assert (said.json["rules"], said.json["description"]) == (rules, "of a file")
    again = await program("policies", "create", "apps", "--file", "-", "--json", stdin=text)
    assert (again.code, again.json["error"]["code"]) == (1, "policy_exists")


async def test_the_test_is_as_the_guide_prints_it(program: Program) -> None:
    """Bound by a group that the identity is not in, and then is: exit 1, and 0."""
    policy = await made(program)
    assert (await program("policies", "bind", policy["name"], "group:payments")).code == 0
    asked = ("policies", "test", f"{BILLING}/stripe", "read", "--identity", WHO)
    denied = await program(*asked)
    assert denied.code == 1
    assert denied.out.startswith("denied\n")
    assert "bound to group:payments only" in denied.out
    [near] = (await program(*asked, "--json")).json["near"]
    assert (near["reason"], near["policy"]) == ("not_bound", policy["name"])
    assert (await program("groups", "set", WHO, "payments", "reporting")).code == 0
    allowed = await program(*asked)
    assert allowed.code == 0
    assert allowed.out.startswith("allowed\n")
    for word in ("group:payments", f"{policy['name']}, rules[0]", f"{BILLING}/**"):
        assert word in allowed.out
    [known] = (await program("groups", "list", "--json")).json["identities"]
    assert (known["identity_id"], known["groups"]) == (WHO, ["payments", "reporting"])
    assert (await program("groups", "set", WHO)).code == 0
    assert (await program(*asked, "--json")).json["groups"] == []
    assert (await program(*asked, "--group", "payments")).code == 0


async def test_whoami_tells_whose_a_token_is(program: Program) -> None:
    made = await program(
        "tokens", "create", "--identity", WHO, "--scope", "secrets:read", "--json"
    )  # fmt: skip
    assert (await program("groups", "set", WHO, "payments")).code == 0
    token = made.json["token"]
    by_option = await program("auth", "whoami", "--token", token, "--json")
    by_variable = await program("auth", "whoami", "--json", SVSYNC_TOKEN=token)
    assert by_option.json == by_variable.json
    told = by_option.json
    assert (told["identity_id"], told["groups"]) == (WHO, ["payments"])
    assert (told["scopes"], told["token_id"]) == (["secrets:read"], made.json["token_id"])
    assert told["expires_at"] == made.json["expires_at"]
    for_people = await program("auth", "whoami", SVSYNC_TOKEN=token)
    assert token not in for_people.out + by_option.out
    assert "payments" in for_people.out
    without = (await program("auth", "whoami", "--json")).json
    assert (without["identity_type"], without["token_id"]) == ("operator", None)
    wrong = await program("auth", "whoami", "--token", token[:-1] + "x", "--json")
    assert (wrong.code, wrong.json["error"]["code"]) == (1, "unauthenticated")


async def test_what_the_operator_does_is_recorded(program: Program, admin_url: str) -> None:
    policy = await made(program)
    await program("policies", "bind", policy["name"], WHO)
    token = (
        await program("tokens", "create", "--identity", WHO, "--scope", "admin", "--json")
    ).json
    await program("tokens", "revoke", token["token_id"])
    await program("tokens", "revoke", token["token"])
    await program("secrets", "write", "app/a", "k=v")
    await program("secrets", "get", "app/a", "--json")
    await program("secrets", "get", "app/none")
    await program("secrets", "delete", "app/a")
    await program("secrets", "restore", "app/a")
    rows = await recorded(admin_url)
    assert {row["identity_type"] for row in rows} == {"operator"}
    assert {row["identity_id"] for row in rows} == {policy["created_by"]}
    assert [(row["action"], row["secret_path"], row["version"]) for row in rows] == [
        ("policy.create", None, None),
        ("policy.bind", None, None),
        ("token.create", None, None),
        ("token.revoke", None, None),
        ("token.revoke", None, None),
        ("secret.write", "app/a", None),
        ("secret.read", "app/a", 1),
        ("secret.read", "app/none", None),
        ("secret.delete", "app/a", None),
        ("secret.restore", "app/a", None),
    ]
    details = [row["detail"] for row in rows[:5]]
    assert details[0] == {"policy": policy["name"], "rules": [[f"{BILLING}/**", "read,list"]]}
    assert details[1]["identity_id"] == WHO
    assert (details[2]["identity_id"], details[2]["scopes"]) == (WHO, ["admin"])
    assert details[3:] == [{"token_id": token["token_id"]}, None]


async def test_what_cannot_be_recorded_is_not_done(program: Program, admin_url: str) -> None:
    await program("secrets", "write", "app/a", "k=v")
    async with connected(admin_url) as admin:
        await admin.execute("ALTER TABLE audit RENAME TO away")
    for words in (
        ("policies", "create", "p", "--rule", "a/**=read"),
        ("tokens", "create", "--identity", WHO, "--scope", "admin"),
        ("secrets", "write", "app/b", "k=v"),
        ("secrets", "get", "app/a"),
        ("groups", "set", WHO, "payments"),
    ):
        said = await program(*words, "--json")
        assert (said.code, said.json["error"]["code"]) == (1, "audit_unavailable")
    async with connected(admin_url) as admin:
        for table, many in (("policies", 0), ("tokens", 0), ("secrets", 1), ("identity_groups", 0)):
            assert await admin.fetchval(f"SELECT count(*) FROM {table}") == many


@pytest.mark.parametrize(
    "words",
    [
        ("policies", "create", "p"),
        ("policies", "create", "p", "--rule", "a/**"),
        ("policies", "create", "p", "--rule", "a/**=own"),
        ("policies", "create", "p", "--rule", "a/**=read", "--file", "x"),
        ("policies", "create", "p", "--file", "/nowhere"),
        ("policies", "bind", "p", "billing-prod"),
        ("policies", "bind", "p", "group:"),
        ("policies", "test", "a", "own", "--identity", WHO),
        ("policies", "test", "a", "read"),
        ("policies", "test", "a/../b", "read", "--identity", WHO),
        ("groups", "set", "payments", "a"),
        ("groups", "set", WHO, " "),
    ],
)
def test_what_means_nothing_is_a_wrong_use(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    from svsync.cli.main import main

    assert main(words) == 2
    assert capsys.readouterr().err.startswith("svsync: ")


async def test_a_pattern_that_no_path_matches_is_refused_by_its_place(program: Program) -> None:
    said = await program(
        "policies", "create", "p", "--rule", "a/**=read", "--rule", "/b/**=read"
    )  # fmt: skip
    assert said.code == 2
    assert "rules[1].path_pattern" in said.sentence
