"""`python -m bench [--quick]`: every figure, one table, results.json, docs/performance.md."""

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench.figures import Figure, keep_in_document, middle, table, write_results
from bench.programs import Result, run_program
from bench.rig import COPY_MOUNT, MOUNT, Source, filled_openbao, fresh_database
from bench.service import idle_service
from svsync.embedded.postgres import EmbeddedPostgres, embedded_postgres

HERE = Path(__file__).parent
DOCUMENT = HERE.parent / "docs" / "performance.md"


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    secrets: int = 20_000
    million: int = 1_000_000
    tenth: int = 100_000
    rounds: int = 3
    sample: int = 60
    backends: int = 1_000
    minutes: float = 1.5

    @classmethod
    def quick(cls) -> "Plan":
        return cls(
            secrets=2_000,
            million=100_000,
            tenth=10_000,
            rounds=1,
            sample=20,
            backends=100,
            minutes=0.5,
        )


async def vault_rounds(plan: Plan, server: EmbeddedPostgres, state: Path) -> list[Result]:
    """Floor and svsync in turn on one OpenBao: import, quiet cycle, the guide's script."""
    rounds = []
    folder = state / "openbao"
    folder.mkdir()
    async with filled_openbao(folder, plan.secrets) as source:
        for number in range(plan.rounds):
            say(f"OpenBao with {plan.secrets:,} secrets, round {number + 1} of {plan.rounds}")
            rounds.append(await _vault_round(plan, server, state, source, f"vault_{number}"))
    return rounds


async def _vault_round(
    plan: Plan, server: EmbeddedPostgres, state: Path, source: Source, name: str
) -> Result:
    floor = source.floor_arguments()
    async with fresh_database(server, name) as dsn:
        first = await run_program("bench.floors.first_import", dsn=dsn, **floor)
        svsync = await run_program(
            "bench.svsync_vault",
            dsn=dsn,
            state_dir=str(state),
            url=source.url,
            mount=MOUNT,
            count=plan.secrets,
            role_id=source.role_id,
            secret_id=source.secret_id,
        )
        quiet = await run_program("bench.floors.quiet_pass", dsn=dsn, **floor)
    script = await run_program(
        "bench.floors.guide_script",
        root_token=source.root_token,
        copy_mount=COPY_MOUNT,
        sample=plan.sample,
        **floor,
    )
    return {"floor_first": first, "floor_quiet": quiet, "script": script, **svsync}


async def million_rounds(plan: Plan, server: EmbeddedPostgres, state: Path) -> list[Result]:
    """Floor and svsync in turn on stores of three sizes, with a backend in memory."""
    changed = plan.million // 100
    given: Result = {"state_dir": str(state), "changed": changed}
    rounds = []
    async with (
        fresh_database(server, "large") as large,
        fresh_database(server, "alone") as alone,
        fresh_database(server, "smaller") as smaller,
        fresh_database(server, "diff_floor") as bare,
    ):
        sizes = {"large": (large, plan.million), "alone": (alone, changed)}
        sizes["smaller"] = (smaller, plan.tenth)
        for name, (dsn, count) in sizes.items():
            say(f"filling a store with {count:,} secrets ({name})")
            await run_program("bench.svsync_memory", step="fill", dsn=dsn, count=count, **given)
        for number in range(plan.rounds):
            say(f"a backend with {plan.million:,} entries, round {number + 1} of {plan.rounds}")
            seen: Result = {}
            seen["floor"] = await run_program(
                "bench.floors.copy_and_diff", dsn=bare, count=plan.million
            )
            for name, (dsn, count) in sizes.items():
                given["changed"] = min(changed, count // 10) if name == "smaller" else changed
                seen[name] = await run_program(
                    "bench.svsync_memory",
                    step="cycles",
                    dsn=dsn,
                    count=count,
                    round=number,
                    **given,
                )
            rounds.append(seen)
    return rounds


async def small_figures(plan: Plan, server: EmbeddedPostgres, state: Path) -> Result:
    """The size of ten versions, and how long it takes until a command line answers."""
    say("the size of ten versions, the start of the command line")
    async with fresh_database(server, "sizes") as dsn:
        size = await run_program(
            "bench.svsync_memory", step="sizes", dsn=dsn, state_dir=str(state), count=1000,
            versions=10,
        )  # fmt: skip
    starts = []
    for _ in range(max(3, plan.rounds)):
        began = time.perf_counter()
        help_page = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).parent / "svsync"), "--help",
            stdout=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        assert await help_page.wait() == 0
        starts.append(time.perf_counter() - began)
    return {"bytes": size["bytes"], "help_s": middle(starts)}


async def service_figures(plan: Plan, server: EmbeddedPostgres, state: Path) -> Result:
    """Many backends on one process, and the service while it has nothing to do."""
    say(f"{plan.backends:,} backends on one process")
    async with fresh_database(server, "many") as dsn:
        many = await run_program(
            "bench.svsync_many", dsn=dsn, state_dir=str(state), count=plan.backends,
            seconds=plan.minutes * 60,
        )  # fmt: skip
    say("the service, idle")
    async with fresh_database(server, "idle") as dsn:
        return {"many": many, "idle": await idle_service(dsn, state)}


