"""The connection test: who answers, and what the credential may do there.

Nothing is asked that writes. Each permission to read is tried where it counts, because
`sys/capabilities-self` is itself a permission that a narrow role lacks; those to write,
where local writes go through, are asked for there.
"""

import time
from collections.abc import Sequence
from typing import Any, Literal

from svsync.backends.vault.calls import VaultCalls
from svsync.backends.vault.kv import Mount
from svsync.backends.vault.rights import (
    ASKING,
    PROBE,
    Right,
    own_token,
    policy_line,
    to_write,
    written,
)
from svsync.domain.errors import (
    BackendError,
    BackendUnreachableError,
    DeniedError,
    LoginError,
    MappingError,
    ProtocolError,
    ThrottledError,
)
from svsync.domain.federation import BackendSpec
from svsync.domain.mapping import RuleSet
from svsync.ports import Check, Connection, Operation


class ConnectionTest:
    """One test. Raises what the backend as a whole fails with, and MappingError
    for a rule whose remote side is not a path of its mount."""

    def __init__(self, spec: BackendSpec, rules: RuleSet, calls: VaultCalls) -> None:
        self._spec = spec
        self._rules = rules
        self._calls = calls
        self._checks: dict[str, Check] = {}
        self._warnings: list[str] = []

    async def run(self, prefixes: Sequence[str], *, probe: bool) -> Connection:
        started = time.monotonic()
        identity, version = await self._identify()
        latency_ms = (time.monotonic() - started) * 1000
        await self._calls.session.sign_in()
        for prefix in prefixes:
            mount = await self._check_mount(prefix)
            if probe and mount is not None:
                await self._check_prefix(prefix, mount)
        if probe:
            await self._check_own_token()
            await self._check_rights()
        if self._spec.config.get("tls_verify") is False:
            self._warnings.append("tls_verify is off: anybody on the way can read every secret")
        return Connection(
            identity,
            self._status(prefixes) if probe or self._checks else "healthy",
            version,
            latency_ms,
            tuple(self._checks.values()),
            tuple(self._warnings),
        )

    async def _identify(self) -> tuple[str, str]:
        """Cluster id and version; needs no token, in any namespace.

        `sys/seal-status` before `sys/health`, whose status changes with the role
        of the node that answers.
        """
        told: dict[str, Any] = {}
        for path in ("sys/seal-status", "sys/health?standbyok=true&perfstandbyok=true"):
            try:
                answer = await self._calls.ask_server(path)
            except (BackendUnreachableError, ThrottledError, ProtocolError):
                raise
            except BackendError as refused:
                if refused.status is None:  # nobody was asked: the other path says no more
                    raise
                continue
            if answer.status == 200:
                told = answer.json()
                break
        if told.get("sealed") is True:
            raise BackendUnreachableError("the backend is sealed", operation="connect")
        identity = told.get("cluster_id")
        if not isinstance(identity, str) or not identity:
            raise ProtocolError(
                "the endpoint does not tell its cluster id: neither sys/seal-status nor"
                " sys/health answers as a Vault does",
                operation="connect",
            )
        return identity, str(told.get("version", ""))

    async def _check_mount(self, prefix: str) -> Mount | None:
        """The mount of a prefix, once the rule is written as its version wants it."""
        try:
            mount = await self._calls.find_mount(prefix)
        except DeniedError:
            self._note(
                f"find mount of {prefix}", missing=True, hint=policy_line(f"{prefix}*", "read")
            )
            return None
        if not mount.holds(prefix):
            self._refuse_rule(mount)
        return mount

    async def _check_prefix(self, prefix: str, mount: Mount) -> None:
        below = prefix[len(mount.root) :]
        if mount.version == 1:
            line = policy_line(f"{mount.path}/{below}*", "read", "list")
            listed = mount.url("", prefix) + "?list=true"
            await self._try(f"list {prefix}", "list", listed, line)
            await self._try(f"read {prefix}", "read", mount.url("", prefix + PROBE), line)
            return
        metadata = policy_line(f"{mount.path}/metadata/{below}*", "read", "list")
        data = policy_line(f"{mount.path}/data/{below}*", "read")
        detailed = policy_line(f"{mount.path}/detailed-metadata/{below}*", "list")
        listed = mount.url("metadata", prefix) + "?list=true"
        probe = mount.url("metadata", prefix + PROBE)
        await self._try(f"list {prefix}", "list", listed, metadata)
        await self._try(f"metadata of {prefix}", "metadata", probe, metadata)
        probe = mount.url("data", prefix + PROBE)
        await self._try(f"read {prefix}", "read", probe, data)
        listed = mount.url("detailed-metadata", prefix) + "?list=true&limit=1"
        await self._try(
            f"fast listing of {prefix} (OpenBao)", "list", listed, detailed, optional=True
        )

    def _refuse_rule(self, mount: Mount) -> None:
        """A KV v2 rule without `data/`: say how it has to be written."""
        for index, rule in enumerate(self._spec.rules):
            if rule.exclude or not rule.remote.startswith(f"{mount.path}/"):
                continue
            if not mount.holds(rule.remote):
                name = rule.remote.removeprefix(f"{mount.path}/")
                name = name.removeprefix("metadata/")
                raise MappingError(
                    f"{mount.path} is a KV v2 mount: write remote: {mount.root}{name}",
                    where=f"path_mapping[{index}].remote",
                )
        raise MappingError(f"paths of the KV v2 mount {mount.path} begin with {mount.root}")

    async def _check_own_token(self) -> None:
        """Whether the token may look after itself, and what it costs."""
        try:
            answer = await self._calls.request("login", "GET", "auth/token/lookup-self", "")
        except DeniedError:
            self._note(
                "look up own token",
                missing=True,
                optional=True,
                hint=policy_line("auth/token/lookup-self", "read"),
            )
        else:
            data = answer.json().get("data")
            self._note("look up own token")
            if isinstance(data, dict) and "default" in (data.get("policies") or ()):
                self._warnings.append(
                    "the token carries the policy `default`, which doubles what each read costs an"
                    " OpenBao server: set token_no_default_policy=true on the role, and grant"
                    " renew-self, lookup-self and revoke-self"
                )

    async def _check_rights(self) -> None:
        """What is not tried, because that would be doing it."""
        writes = await self._rights_to_write()
        rights = [*own_token(), *writes]
        asked = {"paths": sorted({path for right in rights for path in right.paths()})}
        try:
            answer = await self._calls.request("login", "POST", ASKING, "", asked)
        except DeniedError:
            if writes:  # of the others it need not be known
                name = "look up what it may write"
                self._note(name, missing=True, optional=True, hint=policy_line(ASKING, "update"))
            return
        told = answer.json()
        self._checks |= {right.name: right.check(told) for right in rights}

    async def _rights_to_write(self) -> list[Right]:
        found: list[Right] = []
        for place, sample in written(self._spec, self._rules.rules).items():
            try:
                mount = await self._calls.find_mount(sample)
            except DeniedError:
                continue  # which the reading told
            found += to_write(place, sample, mount, deletes=self._spec.propagate_deletes)
        return found

    async def _try(
        self,
        name: str,
        operation: Operation,
        url: str,
        hint: str,
        *,
        optional: bool = False,
    ) -> None:
        try:
            await self._calls.request(operation, "GET", url, name)
        except (BackendUnreachableError, ThrottledError, LoginError):
            raise
        except BackendError as error:
            if not (optional or isinstance(error, DeniedError)):
                raise
            self._note(name, missing=True, optional=optional, hint=hint)
        else:
            self._note(name)

    def _note(
        self, name: str, *, missing: bool = False, optional: bool = False, hint: str = ""
    ) -> None:
        lacking: Literal["missing_optional", "missing"] = (
            "missing_optional" if optional else "missing"
        )
        self._checks[name] = Check(name, lacking, hint) if missing else Check(name, "granted")

    def _status(self, prefixes: Sequence[str]) -> Literal["healthy", "degraded", "denied"]:
        missing = {name for name, check in self._checks.items() if check.state == "missing"}
        if not missing:
            return "healthy"
        usable = any(
            f"list {prefix}" in self._checks and not {f"list {prefix}", f"read {prefix}"} & missing
            for prefix in prefixes
        )
        return "degraded" if usable else "denied"
