"""What a region of AWS Secrets Manager holds, and how a person deletes it there.

One listing tells all of it: whether a secret is rotated, who owns it, of which region it is
a replica, and on which day it was last read.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, Final

from svsync.backends.aws.calls import AwsCalls
from svsync.backends.aws.entries import MAX_NAME, SEGMENT, entry_of
from svsync.backends.aws.listing import PAGE
from svsync.domain.changes import Scope, ScopeOutcome
from svsync.domain.errors import DeniedError, ListingError
from svsync.domain.federation import BackendSpec
from svsync.domain.ids import RemotePath
from svsync.domain.inventory import Surveyed, SurveyPage, Trait
from svsync.domain.paths import remote_problem
from svsync.domain.retirement import Deletion

_RECOVERY_DAYS: Final = "30"


async def pages(calls: AwsCalls, spec: BackendSpec) -> AsyncGenerator[SurveyPage]:
    """Raises ListingError (`listing_unbounded`)."""
    following: dict[str, str] = {}
    seen = 0
    while True:
        try:
            answer = await calls.request(
                "list", "list_secrets", MaxResults=PAGE, IncludePlannedDeletion=True, **following
            )
        except DeniedError:
            yield SurveyPage(scopes=(Scope("", ScopeOutcome.DENIED, "denied"),))
            return
        found = [info for info in answer.get("SecretList") or () if info.get("Name")]
        seen += len(found)
        token = answer.get("NextToken")
        if seen > spec.max_secrets or (token and token == following.get("NextToken")):
            raise ListingError(
                f"the listing does not end, or holds more than max_secrets ({spec.max_secrets})"
                " names",
                operation="list",
                code="listing_unbounded",
            )
        yield _page(found, last=not token)
        if not token:
            return
        following = {"NextToken": token}


def deletion(spec: BackendSpec, path: RemotePath) -> Deletion:
    """It can be restored for a month."""
    named = [f"--secret-id={path}"] if path.startswith("-") else ["--secret-id", path]
    days = ["--recovery-window-in-days", _RECOVERY_DAYS]
    region = ["--region", str(spec.config["region"])]
    return Deletion(("aws", "secretsmanager", "delete-secret", *named, *days, *region))


def _page(found: Sequence[Mapping[str, Any]], *, last: bool) -> SurveyPage:
    usable: list[Surveyed] = []
    rejected: list[tuple[str, str]] = []
    for info in found:
        name = str(info["Name"])
        problem = remote_problem(name, segment=SEGMENT, max_bytes=MAX_NAME)
        # The secrets that AWS's own services make have names that nobody else may give.
        if problem is not None and not info.get("OwningService"):
            rejected.append((name.encode("unicode_escape").decode(), str(problem.code)))
        else:
            usable.append(
                Surveyed(
                    RemotePath(name),
                    entry_of(info).gone,
                    frozenset(_traits(info)),
                    _day(info.get("LastAccessedDate")),
                )
            )
    scopes = (Scope("", ScopeOutcome.COMPLETE),) if last else ()
    return SurveyPage(secrets=tuple(usable), scopes=scopes, rejected=tuple(rejected))


def _traits(info: Mapping[str, Any]) -> list[Trait]:
    told = {
        Trait.OWNED: info.get("OwningService"),
        Trait.ROTATED: info.get("RotationEnabled"),
        Trait.REPLICA: _is_replica(info),
    }
    return [trait for trait, is_so in told.items() if is_so]


def _is_replica(info: Mapping[str, Any]) -> bool:
    """Its ARN names the region that it is in."""
    parts = str(info.get("ARN", "")).split(":")
    primary = info.get("PrimaryRegion")
    return bool(primary) and len(parts) > 5 and parts[3] != primary


def _day(moment: object) -> date | None:
    return moment.astimezone(UTC).date() if isinstance(moment, datetime) else None
