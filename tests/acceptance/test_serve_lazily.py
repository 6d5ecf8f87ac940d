"""What `svsync serve` has loaded once it has synced a Vault, answered, and been told to stop."""

from pathlib import Path
from typing import Final

import pytest
from tests.acceptance.conftest import Desk
from tests.acceptance.serving import ask, new_token, serving
from tests.integration.test_lazy_imports import sdks
from tests.program import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

TELLS: Final = """
import atexit, os, pathlib, sys

def tell():
    packages = {name.partition(".")[0] for name in sys.modules}
    pathlib.Path(os.environ["LOADED"]).write_text(" ".join(packages))

atexit.register(tell)
"""
"""Is loaded by the interpreter before anything else, and tells at its end what was."""


async def test_service_over_a_vault_alone_loads_no_sdk_of_a_cloud(
    desk: Desk, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(TELLS)
    listing = tmp_path / "loaded"
    await desk.bao.put("lazily/a", {"k": "v"})
    rule = {"local": "lazily/**", "remote": f"{desk.bao.mount}/data/lazily/**"}
    _, file = desk.backend(path_mapping=[rule])
    token = await new_token(desk.program, "--config", str(file))
    async with serving(
        desk.program, "--config", str(file), PYTHONPATH=str(tmp_path), LOADED=str(listing)
    ) as served:

        async def is_there() -> bool:
            return (await ask(served.url, "/v1/secrets/lazily/a", token=token)).status == 200

        await until(is_there)
        assert (await ask(served.metrics)).status == 200
        assert await served.stopped() == 0
    packages = set(listing.read_text().split())
    assert {"svsync", "hvac", "asyncpg"} <= packages
    assert sdks(packages) == set()
