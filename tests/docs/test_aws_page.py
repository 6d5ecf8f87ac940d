"""Does the page on AWS print what a plan says there? No emulator tells when a secret was read."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web
from tests.aws import Aws, AwsFront, server
from tests.aws_house import house_of
from tests.docs.test_docs import code_blocks, text_of
from tests.docs.test_quickstart import fits
from tests.house import TENANT, House

from svsync.cli.output import Output
from svsync.cli.retire import tell_plan
from svsync.domain.audit import Decision, Entry
from svsync.domain.federation import RuleSpec
from svsync.domain.globs import Glob
from svsync.services.retirement import Asked, Retirement

PAGE = "docs/tutorials/from-aws-secrets-manager.md"
BILLING = ("billing/database", "billing/stripe")
WAREHOUSE = "reporting/warehouse"
WEEK = Asked(Glob("external/aws/**"), timedelta(days=7))


async def planned(house: House, capsys: pytest.CaptureFixture[str]) -> str:
    found = await Retirement(house.app.db, house.app.registry).plan(TENANT, WEEK, None)
    capsys.readouterr()
    tell_plan(Output(), found)
    return capsys.readouterr().out


async def test_plan_of_the_first_week_and_of_later_is_as_the_page_says(
    database_url: str, admin_url: str, state_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = (RuleSpec("external/aws/**", "prod/**"),)
    database = (database_url, admin_url, state_dir)
    async with (
        server("roto-server", "--ephemeral", "--port") as found,
        AwsFront(found.url) as front,
        house_of(front.url, "prod/", database, rules=rules) as house,
    ):
        account = Aws(found.url, "prod/")
        for name in (*BILLING, "reporting/salesforce", WAREHOUSE):
            await account.put(name, {"k": name})
        await house.run()
        for name in BILLING:
            path = f"external/aws/{name}"
            who = ("service_account", "sa:billing-prod")
            await house.app.recorder.record(
                Entry(TENANT, *who, "secret.read", Decision.ALLOW, path)
            )
        listed = await account.listed()

        def read(ago: timedelta) -> None:
            at = int((datetime.now(UTC) - ago).timestamp())
            for secret in listed:
                secret["LastAccessedDate"] = at
                secret["RotationEnabled"] = secret["Name"] == f"prod/{WAREHOUSE}"
            front.answer("^ListSecrets", lambda _: web.json_response({"SecretList": listed}))

        read(timedelta())
        early = await planned(house, capsys)
        read(timedelta(days=9))
        later = await planned(house, capsys)
    [block] = [text for text in code_blocks(PAGE, "text") if "2 ready" in text]
    assert fits(block, later), later
    assert "Nothing is ready to be retired." in early
    said = "somebody, or svsync itself, read it at its source"
    assert early.count(said) == 4
    assert f"*{said}*" in text_of(PAGE)
