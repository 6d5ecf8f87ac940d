"""Checkpoints: what ties the chains of the audit log together, signed, and kept outside.

Every 10 seconds, or sooner where much was recorded, one process writes for each tenant
whose chains went on where they stand now, names the checkpoint before, and signs that. One
transaction reads the heads and writes the checkpoint, under a lock of the tenant: whatever
dies, there is no gap and no number twice. Then each place outside is given what it lacks,
in order; what it did not take it is given again with the next checkpoint.

What was recorded after the last checkpoint rests on its chain alone: it could be cut off.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from svsync.domain.access import TenantShreddedError
from svsync.domain.audit import FIRST, Checkpoint, anchor_text, heads_text, root_of
from svsync.domain.errors import AnchorError, KeyServiceError, SvsyncError
from svsync.domain.ids import TenantId
from svsync.observe.logs import get_logger
from svsync.ports import Anchor, ReadableAnchor
from svsync.services.recording import Recorder
from svsync.services.signing import Signer, Signing
from svsync.services.singletons import turn_at
from svsync.store import checkpoints as store
from svsync.store.database import Database, Row
from svsync.store.tenants import shredded

EVERY_S: Final = 10.0
"""Seconds between two checkpoints of chains that go on."""
TASK: Final = "audit-checkpoints"
LATE_S: Final = 120.0
"""Seconds after which a checkpoint that a place outside lacks is something to look into."""
_PAGE: Final = 500
_MOST: Final = 10_000
"""Checkpoints that a place is brought up to date with; the older ones hang on those by
their hashes."""
_WARN_AGAIN_S: Final = 600.0


class Checkpoints:
    """Writes checkpoints, of every tenant, and gives them to the places outside."""

    def __init__(
        self,
        db: Database,
        signing: Signing,
        anchors: Sequence[Anchor],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` gives monotonic seconds: a place that fails is not warned of at each turn."""
        self._db = db
        self._signing = signing
        self._anchors = anchors
        self._clock = clock
        self._failing: dict[str, float] = {}

    @property
    def places(self) -> list[str]:
        return [anchor.place for anchor in self._anchors]

    @property
    def readable(self) -> Mapping[str, ReadableAnchor]:
        """Those places that can be read back, by what they are called."""
        return {a.place: a for a in self._anchors if isinstance(a, ReadableAnchor)}

    async def run(self) -> int:
        """Write the checkpoints that are due now, and anchor what is not yet; how many were
        written.

        Raises:
            StoreError: some were not written; they are due still.
        """
        tenants = await store.tenants(self._db)
        async with self._db.transaction_of(list(tenants), read_only=True) as tx:
            due = await store.went_on(tx, list(tenants))
        made = 0
        for tenant in due:
            try:
                signer = await self._signing.signer(tenant)
            except TenantShreddedError:  # just now
                continue
            except KeyServiceError as problem:  # the others' are written all the same
                get_logger().error(
                    "audit_checkpoint_failed", tenant=tenants[tenant], error_code=problem.code
                )
                continue
            made += await self._write(tenant, signer)
        # The last of one that was shredded is to be outside as well.
        tenants |= await shredded(self._db)
        for anchor in self._anchors:
            await self._bring_up_to_date(anchor, tenants)
        return made

    async def cover(self, tenant: TenantId) -> bool:
        """Have all that was recorded of a tenant under a checkpoint now; False: nothing signs it.

        Raises StoreError.
        """
        try:
            signer = await self._signing.signer(tenant)
        except KeyServiceError as problem:
            get_logger().error("audit_checkpoint_failed", error_code=problem.code)
            return False
        await self._write(tenant, signer)
        return True

    async def wake(self) -> None:
        """Have chains at rest that went on all the same covered by the next checkpoint.

        Raises StoreError.
        """
        tenants = await store.tenants(self._db)
        async with self._db.transaction_of(list(tenants)) as tx:
            await store.wake(tx, list(tenants))

    async def _write(self, tenant: TenantId, signer: Signer) -> bool:
        async with self._db.transaction(tenant) as tx:
            await store.lock(tx)
            last = await store.last(tx)
            heads = await store.heads(tx)
            if not heads:
                return False
            text = heads_text(heads)
            if last["n"] is None:
                n, before, at = 1, FIRST, last["now"]
            else:
                # A clock that was set back puts no checkpoint before the last one.
                n, before, at = last["n"] + 1, last["hash"], max(last["now"], last["at"])
            made = Checkpoint(tenant, n, at, root_of(text), before)
            await store.add(tx, made, text, signer.key_id, signer.sign(made.signed_text()))
            await store.cover(tx, heads, at)
        return True

    # --- outside --------------------------------------------------------------------

    async def _bring_up_to_date(self, anchor: Anchor, tenants: dict[TenantId, str]) -> None:
        async with self._db.transaction_of(list(tenants), read_only=True) as tx:
            behind = await store.behind(tx, list(tenants), anchor.place)
        try:
            for row in behind:
                tenant = TenantId(row["tenant_id"])
                # A place that is new begins with the newest.
                have = row["newest"] - 1 if row["last_n"] is None else row["last_n"]
                await self._keep(anchor, tenant, tenants[tenant], max(have, row["newest"] - _MOST))
        except AnchorError as problem:
            self._warn(anchor.place, problem)
            return
        if self._failing.pop(anchor.place, None) is not None:
            get_logger().info("audit_anchor_answers", detail=anchor.place)

    async def _keep(self, anchor: Anchor, tenant: TenantId, slug: str, have: int) -> None:
        while True:
            async with self._db.transaction(tenant, read_only=True) as tx:
                rows = await store.page(tx, have, _PAGE)
            if not rows:
                return
            await anchor.keep([_line(tenant, slug, row) for row in rows])
            first, have = rows[0]["n"], rows[-1]["n"]
            async with self._db.transaction(tenant) as tx:
                await store.anchored(tx, anchor.place, first, have)
            if len(rows) < _PAGE:
                return

    def _warn(self, place: str, problem: AnchorError) -> None:
        now = self._clock()
        said = self._failing.get(place)
        if said is None or now - said >= _WARN_AGAIN_S:
            self._failing[place] = now
            get_logger().warning(
                "audit_anchor_failed", error_code=problem.code, detail=problem.message
            )


def _line(tenant: TenantId, slug: str, row: Row) -> str:
    made = store.checkpoint_of(tenant, row)
    return anchor_text(made, slug, row["key_id"], row["signature"])


async def keep_checkpoints(
    db: Database, checkpoints: Checkpoints, recorder: Recorder, holder: str
) -> None:
    """Write checkpoints until cancelled, whichever process has the turn."""
    while True:
        many = await recorder.wait_for_rows(EVERY_S)
        try:
            # A little less, so that each waits for its own clock and none for two rounds.
            every_s = 0.5 if many else EVERY_S - 1
            async with turn_at(db, TASK, holder, every_s=every_s) as ours:
                if ours:
                    await checkpoints.run()
        except SvsyncError as problem:
            get_logger().warning("audit_checkpoints_wait", error_code=problem.code)
