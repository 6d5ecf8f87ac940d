"""The connection test: whose vault answers, and what the identity may do there.

Nothing is asked that writes. Permissions to change something are tried on a name made up
for the test, so that there is nothing to be changed: that it is not found is said only to
who may ask. Whether values may be set cannot be tried without setting one; the permission
to change tags goes with it in every role and access policy that Azure brings along.
"""

import time
import uuid
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from svsync.backends.azure.calls import AzureCalls
from svsync.backends.azure.listing import DELETED_SECRETS, AzureListing
from svsync.clients.azure import AzureRefusedError
from svsync.clients.azure.refusals import AddressDeniedError
from svsync.domain.errors import DeniedError
from svsync.domain.federation import BackendSpec, Mode, PathSettings, Writes
from svsync.ports import Check, Connection

PROBE: Final = "svsync-connection-test"
_LIST: Final = "list secrets"
_READ: Final = "read secrets"
_USER: Final = "Key Vault Secrets User"
_OFFICER: Final = "Key Vault Secrets Officer"
"""Roles and their actions: [Azure built-in roles for Security, role-based-access-control];
permissions of access policies: [About Azure Key Vault secrets, secrets/about-secrets]."""


@dataclass
class ConnectionTest:
    """One test. Raises what the backend as a whole fails with, a firewall that lets nobody
    in from here included: no role would help against it."""

    spec: BackendSpec
    calls: AzureCalls
    listing: AzureListing
    _checks: dict[str, Check] = field(default_factory=dict)

    async def run(self, *, probe: bool) -> Connection:
        session = self.calls.session
        await session.sign_in()
        started = time.monotonic()
        may_list = await self._may_list(probe=probe)
        latency_ms = (time.monotonic() - started) * 1000
        identity = f"azure:{session.settings.host}:{session.directory}"
        if not probe:
            return Connection(identity, "healthy", latency_ms=latency_ms)
        self._checks = {}
        settings = [self.spec.for_rule(rule) for rule in self.spec.rules if not rule.exclude]
        syncs = any(one.mode is Mode.SYNC for one in settings)
        self._note(_LIST, may_list, "list", "readMetadata", _USER, optional=not syncs)
        granted = await self._try("GET", f"/secrets/{PROBE}/")
        self._note(_READ, granted, "get", "getSecret", _USER)
        granted = await self._try("GET", DELETED_SECRETS, {"maxresults": "1"})
        self._note("see deleted secrets", granted, "list", "readMetadata", _USER, optional=True)
        if any(one.writes is Writes.WRITE_THROUGH for one in settings):
            await self._check_writes(settings)
        return Connection(identity, self._status(), "", latency_ms, tuple(self._checks.values()))

    async def _check_writes(self, settings: list[PathSettings]) -> None:
        nobody = f"{PROBE}-{uuid.uuid4().hex}"
        granted = await self._try("PATCH", f"/secrets/{nobody}/{'0' * 32}", body={"tags": {}})
        self._note("write secrets and their tags", granted, "set", "setSecret", _OFFICER)
        granted = await self._try("POST", f"/deletedsecrets/{nobody}/recover")
        self._note("recover secrets", granted, "recover", "recover", _OFFICER, optional=True)
        if any(one.propagate_deletes for one in settings):
            granted = await self._try("DELETE", f"/secrets/{nobody}")
            self._note("delete secrets", granted, "delete", "delete", _OFFICER)

    async def _may_list(self, *, probe: bool) -> bool:
        """A run lists next, and does not ask for its first page twice."""
        try:
            await self.listing.look(keep=not probe)
        except AddressDeniedError:
            raise
        except DeniedError:
            return False
        return True

    async def _try(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        body: dict[str, Any] | None = None,
    ) -> bool:
        try:
            await self.calls.request("metadata", method, path, PROBE, query=query, body=body)
        except AddressDeniedError:
            raise
        except DeniedError:
            return False
        except AzureRefusedError:
            return True  # there is no such secret
        return True

    def _note(
        self,
        name: str,
        granted: bool,
        permission: str,
        action: str,
        role: str,
        *,
        optional: bool = False,
    ) -> None:
        lacking: Literal["missing_optional", "missing"] = (
            "missing_optional" if optional else "missing"
        )
        if granted:
            self._checks[name] = Check(name, "granted")
            return
        hint = (
            f"the role {role} (Microsoft.KeyVault/vaults/secrets/{action}/action) on the vault,"
            f" or its access policy with the secret permission {permission}"
        )
        self._checks[name] = Check(name, lacking, hint)

    def _status(self) -> Literal["healthy", "degraded", "denied"]:
        missing = {name for name, check in self._checks.items() if check.state == "missing"}
        if not missing:
            return "healthy"
        return "denied" if missing & {_LIST, _READ} else "degraded"