def vault_figures(plan: Plan, rounds: list[Result]) -> Iterator[Figure]:
    first = middle(r["first"]["seconds"] for r in rounds)
    floor = middle(r["floor_first"]["seconds"] for r in rounds)
    quiet = middle(r["quiet"]["seconds"] for r in rounds)
    quiet_floor = middle(r["floor_quiet"]["seconds"] for r in rounds)
    n = f"{plan.secrets:,}"
    yield Figure(
        f"first import of {n}",
        f"{first:.1f} s",
        f"{floor:.1f} s",
        first / floor,
        1.5,
        rounds=tuple(r["first"]["seconds"] / r["floor_first"]["seconds"] for r in rounds),
    )
    yield Figure(
        f"quiet cycle over {n}",
        f"{quiet:.2f} s",
        f"{quiet_floor:.2f} s",
        quiet / quiet_floor,
        1.5,
        rounds=tuple(r["quiet"]["seconds"] / r["floor_quiet"]["seconds"] for r in rounds),
    )
    reads = max(r["quiet"]["calls"]["read"] for r in rounds)
    lists = max(r["quiet"]["calls"]["list"] for r in rounds)
    yield Figure("  its value reads", f"{reads}, and {lists} list calls", "", reads, 0)
    for key, words, bar in (
        ("as_written_s", "times faster than the guide's script", 100),
        ("one_client_s", "times faster than it with one client", 6),
    ):
        script = middle(r["script"][key] for r in rounds) * plan.secrets
        yield Figure(
            words, f"{first:.1f} s", f"{script:,.0f} s from a sample", script / first, bar, True
        )


def million_figures(plan: Plan, rounds: list[Result]) -> Iterator[Figure]:
    n = f"{plan.million:,}"
    quiet = middle(r["large"]["quiet"]["seconds"] for r in rounds)
    floor = middle(r["floor"]["seconds"] for r in rounds)
    yield Figure(
        f"quiet cycle over {n}",
        f"{quiet:.1f} s",
        f"{floor:.1f} s",
        quiet / floor,
        3,
        rounds=tuple(r["large"]["quiet"]["seconds"] / r["floor"]["seconds"] for r in rounds),
    )
    peak = middle(r["large"]["quiet"]["peak_mb"] for r in rounds)
    less = middle(r["smaller"]["quiet"]["peak_mb"] for r in rounds)
    yield Figure("  its peak memory, MB", f"{peak:.0f} MB", "", peak, 150)
    yield Figure(
        f"  beside that of {plan.tenth:,}", f"{peak:.0f} MB", f"{less:.0f} MB", peak / less, 1.2
    )
    above = middle(
        r["large"]["changed"]["seconds"] - r["large"]["quiet"]["seconds"] for r in rounds
    )
    alone = middle(
        r["alone"]["changed"]["seconds"] - r["alone"]["quiet"]["seconds"] for r in rounds
    )
    yield Figure(
        f"1 % of {n} changed, above quiet",
        f"{above:.1f} s",
        f"{alone:.1f} s for them alone",
        above / alone,
        1.3,
    )


def small(found: Result) -> Iterator[Figure]:
    size, start = found["bytes"], found["help_s"]
    yield Figure("bytes a secret with ten versions", f"{size:,.0f} B", "", size, 10_000)
    yield Figure("svsync --help, s", f"{start:.2f} s", "", start, 0.3)


def service(plan: Plan, found: Result) -> Iterator[Figure]:
    many, idle = found["many"], found["idle"]
    n = f"{plan.backends:,} backends at 30 s"
    yield Figure(f"{n}, due to start, p99", f"{many['p99_s']:.2f} s", "", many["p99_s"], 1.5)
    yield Figure("  its share of a core", f"{many['cores']:.2f}", "", many["cores"], 0.6)
    yield Figure("svsync serve, idle, MB", f"{idle['idle_mb']:.0f} MB", "", idle["idle_mb"], 90)
    yield Figure("  ready after, s", f"{idle['ready_s']:.2f} s", "", idle["ready_s"], 1.5)


def say(what: str) -> None:
    print(f"[{datetime.now(UTC):%H:%M:%S}] {what}", file=sys.stderr, flush=True)


@contextmanager
def state_folder() -> Iterator[Path]:
    """A folder that the database's account may pass through."""
    folder = Path(tempfile.mkdtemp(prefix="svsync-bench-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def measure(plan: Plan) -> tuple[list[Figure], dict[str, object]]:
    with state_folder() as state:
        async with embedded_postgres(state) as server:
            vault = await vault_rounds(plan, server, state)
            million = await million_rounds(plan, server, state)
            others = await small_figures(plan, server, state)
            served = await service_figures(plan, server, state)
    figures = [*vault_figures(plan, vault), *million_figures(plan, million), *small(others)]
    figures += service(plan, served)
    return figures, {"vault": vault, "million": million, "small": others, "service": served}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the size, one round")
    quick: bool = parser.parse_args().quick
    began = time.monotonic()
    figures, measured = asyncio.run(measure(Plan.quick() if quick else Plan()))
    minutes = (time.monotonic() - began) / 60
    print(table(figures))
    if not quick:
        write_results(HERE / "results.json", figures, measured)
        how = (
            f"`make bench` on {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, Python"
            f" {sys.version.split()[0]}, {minutes:.0f} minutes, load average"
            f" {os.getloadavg()[2]:.1f} over the last quarter of an hour"
            ". In brackets: the ratio of each round alone."
        )
        keep_in_document(DOCUMENT, figures, how)
    return 0 if all(figure.holds for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
