"""Every story of `stories/`, told: one test a file. `README.md` explains the format."""

from pathlib import Path

import pytest
from tests.house import backend, open_house
from tests.scenarios.story import Story, stories
from tests.scenarios.tell import Telling, backend_with, settings_of

from svsync.backends.guarded import BackendGuard


def _told(story: Story) -> object:
    marks = [pytest.mark.xfail(reason=story.pending)] if story.pending else []
    return pytest.param(story, id=story.name, marks=marks)


async def _at_once(seconds: float) -> None:
    """Nobody waits between the tries of a call."""


@pytest.mark.parametrize("story", [_told(story) for story in stories()])
async def test_story(
    story: Story,
    database_url: str,
    admin_url: str,
    state_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    defaults = BackendGuard.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "sleep", _at_once)
    async with open_house(
        database_url,
        admin_url,
        state_dir,
        backend(**settings_of(story.backend)),
        made=backend_with(story.features),
    ) as house:
        await Telling(story, house).tell()
