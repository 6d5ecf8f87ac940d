"""`svsync demo`: the whole system on this machine, on real servers, in a minute.

An OpenBao with a shop's secrets and an embedded PostgreSQL live as long as the
demo does, and inside one folder. What the folder holds afterwards (configuration,
logs, the encrypted store) may be looked at and thrown away. With `--keep` the demo
lives on as a service, until it is told to end.
"""

import argparse
import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from svsync.cli.output import Output, say
from svsync.domain.errors import ConfigError, SetupError, UsageError

if TYPE_CHECKING:
    from svsync.cli.demo_hands import Hands, Told
    from svsync.cli.demo_keep import Kept

_DEFAULT_FOLDER: Final = ".demo"
_MARKER: Final = ".svsync-demo"
_OURS: Final = frozenset({_MARKER, "svsync.yaml", "approle.json", "state", "openbao"})
_WIDEST: Final = 100
_NEXT: Final = (
    "secrets history external/platform/databases/prod/orders",
    "conflicts list --backend fed_legacy",
    "runs list --backend fed_payments",
)
"""Commands that work when the demo has ended: the store starts for each of them."""


def add_commands(subparsers: Any) -> None:
    """Add `demo` to the program's commands."""
    parser = subparsers.add_parser(
        "demo",
        help="see the whole system at work on this machine, in under a minute",
        description="Starts a real OpenBao with the secrets of a shop and an embedded PostgreSQL,"
        " federates one into the other, and tells what happens: change, deletion, conflict,"
        " outage. Leaves nothing running, and nothing outside its folder.",
    )
    parser.add_argument(
        "--state-dir",
        metavar="DIR",
        help=f"the demo's folder (default: SVSYNC_STATE_DIR, then ./{_DEFAULT_FOLDER});"
        " must be missing, empty, or an earlier demo's",
    )
    parser.add_argument(
        "--keep",
        action="store_true",
        help="then serve the demo's store, with OpenBao beside it, until Ctrl-C: prints addresses,"
        " a token and three commands to try. Afterwards the folder is removed, but for one named"
        " with --state-dir",
    )
    parser.set_defaults(command=demo, words=parser.prog)


async def demo(args: argparse.Namespace) -> int:
    """Play the demo; 0 when all turned out as it tells, and what is kept up was told to
    end; 130 or 143 after a signal before that.

    Raises:
        SvsyncError: it did not turn out as told, or could not begin.
    """
    if args.config is not None:
        raise UsageError("the demo writes its own configuration: leave --config out")
    named = args.state_dir or os.environ.get("SVSYNC_STATE_DIR")
    out: Output = args.out
    keeping = _Keeping() if args.keep else None
    with _claimed(named or _DEFAULT_FOLDER) as claimed:
        playing = asyncio.create_task(_play(claimed, out, keeping), name="demo")
        received = _ended_by_signal(playing, keeping)
        code = 0
        try:
            await playing
        except asyncio.CancelledError:
            if not received:
                raise
            say("interrupted")
            if out.json:
                out.document({"error": {"code": "interrupted", "message": "interrupted"}})
            code = 128 + received[0]
        if keeping is not None and not named:
            await _empty(claimed)
            _remove(claimed)
    if keeping is not None and code == 0 and not out.json:
        what = _nearby(claimed)
        out.line(
            f"Ended; nothing is left running{f', and {what} is removed' if not named else ''}."
        )
    return code


class _Keeping:
    """What is served until it is `ended`. Until it is `up`, a signal cancels the play."""

    def __init__(self) -> None:
        self.up = False
        self.ended = asyncio.Event()


def _ended_by_signal(playing: asyncio.Task[None], keeping: _Keeping | None) -> list[int]:
    """Let the first SIGINT or SIGTERM cancel the play, or end what is kept up, and no other
    do anything.

    Elsewhere a second signal ends svsync where it stands. Here it would leave servers
    behind, which take a few seconds to end.
    """
    received: list[int] = []

    def stop(number: int) -> None:
        if not received:
            if keeping is not None and keeping.up:
                keeping.ended.set()
            else:
                playing.cancel()
        received.append(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop, number)
    return received


