"""Labels and annotations of a secret: changed beside its value, on the condition that
nobody changed them meanwhile."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from svsync.backends.gcp.calls import PERMISSIONS, GcpCalls
from svsync.backends.gcp.entries import pairs_of, split_pairs
from svsync.domain.changes import Tags
from svsync.domain.decide import PushKind
from svsync.domain.errors import BackendError, DeniedError, SvsyncError, ThrottledError
from svsync.domain.ids import RemotePath
from svsync.domain.pushes import REMOTE_CHANGED, Landed, Refused, RemoteWrite

UNFIT: Final = Refused(
    "push_refused",
    "Google takes a tag neither as a label nor as an annotation, or not so many of them",
)
_TRIES: Final = 3


@dataclass(frozen=True, slots=True)
class GcpTags:
    """What the last part of a write does."""

    calls: GcpCalls

    async def set_beside(
        self, order: RemoteWrite, landed: Landed, before: Tags, wanted: Mapping[str, str]
    ) -> Landed | Refused:
        """Bring the pairs from `before` to `wanted`; what is refused undoes nothing."""
        alone = order.kind is PushKind.METADATA
        if dict(before) == dict(wanted):
            return replace(landed, tags=dict(wanted))
        try:
            ended = await self._change(order.path, before, wanted)
        except SvsyncError as error:  # of the credential's source, too
            if alone:
                raise
            if isinstance(error, BackendError) and error.sent:
                return replace(landed, tags=None, tags_refused="write_outcome_unknown")
            throttled = isinstance(error, ThrottledError)
            ended = Refused("push_throttled" if throttled else "push_refused")
        if not isinstance(ended, Refused):
            return replace(landed, meta_token=str(ended.etag), tags=pairs_of(ended))
        if alone:
            return ended
        return replace(landed, tags=dict(before), tags_refused=ended.reason)

    async def _change(self, path: RemotePath, before: Tags, wanted: Tags) -> Any:
        """The secret as it is then, or Refused. What others changed meanwhile stays."""
        changes = {
            key: wanted.get(key)
            for key in {**before, **wanted}
            if before.get(key) != wanted.get(key)
        }
        for _ in range(_TRIES):
            try:
                secret = await self.calls.secret(path)
            except DeniedError:
                return Refused("denied", f"{PERMISSIONS['get_secret']} is not granted")
            if secret is None:
                return Refused(REMOTE_CHANGED)
            pairs = {**pairs_of(secret), **changes}
            held = {key: text for key, text in pairs.items() if text is not None}
            split = split_pairs(held, secret.labels, secret.annotations)
            if split is None:
                return UNFIT
            labels, annotations = split
            ended = await self.calls.send(
                "write",
                "update_secret",
                path,
                secret={
                    "name": self.calls.name(path),
                    "etag": secret.etag,
                    "labels": labels,
                    "annotations": annotations,
                },
                update_mask={"paths": ["labels", "annotations"]},
            )
            if not (isinstance(ended, Refused) and ended.reason == REMOTE_CHANGED):
                return ended
        return Refused(REMOTE_CHANGED)
