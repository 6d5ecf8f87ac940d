"""`python -m bench [--quick] [part ...]`: every figure, one table, results, document."""

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
import time
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import aclosing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from bench.aws import REGION, filled_aws
from bench.feed import feed_delays
from bench.figures import (
    Figure,
    keep_in_document,
    middle,
    read_results,
    table,
    write_results,
)
from bench.plan import Plan
from bench.programs import Result, run_program
from bench.promises import (
    aws,
    feed,
    million_figures,
    reads,
    replicas,
    service,
    small,
    vault_figures,
    webhooks,
)
from bench.reads import read_rounds
from bench.replicas import cycles_a_minute
from bench.rig import COPY_MOUNT, MOUNT, Source, filled_openbao, fresh_database
from bench.service import idle_service
from svsync.embedded.postgres import EmbeddedPostgres, embedded_postgres

HERE = Path(__file__).parent
DOCUMENT = HERE.parent / "docs" / "performance.md"


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


async def aws_rounds(plan: Plan, server: EmbeddedPostgres, state: Path) -> list[Result]:
    """One round: what is counted are calls, and those are the same each time."""
    say(f"a stand-in for AWS with {plan.clouded:,} secrets")
    async with filled_aws(plan.clouded) as url, fresh_database(server, "aws") as dsn:
        return [
            await run_program(
                "bench.svsync_aws", dsn=dsn, state_dir=str(state), url=url, region=REGION,
                count=plan.clouded,
            )
        ]  # fmt: skip


async def small_figures(plan: Plan, server: EmbeddedPostgres, state: Path) -> Result:
    """The size of secrets and runs, and how long it takes until a command line answers."""
    say("the size of one version, of ten and of a run; the start of the command line")
    sizes = []
    for versions in (1, 10):
        async with fresh_database(server, f"sizes_{versions}") as dsn:
            size = await run_program(
                "bench.svsync_memory", step="sizes", dsn=dsn, state_dir=str(state), count=1000,
                versions=versions, runs=500,
            )  # fmt: skip
            sizes.append(size)
    one, ten = sizes
    starts = []
    for _ in range(max(3, plan.rounds)):
        began = time.perf_counter()
        help_page = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).parent / "svsync"), "--help",
            stdout=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        assert await help_page.wait() == 0
        starts.append(time.perf_counter() - began)
    return {
        "bytes": ten["bytes"],
        "one_bytes": one["bytes"],
        "run_bytes": ten["run_bytes"],
        "help_s": middle(starts),
    }


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


async def webhook_rounds(plan: Plan, server: EmbeddedPostgres, state: Path) -> list[Result]:
    """Floor and svsync in turn; nine receivers beside one that answers, and one that hangs."""
    given: Result = {"state_dir": str(state)}
    rounds = []
    for number in range(plan.rounds):
        say(f"webhooks, round {number + 1} of {plan.rounds}")
        seen: Result = {}
        for name, lanes in (("many", 8), ("one", 1)):
            count = plan.deliveries // (1 if lanes > 1 else 4)
            async with fresh_database(server, f"webhooks_{name}_{number}") as dsn:
                sent = await run_program(
                    "bench.svsync_webhooks", step="throughput", dsn=dsn, count=count,
                    backends=lanes, **given,
                )  # fmt: skip
            seen[f"floor_{name}"] = await run_program(
                "bench.floors.webhook_posts", body=sent.pop("body"), count=count, at_once=lanes
            )
            seen[name] = sent
        for name, hangs in (("well", False), ("hanging", True)):
            async with fresh_database(server, f"webhooks_{name}_{number}") as dsn:
                seen[name] = await run_program(
                    "bench.svsync_webhooks", step="delays", dsn=dsn, hangs=hangs,
                    seconds=plan.telling_s, **given,
                )  # fmt: skip
        rounds.append(seen)
    return rounds


