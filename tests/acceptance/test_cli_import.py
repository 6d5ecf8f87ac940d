"""Does `import env` group variables into secrets, again and again, without showing any, and
does `verify --env` say when their file is not needed any more?"""

import json
from typing import Any

import pytest
import pytest_asyncio
from tests.acceptance.conftest import Desk
from tests.acceptance.serving import new_token, serving
from tests.postgres import connected
from tests.program import Program

MAP = """\
under: {under}
variables:
  STRIPE_SECRET_KEY: {{secret: stripe, field: secret_key, type: api_key}}
  SALESFORCE_CLIENT_ID: [salesforce, client_id, json]
  SALESFORCE_CLIENT_SECRET: [salesforce, client_secret]
  DATABASE_URL: [database, url, kv]
  PORT: null
tags: [billing, "{{secret}}", production]
owner: team:billing
"""


def quoted(value: str) -> str:
    """A value as a `.env` file takes it, whatever stands in it."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


class Files:
    """A `.env` file and its map, and the import of them."""

    def __init__(self, desk: Desk, program: Program, name: str, *words: str) -> None:
        self.under = f"env/{name}"
        self.env = desk.folder / f"{name}.env"
        self.map = desk.folder / f"{name}.yaml"
        self.map.write_text(MAP.format(under=self.under))
        self._program = program
        self._words = self.config = words

    async def run(self, *words: str, **options: Any) -> Any:
        return await self._program(
            "import", "env", str(self.env), "--map", str(self.map), *words, *self._words, **options
        )

    async def verified(self, *words: str, **options: Any) -> Any:
        at = ("--env", str(self.env), "--map", str(self.map))
        return await self._program("verify", *at, *words, *self._words, **options)

    async def got(self, name: str) -> Any:
        said = await self._program(
            "secrets", "get", f"{self.under}/{name}", "--json", *self._words, reveals=True
        )
        return said.json


@pytest.fixture
def files(desk: Desk, request: pytest.FixtureRequest) -> Files:
    _, file = desk.backend()
    return Files(desk, desk.program, request.node.name[:40], "--config", str(file))


async def test_variables_become_the_secrets_of_the_guide(desk: Desk, files: Files) -> None:
    value, marker = desk.program.canary.value(), desk.program.canary.marker
    files.env.write_text(
        f"# made by hand\nexport STRIPE_SECRET_KEY={quoted(value)}\nSALESFORCE_CLIENT_ID='3MVG9'\n"
        f'SALESFORCE_CLIENT_SECRET="{marker}\\n2"\nDATABASE_URL=postgresql://b@db/b#x\n'
        "SENTRY_DSN=https://example\nPORT=1\n"
    )
    said = await files.run()
    assert (said.code, said.sentences) == (0, [])
    assert "3 imported." in said.out
    assert said.out.splitlines()[-1] == "Not in the map, so left where they are: SENTRY_DSN."
    stripe = await files.got("stripe")
    assert (stripe["data"], stripe["secret_type"]) == ({"secret_key": value}, "api_key")
    assert stripe["metadata"]["tags"] == ["billing", "production", "stripe"]
    assert stripe["metadata"]["owner"] == "team:billing"
    salesforce = await files.got("salesforce")
    assert salesforce["data"] == {"client_id": "3MVG9", "client_secret": f"{marker}\n2"}
    assert (await files.got("database"))["data"] == {"url": "postgresql://b@db/b#x"}
    async with connected(desk.database) as admin:
        rows = await admin.fetch(
            "SELECT identity_type, detail FROM audit"
            " WHERE action = 'secret.write' AND secret_path = $1",
            f"{files.under}/stripe",
        )
    assert [(row[0], json.loads(row[1])) for row in rows] == [
        ("operator", {"imported_from": "env"})
    ]


async def test_again_it_leaves_what_is_equal_and_tells_what_differs(
    desk: Desk, files: Files
) -> None:
    files.env.write_text("STRIPE_SECRET_KEY=one\nDATABASE_URL=two\n")
    first = await files.run("--json")
    assert first.code == 0
    assert first.json["absent"] == [f"{files.under}/salesforce"]
    files.env.write_text(f"STRIPE_SECRET_KEY={desk.program.canary.marker}\nDATABASE_URL=two\n")
    again = await files.run("--json")
    assert (again.code, again.json["counts"]["unchanged"]) == (1, 1)
    [one] = again.json["secrets"]
    assert (one["path"], one["reason"]) == (f"{files.under}/stripe", "value_differs")
    assert (await files.got("stripe"))["data"] == {"secret_key": "one"}
    would = await files.run("--overwrite", "--dry-run", "--json")
    assert (would.code, would.json["counts"]["overwritten"]) == (0, 1)
    assert (await files.got("stripe"))["version"] == 1
    done = await files.run("--overwrite", "--json")
    assert (done.code, done.json["secrets"][0]["version"]) == (0, 2)
    assert (await files.run("--overwrite", "--json")).json["counts"]["unchanged"] == 2


async def test_fields_that_the_map_does_not_name_are_named_where_they_are_dropped(
    desk: Desk, files: Files
) -> None:
    files.env.write_text(f"STRIPE_SECRET_KEY={desk.program.canary.marker}\n")
    path, config = f"{files.under}/stripe", files.config
    words = ("secrets", "write", path, "secret_key=old", "webhook=w", "id=1")
    assert (await desk.program(*words, *config)).code == 0
    for dry in (("--dry-run",), ()):
        said = await files.run("--overwrite", *dry)
        assert said.code == 0
        assert "id, webhook dropped; version 1 stays in its history" in " ".join(said.out.split())
    assert (await desk.program(*words, *config)).code == 0
    said = await files.run("--overwrite", "--json")
    assert said.json["secrets"][0]["dropped_fields"] == ["id", "webhook"]


async def test_tag_that_the_map_got_later_is_told_and_added_by_word(files: Files) -> None:
    files.env.write_text("STRIPE_SECRET_KEY=k\n")
    assert (await files.run()).code == 0
    files.map.write_text(files.map.read_text().replace("[billing,", "[later, billing,"))
    said = await files.run("--json")
    assert (said.code, said.json["reasons"]) == (1, {"labels_differ": 1})
    said = await files.run("--overwrite")
    assert (said.code, said.out.splitlines()[2]) == (0, "1 labelled.")
    assert "later" in (await files.got("stripe"))["metadata"]["tags"]
    assert (await files.run()).code == 0


@pytest.mark.parametrize(
    ("env", "reason", "says"),
    [
        ("SALESFORCE_CLIENT_ID=a\n", "variable_missing", "SALESFORCE_CLIENT_SECRET is not in"),
        ("DATABASE_URL\n", "variable_without_value", "DATABASE_URL in line 1 has no value"),
        ("DATABASE_URL=a\n\nDATABASE_URL=b\n", "variable_twice", "in line 3 has another value"),
        ("DATABASE_URL=${HOME}/x\n", "variable_refers", "give --literal"),
    ],
)
async def test_what_is_no_whole_secret_is_told_and_the_rest_is_imported(
    files: Files, env: str, reason: str, says: str
) -> None:
    files.env.write_text(f"{env}STRIPE_SECRET_KEY=k\n")
    said = await files.run("--json", "--overwrite")
    assert said.code == 1
    assert said.json["reasons"] == {reason: 1}
    [told] = [one for one in said.json["secrets"] if one["outcome"] == "failed"]
    assert says in told["message"]
    assert (await files.got("stripe"))["data"] == {"secret_key": "k"}


async def test_reference_is_imported_as_it_stands_where_that_is_asked_for(files: Files) -> None:
    files.env.write_text("DATABASE_URL='a${b}c'\n")
    assert (await files.run("--literal")).code == 0
    assert (await files.got("database"))["data"] == {"url": "a${b}c"}


async def test_a_file_that_cannot_be_read_is_one_sentence_without_what_stands_there(
    desk: Desk, files: Files
) -> None:
    files.env.write_text(f'A=1\n"{desk.program.canary.marker} no name\n')
    said = await files.run("--json")
    assert (said.code, said.out) == (2, "")
    assert said.sentence.startswith(f"svsync: {files.env}:2: ")
    files.env.write_text(f"A={'1' * 1024 * 1024}\n")
    said = await files.run()
    assert (said.code, said.sentence.partition("MiB: ")[2]) == (
        2,
        "give its variables in several parts",
    )
    files.env.unlink()
    said = await files.run()
    assert (said.code, "cannot be read" in said.sentence) == (2, True)
    files.map.write_text("variables:\n  A: [a]\n")
    said = await files.run()
    assert (said.code, said.sentence.startswith(f"svsync: {files.map}:2: ")) == (2, True)


async def test_variables_are_taken_from_stdin(desk: Desk, files: Files) -> None:
    given = f"STRIPE_SECRET_KEY={desk.program.canary.marker}\nno name\n".encode()
    words = ("import", "env", "-", "--map", str(files.map))
    said = await desk.program(*words, "--config", str(desk.backend()[1]), stdin=given)
    assert said.sentence.startswith("svsync: stdin:2: ")
    given = b"STRIPE_SECRET_KEY=k\n"
    said = await desk.program(*words, "--config", str(desk.backend()[1]), stdin=given)
    assert said.code == 0
    assert (await files.got("stripe"))["data"] == {"secret_key": "k"}


async def test_variables_of_a_process_are_taken_as_they_are(desk: Desk, files: Files) -> None:
    value = f"{desk.program.canary.marker} #1 'a' \"b\" ${{c}}\n\\n"
    given = "".join(f"{k}={v}\0" for k, v in {"PATH": "/bin", "STRIPE_SECRET_KEY": value}.items())
    words = ("--map", str(files.map), *files.config)
    said = await desk.program("import", "env", "-", *words, stdin=given.encode())
    assert (said.code, said.out.splitlines()[2]) == (0, "1 imported.")
    assert (await files.got("stripe"))["data"] == {"secret_key": value}
    same = await desk.program("verify", "--env", "-", *words, stdin=given.encode())
    assert (same.code, same.out) == (1, "PATH: not compared: not_mapped\n")
    missing = "PATH=/bin\0SALESFORCE_CLIENT_ID=a\0"
    said = await desk.program("import", "env", "-", *words, "--json", stdin=missing.encode())
    assert said.json["reasons"] == {"variable_missing": 1}
    # Which of two values counts is up to who asks the process.
    for twice in ("other\0STRIPE_SECRET_KEY=k", "k\0STRIPE_SECRET_KEY=other\0STRIPE_SECRET_KEY=k"):
        both = f"PORT=1\0STRIPE_SECRET_KEY={twice}\0"
        said = await desk.program("import", "env", "-", *words, "--json", stdin=both.encode())
        [one] = said.json["secrets"]
        assert (one["reason"], one["message"]) == (
            "variable_twice",
            "STRIPE_SECRET_KEY has two values there: keep one",
        )
        said = await desk.program("verify", "--env", "-", *words, stdin=both.encode())
        assert (said.code, "variable_twice" in said.out) == (1, True)
    for broken in ("A=1\nB=2\0", "A=1\0B", "A=1\0=b\0", "A=1\0\0\0"):
        said = await desk.program("import", "env", "-", *words, stdin=broken.encode())
        assert (said.code, "holds a NUL character" in said.sentence) == (2, True), broken


# --- may the file be removed? ---------------------------------------------------------


async def test_file_whose_every_variable_is_here_is_clean(desk: Desk, files: Files) -> None:
    files.env.write_text(
        f"STRIPE_SECRET_KEY={desk.program.canary.marker}\nPORT=1\nDATABASE_URL='a${{b}}'\n"
    )
    missing = await files.verified()
    assert (missing.code, missing.out.splitlines()) == (
        1,
        [
            f"{files.under}/database: missing here (DATABASE_URL)",
            f"{files.under}/stripe: missing here (STRIPE_SECRET_KEY)",
        ],
    )
    assert (await files.run("--literal")).code == 0
    clean = await files.verified()
    assert (clean.code, clean.out) == (0, "")
    assert clean.sentences == [
        "svsync: compared 2 secrets",
        "svsync: the map leaves PORT in the environment: keep that before the file goes",
    ]
    one = await files.verified("--path", "**/stripe", "--json")
    assert (one.code, one.json["compared"]) == (0, 1)
    assert (one.json["left"], one.json["comments"]) == (["PORT"], [])
    files.env.write_text(f"{files.env.read_text()}SENTRY_DSN=x\n")
    part = await files.verified("--path", "**/stripe")
    assert (part.code, part.sentences[1]) == (
        0,
        "svsync: --path leaves out the rest of the file: compare without it before the file goes",
    )


async def test_what_only_comments_hold_is_told_by_lines(desk: Desk, files: Files) -> None:
    """A variable that was put aside, and the rest of a value that was not quoted: both are gone
    with the file, and some programs read the second as part of the value."""
    files.env.write_text("STRIPE_SECRET_KEY=k#1\nDATABASE_URL='a # b'\n# by hand\n")
    assert (await files.run()).code == 0
    clean = await files.verified()
    assert (clean.code, clean.sentences) == (0, ["svsync: compared 2 secrets"])
    marker = desk.program.canary.marker
    files.env.write_text(
        f"# by hand\n# export OLD_KEY={marker}\nSTRIPE_SECRET_KEY=k#1 #{marker}\n\n"
        f"DATABASE_URL='a # b'   # {marker}\n"
    )
    told = await files.verified()
    assert (told.code, told.out, told.sentences[1:]) == (
        0,
        "",
        [
            "svsync: comments are not compared: see that there is no variable and no rest of a"
            " value in lines 2, 3, 5 before the file goes"
        ],
    )
    assert (await files.verified("--json")).json["comments"] == [2, 3, 5]


async def test_further_lines_of_a_value_that_is_not_quoted_are_not_told_as_names(
    desk: Desk, files: Files
) -> None:
    marker = desk.program.canary.marker
    files.env.write_text(
        f"SENTRY_DSN=x\nDEBUG=\nSTRIPE_SECRET_KEY=MIIEvQ\n{marker}\nab{marker}==\nXy{marker}=\n"
        f'"{marker}":"a=b"\n&{marker}=c\n'
    )
    lines = [f"line {number}" for number in range(4, 9)]
    said = await files.run("--json")
    assert (said.code, said.json["not_mapped"]) == (0, ["SENTRY_DSN", "DEBUG", *lines])
    assert (await files.run()).out.splitlines()[-1].endswith(f"DEBUG, {', '.join(lines)}.")
    said = await files.verified()
    assert (said.code, said.out.splitlines()) == (
        1,
        [f"{name}: not compared: not_mapped" for name in ["DEBUG", "SENTRY_DSN", *lines]],
    )


async def test_what_a_removed_file_would_take_along_is_told_and_no_value(
    desk: Desk, files: Files
) -> None:
    files.env.write_text("STRIPE_SECRET_KEY=one\nDATABASE_URL=two\n")
    assert (await files.run()).code == 0
    marker = desk.program.canary.marker
    files.env.write_text(
        f"STRIPE_SECRET_KEY={marker}\nDATABASE_URL=two\nDATABASE_URL={marker}\n"
        f"SALESFORCE_CLIENT_ID={marker}\nSENTRY_DSN={marker}\n"
    )
    files.map.write_text(files.map.read_text().replace("team:billing", "team:other"))
    said = await files.verified()
    stripe = f"{files.under}/stripe"
    assert (said.code, said.out.splitlines()) == (
        1,
        [
            "SENTRY_DSN: not compared: not_mapped",
            f"{files.under}/database: not compared (DATABASE_URL): variable_twice",
            f"{files.under}/salesforce: not compared (SALESFORCE_CLIENT_ID,"
            " SALESFORCE_CLIENT_SECRET): variable_missing",
            f"{stripe}: labels differ (STRIPE_SECRET_KEY): owner differs",
            f"{stripe}: value differs (STRIPE_SECRET_KEY): secret_key differs",
        ],
    )


async def test_nothing_that_was_compared_is_not_clean(files: Files) -> None:
    files.env.write_text("PORT=1\n")
    said = await files.verified()
    assert (said.code, said.out) == (1, "")
    assert said.sentences[0] == (
        f"svsync: nothing was compared: {files.env} has no variable that {files.map} makes a"
        " secret of"
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--env", "x"), "--env needs the map that it was imported by: add --map FILE"),
        (("--backend", "x", "--map", "y"), "--map is of a .env file"),
        (("--env", "/nowhere", "--map", "{map}"), "cannot be read"),
    ],
)
async def test_words_that_do_not_fit_are_one_sentence(
    desk: Desk, files: Files, words: tuple[str, ...], says: str
) -> None:
    given = [word.format(map=files.map) for word in words]
    said = await desk.program("verify", *given, *files.config)
    assert (said.code, said.out, says in said.sentence) == (2, "", True)


# --- by a service ---------------------------------------------------------------------


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def far(desk: Desk) -> Any:
    name, file = desk.backend(mode="proxy")
    await desk.bao.put("far/a", {"k": "1"})
    token = await new_token(desk.program, "--config", str(file))
    async with serving(desk.program, "--config", str(file)) as served:
        environment = {"SVSYNC_URL": served.url, "SVSYNC_TOKEN": token}
        yield name, Program(environment, desk.folder, desk.program.canary)
        assert await served.stopped() == 0


@pytest.mark.asyncio(loop_scope="session")
async def test_import_copy_and_verify_by_a_service(desk: Desk, far: Any) -> None:
    name, asking = far
    files = Files(desk, asking, "by-service")
    files.env.write_text("STRIPE_SECRET_KEY=one\nDATABASE_URL=two\n")
    said = await files.run("--json")
    assert (said.code, said.json["counts"]["created"]) == (0, 2)
    files.env.write_text("STRIPE_SECRET_KEY=three\nDATABASE_URL=two\n")
    assert (await files.run()).code == 1
    assert (await files.run("--overwrite", "--json")).json["counts"]["overwritten"] == 1
    assert (await files.got("stripe"))["data"] == {"secret_key": "three"}
    same = await files.verified()
    assert (same.code, same.out, same.sentences) == (0, "", ["svsync: compared 2 secrets"])

    mapping = desk.folder / "by-service-mapping.yaml"
    mapping.write_text(json.dumps({"paths": {f"{name}/far/*": "new/far/*"}, "tags": ["moved"]}))
    at = ("--mapping", str(mapping))
    missing = await asking("verify", *at)
    assert (missing.code, missing.out) == (1, f"new/far/a: missing here ({name}/far/a)\n")
    assert (await asking("copy", *at)).out.splitlines()[-1] == "1 copied."
    assert (await asking("copy", *at)).out == "1 there already.\n"
    clean = await asking("verify", *at)
    assert (clean.code, clean.out, clean.sentences) == (0, "", ["svsync: compared 1 secret"])
    assert (await asking("secrets", "delete", "new/far/a")).code == 0
    deleted = await asking("copy", *at, "--json")
    assert (deleted.code, deleted.json["reasons"]) == (1, {"deleted_here": 1})
    assert (await asking("copy", *at, "--overwrite")).code == 0
    refused = await asking("verify", "--backend", name)
    assert (refused.code, "asks no service" in refused.sentence) == (2, True)


@pytest.mark.asyncio(loop_scope="session")
async def test_service_that_does_not_know_the_token_ends_it(far: Any, desk: Desk) -> None:
    _, asking = far
    files = Files(desk, asking, "no-token", "--token", "svt_1_nobody")
    files.env.write_text("STRIPE_SECRET_KEY=one\nDATABASE_URL=two\n")
    said = await files.run("--json")
    assert (said.code, said.json["error"]["code"]) == (1, "unauthenticated")
    assert said.json["counts"]["created"] == 0
