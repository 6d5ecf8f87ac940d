"""Secrets as whoever runs this program on the store itself reads and writes them.

It is the way of any other caller, with every permission: what is not here is read through
its backend, and each access is in the audit log before it is done.
"""

import json
from collections.abc import AsyncGenerator
from typing import Any, Final

from svsync.domain.access import Call, Caller, Identity, IdentityType, Scope
from svsync.domain.audit import Decision
from svsync.domain.errors import SvsyncError
from svsync.domain.ids import LocalPath, TenantId
from svsync.domain.policies import ADMIN
from svsync.domain.values import Payload
from svsync.services.answers import Source
from svsync.services.authority import Rights
from svsync.services.listing import Listing
from svsync.services.nameless import NamelessSecrets
from svsync.services.reading import Reading
from svsync.services.recording import Recorder
from svsync.services.secret_writes import SecretWrites
from svsync.services.secrets import MAX_PAGE, Secrets
from svsync.services.transfer import Given, Held, Names, is_absent
from svsync.services.write_rows import Put

_NEVER: Final = float("inf")


def operator_call(tenant: TenantId, slug: str, user: str, request_id: str) -> Call:
    """A call of `user`, who runs this program; `request_id` ties what one command does."""
    caller = Caller(
        tenant,
        slug,
        Identity(IdentityType.OPERATOR, f"cli:{user}"),
        token_id="",
        scopes=frozenset({Scope.ADMIN}),
    )
    return Call(caller, request_id, None)


class Operating:
    """Secrets of one tenant; an `Access` of `transfer`."""

    def __init__(
        self,
        call: Call,
        *,
        reading: Reading,
        listing: Listing,
        secrets: Secrets,
        writes: SecretWrites,
        recorder: Recorder,
        nameless: NamelessSecrets,
    ) -> None:
        self._call = call
        self._rights = Rights(call.caller, ADMIN, _NEVER)
        self._reading = reading
        self._listing = listing
        self._secrets = secrets
        self._writes = writes
        self._recorder = recorder
        self._nameless = nameless

    async def note(
        self, action: str, path: str | None, backend: str | None = None, detail: str | None = None
    ) -> None:
        """Record an access. Raises AuditUnavailableError: so it must not be done."""
        entry = self._call.entry(action, Decision.ALLOW, path=path, backend=backend, detail=detail)
        await self._recorder.record(entry)

    async def names(self, prefix: str) -> AsyncGenerator[Names, None]:
        await self.note("secret.list", prefix or None)
        cursor = ""
        while True:
            page: Any = await self._listing.page(
                self._call.tenant, ADMIN, prefix, limit=MAX_PAGE, cursor=cursor
            )
            yield Names(
                tuple(LocalPath(one["path"]) for one in page["secrets"]), page["incomplete"]
            )
            if (cursor := page["next_cursor"]) is None:
                break
        below = await self._nameless.below(self._call.tenant, prefix)
        yield Names((), not below.whole, below.names, below.away)

    async def read(self, path: LocalPath) -> Held:
        secret = await self._reading.read(self._call, self._rights, path, None, fresh=True)
        about = json.loads(secret.before + b"null" + secret.after)
        metadata = about["metadata"]
        return Held(
            secret.data.decode(),
            about["version"],
            about["secret_type"],
            tuple(metadata["tags"]),
            metadata["owner"],
            metadata["description"],
            metadata["custom"],
            secret.in_conflict,
            secret.source is Source.STANDBY,
        )

    async def was_deleted(self, path: LocalPath) -> bool:
        await self.note("secret.history", path)
        try:
            page: Any = await self._secrets.history(self._call.tenant, path)
        except SvsyncError as error:
            if is_absent(error):
                return False
            raise
        return any(version["state"] == "live" for version in page["versions"])

    async def write(self, path: LocalPath, given: Given, *, cas: int, detail: str) -> int:
        backend = await self._writes.backend_of(self._call.tenant, path)
        await self.note("secret.write", path, backend, detail)
        put = Put(
            Payload.from_json_text(given.text.encode()),
            secret_type=given.secret_type,
            tags=given.tags,
            owner=given.owner,
            description=given.description,
            custom=given.custom,
            max_versions=given.max_versions,
            cas=cas,
            skip_if_equal=given.skip_if_equal,
        )
        by = self._call.caller.identity.id
        return (await self._writes.write(self._call.tenant, path, put, by=by)).version
