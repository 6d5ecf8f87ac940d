"""svsync itself on a stand-in for AWS: a first import, then a quiet cycle, by `Runs.run`."""

from pathlib import Path

from bench.programs import Result, answer
from bench.svsync_vault import one_run
from svsync.app import open_app
from svsync.config.load import load

_CONFIG = """
allow_loopback: true
state_dir: {state_dir}
database_url: env:BENCH_DATABASE
backends:
  - id: fed_bench
    name: bench
    type: aws-secrets-manager
    mode: sync
    config:
      region: {region}
      endpoint_url: "{url}"
      credentials_path: "env:BENCH_CREDENTIAL"
    path_mapping:
      - {{local: "ext/**", remote: "apps/**"}}
"""
_KEYS = '{"access_key_id": "AKIAEXAMPLE", "secret_access_key": "of-nobody"}'


async def main(given: Result) -> Result:
    config = Path(given["state_dir"]) / "svsync.yaml"
    config.write_text(_CONFIG.format(**given))
    environ = {"BENCH_CREDENTIAL": _KEYS, "BENCH_DATABASE": given["dsn"]}
    async with open_app(load(str(config), environ), environ=environ) as app:
        first, quiet = await one_run(app), await one_run(app)
    count = given["count"]
    assert first["counts"]["created"] == count, first
    assert quiet["counts"]["unchanged"] == count, quiet
    return {"first": first, "quiet": quiet}


if __name__ == "__main__":
    answer(main)
