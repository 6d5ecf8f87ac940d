"""AWS Secrets Manager passes the suite: on one emulator with batches and without, and on
another with them: it too is asked one by one, for what a batch leaves out and for history."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import pytest
from tests.aws import Aws, AwsFront, open_aws

from svsync.ports import Backend
from svsync.testing.conformance import Ability, BackendConformance, CountingGuard, Scene
from svsync.testing.conformance_writes import WriteConformance

MAX_VALUE: Final = 2000
CAN: Final[frozenset[Ability]] = frozenset(
    {"tokens", "tags", "soft_delete", "deny_writes", "outage"}
)


@dataclass
class AwsScene:
    """A prefix of its own."""

    aws: Aws
    front: AwsFront
    backend: Backend
    guard: CountingGuard
    can: frozenset[Ability] = CAN
    max_value: int = MAX_VALUE

    @property
    def prefix(self) -> str:
        return self.aws.prefix

    async def put(self, name: str, fields: Mapping[str, str]) -> None:
        await self.aws.put(name, dict(fields))

    async def remove(self, name: str) -> None:
        await self.aws.remove(name)

    async def tag(self, name: str, tags: Mapping[str, str]) -> None:
        await self.aws.tag(name, tags)

    async def delete(self, name: str) -> None:
        await self.aws.delete(name)

    async def undelete(self, name: str) -> None:
        await self.aws.restore(name)

    async def deny_writes(self, folder: str) -> None:
        writes = "(Put|Update|Delete|Tag|Untag|Restore)[A-Za-z]+"
        self.front.refuse_as(f"^{writes} {self.prefix}{folder}", "AccessDeniedException")

    async def break_down(self) -> None:
        self.front.rules.clear()
        self.front.refuse_as("", "InternalServiceError", 500)

    async def destroy(self, name: str) -> None:
        raise NotImplementedError

    async def hide(self, name: str) -> None:
        raise NotImplementedError

    async def deny(self, folder: str) -> None:
        raise NotImplementedError


@asynccontextmanager
async def opened(aws: Aws) -> AsyncIterator[AwsScene]:
    async with (
        AwsFront(aws.url) as front,
        open_aws(front.url, aws.prefix, max_value_bytes=MAX_VALUE) as made,
    ):
        yield AwsScene(aws, front, made.backend, made.guard)


class TestRoto(BackendConformance):
    @pytest.fixture
    async def scene(self, roto: Aws) -> AsyncIterator[Scene]:
        async with opened(roto) as scene:
            yield scene


class TestRotoWithoutBatches(BackendConformance):
    """The guide's policy does not grant them."""

    @pytest.fixture
    async def scene(self, roto: Aws) -> AsyncIterator[Scene]:
        async with opened(roto) as scene:
            scene.front.refuse_as("^BatchGetSecretValue", "AccessDeniedException")
            yield scene


class TestRotoWrites(WriteConformance):
    @pytest.fixture
    async def scene(self, roto: Aws) -> AsyncIterator[Scene]:
        async with opened(roto) as scene:
            yield scene


class TestMoto(BackendConformance):
    @pytest.fixture
    async def scene(self, moto: Aws) -> AsyncIterator[Scene]:
        async with opened(moto) as scene:
            yield scene


class TestMotoWrites(WriteConformance):
    @pytest.fixture
    async def scene(self, moto: Aws) -> AsyncIterator[Scene]:
        async with opened(moto) as scene:
            yield scene
