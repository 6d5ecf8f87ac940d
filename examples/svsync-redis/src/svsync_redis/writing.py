"""Writing to Redis, so that nobody's version is written over unseen.

WATCH, a look, and MULTI … EXEC: Redis makes all of it or, where the key changed since the
WATCH, nothing. The look compares the whole value token, so the condition is the state that
was expected and not the key alone. Value and tags go in one transaction.
"""

import itertools
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from svsync.domain.changes import Tags
from svsync.domain.decide import PushKind
from svsync.domain.errors import BackendError, DeniedError
from svsync.domain.pushes import REMOTE_CHANGED, Landed, Ready, Refused, RemoteWrite
from svsync.ports import CallGuard, Operation
from svsync_redis.layout import KEPT, Secret, look, meta_token, secret_of, tags_text
from svsync_redis.session import Command, RedisSession

_OF_VERSION: Final = ("value", "id", "made", "deleted")
"""Fields that an earlier version keeps under its number."""


class RedisWriting:
    """Writes of one backend; paths are checked before they come here.

    Args:
        largest: bytes of a value.
    """

    def __init__(self, session: RedisSession, guard: CallGuard, largest: int) -> None:
        self._session = session
        self._guard = guard
        self._largest = largest

    async def check(self, order: RemoteWrite) -> Ready | Refused:
        """One look. Raises what speaks of the backend as a whole."""
        if order.payload is not None and order.payload.size > self._largest:
            return Refused("value_too_large")
        try:
            secret = secret_of(
                *await self._guard.call(
                    "metadata",
                    lambda: self._session.ask("metadata", order.path, *look(order.path)),
                )
            )
        except DeniedError:
            return Refused("denied")
        except ValueError as spoiled:
            return Refused("unreadable", str(spoiled))
        if not _stands(order, secret):
            return Refused(REMOTE_CHANGED)
        return Ready(order.expected_token, tags=secret.tags if secret else {})

    async def write(self, order: RemoteWrite, tags: Tags | None) -> Landed | Refused:
        """See `svsync.ports.Backend.write`."""
        operation: Operation = "delete" if order.kind is PushKind.DELETE else "write"
        try:
            return await self._guard.call(operation, lambda: self._write(operation, order, tags))
        except DeniedError:
            return Refused("denied")
        except ValueError as spoiled:
            return Refused("unreadable", str(spoiled))

    async def _write(
        self, operation: Operation, order: RemoteWrite, tags: Tags | None
    ) -> Landed | Refused:
        sent = False
        try:
            async with self._session.linked(operation, order.path) as link:
                _, *looked = await link.ask(("WATCH", order.path), *look(order.path))
                secret = secret_of(*looked)
                if not _stands(order, secret):
                    await link.ask(("UNWATCH",))
                    return Refused(REMOTE_CHANGED)
                [before] = await link.ask(("HMGET", order.path, *_OF_VERSION))
                commands, landed = _planned(order, secret, before)
                if tags is not None:
                    commands.append(("HSET", order.path, "tags", tags_text(tags)))
                    landed = replace(landed, meta_token=meta_token(tags), tags=dict(tags))
                sent = True
                made = await link.transact(*commands)
                return landed if made else Refused(REMOTE_CHANGED)
        except BackendError as error:
            error.sent = error.sent and sent
            raise

    async def find_delete(self, order: RemoteWrite) -> Landed | Refused | None:
        """What an earlier version has is kept as it was when the next one was written."""
        number = order.expected_order
        if number is None or order.expected_token is None:
            return None
        names = ("version", f"id:{number}", f"deleted:{number}")
        [[version, made_by, deleted]] = await self._guard.call(
            "metadata",
            lambda: self._session.ask("metadata", order.path, ("HMGET", order.path, *names)),
        )
        if version is None or made_by is None:
            return None
        if order.expected_token.split("|")[1] != made_by.decode():
            return None
        return Refused(REMOTE_CHANGED) if deleted is None else Landed(order=number)


def _stands(order: RemoteWrite, secret: Secret | None) -> bool:
    """Is the secret still as the order expects it?"""
    if order.kind is PushKind.METADATA:
        return secret is not None and not secret.gone
    token = None if secret is None else secret.value_token
    gone = secret is None or secret.gone
    return token == order.expected_token and gone == (order.kind is PushKind.CREATE)


def _planned(
    order: RemoteWrite, secret: Secret | None, before: Sequence[bytes | None]
) -> tuple[list[Command], Landed]:
    """The commands of one write, and what they make of it.

    Args:
        before: what the current version has of _OF_VERSION.
    """
    path = order.path
    if order.kind is PushKind.METADATA:
        return [], Landed()
    if order.payload is None:
        assert secret is not None
        token = replace(secret, state="deleted").value_token
        return [("HSET", path, "deleted", "1")], Landed(token, order=secret.version)
    number = secret.version + 1 if secret is not None else 1
    fields: dict[str, str | bytes | int] = {
        "version": number,
        "id": order.push_id,
        "made": f"{time.time():.3f}",
        "value": order.payload.reveal(),
    }
    for name, value in zip(_OF_VERSION, before, strict=True):
        if value is not None:
            fields[f"{name}:{number - 1}"] = value
    old = [f"{name}:{number - KEPT}" for name in _OF_VERSION]
    written = Secret(number, order.push_id, "current", {})
    return [
        ("HSET", path, *itertools.chain.from_iterable(fields.items())),
        ("HDEL", path, "deleted", *old),
    ], Landed(written.value_token, order=number)
