"""Where checkpoints of the audit log are kept outside, as the file names it."""

import re
from collections.abc import Mapping
from typing import Final

from svsync.config.document import Node
from svsync.config.kinds import (
    FILE_PATH,
    Key,
    Kind,
    choice,
    list_of,
    object_schema,
    read_object,
    text,
)

_UDP: Final = r"udp:([A-Za-z0-9.-]{1,253}|\[[0-9a-fA-F:.]{2,45}\]):[0-9]{1,5}"
_NEEDS: Final = {"file": "path", "syslog": "address"}

ANCHOR: Final = (
    Key("anchor", choice(tuple(_NEEDS)), "What keeps them.", required=True),
    Key("path", FILE_PATH, "`file`: JSON lines, only ever appended to."),
    Key(
        "address",
        text(
            rf"stderr|unix:/[^\x00-\x1f\x7f]+|{_UDP}",
            "stderr, unix:/path or udp:host:port",
            max_length=512,
        ),
        "`syslog`: `stderr`, which the journal takes; `unix:/path`; or `udp:host:port`.",
    ),
)


def _read(node: Node) -> tuple[Mapping[str, str], ...]:
    found: list[Mapping[str, str]] = []
    for member in list_of(node):
        entry: dict[str, str] = read_object(member, ANCHOR)
        needed = _NEEDS[entry["anchor"]]
        if needed not in entry or len(entry) > 2:
            raise member.error(f"{entry['anchor']} takes {needed}, and nothing else")
        port = re.fullmatch(r"udp:.*:([0-9]+)", entry[needed])
        if port and not 0 < int(port[1]) < 65536:
            raise member.error("address has a port that there is not")
        if entry in found:
            raise member.error("stands twice")
        found.append(entry)
    return tuple(found)


ANCHORS: Final = Kind(
    _read, {"type": "array", "items": object_schema(ANCHOR)}, "a list of places outside"
)
