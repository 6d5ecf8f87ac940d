"""Notices of anybody who knows of changes: a pipeline, a script, a hook of the store.

    {"paths": ["kv/data/apps/db", "kv/data/apps/mail"]}

The paths are remote ones, as a listing names them.
"""

from collections.abc import Mapping
from typing import Final

from svsync.domain.errors import ConfigError
from svsync.domain.ids import RemotePath
from svsync.domain.paths import remote_problem
from svsync.ports import Arrived

_MAX_PATH: Final = 4096
"""Bytes, as of a name from a listing."""


class HttpFeed:
    """See `ports.ArrivingFeed`."""

    origin = ""

    def read(self, said: object, config: Mapping[str, object]) -> Arrived:
        if not isinstance(said, dict) or set(said) != {"paths"}:
            raise ConfigError('must be an object with one member, as {"paths": ["kv/data/a"]}')
        named = said["paths"]
        if not isinstance(named, list) or not named:
            raise ConfigError("must be a list of remote paths, one at least", where="paths")
        for n, path in enumerate(named):
            if not isinstance(path, str):
                raise ConfigError("must be text: a remote path", where=f"paths[{n}]")
        usable = [path for path in named if remote_problem(path, max_bytes=_MAX_PATH) is None]
        paths = tuple(RemotePath(path) for path in usable)
        return Arrived(paths, unusable=len(named) - len(usable))


FEED: Final = HttpFeed()
