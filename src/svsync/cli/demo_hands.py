"""What the demo's steps are made of: a run, a read, a look; and what a step shows.

A step checks that it turned out as it tells (`expect`), so that the demo is a test
as well.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from svsync.app import App
from svsync.cli.demo_cable import Cable
from svsync.cli.demo_estate import Estate, Held, Mount
from svsync.cli.demo_secrets import Data
from svsync.domain.errors import NotFoundError, SvsyncError
from svsync.domain.ids import LocalPath, TenantId
from svsync.domain.runs import Count, Stage
from svsync.domain.values import Payload
from svsync.services.pushes import HOLD_S
from svsync.services.run_ends import Ended
from svsync.services.runs import Request
from svsync.services.secrets import MAX_PAGE
from svsync.services.write_rows import Put

COLUMNS: Final = ("what happens", "answer", "here", "OpenBao")
"""Of the tables that follow a secret on both sides."""
_ASKS: Final = 300
_POLL_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under their column names, below a line of text where there is one."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[object, ...]]
    title: str = ""


@dataclass(frozen=True, slots=True)
class Told:
    """What a step showed: tables, one line that concludes, the numbers for `--json`."""

    tables: Sequence[Table]
    conclusion: str
    numbers: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Step:
    """One step: `why` is printed before `tell` does it."""

    name: str
    title: str
    why: str
    tell: Callable[["Hands"], Awaitable[Told]]


@dataclass(frozen=True, slots=True)
class Hands:
    """What people do with svsync, on an open app; `estate` is the company's side, and
    `cable` is how `fed_shared` reaches it. `written`: values that were written meanwhile,
    on either side."""

    app: App
    tenant: TenantId
    estate: Estate
    cable: Cable
    state_dir: Path
    written: list[Data] = field(default_factory=list)
    began: dict[LocalPath, float] = field(default_factory=dict)

    async def run_all(self, *, dry: bool = False) -> list[tuple[Mount, Ended]]:
        return [(mount, await self.run(mount, dry=dry)) for mount in self.estate.mounts]

    async def run(
        self,
        mount: Mount,
        *,
        dry: bool = False,
        when_committing: Callable[[], Awaitable[None]] | None = None,
    ) -> Ended:
        """One run; `when_committing` is begun once, when its first batch is committed."""
        committed = asyncio.Event()

        def progress(stage: Stage, done: int, total: int | None) -> None:
            if stage is Stage.COMMIT:
                committed.set()

        async def strike() -> None:
            if when_committing is not None:
                await committed.wait()
                await when_committing()

        striking = asyncio.create_task(strike())
        request = Request(f"fed_{mount.name}", dry=dry)
        try:
            ended = await self.app.runs.run(self.tenant, request, progress)
            if committed.is_set():
                await striking
        finally:
            striking.cancel()
        return ended

    async def write(self, path: LocalPath, value: Data, **options: Any) -> dict[str, object]:
        """Write a secret, as an application does; how far it went."""
        self.written.append(value)
        self.began[path] = time.monotonic()
        put = Put(Payload.from_json_text(json.dumps(value)), **options)
        return through(await self.app.writes.put(self.tenant, path, put, by="demo"))

    async def change_there(self, mount: Mount, path: str, value: Data) -> None:
        """Somebody else writes it in OpenBao."""
        self.written.append(value)
        await self.estate.put(mount, path, value)

    async def refused(self, path: LocalPath, value: Data) -> SvsyncError:
        """Try to write what svsync should not take; its answer."""
        try:
            await self.write(path, value)
        except SvsyncError as error:
            return error
        raise unexpected(f"a write of {path} is refused")

    async def run_when_settled(self, mount: Mount, path: LocalPath) -> Ended:
        """The run that settles the open write of a path: the first that comes after its
        time is over. One that comes before leaves the path alone."""
        await asyncio.sleep(self.began[path] + HOLD_S - time.monotonic())
        for _ in range(_ASKS):
            ran = await self.run(mount)
            if await self.open_writes(mount) == 0:
                return ran
            await asyncio.sleep(_POLL_SECONDS)
        raise unexpected(f"a run finds out what became of the write of {path}")

    async def open_writes(self, mount: Mount) -> object:
        """How many writes to a backend nobody knows the end of yet."""
        told = await self.app.federation.status(self.tenant, f"fed_{mount.name}")
        return told["pending_pushes"]

    async def sides(self, mount: Mount, path: str) -> tuple[int, Held]:
        """The version that is served here, and what OpenBao holds, for a secret that both
        sides should agree on."""
        local, held = local_path(mount, path), await self.estate.held(mount, path)
        expect(await self.value(local) == held.value, f"both sides of {local} are equal")
        return await self.version(local), held

    async def paths(self, prefix: str) -> dict[str, int]:
        """Live local paths below a prefix, with their current versions."""
        found: dict[str, int] = {}
        cursor = ""
        while True:
            page = await self.app.secrets.list_secrets(
                self.tenant, prefix, limit=MAX_PAGE, cursor=cursor
            )
            listed = page["secrets"]
            assert isinstance(listed, list)
            found |= {one["path"]: one["version"] for one in listed}
            if page["next_cursor"] is None:
                return found
            cursor = str(page["next_cursor"])

    async def value(self, path: LocalPath, version: int | None = None) -> Data:
        _, data = await self.app.secrets.get(self.tenant, path, version)
        value: Data = json.loads(data)
        return value

    async def version(self, path: LocalPath) -> int:
        shown, _ = await self.app.secrets.get(self.tenant, path)
        assert isinstance(shown["version"], int)
        return shown["version"]

    async def history(self, path: LocalPath) -> list[dict[str, object]]:
        versions = (await self.app.secrets.history(self.tenant, path))["versions"]
        assert isinstance(versions, list)
        return versions

    async def is_served(self, path: LocalPath) -> bool:
        try:
            await self.value(path)
        except NotFoundError:
            return False
        return True

    async def expect_served(self, mount: Mount) -> None:
        """Every secret of a mount reads as OpenBao has it, each earlier version too."""
        for secret in mount.carried:
            for number, value in enumerate(secret.versions, start=1):
                path = local_path(mount, secret.path)
                expect(await self.value(path, number) == value, f"{path} v{number} is exact")

    async def expect_read(self, mount: Mount, path: str) -> None:
        """A secret is served as it was at first."""
        [secret] = [s for s in mount.secrets if s.path == path]
        local = local_path(mount, path)
        expect(await self.value(local) == secret.versions[-1], f"{local} is served meanwhile")

    async def conflict_of(self, mount: Mount, path: LocalPath) -> tuple[str, str]:
        """Kind and state of the conflict that was recorded at a path."""
        told = await self.app.conflicts.list_conflicts(
            self.tenant, f"fed_{mount.name}", closed=True
        )
        conflicts = told["conflicts"]
        assert isinstance(conflicts, list)
        found = [(c["kind"], c["state"]) for c in conflicts if c["path"] == path]
        expect(len(found) == 1, f"one conflict was recorded at {path}")
        return found[0]


def same(held: Held) -> str:
    """What tables show of OpenBao's side once `Hands.sides` found it equal."""
    return f"v{held.version}, same value"


