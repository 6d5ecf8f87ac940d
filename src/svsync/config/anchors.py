"""Where checkpoints of the audit log are kept outside, as the file names it."""

import re
from collections.abc import Mapping
from typing import Any, Final

from svsync.config.backend_keys import DAY
from svsync.config.document import Node
from svsync.config.endpoints import ORIGIN
from svsync.config.kinds import (
    FILE_PATH,
    REFERENCE,
    Key,
    Kind,
    choice,
    duration,
    list_of,
    object_schema,
    read_object,
    text,
)
from svsync.config.references import Place, Reference

_UDP: Final = r"udp:([A-Za-z0-9.-]{1,253}|\[[0-9a-fA-F:.]{2,45}\]):[0-9]{1,5}"
_NAME: Final = r"(?!\.{1,2}(/|$))[A-Za-z0-9._-]+"
_NEEDS: Final = {"file": "path", "syslog": "address", "s3": "bucket"}
_MAY: Final = {
    "file": frozenset[str](),
    "syslog": frozenset[str](),
    "s3": frozenset(
        {"prefix", "region", "endpoint_url", "ca_file", "credentials_path", "lock", "retain"}
    ),
}
"""What else an anchor takes."""

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
    Key(
        "bucket",
        text(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", "a bucket's name", max_length=63),
        "`s3`: an object for each checkpoint, in this bucket.",
    ),
    Key(
        "prefix",
        text(rf"{_NAME}(/{_NAME})*", "a path of letters, digits and . _ - /", max_length=256),
        "`s3`: what their names begin with; each svsync needs its own.",
        default_words="`svsync-audit`",
    ),
    Key(
        "region",
        text(r"[a-z0-9-]+", "a region such as eu-central-1", max_length=64),
        "`s3`: the bucket's region; needed where there is no `endpoint_url`.",
    ),
    Key(
        "endpoint_url",
        ORIGIN,
        "`s3`: the address of another vendor's store, to call in place of AWS's own.",
    ),
    Key(
        "ca_file",
        FILE_PATH,
        "`s3`: who signed the certificate of `endpoint_url`, as PEM.",
        default_words="the authorities that the SDK brings along",
    ),
    Key(
        "credentials_path",
        REFERENCE,
        "`s3`: where static keys stand, as `env:NAME` or `file:/path`: `{access_key_id, "
        "secret_access_key, session_token?}`.",
        default_words="the default chain (instance role, web identity)",
    ),
    Key(
        "lock",
        choice(("governance", "compliance")),
        "`s3`: keep each under this mode of Object Lock, for `retain`. Under `compliance` nobody "
        "can remove it sooner.",
        default_words="as the bucket's own default has it",
    ),
    Key(
        "retain",
        duration(DAY, 36_500 * DAY),
        "`s3`: for how long each is kept under `lock`.",
    ),
)


def _read(node: Node) -> tuple[Mapping[str, Any], ...]:
    found: list[Mapping[str, Any]] = []
    for member in list_of(node):
        entry = read_object(member, ANCHOR)
        kind, needed = entry["anchor"], _NEEDS[entry["anchor"]]
        if needed not in entry or entry.keys() - _MAY[kind] != {"anchor", needed}:
            more = f"of the other keys {', '.join(sorted(_MAY[kind]))}" if _MAY[kind] else "nothing"
            raise member.error(f"{kind} takes {needed}, and {more} else")
        if kind == "syslog":
            _check_port(member, entry["address"])
        if kind == "s3":
            _check_store(member, entry)
            entry.setdefault("prefix", "svsync-audit")
        if entry in found:
            raise member.error("stands twice")
        found.append(entry)
    return tuple(found)


def _check_port(member: Node, address: str) -> None:
    port = re.fullmatch(r"udp:.*:([0-9]+)", address)
    if port and not 0 < int(port[1]) < 65536:
        raise member.error("address has a port that there is not")


def _check_store(member: Node, entry: Mapping[str, Any]) -> None:
    if "region" not in entry and "endpoint_url" not in entry:
        raise member.error("s3 needs region, or the endpoint_url of another vendor")
    if ("lock" in entry) != ("retain" in entry):
        raise member.error("lock and retain go together: give both or neither")
    named = entry.get("credentials_path")
    # A place that is to hold against the owner of the store takes no login out of it.
    if named is not None and Reference.parse(named).place is Place.SCAIVAULT:
        raise member.error("credentials_path must be env:NAME or file:/absolute/path")


ANCHORS: Final = Kind(
    _read, {"type": "array", "items": object_schema(ANCHOR)}, "a list of places outside"
)
