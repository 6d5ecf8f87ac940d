"""Which calls does the client make again, where does it send its token, and what does it say?

The service here does what a test tells it to, one answer after the other; time passes by
being told to.
"""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.canary import Canary

from svsync.client import Client, SyncClient
from svsync.client.calls import ATTEMPTS, Calls
from svsync.client.errors import SvsyncError
from svsync.client.exact import Number, decode, encode
from svsync.client.policies import Policies
from svsync.client.secrets import Secrets

TOKEN = "svt_of_nobody"
SECRET = {
    "path": "a/b",
    "data": {"k": "v"},
    "secret_type": "json",
    "version": 3,
    "created_at": "2026-11-23T10:00:00Z",
    "metadata": {"tags": [], "owner": None, "description": None, "custom": {}},
    "federation": None,
}
WRITTEN = {"path": "a/b", "version": 4}
BREAKS = b""
"""Instead of an answer: the connection ends."""


def answer(status: int, body: object = None, **headers: str) -> bytes:
    text = body if isinstance(body, str) else "" if body is None else json.dumps(body)
    lines = [f"HTTP/1.1 {status} Told", f"Content-Length: {len(text)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n" + text).encode()


def error(status: int, code: str, **headers: str) -> bytes:
    told = {"code": code, "message": "No.", "request_id": "req_1"}
    return answer(status, {"error": told}, **headers)


