"""svsync itself on an OpenBao: a first import, then a quiet cycle, by `Runs.run`."""

import json
import time
from pathlib import Path

from bench.programs import Result, answer, forget_peak, peak_mb
from svsync.app import App, open_app
from svsync.config.load import load
from svsync.domain.guards import Allow
from svsync.domain.runs import Stage
from svsync.services.runs import Request

_CONFIG = """
allow_loopback: true
state_dir: {state_dir}
database_url: env:BENCH_DATABASE
backends:
  - id: fed_bench
    name: bench
    type: hashicorp-vault
    mode: sync
    config:
      endpoint: "{url}"
      auth_method: approle
      auth_config_path: "env:BENCH_CREDENTIAL"
    path_mapping:
      - {{local: "ext/**", remote: "{mount}/data/**"}}
"""


NO_ALLOWANCE = Allow()


async def one_run(app: App, allow: Allow = NO_ALLOWANCE) -> Result:
    """One run of the backend `fed_bench`, with what it took."""
    tenant = await app.tenant("default")
    forget_peak()
    began = time.perf_counter()
    spent = time.process_time()
    ended = await app.runs.run(tenant, Request("fed_bench", allow=allow), _silent)
    spent, seconds = time.process_time() - spent, time.perf_counter() - began
    told = ended.to_json()
    assert told["result"] == "ok", told
    return {
        "seconds": seconds,
        "cpu_s": spent,
        "peak_mb": peak_mb(),
        "counts": told["counts"],
        "calls": told["api_calls"],
        "stages_ms": told["stages_ms"],
    }


def _silent(stage: Stage, done: int, total: int | None) -> None:
    """Nobody watches."""


async def main(given: Result) -> Result:
    config = Path(given["state_dir"]) / "svsync.yaml"
    config.write_text(_CONFIG.format(**given))
    credential = json.dumps({"role_id": given["role_id"], "secret_id": given["secret_id"]})
    environ = {"BENCH_CREDENTIAL": credential, "BENCH_DATABASE": given["dsn"]}
    async with open_app(load(str(config), environ), environ=environ) as app:
        first, quiet = await one_run(app), await one_run(app)
    count = given["count"]
    assert first["counts"]["created"] == count, first
    assert quiet["counts"]["unchanged"] == count, quiet
    return {"first": first, "quiet": quiet}


if __name__ == "__main__":
    answer(main)
