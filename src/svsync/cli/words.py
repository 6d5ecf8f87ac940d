"""The words that people read for what programs read as codes."""

from typing import Final

from svsync.domain.runs import Count, SkipReason

COUNTS: Final = {
    Count.LISTED: "found in the backend",
    Count.UNCHANGED: "unchanged",
    Count.CREATED: "new here",
    Count.UPDATED: "updated here",
    Count.METADATA_UPDATED: "tags updated here",
    Count.ATTACHED: "equal on both sides, joined",
    Count.PUSHED: "written to the backend",
    Count.METADATA_PUSHED: "tags written to the backend",
    Count.METADATA_REFUSED: "values it took, without their tags",
    Count.DELETED: "deleted here",
    Count.RETAINED: "gone in the backend, kept here",
    Count.CONFLICTS: "conflicts recorded",
    Count.DETACHED: "left the mapping, kept here",
    Count.MOVED: "of those, moved to another path",
    Count.ROLLED_BACK: "went back to an earlier version",
    Count.UNLISTED: "missing from the listing",
    Count.LISTING_MISSED: "of those, there when asked by name",
    Count.RETOKENED: "new version with an equal value",
    Count.IMPORTED_VERSIONS: "earlier versions taken in",
    Count.FIELDS_DROPPED: "provider settings that do not travel",
}
"""What a report counts, in the order in which it is shown."""

ALWAYS: Final = (Count.LISTED, Count.UNCHANGED)
"""Counts that are shown also when they are zero."""

REASONS: Final = {
    SkipReason.ILLEGAL_PATH: "the name holds what no ScaiVault path may hold",
    SkipReason.SHADOWED: "an earlier rule claims its local path",
    SkipReason.COLLISION: "several names would have one local path",
    SkipReason.AMBIGUOUS_SEPARATOR: "the separator also stands inside the name",
    SkipReason.NAME_NOT_ALLOWED: "the backend or the store takes no such name",
    SkipReason.UNMAPPED: "no rule matches",
    SkipReason.EXCLUDED: "a rule leaves it out",
    SkipReason.CLAIMED_BY: "another backend or path holds its local path",
    SkipReason.UNDECODABLE: "the value cannot be taken in",
    SkipReason.TOO_DEEP: "the value is nested too deeply",
    SkipReason.VALUE_TOO_LARGE: "the value is larger than max_value_bytes",
    SkipReason.BAD_METADATA: "its tags hold what cannot be stored",
    SkipReason.DENIED: "the backend refuses to show it with this credential",
    SkipReason.UNREADABLE: "it could not be read",
    SkipReason.UNLISTED: "its folder could not be listed",
    SkipReason.LAGGING: "the backend has not caught up with itself yet",
    SkipReason.LOCAL_LOST: "the local secret it belongs to is missing",
    SkipReason.LOCAL_UNREADABLE: "the local value does not open",
    SkipReason.QUARANTINED: "failed again and again, and is tried later",
    SkipReason.CRASHES_WORKER: "it ended the worker that took it up",
    SkipReason.WRITE_IN_PROGRESS: "a write to it is on its way",
    SkipReason.OVERTAKEN: "it kept changing; the next run takes it",
    SkipReason.RETIRED_REMOTELY: "it was retired in the backend",
    SkipReason.NUMBER_WOULD_CHANGE: "the backend would alter a number in it",
    SkipReason.PUSH_REFUSED: "the backend refused the write",
    SkipReason.PUSH_THROTTLED: "the backend takes no further write yet",
    SkipReason.ROTATION_IN_PROGRESS: "it is being rotated",
    SkipReason.WRITE_OUTCOME_UNKNOWN: "the backend did not say whether it took the write",
    SkipReason.DELETE_NOT_RECOVERABLE: "a delete there could not be undone",
    SkipReason.BLIND_PUSH: "the backend takes no condition; allow_blind_push allows it",
    SkipReason.NOT_OWNED: "a delete there, and svsync never wrote it",
}
"""Why a path was left as it is."""
