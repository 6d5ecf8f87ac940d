"""Is a command that is forked off a loaded program what it is where it starts by itself?"""

import asyncio
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from tests.program import Program, until


@pytest.mark.parametrize(
    "args",
    [
        ("--version",),
        ("secrets", "--help"),
        ("secrets", "wrong"),
        ("config", "check", "--config", "svsync.yaml"),
        ("config", "check", "--config", "missing.yaml"),
        ("policies", "create", "apps", "--file", "-", "--json"),
    ],
    ids=" ".join,
)
async def test_forked_command_says_what_one_that_starts_by_itself_says(
    state_dir: Path, args: tuple[str, ...]
) -> None:
    """In its folder, with its environment and what it is given to read."""
    (state_dir / "svsync.yaml").write_text(json.dumps({"log_level": "warn"}))
    nowhere = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}
    forked = Program(nowhere, state_dir)
    said = await forked(*args, stdin=b"{")
    assert said == await replace(forked, alone=True)(*args, stdin=b"{")
    assert said.out or said.sentences


async def test_forked_command_that_nobody_waits_for_any_more_is_killed(state_dir: Path) -> None:
    """It reads what nobody writes."""
    os.mkfifo(state_dir / "svsync.yaml")
    program = Program({}, state_dir)
    asked = asyncio.create_task(program("config", "check", "--config", "svsync.yaml"))

    def there() -> bool:
        places = Path("/proc").glob("[0-9]*/cwd")
        return any(place.exists() and place.resolve() == state_dir for place in places)

    await until(there)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    await until(lambda: not there())
