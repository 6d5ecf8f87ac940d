"""`svsync demo --keep`: the demo's store is served until somebody ends it.

The service is a process of its own, `svsync serve` with the demo's configuration, in a
session of its own: Ctrl-C at the terminal reaches the demo alone, which ends the service and
then everything beside it. What is offered to try are a token, and three calls with it.
"""

import asyncio
import contextlib
import json
import os
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from svsync.cli.arguments import acting_user
from svsync.cli.demo_config import LIVE
from svsync.cli.demo_hands import Hands
from svsync.cli.opening import record
from svsync.domain.access import Identity, Scope
from svsync.domain.bindings import Bound
from svsync.domain.errors import SetupError
from svsync.domain.policies import Permission
from svsync.domain.values import SecretValue
from svsync.embedded.processes import end_process
from svsync.services.policies import NewRule

_READ: Final = "databases/prod/billing"
_CALLS: Final = (
    ("what goes through to OpenBao, at this moment", f"{LIVE}/{_READ}"),
    ("the copy of it that is synced", f"external/platform/{_READ}"),
    ("what no policy lets you read", "external/payments/hsm/partition-0"),
)
"""What each of the three commands reads, and where."""
_IDENTITY: Final = "sa:demo"
_POLICY: Final = "demo"
_RULES: Final = (
    NewRule("external/**", (Permission.LIST,)),
    NewRule("external/platform/**", (Permission.READ,)),
    NewRule(f"{LIVE}/**", (Permission.READ,)),
)
_START_S: Final = 60.0
_END_S: Final = 30.0
"""More than the service takes to give back what it has in hand."""
_POLL_S: Final = 0.05
_PASSED_ON: Final = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "TZ", "PYTHONPATH")
"""Of the environment; the rest may be about somebody's production."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What is up, and how to try it.

    Attributes:
        api, metrics, openbao: addresses.
        token: what the commands take from the variable SVSYNC_TOKEN.
        commands: what each is about, and its line for a shell.
    """

    api: str
    metrics: str
    openbao: str
    token: SecretValue
    commands: tuple[tuple[str, str], ...]

    def as_json(self) -> dict[str, object]:
        return {
            "api": self.api,
            "metrics": self.metrics,
            "openbao": self.openbao,
            "token": self.token.reveal(),
            "commands": [line for _, line in self.commands],
        }


async def keep_up(
    hands: Hands, config: Path, ended: asyncio.Event, tell: Callable[[Kept], None]
) -> None:
    """Serve the demo's store until `ended`; `tell` is called once that runs.

    Raises:
        SetupError: it does not start, or ends by itself.
    """
    token = await _give_a_token(hands)
    log = hands.state_dir / "serve.log"
    async with _serving(config, log) as process:
        serving = await _started(process, log)
        api = str(serving["address"])
        commands = tuple(
            (what, f'curl -sS -H "Authorization: Bearer $SVSYNC_TOKEN" {api}/v1/secrets/{path}')
            for what, path in _CALLS
        )
        tell(Kept(api, str(serving["endpoint"]), hands.estate.server.url, token, commands))
        waits = [asyncio.create_task(ended.wait()), asyncio.create_task(process.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if not ended.is_set():
            raise SetupError(f"the service ended by itself: see {log}")


async def _give_a_token(hands: Hands) -> SecretValue:
    """A token that may read some and list all, recorded as an operator's are."""
    app, tenant, by = hands.app, hands.tenant, f"cli:{acting_user()}"
    identity = Identity.parse(_IDENTITY)
    rules = [[rule.path_pattern, ",".join(rule.permissions)] for rule in _RULES]
    await record(app, tenant, "policy.create", about={"policy": _POLICY, "rules": rules})
    await app.policies.create(tenant, _POLICY, _RULES, by=by)
    await record(app, tenant, "policy.bind", about={"policy": _POLICY, "identity_id": identity.id})
    await app.policies.bind(tenant, _POLICY, Bound.parse(_IDENTITY), by=by)
    scopes = [Scope.SECRETS_READ, Scope.FEDERATION_READ]
    asked = {"identity_id": identity.id, "scopes": list(map(str, scopes)), "expires_in": None}
    await record(app, tenant, "token.create", about=asked)
    made = await app.access.create(tenant, identity, scopes, expires_in=None, by=by)
    return made.text


@contextlib.asynccontextmanager
async def _serving(config: Path, log: Path) -> AsyncIterator[Process]:
    """`svsync serve` on free ports of loopback, ended with the block."""
    environ = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    environ |= {
        "BIND_ADDRESS": "127.0.0.1:0",
        "METRICS_ADDRESS": "127.0.0.1:0",
        "LOG_FORMAT": "json",
    }
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "svsync", "serve", "--config", str(config)),
            stdin=DEVNULL,
            stdout=DEVNULL,
            stderr=file,
            env=environ,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        await end_process(process, _END_S)


async def _started(process: Process, log: Path) -> dict[str, Any]:
    """The line of its log that tells where it serves, once it is written."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_START_S):
            while process.returncode is None:
                if told := _serving_line(log):
                    return told
                await asyncio.sleep(_POLL_S)
    raise SetupError(f"the service did not start: see {log}")


def _serving_line(log: Path) -> dict[str, Any]:
    written = log.read_text(encoding="utf-8", errors="replace").rpartition("\n")[0]
    for line in written.splitlines():
        if '"event": "serving"' in line:
            told: dict[str, Any] = json.loads(line)
            return told
    return {}