@dataclass
class Service:
    """Answers in order with `answers`, the last one again and again.

    Attributes:
        asked: each request: its first line, its headers in lower case, its body.
        waited: seconds for which the client waited between attempts.
    """

    url: str = ""
    answers: list[bytes] = field(default_factory=list)
    asked: list[tuple[str, dict[str, str], str]] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)

    @property
    def lines(self) -> list[str]:
        return [line for line, _, _ in self.asked]

    @property
    def keys(self) -> list[str | None]:
        return [headers.get("idempotency-key") for _, headers, _ in self.asked]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                line, *rest = head.strip().split("\r\n")
                headers = {n.lower(): v for n, _, v in (one.partition(": ") for one in rest)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                self.asked.append((line.removesuffix(" HTTP/1.1"), headers, body.decode()))
                told = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
                if told == BREAKS:
                    return
                writer.write(told)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def calls(self, **options: Any) -> Calls:
        async def wait(seconds: float) -> None:
            self.waited.append(seconds)

        given = {"wait": wait, "draw": lambda: 0.5, **options}
        return Calls(self.url, TOKEN, **given)


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    made = Service()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield made


@pytest.fixture
async def calls(service: Service) -> AsyncIterator[Calls]:
    made = service.calls()
    yield made
    await made.close()


async def refused(awaited: Any) -> SvsyncError:
    with pytest.raises(SvsyncError) as caught:
        await awaited
    return caught.value


# --- what is made again ---------------------------------------------------------------


async def test_read_is_made_again_where_the_store_is_away(service: Service, calls: Calls) -> None:
    service.answers = [
        error(503, "store_unavailable", Retry_After="2"),
        BREAKS,
        answer(200, SECRET),
    ]
    assert (await Secrets(calls).read("a/b")).version == 3
    assert service.lines == ["GET /v1/secrets/a/b"] * 3
    assert service.waited == [2.0, 0.2]


async def test_read_is_made_four_times_at_most(service: Service, calls: Calls) -> None:
    service.answers = [error(503, "store_unavailable")]
    told = await refused(Secrets(calls).read("a/b"))
    assert (told.code, told.status, told.request_id) == ("store_unavailable", 503, "req_1")
    assert len(service.asked) == ATTEMPTS
    service.answers = [BREAKS]
    told = await refused(Secrets(calls).read("a/b"))
    assert (told.code, told.status, told.request_id) == ("service_unreachable", None, None)
    assert len(service.asked) == 2 * ATTEMPTS


async def test_nobody_waits_longer_than_the_call_may_take(service: Service) -> None:
    calls = service.calls(timeout=30)
    service.answers = [error(503, "store_unavailable", Retry_After="31")]
    told = await refused(Secrets(calls).read("a/b"))
    assert (told.retry_after, service.waited, len(service.asked)) == (31.0, [], 1)
    await calls.close()


@pytest.mark.parametrize(
    ("status", "code"),
    [(404, "secret_not_found"), (502, "backend_unreachable"), (500, "internal")],
)
async def test_answer_that_is_one_is_not_asked_for_again(
    service: Service, calls: Calls, status: int, code: str
) -> None:
    service.answers = [error(status, code)]
    assert (await refused(Secrets(calls).read("a/b"))).code == code
    assert len(service.asked) == 1


async def test_write_is_made_again_under_its_key(service: Service, calls: Calls) -> None:
    service.answers = [BREAKS, error(503, "store_unavailable"), answer(200, WRITTEN)]
    assert (await Secrets(calls).write("a/b", {"k": "v"}))["version"] == 4
    assert len(service.asked) == 3
    assert service.keys[0]
    assert set(service.keys) == {service.keys[0]}
    assert len({body for _, _, body in service.asked}) == 1
    await Secrets(calls).write("a/b", {"k": "v"})
    assert service.keys[3] != service.keys[0]
    await Secrets(calls).write("a/b", {"k": "v"}, idempotency_key="mine")
    assert service.keys[4] == "mine"


async def test_write_of_which_nobody_knows_is_told_as_that(service: Service, calls: Calls) -> None:
    service.answers = [BREAKS]
    assert (await refused(Secrets(calls).write("a/b", {}))).code == "outcome_unknown"
    assert len(service.asked) == ATTEMPTS


@pytest.mark.parametrize(
    ("last", "code"),
    [
        (error(401, "unauthenticated"), "outcome_unknown"),
        (error(403, "forbidden"), "outcome_unknown"),
        (error(410, "tenant_shredded"), "outcome_unknown"),
        (error(409, "version_conflict"), "version_conflict"),
        (error(409, "idempotency_outcome_unknown"), "idempotency_outcome_unknown"),
    ],
)
async def test_lost_write_is_undone_only_where_the_service_looked(
    service: Service, calls: Calls, last: bytes, code: str
) -> None:
    """A token that counts no more says nothing of the attempt before."""
    service.answers = [BREAKS, last]
    assert (await refused(Secrets(calls).write("a/b", {}))).code == code
    assert len(service.asked) == 2


async def test_lost_write_that_is_still_under_way_is_waited_for(
    service: Service, calls: Calls
) -> None:
    progress = error(409, "idempotency_in_progress")
    service.answers = [BREAKS, progress, answer(200, WRITTEN)]
    assert (await Secrets(calls).write("a/b", {}))["version"] == 4
    service.answers = [progress]
    assert (await refused(Secrets(calls).write("a/b", {}))).code == "idempotency_in_progress"
    assert len(service.asked) == 4


async def test_change_without_a_key_is_sent_once(service: Service, calls: Calls) -> None:
    """Also over a connection that was used before, where aiohttp itself would send a DELETE
    again: a second one finds nothing, and would tell of a policy that never was."""
    service.answers = [answer(200, {"id": "pol_1"}), BREAKS]
    await Policies(calls).get("p")
    told = await refused(Policies(calls).delete("p"))
    assert (told.code, service.waited) == ("outcome_unknown", [])
    assert service.lines == ["GET /v1/policies/p", "DELETE /v1/policies/p"]
    service.answers = [error(503, "store_unavailable")]
    assert (await refused(Policies(calls).delete("p"))).code == "store_unavailable"
    assert len(service.asked) == 3


async def test_change_that_was_not_sent_is_sent_again(service: Service) -> None:
    waited: list[float] = []

    async def wait(seconds: float) -> None:
        waited.append(seconds)

    gone = Calls("http://127.0.0.1:9", TOKEN, wait=wait, draw=lambda: 0.5)
    told = await refused(Policies(gone).delete("p"))
    assert (told.code, waited) == ("service_unreachable", [0.1, 0.2, 0.4])
    await gone.close()


async def test_connection_that_does_not_come_is_no_lost_answer() -> None:
    """A listener whose queue is full: the system answers nobody any more."""
    with socket.socket() as full, ExitStack() as waiting:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(2):
            one = waiting.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        calls = Calls(
            f"http://127.0.0.1:{full.getsockname()[1]}", TOKEN, timeout=1, draw=lambda: 9.0
        )
        assert (await refused(Policies(calls).delete("p"))).code == "service_unreachable"
        await calls.close()


async def test_change_that_was_turned_away_is_sent_again(service: Service, calls: Calls) -> None:
    service.answers = [error(429, "rate_limited", Retry_After="1"), answer(204)]
    await Policies(calls).delete("p")
    assert (len(service.asked), service.waited) == (2, [1.0])
    service.answers = [error(429, "too_many_failures", Retry_After="1")]
    assert (await refused(Policies(calls).delete("p"))).code == "too_many_failures"
    assert len(service.asked) == 3


# --- where a token goes ---------------------------------------------------------------


async def test_redirect_is_not_followed(service: Service, calls: Calls) -> None:
    elsewhere = Service()
    server = await asyncio.start_server(elsewhere.serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        service.answers = [answer(307, Location=f"http://127.0.0.1:{port}/v1/secrets/a/b")]
        told = await refused(Secrets(calls).read("a/b"))
    assert (told.code, elsewhere.asked) == ("redirected", [])


async def test_proxy_of_the_environment_is_not_used(
    service: Service, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    service.answers = [answer(200, SECRET)]
    assert (await Secrets(calls).read("a/b")).version == 3


async def test_token_of_now_is_asked_for_with_each_call(service: Service) -> None:
    tokens = iter(["svt_1", "svt_2"])
    calls = Calls(service.url, lambda: next(tokens))
    service.answers = [answer(200, SECRET)]
    await Secrets(calls).read("a/b")
    await Secrets(calls).read("a/b")
    sent = [headers["authorization"] for _, headers, _ in service.asked]
    assert sent == ["Bearer svt_1", "Bearer svt_2"]
    await calls.close()


@pytest.mark.parametrize("make", [Client, SyncClient])
@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://svsync.internal:8443", "must begin with https://"),
        ("http://10.0.0.1", "must begin with https://"),
        ("https://user:pass@svsync.internal", "must not hold a user or password"),
        ("https://svsync.internal?x=1", "must not hold a query"),
        ("svsync.internal", "must be a URL"),
        ("file:///etc/passwd", "must be a URL"),
    ],
)
def test_address_that_may_not_get_a_token_is_refused(make: Any, url: str, says: str) -> None:
    with pytest.raises(SvsyncError, match=re.escape(says)) as caught:
        make(url, TOKEN)
    assert caught.value.code == "invalid_argument"
    assert "pass@" not in str(caught.value)


def test_plain_http_goes_elsewhere_where_that_is_asked_for() -> None:
    Client("http://svsync.internal", TOKEN, allow_http=True)
    Client("http://localhost:1", TOKEN)
    Client("http://[::1]:1", TOKEN)


@pytest.mark.parametrize("token", ["", "two words", "line\r\nX-Injected: 1", "ü", None, b"bytes"])
def test_token_that_cannot_be_one_is_refused_unseen(token: Any) -> None:
    with pytest.raises(SvsyncError, match="token is one word") as caught:
        Client("https://svsync.internal", token)
    assert "Injected" not in str(caught.value)


@pytest.mark.parametrize("path", ["../policies/p", "a/../b", "/a", "a//b", "", "a?version=1", "ä"])
async def test_path_that_would_lead_elsewhere_is_not_sent(
    service: Service, calls: Calls, path: str
) -> None:
    assert (await refused(Secrets(calls).delete(path))).code == "invalid_argument"
    assert service.asked == []


async def test_name_is_one_part_of_a_path(service: Service, calls: Calls) -> None:
    service.answers = [answer(200, {"id": "pol_1"})]
    await Policies(calls).get("a/b?c")
    assert service.lines == ["GET /v1/policies/a%2Fb%3Fc"]
    for name in ("", ".", ".."):
        assert (await refused(Policies(calls).get(name))).code == "invalid_argument"
    assert len(service.asked) == 1


# --- what it says ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "code"),
    [
        (answer(200, "<html>"), "not_svsync"),
        (answer(200, {"path": "a/b"}), "not_svsync"),
        (answer(404, "<html>"), "not_svsync"),
        (answer(400, {"error": "no"}), "not_svsync"),
        (answer(502, "<html>"), "service_unreachable"),
    ],
)
async def test_what_is_not_svsync_is_told_as_that(
    service: Service, calls: Calls, told: bytes, code: str
) -> None:
    service.answers = [told]
    assert (await refused(Secrets(calls).read("a/b"))).code == code


