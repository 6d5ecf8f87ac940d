"""Requests made from the document, one by one and along its links: is each answer one that it has?

A mistake of ours (500), a status, a body, a header or a content type that the document does not
have, and something that it forbids and the server takes, fail. `SVSYNC_GENERATED=50` makes fifty
times as many, other ones each time.
"""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final
from urllib.parse import unquote

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Flaky, Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.core.failures import FailureGroup
from tests.api import BACKENDS, DOCUMENT, Front
from tests.house import BACKEND
from tests.rawhttp import TIMES

from svsync.domain.access import Scope
from svsync.domain.paths import local_problem
from svsync.http.openapi import document

EXAMPLES: Final = 6 * TIMES
"""Of each operation, as it should be and as it should not."""
ROUNDS: Final = 8 * TIMES
SCENARIOS: Final = 5
"""Of each round, at most."""
STEPS: Final = 8
Case = schemathesis.Case[Any]
CHECKS: Final = {
    # A backend that cannot be reached is no mistake of ours; another check sees what is declared.
    "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", "502", "503", "504"]},
    # What the document leaves open, a rule of a backend or a policy may forbid.
    "positive_data_acceptance": {"enabled": False},
    "missing_required_header": {"enabled": False},
    # Asked of each route, with more kinds of tokens, in test_http_matrix.
    "ignored_auth": {"enabled": False},
    "object_level_authorization": {"enabled": False},
    # It does not know that a secret can be restored; `Steering` looks at that itself.
    "use_after_free": {"enabled": False},
}
PATHS: Final = ("app/a", "app/b", "team/x/y", "ext/a", "ext/b", "px/a")


