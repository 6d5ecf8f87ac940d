"""The event loop of the service: uvloop where it is installed, unless told otherwise."""

import asyncio
from collections.abc import Callable

from svsync.config.model import EventLoop, Settings


def loop_factory(settings: Settings) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the loop; None: asyncio's own does."""
    if settings.event_loop is EventLoop.ASYNCIO:
        return None
    try:
        import uvloop
    except ImportError:  # not for every Python
        return None
    return uvloop.new_event_loop
