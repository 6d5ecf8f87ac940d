"""The connection test: whose store answers, and what the identity may do there.

Nothing is asked that writes. Where a secret is known below a prefix, Google tells what is
held on it (TestIamPermissions), with what is granted on it alone and under conditions.
Where there is none, each call is tried on a name that need not exist: that there is no
such secret is said only to who may ask. Whether secrets may be made cannot be told so.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from svsync.backends.gcp.calls import PERMISSIONS, GcpCalls
from svsync.backends.gcp.entries import LATEST
from svsync.backends.gcp.listing import GcpListing
from svsync.clients.gcp import GcpRefusedError
from svsync.domain.errors import DeniedError
from svsync.domain.federation import BackendSpec, Mode, PathSettings, Writes
from svsync.ports import Check, Connection

PROBE: Final = "svsync-connection-test"
_LIST: Final = "list secrets"

_ACCESSOR: Final = "roles/secretmanager.secretAccessor"
_VIEWER: Final = "roles/secretmanager.viewer"
_MANAGER: Final = "roles/secretmanager.secretVersionManager"
_ADMIN: Final = "roles/secretmanager.admin"


@dataclass(frozen=True, slots=True)
class _Needed:
    """What is done below a prefix, by which calls, and the least of Google's own roles that
    grants them ("Secret Manager roles and permissions")."""

    does: str
    methods: tuple[str, ...]
    role: str
    optional: bool = False

    @property
    def permissions(self) -> tuple[str, ...]:
        return tuple(PERMISSIONS[method] for method in self.methods)


_READ: Final = _Needed("read", ("access_secret_version",), _ACCESSOR)
_LOOK: Final = _Needed("look at", ("get_secret", "get_secret_version"), _VIEWER)
_HISTORY: Final = _Needed("list versions of", ("list_secret_versions",), _VIEWER, optional=True)
_WRITE: Final = _Needed("write", ("add_secret_version",), _MANAGER)
_TAG: Final = _Needed("label", ("update_secret",), _ADMIN, optional=True)
_DELETE: Final = _Needed(
    "disable versions of", ("disable_secret_version", "enable_secret_version"), _MANAGER
)


class ConnectionTest:
    """One test. Raises what the backend as a whole fails with."""

    def __init__(self, spec: BackendSpec, calls: GcpCalls, listing: GcpListing) -> None:
        self._spec = spec
        self._calls = calls
        self._listing = listing
        self._location = str(spec.config.get("location") or "")
        self._checks: dict[str, Check] = {}

    async def run(self, prefixes: Sequence[str], *, probe: bool) -> Connection:
        await self._calls.session.sign_in()
        started = time.monotonic()
        names = await self._names(keep=not probe)
        latency_ms = (time.monotonic() - started) * 1000
        identity = self._identity()
        if not probe:
            return Connection(identity, "healthy", latency_ms=latency_ms)
        syncs = any(one.mode is Mode.SYNC for one in self._settings())
        may_list = names is not None
        warnings = []
        self._note(_LIST, may_list, ("secretmanager.secrets.list",), _VIEWER, optional=not syncs)
        for prefix in prefixes:
            sample = next((name for name in names or () if name.startswith(prefix)), "")
            await self._check_prefix(prefix, sample)
            # Where the right to list is missing that is said, and this comes after it.
            if not sample and self._written_through() and (may_list or not syncs):
                warnings.append(
                    f"whether {f'secrets below {prefix}' if prefix else 'secrets'} may be written"
                    " cannot be told while svsync sees none there"
                )
        return Connection(
            identity,
            self._status(prefixes),
            "",
            latency_ms,
            tuple(self._checks.values()),
            tuple(warnings),
        )

    async def _names(self, *, keep: bool) -> list[str] | None:
        """Those on the first page, None where it is denied. A run lists next, and does not
        ask for that page twice."""
        try:
            return await self._listing.look(keep=keep)
        except DeniedError:
            return None

    def _identity(self) -> str:
        """The project by its number. One that is configured by its name and shows no secret
        does not tell it, and is known once it shows one."""
        project = str(self._spec.config["project_id"])
        number = project if project.isdigit() else self._listing.project
        place = f":{self._location}" if self._location else ""
        return f"gcp:{number}{place}" if number else ""

    async def _check_prefix(self, prefix: str, sample: str) -> None:
        needed = list(self._needed(writes=bool(sample)))
        held = await self._held(sample, needed) if sample else None
        for one in needed:
            if held is not None:
                missing = tuple(name for name in one.permissions if name not in held)
            else:
                missing = await self._denied(prefix + PROBE, one)
            name = f"{one.does} {prefix or 'secrets'}"
            self._note(name, not missing, missing, one.role, optional=one.optional)

    def _needed(self, *, writes: bool) -> Iterator[_Needed]:
        yield _READ
        yield _LOOK
        yield _HISTORY
        settings = self._written_through()
        if writes and settings:
            yield _WRITE
            yield _TAG
            if any(one.propagate_deletes for one in settings):
                yield _DELETE

    async def _held(self, sample: str, needed: Sequence[_Needed]) -> frozenset[str]:
        asked = [name for one in needed for name in one.permissions]
        answer = await self._calls.request(
            "metadata",
            "test_iam_permissions",
            sample,
            resource=self._calls.name(sample),
            permissions=asked,
        )
        return frozenset(answer.permissions)

    async def _denied(self, path: str, needed: _Needed) -> tuple[str, ...]:
        """Those of the permissions without which a call is denied."""
        denied = []
        for method in needed.methods:
            name = self._calls.name(path)
            asked = {"parent": name} if method.startswith("list") else {"name": name}
            if "version" in method and "name" in asked:
                asked = {"name": self._calls.name(path, LATEST)}
            operation: Literal["read", "metadata"] = (
                "read" if method.startswith("access") else "metadata"
            )
            try:
                await self._calls.request(operation, method, PROBE, **asked)
            except DeniedError:
                denied.append(PERMISSIONS[method])
            except GcpRefusedError:
                continue  # there is no such secret
        return tuple(denied)

    def _note(
        self, name: str, granted: bool, missing: Sequence[str], role: str, *, optional: bool
    ) -> None:
        if granted:
            self._checks[name] = Check(name, "granted")
            return
        lacking: Literal["missing_optional", "missing"] = (
            "missing_optional" if optional else "missing"
        )
        project = self._spec.config["project_id"]
        hint = f"grant {role} on projects/{project} ({', '.join(missing)})"
        self._checks[name] = Check(name, lacking, hint)

    def _status(self, prefixes: Sequence[str]) -> Literal["healthy", "degraded", "denied"]:
        missing = {name for name, check in self._checks.items() if check.state == "missing"}
        if not missing:
            return "healthy"
        readable = any(f"read {prefix or 'secrets'}" not in missing for prefix in prefixes)
        return "degraded" if readable and _LIST not in missing else "denied"

    def _settings(self) -> list[PathSettings]:
        spec = self._spec
        return [spec.for_rule(rule) for rule in spec.rules if not rule.exclude]

    def _written_through(self) -> list[PathSettings]:
        return [one for one in self._settings() if one.writes is Writes.WRITE_THROUGH]
