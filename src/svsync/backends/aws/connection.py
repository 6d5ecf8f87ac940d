"""The connection test: whose store answers, and what the keys may do there.

Nothing is asked that could change what anybody reads. Each permission is tried on a name
that need not exist: that there is no such secret is said only to who may ask. Those that
write are tried where a look has just said that there is none. CreateSecret and
DeleteSecret are not tried: one would make what is not there, the other might meet it.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from svsync.backends.aws.calls import AwsCalls, action_of
from svsync.backends.aws.entries import listed_tags
from svsync.backends.aws.listing import AwsListing
from svsync.clients.aws import AwsRefusedError
from svsync.domain.errors import (
    BackendError,
    DeniedError,
    LoginError,
    ThrottledError,
)
from svsync.domain.federation import BackendSpec, Mode, Writes
from svsync.ports import Check, Connection, Operation

PROBE: Final = "svsync-connection-test"
_LIST: Final = "list secrets"
_NO_VERSION: Final = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True, slots=True)
class _Write:
    """A call that is tried: `does`, the secret's prefix, and `how` name it for people."""

    does: str
    method: str
    name: str
    about: Mapping[str, Any]
    how: str = ""
    optional: bool = False

    @property
    def parameters(self) -> dict[str, Any]:
        return {"SecretId": self.name, **self.about}


class ConnectionTest:
    """One test. Raises what the backend as a whole fails with."""

    def __init__(self, spec: BackendSpec, calls: AwsCalls, listing: AwsListing) -> None:
        self._spec = spec
        self._calls = calls
        self._listing = listing
        self._region = str(spec.config["region"])
        self._account = ""
        self._checks: dict[str, Check] = {}

    async def run(self, prefixes: Sequence[str], *, probe: bool) -> Connection:
        await self._calls.session.sign_in("secretsmanager")
        started = time.monotonic()
        may_list = await self._may_list(prefixes, probe=probe)
        latency_ms = (time.monotonic() - started) * 1000
        self._account = self._listing.account or await self._caller_account()
        identity = f"aws:{self._account}:{self._region}" if self._account else ""
        if not probe:
            return Connection(identity, "healthy", latency_ms=latency_ms)
        self._note(_LIST, granted=may_list, action="ListSecrets", optional=not self._syncs())
        for prefix in prefixes:
            await self._check_prefix(prefix)
        return Connection(
            identity, self._status(prefixes), "", latency_ms, tuple(self._checks.values())
        )

    async def _may_list(self, prefixes: Sequence[str], *, probe: bool) -> bool:
        """A run lists next, and does not ask for its first page twice."""
        try:
            await self._listing.look(prefixes, keep=not probe)
        except DeniedError:
            return False
        return True

    async def _caller_account(self) -> str:
        """Where no secret tells it. What stands at `endpoint_url` may know no STS: then the
        account is unknown until a secret tells it."""
        try:
            return await self._calls.caller_account()
        except (LoginError, ThrottledError):
            raise
        except BackendError as error:
            if error.code == "endpoint_refused":
                raise
            return ""

    async def _check_prefix(self, prefix: str) -> None:
        name = prefix + PROBE
        describe = f"describe {prefix or 'secrets'}"
        granted, free = await self._try("metadata", "describe_secret", SecretId=name)
        self._note(describe, granted=granted, action="DescribeSecret", prefix=prefix)
        granted, _ = await self._try("read", "get_secret_value", SecretId=name)
        self._note(_read(prefix), granted=granted, action="GetSecretValue", prefix=prefix)
        granted, _ = await self._try("read", "batch_get_secret_value", SecretIdList=[name])
        self._note(
            "read twenty at a time", granted=granted, action="BatchGetSecretValue", optional=True
        )
        if not self._writes_through():
            return
        for asked in self._writes(name) if free else self._moves(name):
            granted, _ = await self._try("metadata", asked.method, **asked.parameters)
            self._note(
                f"{asked.does} {prefix or 'secrets'}{asked.how}",
                granted=granted,
                action=action_of(asked.method),
                prefix=prefix,
                optional=asked.optional,
            )

    def _moves(self, name: str) -> Iterator[_Write]:
        """What does nothing also where the secret is there after all."""
        label = {"VersionStage": PROBE, "RemoveFromVersionId": _NO_VERSION}
        yield _Write("write", "update_secret_version_stage", name, label, how=" on a condition")
        yield _Write("take tags from", "untag_resource", name, {"TagKeys": [PROBE]}, optional=True)

    def _writes(self, name: str) -> Iterator[_Write]:
        """All of them: a look said that the secret is not there. Should somebody make it
        meanwhile, it gets a version without AWSCURRENT and a tag, and nothing else."""
        yield from self._moves(name)
        value = {"SecretString": "{}", "VersionStages": [PROBE], "ClientRequestToken": _NO_VERSION}
        yield _Write("write", "put_secret_value", name, value)
        tags = {"Tags": listed_tags({PROBE: ""})}
        yield _Write("tag", "tag_resource", name, tags, optional=True)
        yield _Write("restore", "restore_secret", name, {}, optional=True)

    async def _try(self, operation: Operation, method: str, **parameters: Any) -> tuple[bool, bool]:
        """Whether it is granted, and whether AWS says that there is no such secret."""
        try:
            await self._calls.request(operation, method, PROBE, **parameters)
        except DeniedError:
            return False, False
        except AwsRefusedError as refused:
            return True, refused.reason == "ResourceNotFoundException"
        return True, False

    def _note(
        self,
        name: str,
        *,
        granted: bool,
        action: str,
        prefix: str | None = None,
        optional: bool = False,
    ) -> None:
        lacking: Literal["missing_optional", "missing"] = (
            "missing_optional" if optional else "missing"
        )
        if granted:
            self._checks[name] = Check(name, "granted")
            return
        resource = "*"  # neither of the two that have no prefix can be granted for less
        if prefix is not None:
            account = self._account or "*"
            partition = {"cn": "aws-cn", "us-gov": "aws-us-gov"}.get(
                self._region.rpartition("-")[0].rpartition("-")[0], "aws"
            )
            resource = f"arn:{partition}:secretsmanager:{self._region}:{account}:secret:{prefix}*"
        self._checks[name] = Check(name, lacking, _statement(action, resource))

    def _status(self, prefixes: Sequence[str]) -> Literal["healthy", "degraded", "denied"]:
        missing = {name for name, check in self._checks.items() if check.state == "missing"}
        if not missing:
            return "healthy"
        readable = any(_read(prefix) not in missing for prefix in prefixes)
        return "degraded" if readable and _LIST not in missing else "denied"

    def _syncs(self) -> bool:
        return any(
            self._spec.for_rule(rule).mode is Mode.SYNC
            for rule in self._spec.rules
            if not rule.exclude
        )

    def _writes_through(self) -> bool:
        return any(
            self._spec.for_rule(rule).writes is Writes.WRITE_THROUGH
            for rule in self._spec.rules
            if not rule.exclude
        )


def _read(prefix: str) -> str:
    return f"read {prefix or 'secrets'}"


def _statement(action: str, resource: str) -> str:
    """A statement for the policy, as a person pastes it."""
    return json.dumps(
        {"Effect": "Allow", "Action": f"secretsmanager:{action}", "Resource": resource}
    )
