"""Does each doubt alone keep a secret at its source?"""

import dataclasses
from datetime import UTC, datetime
from typing import Any

import pytest

from svsync.domain.federation import (
    ConflictPolicy,
    Mode,
    OnRemoteDelete,
    PathSettings,
    RemoteChanges,
    Writes,
)
from svsync.domain.retirement import WHY, Deletion, Facts, Held, Source, held_by

SETTINGS = PathSettings(
    mode=Mode.SYNC,
    writes=Writes.LOCAL,
    conflict_resolution=ConflictPolicy.BACKEND_WINS,
    remote_changes=RemoteChanges.PULL,
    on_remote_delete=OnRemoteDelete.RETAIN,
    propagate_deletes=False,
    seed_remote=False,
)
READY = Facts(
    equal=True,
    looked_at=True,
    settings=SETTINGS,
    read_here=True,
    source=Source(told=True),
    command=Deletion(("rm", "it")),
)
AT = datetime(2026, 11, 23, tzinfo=UTC)


def held(**changes: Any) -> list[Held]:
    return list(held_by(dataclasses.replace(READY, **changes)))


def settings(**changes: Any) -> PathSettings:
    return dataclasses.replace(SETTINGS, **changes)


def test_without_a_doubt_it_is_ready() -> None:
    assert held() == []
    assert held(settings=settings(on_remote_delete=OnRemoteDelete.SOFT_DELETE,
                                  remote_changes=RemoteChanges.HOLD)) == []  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"equal": False}, Held.NOT_EQUAL),
        ({"looked_at": False}, Held.NOT_LOOKED_AT),
        ({"settings": None}, Held.NOT_LOOKED_AT),
        (
            {"settings": settings(on_remote_delete=OnRemoteDelete.SOFT_DELETE)},
            Held.DELETED_WITH_IT,
        ),
        ({"settings": settings(writes=Writes.WRITE_THROUGH)}, Held.WRITTEN_THROUGH),
        ({"elsewhere": "fed_b"}, Held.USED_ELSEWHERE),
        ({"source": Source(told=True, changed=True)}, Held.NOT_EQUAL),
        ({"read_here": False}, Held.NOT_READ_HERE),
        ({"source": Source()}, Held.SOURCE_UNKNOWN),
        ({"source": Source(told=True, reader="a", at=AT)}, Held.READ_AT_SOURCE),
        ({"source": Source(told=True, problem="torn")}, Held.LOG_INCOMPLETE),
        ({"source": Source(told=True, rotates=True)}, Held.ROTATED),
        ({"source": Source(told=True, foreign=True)}, Held.LOG_OF_ANOTHER),
        ({"command": None}, Held.NO_COMMAND),
    ],
)
def test_each_doubt_alone_holds_it_back(changes: dict[str, Any], reason: Held) -> None:
    assert held(**changes) == [reason]


def test_every_reason_is_told_and_has_its_words() -> None:
    nothing = held(equal=False, looked_at=False, settings=None, read_here=False, source=Source(),
                   command=None)  # fmt: skip
    assert len(nothing) == 5
    assert set(WHY) == set(Held)