@contextlib.contextmanager
def _claimed(given: str) -> Iterator[Path]:
    """The demo's folder, empty and ours alone for the length of the block.

    Raises:
        ConfigError: it holds what no demo has put there.
        SetupError: another demo is at work in it, or it cannot be written.
    """
    folder = Path(given).absolute()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        held = {entry.name for entry in folder.iterdir()}
        if held and (_MARKER not in held or held - _OURS):
            raise ConfigError(
                f"{folder} holds what no demo has put there: name another folder with --state-dir"
            )
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        marker = os.open(folder / _MARKER, flags, 0o600)
    except OSError as error:
        raise SetupError(
            f"the folder {folder} cannot be used ({error.strerror}): name another with --state-dir"
        ) from None
    with os.fdopen(marker, "wb"):
        try:
            fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SetupError(f"another demo is at work in {folder}: wait for its end") from None
        yield folder


async def _empty(folder: Path) -> None:
    """Remove what an earlier demo left, and stop its PostgreSQL if a kill left that running."""
    from svsync.embedded.postgres import embedded_postgres

    if (folder / "state" / "postgres" / "data" / "postmaster.pid").exists():
        async with embedded_postgres(folder / "state"):
            pass  # the last one out stops it
    for name in _OURS - {_MARKER}:
        entry = folder / name
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)


def _remove(folder: Path) -> None:
    """The empty folder, if nobody has put anything else there."""
    with contextlib.suppress(OSError):
        (folder / _MARKER).unlink()
        folder.rmdir()


# --- the play ---------------------------------------------------------------------


async def _play(folder: Path, out: Output, keeping: _Keeping | None) -> None:
    """Set up, tell each step, clear up; then the closing words or the JSON object. What is
    kept up is told of, and waited for, before it is cleared up."""
    from svsync.cli.demo_steps import STEPS

    began = time.monotonic()
    told: dict[str, object] = {}
    with _patience("starting OpenBao and PostgreSQL") as patience:
        await _empty(folder)
        async with _stage(folder, live=keeping is not None) as hands:
            ready = time.monotonic() - began
            for number, step in enumerate(STEPS, start=1):
                patience.stop()
                _announce(out, f"{number}  {step.title}", step.why)
                patience.start()
                shown = await step.tell(hands)
                patience.stop()
                _tell(out, shown)
                told[step.name] = shown.numbers
            patience.start()
            if keeping is not None:
                took = time.monotonic() - began
                numbers = {"demo": "ok", "setup_s": round(ready, 1), "total_s": round(took, 1)}
                await _keep(hands, folder, out, keeping, patience, {**numbers, **told})
                return
    took = time.monotonic() - began
    if out.json:
        out.document({"demo": "ok", "setup_s": round(ready, 1), "total_s": round(took, 1), **told})
        return
    _announce(
        out,
        f"Done in {took:.0f} s",
        "Each step was checked, and turned out as told. Both servers have ended. Configuration,"
        f" log and the sealed store are in {_nearby(folder)}, for you to look at and remove. They"
        " still work without OpenBao; three things to try:",
    )
    out.line()
    for words in _NEXT:
        out.line(f"  {_program()} {words} --config {_nearby(folder / 'svsync.yaml')}")


