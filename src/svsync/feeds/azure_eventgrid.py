"""Azure Event Grid: new versions of a vault's secrets, in either of its two schemas.

The Event Grid schema sends an array of events with `eventType`, CloudEvents one event or an
array with `type`. Names and case differ between services and versions, so both are read
leniently. There is no event for a delete, a disabled version or changed tags: those are
found by the schedule.

Before it sends, Event Grid asks whether it may: by an event whose code is to be given back,
or, with CloudEvents, by OPTIONS. The URL that comes along, for a person who would rather
open it, is never opened here.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from svsync.domain.errors import ConfigError
from svsync.domain.ids import RemotePath
from svsync.domain.paths import remote_problem
from svsync.ports import Arrived

_VALIDATION: Final = "microsoft.eventgrid.subscriptionvalidationevent"
_NEW_VERSION: Final = "microsoft.keyvault.secretnewversioncreated"
_VAULT: Final = re.compile(r"https://([A-Za-z0-9-]+)\.")
_MAX_CODE: Final = 512
_MAX_NAME: Final = 127
_FORM: Final = "must be an event of Event Grid, or an array of them"


class EventGridFeed:
    """See `ports.ArrivingFeed`."""

    origin = "eventgrid.azure.net"

    def read(self, said: object, config: Mapping[str, object]) -> Arrived:
        events = list(_events(said))
        codes = [_text(_data(one), "validationcode") for kind, one in events if kind == _VALIDATION]
        if codes:
            if len(events) > 1 or not 0 < len(codes[0]) <= _MAX_CODE:
                raise ConfigError(_FORM)
            return Arrived((), reply={"validationResponse": codes[0]})
        found: list[RemotePath] = []
        unusable = 0
        for kind, event in events:
            if kind != _NEW_VERSION:
                continue  # its other events tell of nothing that was changed
            name = _name(_data(event), config)
            if name is None:
                unusable += 1
            else:
                found.append(name)
        return Arrived(tuple(found), unusable=unusable)


def _events(said: object) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each event, with its type in small letters."""
    for one in said if isinstance(said, list) else [said]:
        if not isinstance(one, dict):
            raise ConfigError(_FORM)
        event = _lowered(one)
        kind = _text(event, "eventtype") or _text(event, "type")
        if not kind:
            raise ConfigError(_FORM)
        yield kind.lower(), event


def _name(data: Mapping[str, Any], config: Mapping[str, object]) -> RemotePath | None:
    """The secret that an event names; None: it is of another vault, or no name of one."""
    ours = _VAULT.match(str(config.get("vault_url", "")))
    told = _text(data, "vaultname").lower()
    if ours and told and told != ours[1].lower():
        return None
    if _text(data, "objecttype").lower() not in ("", "secret"):
        return None
    name = _text(data, "objectname")
    return RemotePath(name) if remote_problem(name, max_bytes=_MAX_NAME) is None else None


def _data(event: Mapping[str, Any]) -> Mapping[str, Any]:
    data = event.get("data")
    return _lowered(data) if isinstance(data, dict) else {}


def _lowered(members: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name.strip().lower(): value for name, value in members.items()}


def _text(members: Mapping[str, Any], name: str) -> str:
    value = members.get(name)
    return value.strip() if isinstance(value, str) else ""


FEED: Final = EventGridFeed()