async def test_gateway_that_fails_leaves_a_change_in_doubt(service: Service, calls: Calls) -> None:
    service.answers = [answer(504, "<html>")]
    assert (await refused(Policies(calls).delete("p"))).code == "outcome_unknown"
    assert len(service.asked) == 1


async def test_error_tells_all_that_the_api_tells(service: Service, calls: Calls) -> None:
    more = {"field": "paths[0]", "push_id": "psh_1", "conflict": {"conflict_id": "cfl_1"}}
    about = {"code": "some_code", "message": "A sentence.", "request_id": "req_2", **more}
    service.answers = [answer(422, {"error": about})]
    told = await refused(Secrets(calls).read("a/b"))
    assert (told.message, told.status, told.request_id) == ("A sentence.", 422, "req_2")
    assert (told.field, told.push_id, told.conflict) == tuple(more.values())
    assert str(told) == "some_code: A sentence. (request req_2)"


async def test_nothing_shows_a_value_or_the_token_by_itself(
    service: Service, calls: Calls, canary: Canary
) -> None:
    service.answers = [answer(200, {**SECRET, "data": {"k": canary.value()}})]
    secret = await Secrets(calls).read("a/b")
    assert repr(secret) == str(secret) == "Secret(path='a/b', version=3)"
    client = Client(service.url, TOKEN)
    assert TOKEN not in repr(client)
    broken = {"data": {"k": canary.value()}, "path": "a/b"}
    service.answers = [answer(200, json.dumps(broken)[:-1])]
    told = await refused(Secrets(calls).read("a/b"))
    assert not canary.found_in(str(told).encode())


