"""What the demo's steps are made of: a run, a read, a look; and what a step shows.

A step checks that it turned out as it tells (`expect`), so that the demo is a test
as well.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from svsync.app import App
from svsync.cli.demo_estate import Estate, Mount
from svsync.cli.demo_secrets import Data
from svsync.domain.errors import NotFoundError, SvsyncError
from svsync.domain.ids import LocalPath, TenantId
from svsync.domain.runs import Count, Stage
from svsync.services.runs import Ended, Request
from svsync.services.secrets import MAX_PAGE


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
    """What people do with svsync, on an open app; `estate` is the company's side."""

    app: App
    tenant: TenantId
    estate: Estate
    state_dir: Path

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


def below_external(path: LocalPath) -> str:
    """What tables show: each local path of the demo begins with `external/`."""
    return path.removeprefix("external/")


def local_path(mount: Mount, path: str) -> LocalPath:
    return LocalPath(f"external/{mount.name}/{path}")


def expect(holds: bool, what: str) -> None:
    """Raises SvsyncError where the demo did not turn out as it tells."""
    if not holds:
        raise SvsyncError(
            f"the demo did not turn out as it tells: it expected that {what}", code="demo_failed"
        )


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
