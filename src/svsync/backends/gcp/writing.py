"""Writing to GCP Secret Manager, which takes no condition on a new version.

Before a write the version that is expected is looked at, and that there is none after it,
by an access by number: that alone is strongly consistent. What somebody adds between that
look and the write stays as a version of its own, with a lower number than ours, and who
ordered the write keeps it.

A secret itself cannot be deleted recoverably, so a delete disables its newest version: on
the condition that nobody touched that one ("Use entity tags"), and undone where somebody
had added another meanwhile. A new version upon a disabled one brings the secret back.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from svsync.backends.gcp.calls import PERMISSIONS, GcpCalls, run_all
from svsync.backends.gcp.entries import (
    ENABLED,
    MAX_VALUE,
    NO_VERSION,
    bytes_of,
    number_of,
    pairs_of,
    sent_payload,
    split_pairs,
    split_token,
    state_of,
    value_token,
)
from svsync.backends.gcp.tagging import UNFIT, GcpTags
from svsync.clients.gcp import GcpRefusedError
from svsync.domain.changes import Tags
from svsync.domain.decide import PushKind
from svsync.domain.errors import BackendError, DeniedError
from svsync.domain.ids import RemotePath
from svsync.domain.pushes import REMOTE_CHANGED, Landed, Ready, Refused, RemoteWrite

_EMPTY: Final = "the secret was made, and holds no value yet"


class GcpWriting:
    """Writes of one backend; paths are checked before they come here.

    Args:
        max_bytes: largest value, below Google's own limit.
        creation: what a new secret is given beside its value and its pairs.
        labels: labels that a new secret has in any case.
    """

    def __init__(
        self,
        calls: GcpCalls,
        *,
        max_bytes: int,
        creation: Mapping[str, Any],
        labels: Mapping[str, str],
    ) -> None:
        self._calls = calls
        self._max_bytes = min(MAX_VALUE, max_bytes)
        self._creation = creation
        self._labels = labels

    async def check(self, order: RemoteWrite) -> Ready | Refused:
        """Raises what speaks of the backend as a whole."""
        if order.payload is not None and len(bytes_of(order.payload)) > self._max_bytes:
            return Refused("value_too_large")
        try:
            secret, stands, etag = await self._look(order)
        except DeniedError:
            needed = " and ".join(PERMISSIONS[m] for m in ("get_secret", "get_secret_version"))
            return Refused("denied", f"{needed} are not both granted")
        except GcpRefusedError as error:
            return Refused("unreadable", error.reason)
        if not stands:
            return Refused(REMOTE_CHANGED)
        tags = pairs_of(secret) if secret is not None else {}
        return Ready(etag or None, conditional=False, tags=tags)

    async def write(self, order: RemoteWrite, ready: Ready, tags: Tags | None) -> Landed | Refused:
        """See `ports.Backend.write`."""
        landed: Landed | Refused
        if order.kind is PushKind.METADATA:
            landed = Landed(tags=ready.tags)
        elif order.kind is PushKind.DELETE:
            landed = await self._delete(order, ready)
        elif order.expected_token is None:
            return await self._create(order, tags)
        else:
            landed = await self._add(order)
        if isinstance(landed, Refused):
            return landed
        if tags is None:
            return replace(landed, tags=None)
        return await GcpTags(self._calls).set_beside(order, landed, ready.tags or {}, tags)

    async def find_delete(self, order: RemoteWrite) -> Landed | Refused | None:
        """A version that is enabled was not deleted. When one was disabled is not told."""
        number, _ = split_token(order.expected_token or f"0|{NO_VERSION}")
        try:
            version = await self._calls.version(order.path, number)
        except (DeniedError, GcpRefusedError):
            return None
        if version is not None and state_of(version) == ENABLED:
            return Refused(REMOTE_CHANGED)
        return None

    # --- what stands --------------------------------------------------------------

    async def _look(self, order: RemoteWrite) -> tuple[Any | None, bool, str]:
        """The secret, whether it is as the order expects it, and the etag of the version
        that it names."""
        if order.kind is PushKind.METADATA or order.expected_token is None:
            secret = await self._calls.secret(order.path)
            wanted = secret is None if order.kind is PushKind.CREATE else secret is not None
            return secret, wanted and order.kind in (PushKind.CREATE, PushKind.METADATA), ""
        number, state = split_token(order.expected_token)
        secret, version, newer = await run_all(
            [
                self._calls.secret(order.path),
                self._calls.version(order.path, number) if number else _nothing(),
                self._is_there(order.path, number + 1),
            ]
        )
        there = NO_VERSION if version is None else state_of(version)
        readable = order.kind is not PushKind.CREATE
        stands = secret is not None and not newer and there == state
        etag = "" if version is None else str(version.etag)
        return secret, stands and (state == ENABLED) == readable, etag

    async def _is_there(self, path: RemotePath, number: int) -> bool:
        """Is there a version of this number, in whatever state?"""
        try:
            await self._calls.access(path, number)
        except DeniedError:
            return await self._calls.version(path, number) is not None
        except GcpRefusedError as error:
            return error.reason != "NOT_FOUND"
        return True

    # --- the value ----------------------------------------------------------------

    async def _create(self, order: RemoteWrite, tags: Tags | None) -> Landed | Refused:
        """A new secret with its pairs, without them where Google takes them not, and then
        its first version."""
        split = split_pairs({**self._labels, **(tags or {})}, {}, {})
        labels, annotations = split or (dict(self._labels), {})
        made = await self._calls.send(
            "write",
            "create_secret",
            order.path,
            parent=self._calls.parent,
            secret_id=str(order.path),
            secret={**self._creation, "labels": labels, "annotations": annotations},
        )
        if isinstance(made, Refused):
            return made
        landed = await self._add(order)
        if isinstance(landed, Refused):
            return replace(landed, detail="; ".join(filter(None, [landed.detail, _EMPTY])))
        if tags is None:
            return landed
        refused = UNFIT.reason if split is None else ""
        return replace(landed, meta_token=str(made.etag), tags=pairs_of(made), tags_refused=refused)

    async def _add(self, order: RemoteWrite) -> Landed | Refused:
        assert order.payload is not None
        added = await self._calls.send(
            "write",
            "add_secret_version",
            order.path,
            parent=self._calls.name(order.path),
            payload=sent_payload(order.payload),
        )
        if isinstance(added, Refused):
            return added
        number = number_of(added.name)
        return Landed(value_token(number, state_of(added)), order=number)

    # --- deletion -----------------------------------------------------------------

    async def _delete(self, order: RemoteWrite, ready: Ready) -> Landed | Refused:
        """Disable the version that was expected, and look whether it was still the newest."""
        assert order.expected_token is not None
        number, _ = split_token(order.expected_token)
        name = self._calls.name(order.path, number)
        ended = await self._calls.send(
            "delete", "disable_secret_version", order.path, name=name, etag=ready.condition or ""
        )
        if isinstance(ended, Refused):
            return ended
        try:
            if not await self._is_there(order.path, number + 1):
                token = value_token(number, state_of(ended))
                return Landed(token, order=number, tags=ready.tags)
            undone = await self._calls.send(
                "write", "enable_secret_version", order.path, name=name, etag=ended.etag
            )
        except BackendError as error:
            error.sent = True  # the delete was
            raise
        left = f"version {number} was disabled, and could not be enabled again"
        return Refused(REMOTE_CHANGED, left if isinstance(undone, Refused) else "")


async def _nothing() -> None:
    return None
