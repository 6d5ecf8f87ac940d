"""Pages that are followed step by step, run as they stand: every command in one shell, every
answer compared."""

import asyncio
import os
import re
import shutil
import signal
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from tests.docs.test_docs import text_of

from svsync.embedded.processes import free_port

pytestmark = pytest.mark.skipif(
    shutil.which("curl") is None, reason="the page is followed with curl, which is not here"
)
_LIMIT_S = 600


def steps(page: str) -> list[tuple[str, str]]:
    """Each block of commands with what the page says it prints ("" where it says nothing)."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert blocks[0][0] == "sh", "the page begins with a command"
    following = [*blocks[1:], ("sh", "")]
    return [
        (text, answer if kind == "" else "")
        for (language, text), (kind, answer) in zip(blocks, following, strict=True)
        if language == "sh"
    ]


def fits(answer: str, printed: str) -> bool:
    """Is it what the page says, with anything for each `…`?"""
    pattern = ".*?".join(re.escape(part) for part in answer.strip().split("…"))
    return re.fullmatch(pattern, printed.strip(), re.DOTALL) is not None


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("quickstart", "svsync-quickstart"),
        ("tutorials/from-hashicorp-vault", "off-vault"),
        ("tutorials/from-aws-secrets-manager", "off-aws"),
        ("tutorials/from-env-files", "off-env"),
    ],
)
async def test_a_page_prints_what_it_says(state_dir: Path, name: str, folder: str) -> None:
    page = text_of(f"docs/{name}.md")
    for port in ("8443", "8200", "5000"):
        page = page.replace(port, str(free_port()))
    followed = steps(page)
    (state_dir / ".venv").symlink_to(Path(sys.executable).parents[1])
    marks = [f"--- {number} ---" for number in range(len(followed) + 1)]
    script = "".join(
        f"{commands}\nprintf '\\n{mark}\\n'\n"
        for (commands, _), mark in zip(followed, marks[1:], strict=True)
    )
    shell = await asyncio.create_subprocess_exec(
        "bash", "-c", script,
        cwd=state_dir,
        env={"PATH": os.environ["PATH"], "HOME": str(state_dir)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    try:
        async with asyncio.timeout(_LIMIT_S):
            out, _ = await shell.communicate()
    except TimeoutError:  # what it started stops in order, as at Ctrl-C
        os.killpg(shell.pid, signal.SIGTERM)
        await shell.communicate()
        raise
    with pytest.raises(ProcessLookupError):  # nothing of what it started is left
        os.killpg(shell.pid, signal.SIGTERM)
    told = f"{marks[0]}\n{out.decode()}"
    for (commands, answer), (begin, end) in zip(followed, pairwise(marks), strict=True):
        printed = told.partition(f"{begin}\n")[2].partition(f"\n{end}")[0]
        assert fits(answer, printed), f"{commands}\nprinted\n{printed}\nnot\n{answer}"
    assert not (state_dir / folder).exists()