def below_external(path: LocalPath) -> str:
    """What tables show: each local path of the demo begins with `external/`."""
    return path.removeprefix("external/")


def local_path(mount: Mount, path: str) -> LocalPath:
    return LocalPath(f"{mount.local}/{path}")


def expect(holds: bool, what: str) -> None:
    """Raises SvsyncError where the demo did not turn out as it tells."""
    if not holds:
        raise unexpected(what)


def unexpected(what: str) -> SvsyncError:
    return SvsyncError(
        f"the demo did not turn out as it tells: it expected that {what}", code="demo_failed"
    )


def through(answer: Mapping[str, object]) -> dict[str, object]:
    """How far a write or a delete went: its state, and the id of its push."""
    told = answer["write_through"]
    assert isinstance(told, dict)
    return told


def moved(ended: Ended) -> int:
    """How many local secrets a run changed."""
    moving = (Count.CREATED, Count.UPDATED, Count.DELETED, Count.METADATA_UPDATED, Count.CONFLICTS)
    return sum(ended.report.numbers[count] for count in moving)


def counted(ended: Ended, count: Count) -> int:
    return ended.report.numbers[count]


def calls(ended: Ended, without: str = "") -> int:
    return sum(n for name, n in ended.report.calls.items() if name != without)


def skips(ended: Ended) -> tuple[int, str]:
    """How many were skipped, and why."""
    return ended.report.skips, ", ".join(f"{n} {why}" for why, n in ended.report.reasons.items())


def numbers(ran: Sequence[tuple[Mount, Ended]]) -> dict[str, object]:
    """The reports of several runs, without what each would do."""
    return {mount.name: {**ended.to_json(), "plan": None} for mount, ended in ran}
