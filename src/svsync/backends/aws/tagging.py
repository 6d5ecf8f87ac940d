"""Tags of a secret: set and taken away one by one, beside its value."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from svsync.backends.aws.calls import AwsCalls
from svsync.backends.aws.entries import MAX_TAGS, listed_tags, meta_token
from svsync.domain.decide import PushKind
from svsync.domain.errors import BackendError, SvsyncError, ThrottledError
from svsync.domain.ids import RemotePath
from svsync.domain.pushes import Landed, Refused, RemoteWrite


@dataclass(frozen=True, slots=True)
class AwsTags:
    """What the last part of a write does."""

    calls: AwsCalls

    async def set_beside(
        self, order: RemoteWrite, landed: Landed, there: dict[str, str], wanted: dict[str, str]
    ) -> Landed | Refused:
        """Set and take away what differs; what is refused undoes nothing."""
        alone = order.kind is PushKind.METADATA
        refused: Refused | None = None
        if len(wanted) > MAX_TAGS:
            refused = Refused("push_refused", f"a secret holds at most {MAX_TAGS} tags")
        else:
            try:
                refused = await self._set_tags(order.path, there, wanted)
            except SvsyncError as error:  # of the credential's source, too
                if alone:
                    raise
                if isinstance(error, BackendError) and error.sent:
                    return replace(landed, tags=None, tags_refused="write_outcome_unknown")
                throttled = isinstance(error, ThrottledError)
                refused = Refused("push_throttled" if throttled else "push_refused")
        if refused is None:
            return replace(landed, meta_token=meta_token(wanted), tags=wanted)
        if alone:
            return refused
        return replace(
            landed, meta_token=meta_token(there), tags=there, tags_refused=refused.reason
        )

    async def _set_tags(
        self, path: RemotePath, there: dict[str, str], wanted: Mapping[str, str]
    ) -> Refused | None:
        """`there` follows each call that was made."""
        changed = {key: text for key, text in wanted.items() if there.get(key) != text}
        if changed:
            refused = await self.calls.send(
                "write", "tag_resource", path, SecretId=path, Tags=listed_tags(changed)
            )
            if refused is not None:
                return refused
            there.update(changed)
        gone = [key for key in there if key not in wanted]
        if gone:
            refused = await self.calls.send(
                "write", "untag_resource", path, SecretId=path, TagKeys=gone
            )
            if refused is not None:
                return refused
            for key in gone:
                del there[key]
        return None
