"""The connection test on AWS: whose secrets these are, and each right by its statement."""

import json
import re
from typing import Any

import pytest
from tests.aws import ACCOUNT, REGION, Aws, AwsFront, open_aws

from svsync.backends.aws.connection import PROBE
from svsync.domain.federation import Mode, Writes


async def test_account_is_known_without_a_secret(roto: Aws, aws_front: AwsFront) -> None:
    async with open_aws(aws_front.url, roto.prefix) as aws:
        found = await aws.backend.connect([roto.prefix], probe=False)
    assert (found.identity, found.checks) == (f"aws:{ACCOUNT}:{REGION}", ())
    assert aws_front.seen == ["ListSecrets ", "GetCallerIdentity "]


async def test_endpoint_without_sts_leaves_the_account_open(roto: Aws, aws_front: AwsFront) -> None:
    aws_front.refuse_as("^GetCallerIdentity", "UnknownOperationException", 404)
    async with open_aws(aws_front.url, roto.prefix) as aws:
        assert (await aws.backend.connect([roto.prefix])).identity == ""
        await roto.put("a", {"k": "v"})
        assert (await aws.backend.connect([roto.prefix])).identity == f"aws:{ACCOUNT}:{REGION}"


@pytest.mark.parametrize(
    ("denied", "state", "status", "resource"),
    [
        ("ListSecrets", "missing", "denied", "*"),
        ("GetSecretValue", "missing", "denied", None),
        ("DescribeSecret", "missing", "degraded", None),
        ("BatchGetSecretValue", "missing_optional", "healthy", "*"),
        ("UpdateSecretVersionStage", "missing", "degraded", None),
        ("PutSecretValue", "missing", "degraded", None),
        ("TagResource", "missing_optional", "healthy", None),
        ("UntagResource", "missing_optional", "healthy", None),
        ("RestoreSecret", "missing_optional", "healthy", None),
    ],
)
async def test_right_that_is_missing_is_named_with_the_statement_that_grants_it(
    roto: Aws, aws_front: AwsFront, denied: str, state: str, status: str, resource: str | None
) -> None:
    await roto.put("a", {"k": "v"})
    aws_front.refuse_as(f"^{denied} ", "AccessDeniedException")
    async with open_aws(
        aws_front.url, roto.prefix, mode=Mode.SYNC, writes=Writes.WRITE_THROUGH
    ) as aws:
        found = await aws.backend.connect([roto.prefix])
    assert found.status == status
    [lacking] = [check for check in found.checks if check.state != "granted"]
    assert lacking.state == state
    account = "123456789012" if denied != "ListSecrets" else "*"
    whole = f"arn:aws:secretsmanager:{REGION}:{account}:secret:{roto.prefix}*"
    assert json.loads(lacking.hint) == {
        "Effect": "Allow",
        "Action": f"secretsmanager:{denied}",
        "Resource": resource or whole,
    }
    assert await roto.stages("a") == {"AWSCURRENT": (await roto.stages("a"))["AWSCURRENT"]}


async def test_rights_to_write_are_tried_where_nothing_is(roto: Aws, aws_front: AwsFront) -> None:
    """And only for whoever is to write through."""
    tried = re.compile("^(Put|Tag|Untag|Restore|Update|Create|Delete)")
    await roto.put(PROBE, {"k": "theirs"})
    before = await roto.describe(PROBE)
    async with open_aws(aws_front.url, roto.prefix, mode=Mode.SYNC) as aws:
        await aws.backend.connect([roto.prefix])
    assert not [line for line in aws_front.seen if tried.match(line)]
    through: dict[str, Any] = {"mode": Mode.SYNC, "writes": Writes.WRITE_THROUGH}
    async with open_aws(aws_front.url, roto.prefix, **through) as aws:
        found = await aws.backend.connect([roto.prefix])
    assert found.status == "healthy"
    assert {line.split(" ")[0] for line in aws_front.seen if tried.match(line)} == {
        "UpdateSecretVersionStage",
        "UntagResource",
    }
    assert (await roto.describe(PROBE))["VersionIdsToStages"] == before["VersionIdsToStages"]
    assert await roto.tags(PROBE) == {}
    await roto.remove(PROBE)
    async with open_aws(aws_front.url, roto.prefix, **through) as aws:
        await aws.backend.connect([roto.prefix])
    assert await roto.listed() == [], "nothing was made"


async def test_proxied_backend_needs_no_listing(roto: Aws, aws_front: AwsFront) -> None:
    aws_front.refuse_as("^ListSecrets", "AccessDeniedException")
    async with open_aws(aws_front.url, roto.prefix, mode=Mode.PROXY) as aws:
        found = await aws.backend.connect([roto.prefix])
    assert found.status == "healthy"
    assert [check.state for check in found.checks].count("missing_optional") == 1
