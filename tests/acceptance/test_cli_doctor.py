"""Does `svsync doctor` say on one line each what is wrong, and with its exit code whether?"""

import json

from tests.acceptance.conftest import Desk


async def test_doctor_finds_a_working_installation_well(desk: Desk) -> None:
    backend, file = desk.backend()
    assert (await desk.program("status", "--config", str(file))).code == 0
    said = await desk.program("doctor", "--config", str(file))
    assert said.code == 0
    lines = [line.split() for line in said.out.splitlines()]
    assert lines[0] == ["CHECK", "STATE", "WHAT"]
    assert any(line[:3] == ["backend", backend, "ok"] for line in lines)
    assert said.out.rstrip().splitlines()[-1].startswith("0 wrong, ")
    told = (await desk.program("doctor", "--json", "--config", str(file))).json
    assert (told["ok"], told["wrong"]) == (True, 0)
    assert set(told["findings"][0]) == {"check", "state", "says", "advice"}


async def test_doctor_tells_all_that_is_wrong_at_once(desk: Desk) -> None:
    backend, file = desk.backend(config={"endpoint": "http://127.0.0.1:1", "tls_verify": False})
    said = await desk.program(
        "doctor", "--json", "--config", str(file), REDIS_URL="redis://127.0.0.1:1"
    )
    assert said.code == 1
    wrong = [f for f in said.json["findings"] if f["state"] == "wrong"]
    assert [f["check"] for f in wrong] == [f"backend {backend}", f"backend {backend}", "signals"]
    assert not said.json["ok"]
    assert said.json["wrong"] == len(wrong)


async def test_doctor_goes_on_beyond_a_configuration_that_is_wrong(desk: Desk) -> None:
    broken = desk.file({"bakends": []})
    said = await desk.program("doctor", "--json", "--config", str(broken))
    assert said.code == 1
    [found] = said.json["findings"]
    assert (found["check"], found["state"]) == ("configuration", "wrong")
    assert f"{broken}:2: bakends" in found["says"]

    _, file = desk.backend()
    document = json.loads(file.read_text())
    document["backends"][0]["path_mapping"] = [{"local": "a/**", "remote": "b/{x}"}]
    said = await desk.program("doctor", "--json", "--config", str(desk.file(document)))
    assert said.code == 1
    assert said.json["findings"][0]["state"] == "wrong"
    assert said.json["findings"][-1]["check"] == "signals"