async def test_closed_client_says_so(service: Service, calls: Calls) -> None:
    await calls.close()
    assert (await refused(Secrets(calls).read("a/b"))).code == "client_closed"


# --- numbers --------------------------------------------------------------------------

EXACT = '{"n": 1.10, "big": 12345678901234567890123, "e": 1E5, "minus": -0, "l": [0.10, true]}'


async def test_numbers_keep_their_text(service: Service, calls: Calls) -> None:
    text = json.dumps(SECRET).replace(json.dumps(SECRET["data"]), EXACT)
    service.answers = [answer(200, text), answer(200, WRITTEN)]
    secret = await Secrets(calls).read("a/b")
    assert secret.text == EXACT
    assert secret.data["n"] == 1.1
    assert (f"{secret.data['n']}", secret.data["big"]) == ("1.10", 12345678901234567890123)
    await Secrets(calls).write("a/b", secret.data, secret_type="json")
    assert service.asked[1][2] == f'{{"data": {EXACT}, "secret_type": "json"}}'
    await Secrets(calls).write("a/b", text='{ "k" :1.0 }')
    assert service.asked[2][2] == '{"data": { "k" :1.0 }}'


@pytest.mark.parametrize(
    "data", [{"k": float("nan")}, {"k": float("inf")}, {"k": b"x"}, {1: "k"}, {"k": {"x"}}]
)
async def test_value_that_no_json_holds_is_refused_unseen(
    service: Service, calls: Calls, data: Any
) -> None:
    assert (await refused(Secrets(calls).write("a/b", data))).code == "invalid_argument"
    assert service.asked == []


async def test_value_is_given_once(calls: Calls) -> None:
    assert (await refused(Secrets(calls).write("a/b"))).code == "invalid_argument"
    twice = Secrets(calls).write("a/b", {}, text="{}")
    assert (await refused(twice)).code == "invalid_argument"


def test_what_is_written_is_what_json_writes() -> None:
    value: Any = {"ä": ["\U0001f511", None, False, 1, 1.5, {"": {}}], "b": [], "c": "\u2028\x00"}
    assert encode(value) == json.dumps(value)
    assert decode(encode(value)) == value
    assert repr(Number("1.10")) == "1.10"