def bounded(examples: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        derandomize=TIMES == 1,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


class Steering:
    """Leads generated requests to where something is, now and then: what is drawn from nothing
    but a schema names nothing that exists.

    Attributes:
        answers: how many there were, by operation and status.
        failures: what was wrong with some, by operation and check.
    """

    def __init__(self) -> None:
        self._draw = random.Random(1)
        self.answers: Counter[tuple[str, int]] = Counter()
        self.failures: dict[tuple[str, str], str] = {}
        self._gone: set[str] = set()

    def lead(self, case: Case) -> None:
        if case.meta is None or not case.meta.generation.mode.is_positive:
            return
        name, draw = _name(case), self._draw
        path = case.path_parameters.get("path")
        if isinstance(path, str) and local_problem(path) is not None and draw.random() < 0.9:
            case.path_parameters["path"] = draw.choice(PATHS)
        named = case.path_parameters.get("id")
        if case.path.startswith(BACKENDS) and named and not named.startswith("fed_"):
            case.path_parameters["id"] = BACKEND if draw.random() < 0.7 else named
        if name == "createPolicy" and isinstance(case.body, dict) and draw.random() < 0.7:
            case.body["rules"] = [{"path_pattern": "app/**", "permissions": ["read"]}]
        if name == "bindPolicy" and draw.random() < 0.7:
            case.body = {"identity_type": "user", "identity_id": "user:ada"}
        if name == "createWebhook" and isinstance(case.body, dict) and draw.random() < 0.8:
            case.body["url"] = "https://hooks.invalid/x"
        if name == "createBackend" and draw.random() < 0.8:
            case.body = _backend(draw)
        if name in ("writeSecret", "restoreSecret", "deleteSecret") and draw.random() < 0.7:
            for header in ("If-Match", "If-None-Match"):
                case.headers.pop(header, None)
        if name == "writeSecret" and isinstance(case.body, dict) and draw.random() < 0.7:
            case.body.pop("options", None)
            case.body.pop("metadata", None)

    def look(self, case: Case, response: Any, check: Callable[[], None]) -> None:
        """Count an answer, and note what is wrong with it."""
        self.answers[_name(case), response.status_code] += 1
        if response.status_code == 431:  # of every route alike, before any is looked for
            assert response.json()["error"]["code"] == "head_too_large"
            return
        if response.status_code < 300 and "Idempotency-Replayed" not in response.headers:
            self._follow(case)
        try:
            check()
        except FailureGroup as group:
            for failure in group.exceptions:
                sent = f"{case.method} {case.formatted_path} {case.query} {case.body!r}"[:500]
                self.failures.setdefault((_name(case), failure.title), f"{failure}\n{sent}")

    def _follow(self, case: Case) -> None:
        """What was deleted is there again only once somebody made or restored it."""
        name, place = _name(case), unquote(case.formatted_path).removesuffix("/restore")
        if name.startswith(("delete", "remove")):
            self._gone.add(place)
        elif name in ("writeSecret", "restoreSecret"):
            self._gone.discard(place)
        elif place in self._gone and name in ("readSecret", "showPolicy", "showWebhook"):
            # What a secret was before can be asked for as long as its history is kept.
            earlier = not case.query.keys().isdisjoint({"version", "versions"})
            if not earlier:
                self.failures[name, "gone"] = f"{place} is deleted, and shown"

    def told(self) -> str:
        """What was wrong, one after another."""
        return "\n\n".join(f"{name}: {about}" for (name, _), about in self.failures.items())

    def reached(self, name: str) -> bool:
        """Was it ever answered with what it is for?"""
        return any(status < 300 for found, status in self.answers if found == name)


def _name(case: Case) -> str:
    return str(case.operation.definition.raw["operationId"])


def _backend(draw: random.Random) -> dict[str, Any]:
    """One that can be made, of a store that is there or that nobody answers for."""
    number = draw.randint(0, 10**9)
    there = draw.random() < 0.7
    return {
        "name": f"n{number}",
        "type": "memory" if there else "hashicorp-vault",
        "mode": draw.choice(["proxy", "sync"]),
        "config": {
            "endpoint": "https://vault.internal" if there else "https://127.0.0.1:9",
            "auth_config_path": "infra/token",
            **({} if there else {"auth_method": "token"}),
        },
        "path_mapping": {f"made/n{number}/**": "kv/**" if there else "kv/data/**"},
    }


def read_by_schemathesis(front: Front, token: str) -> Any:
    """The document, against this front."""
    configured = schemathesis.Config.from_dict(
        {
            "base-url": front.client.url,
            "headers": {"Authorization": f"Bearer {token}"},
            "checks": CHECKS,
            "request-timeout": 30,
        }
    )
    return schemathesis.openapi.from_dict(json.loads(document()), config=configured)


async def _aside(work: Callable[[], None]) -> None:
    """In a thread, for the server answers in this one."""
    await asyncio.to_thread(work)


@pytest.fixture
async def token(front: Front) -> str:
    """Of somebody who may do anything, for as long as it takes; with something to be found."""
    house = front.house
    for name in ("a", "b"):
        house.there.put(f"kv/{name}", {"k": name})
    await house.run()
    await house.write("app/a", {"k": "1"})
    await house.write("infra/token", {"token": "t"})
    return await front.token(Scope.ADMIN, expires_in=24 * 3600)


NOUNS: Final = {
    ("secrets",): ("writeSecret", "readSecret", "deleteSecret"),
    ("federation", "conflicts", "feeds"): ("createBackend", "showBackend", "sync"),
    ("policies",): ("createPolicy", "showPolicy", "bindPolicy"),
    ("webhooks",): ("createWebhook", "showWebhook", "listDeliveries"),
}
"""Tags of what is linked, and what must have been reached there."""


@pytest.mark.parametrize("tags", NOUNS, ids=lambda tags: tags[0])
async def test_answers_along_the_links_are_those_of_the_document(
    front: Front, token: str, tags: tuple[str, ...]
) -> None:
    steering = Steering()
    schema = read_by_schemathesis(front, token).include(tag=list(tags))

    class Looked(schema.as_state_machine()):  # type: ignore[misc]
        def before_call(self, case: Case) -> None:
            steering.lead(case)

        def validate_response(self, response: Any, case: Case, **options: Any) -> None:
            check = partial(super().validate_response, response, case, **options)
            steering.look(case, response, check)

    def run() -> None:
        Looked.TestCase.settings = settings(bounded(SCENARIOS), derandomize=False)
        for number in range(ROUNDS):
            seed(number if TIMES == 1 else random.getrandbits(32))(Looked)
            # What was made by one scenario is there for the next, so no two are alike.
            with suppress(Flaky):
                Looked.TestCase().runTest()

    await _aside(run)
    assert not steering.failures, steering.told()
    for name in NOUNS[tags]:
        assert steering.reached(name), steering.answers


def test_each_link_of_the_document_is_followed_by_some_answer() -> None:
    linked = {
        link["$ref"].rpartition("/")[2]
        for operations in DOCUMENT["paths"].values()
        for operation in operations.values()
        if isinstance(operation, dict)
        for response in operation.get("responses", {}).values()
        for link in response.get("links", {}).values()
    }
    assert linked == set(DOCUMENT["components"]["links"])


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
async def test_each_operation_answers_as_the_document_says(
    front: Front, token: str, mode: GenerationMode
) -> None:
    steering, schema = Steering(), read_by_schemathesis(front, token)

    def run() -> None:
        for found in schema.get_all_operations():
            operation = found.ok()

            @bounded(EXAMPLES)
            @given(case=operation.as_strategy(generation_mode=mode))
            def asked(case: Case) -> None:
                steering.lead(case)
                response = case.call()
                steering.look(case, response, partial(case.validate_response, response))

            with suppress(Unsatisfiable):  # nothing of it could be wrong
                asked()

    await _aside(run)
    assert not steering.failures, steering.told()
    assert {name for name, _ in steering.answers} <= {
        operation["operationId"]
        for operations in DOCUMENT["paths"].values()
        for operation in operations.values()
        if isinstance(operation, dict)
    }
    assert len(steering.answers) > 30
