"""The demo's steps in the order in which they are told.

What became of the open writes comes late, for that is not asked before their time is
over; what lies on the disk comes last, when all there is has been written.
"""

from typing import Final

from svsync.cli.demo_pulls import PULLS
from svsync.cli.demo_sides import BACKUP, DRIFT, RESOLVE
from svsync.cli.demo_trials import AT_REST, CONFLICT, GUARD, OUTAGE
from svsync.cli.demo_writes import DELETE_BOTH, FOUND_OUT, LOST_ANSWER, WRITE_THROUGH

STEPS: Final = (
    *PULLS,
    WRITE_THROUGH,
    LOST_ANSWER,
    BACKUP,
    CONFLICT,
    RESOLVE,
    DELETE_BOTH,
    GUARD,
    OUTAGE,
    FOUND_OUT,
    DRIFT,
    AT_REST,
)