async def replica_rounds(plan: Plan, server: EmbeddedPostgres, state: Path) -> list[Result]:
    """One process and three, each on a new database; which comes first changes by the round."""
    rounds = []
    for number in range(plan.rounds):
        say(f"one replica and three, round {number + 1} of {plan.rounds}")
        seen: Result = {}
        for distance, seconds in (("distant", plan.distant_s), ("at_once", 0.0)):
            for count in (1, 3) if number % 2 == 0 else (3, 1):
                async with fresh_database(server, f"replicas_{number}_{distance}_{count}") as dsn:
                    seen[f"{distance}_{count}"] = await cycles_a_minute(
                        dsn, str(state), replicas=count, backends=plan.busy_backends,
                        seconds=plan.busy_s, answers_after_s=seconds,
                    )  # fmt: skip
        rounds.append(seen)
    return rounds


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


async def feed_part(plan: Plan, server: EmbeddedPostgres, state: Path) -> object:
    say(f"a change feed beside full cycles of {plan.secrets:,}")
    return await feed_delays(server, state, secrets=plan.secrets, bursts=plan.bursts)


async def read_part(plan: Plan, server: EmbeddedPostgres, state: Path) -> object:
    say("reads, beside a handler that does nothing and OpenBao's own")
    folder = state / "read_openbao"
    folder.mkdir()
    async with filled_openbao(folder, 200) as source:
        return await read_rounds(
            server, state, source, rounds=plan.rounds, seconds=plan.reads_s, count=plan.thousands
        )


class Part(NamedTuple):
    """What can be measured by itself, and the figures that come of it."""

    measure: Callable[[Plan, EmbeddedPostgres, Path], Awaitable[object]]
    figures: Callable[[Plan, Any], Iterable[Figure]]


PARTS: Final = {
    "vault": Part(vault_rounds, vault_figures),
    "million": Part(million_rounds, million_figures),
    "small": Part(small_figures, lambda _plan, seen: small(seen)),
    "service": Part(service_figures, service),
    "webhooks": Part(webhook_rounds, lambda _plan, seen: webhooks(seen)),
    "replicas": Part(replica_rounds, replicas),
    "feed": Part(feed_part, feed),
    "reads": Part(read_part, reads),
    "aws": Part(aws_rounds, aws),
}


async def measure(plan: Plan, names: Iterable[str]) -> AsyncGenerator[tuple[str, object], None]:
    """Each part by its name, with how it was measured."""
    with state_folder() as state:
        async with embedded_postgres(state) as server:
            for name in names:
                began = time.monotonic()
                seen = await PARTS[name].measure(plan, server, state)
                yield (
                    name,
                    {
                        "on": f"{datetime.now(UTC):%Y-%m-%d}",
                        "minutes": round((time.monotonic() - began) / 60, 1),
                        "load": round(os.getloadavg()[1], 1),
                        "seen": seen,
                    },
                )


async def run(plan: Plan, names: Sequence[str], keep: bool) -> list[Figure]:
    """Measure parts; what is kept is written after each, so that none is lost with another."""
    results = HERE / "results.json"
    measured = read_results(results) if keep else {}
    figures: list[Figure] = []
    async with aclosing(measure(plan, names)) as parts:
        async for name, found in parts:
            measured[name] = found
            known = {name: measured[name] for name in PARTS if name in measured}
            figures = [
                figure
                for name in known
                for figure in PARTS[name].figures(plan, known[name]["seen"])
            ]
            if keep:
                write_results(results, figures, known)
                keep_in_document(DOCUMENT, figures, _how(known))
    return figures


def _how(measured: Mapping[str, Any]) -> str:
    parts = ", ".join(
        f"{name} on {found['on']} (load average {found['load']})"
        for name, found in measured.items()
    )
    return (
        f"`make bench`, {os.cpu_count()} cores, Python {sys.version.split()[0]}. Measured by"
        f" part: {parts}. In brackets: the ratio of each round alone."
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the size, one round")
    parser.add_argument("part", nargs="*", choices=[*PARTS, []], help="only these; all by default")
    given = parser.parse_args()
    plan = Plan.quick() if given.quick else Plan()
    figures = asyncio.run(run(plan, given.part or list(PARTS), keep=not given.quick))
    print(table(figures))
    return 0 if all(figure.holds for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
