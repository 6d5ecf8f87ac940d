"""GCP Secret Manager passes the suite, on a stand-in below the SDK's own client: the
secrets of a project, and those of a location."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import pytest
from grpc import StatusCode
from tests.gcp import PLACE, PREFIX, Gcp, open_gcp
from tests.gcp_fake import State

from svsync.ports import Backend
from svsync.testing.conformance import Ability, BackendConformance, CountingGuard, Scene
from svsync.testing.conformance_writes import WriteConformance

MAX_VALUE: Final = 2000
CAN: Final[frozenset[Ability]] = frozenset({"tags", "soft_delete", "destroy", "outage"})


@dataclass
class GcpScene:
    """A prefix of its own, in a project that holds something else beside it."""

    gcp: Gcp
    backend: Backend
    guard: CountingGuard
    place: str
    can: frozenset[Ability] = CAN
    max_value: int = MAX_VALUE
    prefix: str = PREFIX

    async def put(self, name: str, fields: Mapping[str, str]) -> None:
        self.gcp.fake.add(PREFIX + name, json.dumps(fields).encode(), self.place)

    async def remove(self, name: str) -> None:
        self.gcp.fake.delete(PREFIX + name, self.place)

    async def tag(self, name: str, tags: Mapping[str, str]) -> None:
        self.gcp.fake.label(PREFIX + name, tags, self.place)

    async def delete(self, name: str) -> None:
        self.gcp.fake.set_state(PREFIX + name, State.DISABLED, place=self.place)

    async def undelete(self, name: str) -> None:
        self.gcp.fake.set_state(PREFIX + name, State.ENABLED, place=self.place)

    async def destroy(self, name: str) -> None:
        self.gcp.fake.set_state(PREFIX + name, State.DESTROYED, place=self.place)

    async def break_down(self) -> None:
        self.gcp.fake.fail("", StatusCode.INTERNAL)

    async def deny_writes(self, folder: str) -> None:
        raise NotImplementedError

    async def hide(self, name: str) -> None:
        raise NotImplementedError

    async def deny(self, folder: str) -> None:
        raise NotImplementedError


@asynccontextmanager
async def opened(gcp: Gcp, place: str = "") -> AsyncIterator[GcpScene]:
    gcp.fake.add("somebody-elses", b"x", place)
    config: dict[str, Any] = {"location": place} if place else {}
    async with open_gcp(gcp, max_value_bytes=MAX_VALUE, config=config) as made:
        yield GcpScene(gcp, made.backend, made.guard, place)


class TestGlobal(BackendConformance):
    @pytest.fixture
    async def scene(self, gcp: Gcp) -> AsyncIterator[Scene]:
        async with opened(gcp) as scene:
            yield scene


class TestRegional(BackendConformance):
    @pytest.fixture
    async def scene(self, gcp: Gcp) -> AsyncIterator[Scene]:
        async with opened(gcp, PLACE) as scene:
            yield scene


class TestGlobalWrites(WriteConformance):
    @pytest.fixture
    async def scene(self, gcp: Gcp) -> AsyncIterator[Scene]:
        async with opened(gcp) as scene:
            yield scene


class TestRegionalWrites(WriteConformance):
    @pytest.fixture
    async def scene(self, gcp: Gcp) -> AsyncIterator[Scene]:
        async with opened(gcp, PLACE) as scene:
            yield scene
