"""Whole cycles over generated trees of secrets on a real OpenBao.

Names and values are those that nobody thought of: odd characters, secrets that are
folders as well, deep nesting, numbers that doubles mangle, several versions, deleted
and destroyed ones. What OpenBao itself answers for each name is what must be here.
"""

import json
import random
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from tests.openbao import Bao, detailed_policy, guide_policy
from yarl import URL

from svsync.app import App, open_app
from svsync.config.load import load
from svsync.domain.errors import NotFoundError
from svsync.domain.ids import LocalPath
from svsync.domain.paths import local_problem
from svsync.services.run_ends import Ended
from svsync.services.runs import Request

ALPHABETS = ("abcdefgh0123", "ABCdef._-", "a b#?%+", "äßé日本語", "~!@$&*()=,;:'\"[]{}|^`<>")


class Tree:
    """What was put into one mount, and what should come out of it."""

    def __init__(self, bao: Bao, dice: random.Random) -> None:
        self.bao = bao
        self.dice = dice
        self.names: dict[str, None] = {}

    def name(self) -> str:
        dice = self.dice
        depth = dice.choice((1, 1, 2, 2, 3, 5))
        segments = [self.segment() for _ in range(depth)]
        if self.names and dice.random() < 0.5:  # below, or exactly where, something stands
            segments = [*dice.choice(list(self.names)).split("/")[: dice.randint(1, 3)], *segments]
        return "/".join(segments)

    def segment(self) -> str:
        alphabet = self.dice.choices(ALPHABETS, weights=(12, 6, 1, 1, 1))[0]
        text = "".join(self.dice.choice(alphabet) for _ in range(self.dice.randint(1, 9)))
        # KV refuses a name that ends in a blank or is a dot segment
        return "x" if not text.strip(" .") else text.strip()

    def value(self, depth: int = 0) -> Any:
        dice = self.dice
        kind = dice.randint(0, 9 if depth < 4 else 6)
        match kind:
            case 0:
                return dice.choice((0, -1, 2**53, 12345678901234567890, 10**40))
            case 1:
                return dice.choice((1.5, 1e300, 1e-7, -0.0, 0.1))
            case 2:
                return dice.choice((True, False, None))
            case 3 | 4 | 5 | 6:
                pool = 'abc \\"/\n\t\u0000\u001f<>&\u2028é漢😀'
                return "".join(dice.choice(pool) for _ in range(dice.randint(0, 40)))
            case 7:
                return [self.value(depth + 1) for _ in range(dice.randint(0, 3))]
            case _:
                return self.data(depth + 1)

    def data(self, depth: int = 0) -> dict[str, Any]:
        keys = ["password", "user", "a b", "", "日本", "x" * 60, '"q"', "n"]
        return {
            self.dice.choice(keys) + str(n): self.value(depth)
            for n in range(self.dice.randint(0 if depth else 1, 4))
        }

    async def grow(self, count: int) -> None:
        for _ in range(count):
            name = self.name()
            self.names[name] = None
            for _ in range(self.dice.choice((1, 1, 1, 2, 3))):
                await self.bao.put(name, self.data())
            if self.bao.version == 2 and self.dice.random() < 0.2:
                await self.bao.tag(name, {"env": self.dice.choice("pq"), "o b": "x=y,é"})

    async def change(self, count: int) -> None:
        for name in self.dice.sample(list(self.names), min(count, len(self.names))):
            match self.dice.randint(0, 4):
                case 0 if self.bao.version == 2:
                    await self.bao.delete(name)
                case 1 if self.bao.version == 2:
                    await self.bao.remove(name)
                case 2 if self.bao.version == 2:
                    await self.bao.tag(name, {"env": "changed"})
                case _:
                    await self.bao.put(name, self.data())

    def remote(self, name: str) -> str:
        middle = "data/" if self.bao.version == 2 else ""
        return f"{self.bao.mount}/{middle}{name}"

    async def truth(self) -> dict[str, Any]:
        """Every readable secret as OpenBao itself gives it, numbers as their text."""
        found: dict[str, Any] = {}
        async with aiohttp.ClientSession(headers={"X-Vault-Token": self.bao.root_token}) as http:
            for name in self.names:
                path = quote(self.remote(name), safe="/")
                async with http.get(URL(f"{self.bao.url}/v1/{path}", encoded=True)) as answer:
                    if answer.status == 200:
                        told = _parsed(await answer.text())["data"]
                        found[name] = told["data"] if self.bao.version == 2 else told
        return found


