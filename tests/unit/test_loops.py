"""Which event loop the service runs on."""

import sys
from dataclasses import replace

import pytest
import uvloop

from svsync.config.model import EventLoop, Settings
from svsync.daemon.loops import loop_factory

SETTINGS = Settings(state_dir="/nowhere")


def test_uvloop_is_used_where_nothing_is_said() -> None:
    assert loop_factory(SETTINGS) is uvloop.new_event_loop


def test_asyncios_own_is_used_where_that_is_said() -> None:
    assert loop_factory(replace(SETTINGS, event_loop=EventLoop.ASYNCIO)) is None


def test_asyncios_own_is_used_where_uvloop_is_not_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert loop_factory(SETTINGS) is None
