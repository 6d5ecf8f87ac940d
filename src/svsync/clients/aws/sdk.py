"""The SDK's own session: its descriptions of services, its settings, its chain of identities."""

import os
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from aiobotocore.session import AioSession
from botocore.exceptions import BotoCoreError
from botocore.loaders import Loader

_OTHER_CALLERS: Final = ("assume-role", "assume-role-with-web-identity", "sso", "login")
"""Parts of the SDK's chain that call services of AWS by themselves."""
_NO_PROFILE: Final = {
    "profile": (None, None, None, None),
    "config_file": (None, None, os.devnull, None),
}
"""Of the SDK's settings: neither its profile nor its file counts where keys are given to it."""


@cache
def _loader() -> Loader:
    """The SDK's descriptions of services, read once a process."""
    return Loader()


def sdk(settings: Mapping[str, tuple[Any, ...]] = _NO_PROFILE) -> AioSession:
    session = AioSession(session_vars=dict(settings))
    session.register_component("data_loader", _loader())
    return session


async def keys_of_machine(session: Any) -> Any:
    """What the SDK finds, by itself and without calling a service of AWS."""
    chain = session.get_component("credential_provider")
    for name in _OTHER_CALLERS:
        chain.remove(name)
    found = await session.get_credentials()
    if found is None:
        raise BotoCoreError
    return found