def _parsed(text: str) -> Any:
    return json.loads(text, parse_float=str, parse_int=str)


async def _check(app: App, ended: Ended, tree: Tree, prefix: str) -> int:
    """Each secret that OpenBao holds is here byte for byte, or was reported as skipped."""
    tenant = await app.tenant("default")
    skipped = {s.remote_path: s.reason for s in ended.report.skipped}
    here = 0
    for name, data in (await tree.truth()).items():
        local = f"{prefix}/{name}"
        remote = tree.remote(name)
        if local_problem(local) is not None:
            assert remote in skipped, name
            continue
        _, text = await app.secrets.get(tenant, LocalPath(local))
        assert _parsed(text.decode()) == data, name
        here += 1
    return here


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_generated_tree_arrives_whole_and_stays_right(
    seed: int, kv2: Bao, kv1: Bao, database_url: str, tmp_path: Path
) -> None:
    dice = random.Random(seed)
    trees = [(Tree(kv2, dice), "ext"), (Tree(kv1, dice), "old")]
    for tree, _ in trees:
        await tree.grow(60)
    policy = guide_policy(kv2.mount) + guide_policy(kv1.mount, version=1)
    if seed != 2:  # and once as HashiCorp Vault lists, by plain LIST and metadata reads
        policy += detailed_policy(kv2.mount)
    token = await kv2.token(policy)
    file = tmp_path / "svsync.yaml"
    file.write_text(
        json.dumps(
            {
                "allow_loopback": True,
                "state_dir": str(tmp_path / "state"),
                "backends": [
                    {
                        "id": "fed_abc",
                        "name": "vault",
                        "type": "hashicorp-vault",
                        "mode": "sync",
                        "guard": {"max_delete_ratio": 1, "max_delete_count": 1000},
                        "config": {
                            "endpoint": kv2.url,
                            "auth_method": "token",
                            "auth_config_path": "env:VAULT_TOKEN_FOR_TEST",
                        },
                        "path_mapping": [
                            {"local": "ext/**", "remote": f"{kv2.mount}/data/**"},
                            {"local": "old/**", "remote": f"{kv1.mount}/**"},
                        ],
                    }
                ],
            }
        )
    )
    settings = load(str(file), {"DATABASE_URL": database_url})
    async with open_app(settings, environ={"VAULT_TOKEN_FOR_TEST": token}) as app:
        tenant = await app.tenant("default")

        async def run() -> Ended:
            ended = await app.runs.run(tenant, Request("fed_abc"), lambda *_: None)
            assert ended.cause is None, ended.cause
            return ended

        ended = await run()
        for tree, prefix in trees:
            assert await _check(app, ended, tree, prefix) > 25
        for _ in range(2):
            for tree, _ in trees:
                await tree.change(20)
                await tree.grow(5)
            ended = await run()
            for tree, prefix in trees:
                await _check(app, ended, tree, prefix)
        before = await _everything(app)
        still = (await run()).report.counts()
        assert (still["created"], still["updated"], still["deleted"], still["conflicts"]) == (
            0,
        ) * 4
        assert await _everything(app) == before
        truth = await trees[0][0].truth()
        for name in (
            n for n in trees[0][0].names if n not in truth
        ):  # deleted there, kept here: the default is to retain
            if local_problem(f"ext/{name}") is None:
                await _retained(app, f"ext/{name}")


async def _everything(app: App) -> list[object]:
    tenant = await app.tenant("default")
    listed: Any = await app.secrets.list_secrets(tenant, "", limit=1000)
    return [(s["path"], s["version"], s["status"], s["metadata"]) for s in listed["secrets"]]


async def _retained(app: App, path: str) -> None:
    tenant = await app.tenant("default")
    try:
        shown, _ = await app.secrets.get(tenant, LocalPath(path))
    except NotFoundError:
        return  # it was gone before it was ever seen
    federation: Any = shown["federation"]
    assert federation["status"] == "retained"
