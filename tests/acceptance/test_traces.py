"""Does a process send its spans before it ends, and end whatever the collector does?"""

from tests.acceptance.conftest import Desk
from tests.collector import collecting

from svsync.embedded.processes import free_port


async def test_command_has_sent_its_spans_when_it_ends(desk: Desk) -> None:
    await desk.bao.put("traced/a", {"v": desk.program.canary.value()})
    rule = {"local": "traced/**", "remote": f"{desk.bao.mount}/data/traced/**"}
    backend, file = desk.backend(path_mapping=[rule])
    once = ("run-once", "--backend", backend, "--json", "--config", str(file))
    async with collecting() as collector:
        said = await desk.program(*once, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
    assert said.code == 0
    made = {name: n for name, n in said.json["api_calls"].items() if n}
    sent = {name: len(collector.named(f"backend {name}")) for name in made}
    assert sent == made
    for secret in (desk.program.canary.marker, desk.token, "traced/a"):
        assert secret.encode() not in collector.everything()


async def test_command_ends_well_where_the_collector_is_away(desk: Desk) -> None:
    await desk.bao.put("away/a", {"v": "1"})
    rule = {"local": "away/**", "remote": f"{desk.bao.mount}/data/away/**"}
    backend, file = desk.backend(path_mapping=[rule])
    once = ("run-once", "--backend", backend, "--json", "--config", str(file))
    away = f"http://127.0.0.1:{free_port()}"
    said = await desk.program(*once, OTEL_EXPORTER_OTLP_ENDPOINT=away)
    assert (said.code, said.json["result"]) == (0, "ok")
    assert [line for line in said.err.splitlines() if "traces_lost" in line] != []
    assert away not in said.err
