"""A request that brings a key is done once, however often it is sent.

The key is taken in a transaction of its own before anything is done, and what became of
the request is written beside it afterwards. What holds, then:

- A repeated request gets the answer of the first one, and nothing is done.
- A request of which it is certain that it did nothing gives its key back.
- Whoever dies between the two leaves a key that is under way, and after a while lost: a
  repeated request is told that nobody knows, and does nothing either. So nothing is done
  twice in silence; it is for the caller to look, and to go on with another key.

A key belongs to an identity of a tenant. It stands for one request: its method, its path,
its conditions and its body, of which a keyed hash is kept. Answers are kept for a day, and
never one that holds a secret.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from svsync.domain.access import Call
from svsync.domain.errors import StoreError, SvsyncError, WriteOutcomeUnknownError
from svsync.domain.ids import TenantId
from svsync.observe.logs import get_logger
from svsync.services.sealing import Sealing
from svsync.store import idempotency as store
from svsync.store.database import Database, Row
from svsync.store.idempotency import Attempt

KEPT_S: Final = 86_400.0
"""Seconds for which a key stands for its request."""
LOST_S: Final = 600.0
"""Seconds after which nobody can be at a request any more: longer than the waits of any one
together."""
_TRIES: Final = 3


class KeyReusedError(SvsyncError):
    """The key stands for another request."""

    code = "idempotency_key_reused"

    def __init__(self) -> None:
        super().__init__(
            "this Idempotency-Key was sent with another request: send a new one with each"
            " request that is not a repeated one"
        )


class KeyTakenError(SvsyncError):
    """The request was sent before, and its answer cannot be given."""

    code = "idempotency_in_progress"


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """What was answered; `headers` are those that belong to it."""

    status: int
    headers: Mapping[str, str]
    text: str


class Idempotency:
    """The keys of every tenant's requests."""

    def __init__(self, db: Database, sealing: Sealing, *, ids: Callable[[str], str]) -> None:
        """`ids` draws a new unique id with a prefix."""
        self._db = db
        self._sealing = sealing
        self._ids = ids

    async def begin(self, call: Call, key: str, request: bytes) -> Attempt | KeptAnswer:
        """Take a key for a request, or tell what became of the same one.

        Args:
            request: all that makes the request what it is, body included.

        Raises:
            KeyReusedError: the key stands for another request.
            KeyTakenError: `idempotency_in_progress`, `idempotency_outcome_unknown`,
                `idempotency_answer_not_kept`.
            WriteOutcomeUnknownError: that was the answer.
            StoreError: the key was not taken.
        """
        keys = await self._sealing.for_tenant(call.tenant)
        hashed = keys.digest_of_request(request)
        attempt = Attempt(call.caller.identity.id, key, self._ids("idm"))
        for _ in range(_TRIES):
            async with self._db.transaction(call.tenant) as tx:
                if await store.begin(tx, attempt, hashed, KEPT_S):
                    return attempt
                row = await store.find(tx, attempt, LOST_S)
            if row is not None:  # else it was given back meanwhile
                return _told(row, hashed)
        raise _in_progress()

    async def keep(self, tenant: TenantId, attempt: Attempt, answer: KeptAnswer | None) -> None:
        """Write down that a request was done, and its answer; None: that holds a secret.

        The request is done whether or not this can be written: where it cannot, a repeated
        one is told that nobody knows.
        """
        status = headers = text = None
        if answer is not None:
            status, headers, text = answer.status, json.dumps(dict(answer.headers)), answer.text
        try:
            async with self._db.transaction(tenant) as tx:
                await store.finish(tx, attempt, "done", status, headers, text)
        except StoreError as lost:
            get_logger().warning("idempotency_answer_lost", error_code=lost.code)

    async def fail(
        self, tenant: TenantId, attempt: Attempt, error: BaseException, *, certain: bool
    ) -> None:
        """Give the key back, where it is certain that nothing was done; else write down that
        nobody knows. Where neither can be written, a repeated request is told the latter."""
        with suppress(StoreError):
            async with self._db.transaction(tenant) as tx:
                if certain:
                    await store.release(tx, attempt)
                else:
                    await store.finish(tx, attempt, "unknown", answer=_unknown_of(error))


def _unknown_of(error: BaseException) -> str | None:
    if not isinstance(error, WriteOutcomeUnknownError):
        return None
    return json.dumps({"message": error.message, "push_id": error.push_id})


def _told(row: Row, hashed: bytes) -> KeptAnswer:
    if row["request"] != hashed:
        raise KeyReusedError
    match row["state"]:
        case "done" if row["status"] is not None:
            return KeptAnswer(row["status"], json.loads(row["headers"]), row["answer"])
        case "done":
            raise KeyTakenError(
                "the request with this Idempotency-Key was done; its answer held a secret, which"
                " is shown once and not kept: look at what it made",
                code="idempotency_answer_not_kept",
            )
        case "unknown" if row["answer"] is not None:
            raise WriteOutcomeUnknownError(**json.loads(row["answer"]))
        case "under_way" if not row["lost"]:
            raise _in_progress()
    raise KeyTakenError(
        "nobody knows whether the request with this Idempotency-Key was done: see what is there,"
        " and go on with another key",
        code="idempotency_outcome_unknown",
    )


def _in_progress() -> KeyTakenError:
    return KeyTakenError(
        "the request with this Idempotency-Key is under way: wait a moment, and send it again"
    )