async def _keep(
    hands: "Hands",
    folder: Path,
    out: Output,
    keeping: _Keeping,
    patience: "_Patience",
    numbers: dict[str, object],
) -> None:
    """Serve until it is ended; what to try is told once it can be tried."""
    from svsync.cli.demo_keep import keep_up

    config = folder / "svsync.yaml"

    def tell(kept: "Kept") -> None:
        keeping.up = True
        patience.stop()
        if out.json:
            out.document({**numbers, "kept": kept.as_json()})
            return
        _announce(
            out,
            "It stays up until Ctrl-C",
            "Each step was checked, and turned out as told. Now `svsync serve` works on that"
            " store, with OpenBao beside it. The token may read what is below external/platform/"
            " and external/live/, and list the rest:",
        )
        out.line()
        out.facts(
            [
                ("console", f"{kept.api}/ui/"),
                ("API", kept.api),
                ("metrics", kept.metrics),
                ("OpenBao", kept.openbao),
            ]
        )
        out.line()
        out.line(f"  export SVSYNC_TOKEN={kept.token.reveal()}")
        for what, line in kept.commands:
            out.line()
            out.line(f"  # {what}")
            out.line(f"  {line}")
        out.line()
        _paragraph(
            out,
            "Who asked for what is told, from another terminal, by"
            f" `{_program()} audit query --config {_nearby(config)}`.",
        )

    await keep_up(hands, config, keeping.ended, tell)


def _program() -> str:
    return _nearby(Path(sys.argv[0])) if Path(sys.argv[0]).name == "svsync" else "svsync"


def _nearby(path: Path) -> str:
    """The path from here where it lies below, else the whole."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _announce(out: Output, title: str, text: str) -> None:
    if not out.json:
        out.line()
        out.heading(title)
        _paragraph(out, text)


def _tell(out: Output, told: "Told") -> None:
    if out.json:
        return
    for table in told.tables:
        out.line()
        if table.title:
            out.line(table.title)
        out.table(table.columns, table.rows)
    out.line()
    _paragraph(out, told.conclusion)


def _paragraph(out: Output, text: str) -> None:
    width = min(shutil.get_terminal_size().columns if out.on_terminal else 80, _WIDEST)
    out.line(textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False))


class _Patience(Protocol):
    def start(self) -> None: ...

    def stop(self) -> None: ...


@contextlib.contextmanager
def _patience(what: str) -> Iterator[_Patience]:
    """Something that moves on stderr while work is done, if somebody looks at it."""
    from rich.console import Console

    # Away from a terminal rich draws nothing.
    with Console(stderr=True).status(f"{what} …") as status:
        yield status


@contextlib.contextmanager
def _log_to(state: Path) -> Iterator[None]:
    """svsync's log goes to a file of its state: here the tables tell."""
    from svsync.config.model import LogFormat, LogLevel
    from svsync.observe import logs

    state.mkdir(mode=0o700)
    with (state / "svsync.log").open("w", encoding="utf-8") as file:
        logs.configure(LogLevel.INFO, LogFormat.TEXT, file)
        try:
            yield
        finally:
            logs.configure(LogLevel.INFO, LogFormat.TEXT)


@contextlib.asynccontextmanager
async def _stage(folder: Path, *, live: bool) -> AsyncIterator["Hands"]:
    """The servers, the shop's secrets, and svsync on top of them."""
    from svsync.app import open_app
    from svsync.cli.demo_cable import Cable
    from svsync.cli.demo_config import write_config
    from svsync.cli.demo_estate import open_estate
    from svsync.cli.demo_hands import Hands
    from svsync.config.load import load
    from svsync.embedded.loopback_tls import make_loopback_tls
    from svsync.embedded.openbao import openbao_server

    state = folder / "state"
    tls = make_loopback_tls(folder / "openbao" / "tls")
    with _log_to(state):
        async with (
            openbao_server(folder / "openbao", tls=tls) as server,
            open_estate(server, tls.ca) as estate,
            Cable(server.port).laid() as cable,
        ):
            await estate.furnish()
            login, cabled = await estate.make_login(), f"https://127.0.0.1:{cable.port}"
            config = write_config(folder, server.url, cabled, tls.ca, login, live=live)
            # Nothing of the environment: DATABASE_URL is somebody's production.
            async with open_app(load(str(config), {}), environ={}) as app:
                yield Hands(app, await app.tenant("default"), estate, cable, state)
