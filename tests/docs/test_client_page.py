"""The programs of the client's page run as they stand, and its tables name what there is."""

import asyncio
import os
import subprocess
import sys
from typing import Any

from tests.api import Front
from tests.canary import Canary
from tests.docs.test_docs import code_blocks, first_cells, section

from svsync.client import Client, Secret
from svsync.client.calls import ATTEMPTS, TIMEOUT_S

PAGE = "docs/reference/client.md"


async def test_programs_of_the_page_run_one_after_the_other(front: Front, canary: Canary) -> None:
    environment = {
        **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
        "SVSYNC_URL": front.listener.url,
        "SVSYNC_TOKEN": front.client.token or "",
        "STRIPE_SECRET_KEY": canary.value(),
    }
    program = "\n".join(code_blocks(PAGE, "python"))
    told = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (told.returncode, told.stderr) == (0, b"")
    assert b"secret_not_found 404" in told.stdout
    assert b"Secret(path='environments/production/billing/stripe', version=1)" in told.stdout
    assert not canary.found_in(told.stdout)


def test_table_names_each_method() -> None:
    client = Client("https://svsync.internal", "svt_1")
    for line in section(PAGE, "What there is").splitlines():
        if line.startswith("| `client."):
            name, methods = line.strip("| ").split(" | ")
            noun: Any = client
            for part in name.strip("`").split(".")[1:]:
                noun = getattr(noun, part)
            told = {method.split("`")[1] for method in methods.split(", ")}
            there = {m for m in vars(type(noun)) if not m.startswith("_")}
            assert told == there, name


def test_page_tells_what_a_secret_and_a_call_have() -> None:
    told = {name for cell in first_cells(section(PAGE, "Reading and writing"))[1:]
            for name in cell.replace("`", "").split(", ")}  # fmt: skip
    assert told == set(Secret.__dataclass_fields__)
    assert f"({TIMEOUT_S:.0f})" in section(PAGE, "The connection")
    assert ATTEMPTS == 4
    assert "four times at most" in section(PAGE, "What is made again")
