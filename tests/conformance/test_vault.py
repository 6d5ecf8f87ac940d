"""OpenBao passes the suite: KV v2 with and without its detailed listing, KV v1."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import pytest
from tests.openbao import Bao, detailed_policy, guide_policy
from tests.servers import Front
from tests.vault_writes import hand_patches_on, older_policy, writing_policy

from svsync.backends.vault import VaultDriver
from svsync.domain.federation import BackendSpec, RuleSpec
from svsync.domain.ids import BackendId
from svsync.domain.values import Credential
from svsync.network import NetworkPolicy
from svsync.ports import Backend
from svsync.testing.conformance import Ability, BackendConformance, CountingGuard, Scene
from svsync.testing.conformance_writes import WriteConformance

MAX_VALUE: Final = 2000
V1: Final[frozenset[Ability]] = frozenset({"deny", "deny_writes", "hide", "outage"})
V2: Final[frozenset[Ability]] = V1 | {"tokens", "tags", "soft_delete", "destroy"}


@dataclass
class VaultScene:
    """A mount of its own; the token's policy is rewritten to hide and deny."""

    bao: Bao
    front: Front
    backend: Backend
    guard: CountingGuard
    policy: str
    can: frozenset[Ability]
    max_value: int = MAX_VALUE
    _denials: list[str] = field(default_factory=list)

    @property
    def prefix(self) -> str:
        return f"{self.bao.mount}/data/" if self.bao.version == 2 else f"{self.bao.mount}/"

    async def put(self, name: str, fields: Mapping[str, str]) -> None:
        await self.bao.put(name, dict(fields))

    async def remove(self, name: str) -> None:
        if self.bao.version == 2:
            await self.bao.remove(name)
        else:
            await self.bao.delete(name)

    async def tag(self, name: str, tags: Mapping[str, str]) -> None:
        await self.bao.tag(name, tags)

    async def delete(self, name: str) -> None:
        await self.bao.delete(name)

    async def undelete(self, name: str) -> None:
        await self.bao.undelete(name, [1])

    async def destroy(self, name: str) -> None:
        await self.bao.destroy(name, [1])

    async def hide(self, name: str) -> None:
        """Filters listings by what the token may not touch (OpenBao 2.4 and later)."""
        mount = self.bao.mount
        verbs = ["metadata/", "data/"] if self.bao.version == 2 else [""]
        for verb in verbs:
            self._denials.append(f'path "{mount}/{verb}{name}" {{ capabilities = ["deny"] }}\n')
        listings = ["metadata/", "detailed-metadata/"] if self.bao.version == 2 else [""]
        shown = f"{mount}/{verbs[0]}{{{{ .key }}}}"
        for verb in listings:
            self._denials.append(
                f'path "{mount}/{verb}*" {{ capabilities = ["read", "list"]\n'
                f'  list_scan_response_keys_filter_path = "{shown}" }}\n'
            )
        await self._rewrite()

    async def deny(self, folder: str) -> None:
        mount = self.bao.mount
        verbs = ["metadata/", "data/", "detailed-metadata/"] if self.bao.version == 2 else [""]
        for verb in verbs:
            path = f"{mount}/{verb}{folder}"
            self._denials.append(f'path "{path}*" {{ capabilities = ["deny"] }}\n')
        await self._rewrite()

    async def deny_writes(self, folder: str) -> None:
        mount, v2 = self.bao.mount, self.bao.version == 2
        for verb in ["data/", "metadata/"] if v2 else [""]:
            path = f"{mount}/{verb}{folder}"
            self._denials.append(f'path "{path}*" {{ capabilities = ["read", "list"] }}\n')
        for verb in ["delete/", "undelete/"] if v2 else []:
            path = f"{mount}/{verb}{folder}"
            self._denials.append(f'path "{path}*" {{ capabilities = ["deny"] }}\n')
        await self._rewrite()

    async def break_down(self) -> None:
        self.front.rules.clear()
        self.front.refuse("/v1/", 503)

    async def _rewrite(self) -> None:
        name, text = self.policy.split("\n", 1)
        body = {"policy": text + "".join(self._denials)}
        await self.bao.request("PUT", f"sys/policies/acl/{name}", body)


def spec_of(bao: Bao, url: str) -> BackendSpec:
    remote = f"{bao.mount}/data/**" if bao.version == 2 else f"{bao.mount}/**"
    return BackendSpec(
        BackendId("fed_vault"),
        "vault",
        "hashicorp-vault",
        (RuleSpec("external/**", remote),),
        config={"endpoint": url, "auth_method": "token"},
        max_value_bytes=MAX_VALUE,
        extra={"allow_blind_push": True},
    )


@asynccontextmanager
async def opened(bao: Bao, text: str, can: frozenset[Ability]) -> AsyncIterator[VaultScene]:
    async with Front(bao.url) as front:
        hand_patches_on(front)
        name = await bao.policy(text)
        made = await bao.request("POST", "auth/token/create", {"policies": [name]})
        assert isinstance(made["auth"], dict)
        token = str(made["auth"]["client_token"])

        async def credential() -> Credential:
            return Credential.parse(token, "test")

        guard = CountingGuard()
        driver = VaultDriver(NetworkPolicy(allow_loopback=True))
        async with driver.open(spec_of(bao, front.url), credential, guard) as backend:
            yield VaultScene(bao, front, backend, guard, f"{name}\n{text}", can)


class TestKv2(BackendConformance):
    """With the optional policy line: one call a page."""

    @pytest.fixture
    async def scene(self, kv2: Bao) -> AsyncIterator[Scene]:
        text = guide_policy(kv2.mount) + detailed_policy(kv2.mount)
        async with opened(kv2, text, V2) as scene:
            yield scene


class TestKv2WithTheGuidesPolicy(BackendConformance):
    """Names, then a metadata read each; detailed-metadata is denied."""

    @pytest.fixture
    async def scene(self, kv2: Bao) -> AsyncIterator[Scene]:
        async with opened(kv2, guide_policy(kv2.mount), V2) as scene:
            yield scene


class TestKv2AsOnHashicorpVault(BackendConformance):
    """The route does not exist, whatever the policy grants."""

    @pytest.fixture
    async def scene(self, kv2: Bao) -> AsyncIterator[Scene]:
        text = guide_policy(kv2.mount) + detailed_policy(kv2.mount)
        async with opened(kv2, text, V2) as scene:
            scene.front.refuse("GET .*/detailed-metadata/", 405)
            yield scene


class TestKv2Writes(WriteConformance):
    @pytest.fixture
    async def scene(self, kv2: Bao) -> AsyncIterator[Scene]:
        text = writing_policy(kv2.mount) + detailed_policy(kv2.mount)
        async with opened(kv2, text, V2) as scene:
            yield scene


class TestKv2WritesWithOlderRights(WriteConformance):
    """Tags as a whole, because single keys may not be changed; a delete of whatever is
    current, because a version may not be named."""

    @pytest.fixture
    async def scene(self, kv2: Bao) -> AsyncIterator[Scene]:
        async with opened(kv2, older_policy(kv2.mount), V2) as scene:
            yield scene


class TestKv1(BackendConformance):
    @pytest.fixture
    async def scene(self, kv1: Bao) -> AsyncIterator[Scene]:
        async with opened(kv1, guide_policy(kv1.mount, version=1), V1) as scene:
            yield scene


class TestKv1Writes(WriteConformance):
    @pytest.fixture
    async def scene(self, kv1: Bao) -> AsyncIterator[Scene]:
        async with opened(kv1, writing_policy(kv1.mount, version=1), V1) as scene:
            yield scene
