"""Requests that nobody vouched for, in the audit log: counted, not told one by one.

Whoever has no token can send as many as they like, so each would be a way to fill the log.
One row tells of all that came from one address within some seconds. It stands in the log of
the tenant that a static token's text named, where there is one, for those tokens are tried;
else in that of the default tenant, with whose first members svsync begins.
"""

import asyncio
import json
from collections import Counter
from contextlib import suppress
from typing import Final

from svsync.domain.audit import Decision, Entry
from svsync.domain.errors import SvsyncError
from svsync.domain.ids import TenantId
from svsync.observe.logs import get_logger
from svsync.services.recording import Recorder
from svsync.store import federation
from svsync.store.database import Database

EVERY_S: Final = 10.0
"""Seconds that one row tells of."""
ADDRESSES: Final = 1_000
"""Rows of one process in that time; what comes from still more addresses is one row without
an address."""
ACTION: Final = "auth.fail"
NOBODY: Final = "anonymous"
"""Type and id of the identity in such a row."""
_DEFAULT: Final = TenantId(1)

_Who = tuple[TenantId, str | None]


class Strangers:
    """Counts what nobody vouched for, and records it."""

    def __init__(self, db: Database, recorder: Recorder) -> None:
        self._db = db
        self._recorder = recorder
        self._seen: dict[_Who, Counter[str]] = {}

    def count(self, address: str, tenant: TenantId | None, code: str) -> None:
        """One request.

        Args:
            address: or network, that it came from.
            tenant: that its token's text names, whether there is such a tenant or not.
            code: of the error that it was told.
        """
        who: _Who = (tenant or _DEFAULT, address)
        if who not in self._seen and len(self._seen) >= ADDRESSES:
            who = (_DEFAULT, None)
        self._seen.setdefault(who, Counter())[code] += 1

    async def record(self) -> None:
        """Record what was counted since the last time.

        Raises:
            SvsyncError: it could not be recorded, or nobody knows; it counts the next time.
        """
        seen, self._seen = self._seen, {}
        if not seen:
            return
        try:
            known = await federation.active_slugs(self._db)
        except BaseException:
            self._put_back(seen)
            raise
        rows: dict[_Who, Counter[str]] = {}
        for (tenant, address), codes in seen.items():
            who = (tenant if tenant in known else _DEFAULT, address)
            rows.setdefault(who, Counter()).update(codes)
        try:
            done = await asyncio.gather(
                *(self._recorder.record(_entry(who, codes)) for who, codes in rows.items()),
                return_exceptions=True,
            )
        except BaseException:
            self._put_back(rows)
            raise
        # Where nobody knows whether a row is there, it is better told twice.
        self._put_back({who: rows[who] for who, end in zip(rows, done, strict=True) if end})
        for end in done:
            if end is not None:
                raise end

    async def keep_recording(self) -> None:
        """Until cancelled."""
        failing = False
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                await self.record()
            except SvsyncError as problem:
                if not failing:
                    get_logger().warning("auth_failures_wait", error_code=problem.code)
                failing = True
            else:
                failing = False

    async def close(self) -> None:
        """Record what is left, if that can be done."""
        with suppress(SvsyncError):
            await self.record()

    def _put_back(self, counted: dict[_Who, Counter[str]]) -> None:
        for (tenant, address), codes in counted.items():
            who: _Who = (tenant, address)
            if who not in self._seen and len(self._seen) >= ADDRESSES:
                who = (_DEFAULT, None)
            self._seen.setdefault(who, Counter()).update(codes)


def _entry(who: _Who, codes: Counter[str]) -> Entry:
    tenant, address = who
    told = {"count": codes.total(), "codes": dict(sorted(codes.items()))}
    return Entry(
        tenant,
        NOBODY,
        NOBODY,
        ACTION,
        Decision.DENY,
        source_ip=address,
        detail=json.dumps(told, separators=(",", ":")),
    )
