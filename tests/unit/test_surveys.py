"""What a survey takes from a store's answers, and the commands that delete there."""

import shlex
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any, cast

import pytest

from svsync.backends.aws import survey as aws
from svsync.backends.aws.calls import AwsCalls
from svsync.backends.vault import survey as vault
from svsync.backends.vault.kv import Mount
from svsync.domain.changes import ScopeOutcome
from svsync.domain.errors import DeniedError, ListingError
from svsync.domain.federation import BackendSpec
from svsync.domain.ids import BackendId, RemotePath
from svsync.domain.inventory import Surveyed, SurveyPage, Trait

ARN = "arn:aws:secretsmanager:us-east-1:123456789012:secret:x-AbCdEf"
CURRENT = {"SecretVersionsToStages": {"v1": ["AWSCURRENT"]}, "ARN": ARN}


def spec(kind: str, **config: object) -> BackendSpec:
    return BackendSpec(BackendId("fed_a"), "a", kind, (), config, max_secrets=4)


class Answers:
    """Calls to AWS that are answered one after the other."""

    def __init__(self, *answers: dict[str, Any] | Exception) -> None:
        self.left = list(answers)
        self.asked: list[dict[str, Any]] = []

    async def request(self, operation: str, method: str, **parameters: Any) -> dict[str, Any]:
        self.asked.append(parameters)
        answer = self.left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


async def surveyed(answers: Answers) -> list[SurveyPage]:
    pages: Callable[..., Any] = aws.pages
    return [page async for page in pages(cast(AwsCalls, answers), spec("aws", region="us-east-1"))]


def listed(name: str, **about: Any) -> dict[str, Any]:
    return {"Name": name, **CURRENT, **about}


async def test_a_listing_of_aws_says_what_counts_when_a_secret_is_moved() -> None:
    read_on = datetime(2026, 11, 20, 0, 0, tzinfo=UTC)
    first = {
        "SecretList": [
            listed("plain", LastAccessedDate=read_on),
            listed("rds!db", OwningService="rds", RotationEnabled=True),
            listed("bad name!"),
        ],
        "NextToken": "t",
    }
    second = {"SecretList": [listed("copy", PrimaryRegion="eu-west-1")]}
    answers = Answers(first, second)
    one, two = await surveyed(answers)
    assert one.secrets == (
        Surveyed(RemotePath("plain"), read_on=date(2026, 11, 20)),
        Surveyed(RemotePath("rds!db"), traits=frozenset({Trait.OWNED, Trait.ROTATED})),
    )
    assert [name for name, _ in one.rejected] == ["bad name!"]
    assert two.secrets == (Surveyed(RemotePath("copy"), traits=frozenset({Trait.REPLICA})),)
    assert [scope.outcome for scope in (*one.scopes, *two.scopes)] == [ScopeOutcome.COMPLETE]
    assert [asked.get("NextToken") for asked in answers.asked] == [None, "t"]


async def test_a_listing_of_aws_that_is_denied_or_does_not_end_is_told() -> None:
    [page] = await surveyed(Answers(DeniedError("x", operation="list")))
    assert page.scopes[0].outcome is ScopeOutcome.DENIED
    again = {"SecretList": [listed("a")], "NextToken": "t"}
    with pytest.raises(ListingError):
        await surveyed(Answers(again, again))
    many = {"SecretList": [listed(f"a{n}") for n in range(5)]}
    with pytest.raises(ListingError):
        await surveyed(Answers(many))


@pytest.mark.parametrize(
    ("mount", "namespace", "path", "words", "recoverable"),
    [
        (Mount("kv", 2), "", "kv/data/a/b", "-address=https://v -mount=kv a/b", True),
        (Mount("t/k", 2), "b", "t/k/data/a", "-address=https://v -namespace=b -mount=t/k a", True),
        (Mount("old", 1), "", "old/data/a", "-address=https://v -mount=old data/a", False),
        (Mount("kv", 2), "", "kv/data/-rf", "-address=https://v -mount=kv -- -rf", True),
        (Mount("kv", 2), "", "kv/data/a'; x", "-address=https://v -mount=kv 'a'\"'\"'; x'", True),
    ],
)  # fmt: skip
def test_a_secret_of_vault_is_deleted_by_its_mount_and_name(
    mount: Mount, namespace: str, path: str, words: str, recoverable: bool
) -> None:
    config = {"endpoint": "https://v", "namespace": namespace}
    found = vault.deletion(spec("hashicorp-vault", **config), mount, RemotePath(path))
    assert found is not None
    assert shlex.join(found.words) == f"vault kv delete {words}"
    assert found.recoverable is recoverable


@pytest.mark.parametrize(
    ("mount", "path"),
    [
        (Mount("kv", 2), "kv/data/db "),
        (Mount("kv", 2), "kv/data/ db"),
        (Mount("kv", 2), "kv/data/db\u00a0"),
        (Mount("kv ", 2), "kv /data/db"),
    ],
)
def test_a_name_that_the_tool_would_trim_has_no_command(mount: Mount, path: str) -> None:
    config = {"endpoint": "https://v"}
    assert vault.deletion(spec("hashicorp-vault", **config), mount, RemotePath(path)) is None


def test_a_secret_of_aws_is_deleted_so_that_it_can_be_restored() -> None:
    words = aws.deletion(spec("aws", region="us-east-1"), RemotePath("prod/billing/stripe")).words
    # As the guide prints it.
    assert " ".join(words) == (
        "aws secretsmanager delete-secret --secret-id prod/billing/stripe"
        " --recovery-window-in-days 30 --region us-east-1"
    )
    odd = aws.deletion(spec("aws", region="us-east-1"), RemotePath("-x")).words
    assert "--secret-id=-x" in odd
