"""Secrets brought in from files; `.env` files so far are what services have."""

import argparse
from typing import TYPE_CHECKING, Any

from svsync.cli.arguments import add_command, add_group
from svsync.cli.copy import Tell, operating, placed, placing_options
from svsync.cli.output import Output
from svsync.cli.values import read_file

if TYPE_CHECKING:
    from svsync.services.transfer import Access


def add_commands(subparsers: Any) -> None:
    group = add_group(subparsers, "import", "bring secrets in from files")
    brought = add_command(
        group, "env", "group the variables of a .env file into secrets, by a map", import_env
    )
    brought.add_argument(
        "file", metavar="FILE", help="the .env file, or what `env -0` prints; - is stdin"
    )
    brought.add_argument(
        "--map", metavar="FILE", required=True, help="which variable is which field (YAML)"
    )
    brought.add_argument(
        "--literal", action="store_true", help="a value that holds ${NAME} is meant as it stands"
    )
    placing_options(brought)


async def import_env(args: argparse.Namespace) -> int:
    env_map, variables = read_files(args.map, args.file)
    async with operating(args) as (_, _, access):
        return await import_by(args, env_map, variables, access)


def read_files(map_file: str, env_file: str) -> tuple[Any, Any]:
    """The map, and the variables; `-` is stdin.

    Raises ConfigError, UsageError: one of the files cannot be used, with the line.
    """
    from svsync.config.env_map import load_env_map
    from svsync.services.env_files import read_variables

    env_map = load_env_map(map_file)
    name = "stdin" if env_file == "-" else env_file
    given = read_file(env_file, name, "give its variables in several parts")
    return env_map, read_variables(given, name)


async def import_by(
    args: argparse.Namespace, env_map: Any, variables: Any, access: "Access"
) -> int:
    """The secrets of a map, whoever writes them."""
    from svsync.services.env_files import ImportReport
    from svsync.services.env_files import import_env as import_all

    out: Output = args.out
    report = ImportReport(dry=args.dry_run)

    async def work(tell: Tell) -> None:
        await import_all(
            access, env_map, variables, report,
            overwrite=args.overwrite, literal=args.literal, tell=tell,
        )  # fmt: skip

    code = await placed(args, report, ("importing", "imported"), work)
    if not out.json:
        if report.absent:
            out.line(f"Not in the file, so nothing was done for {', '.join(report.absent)}.")
        if report.unmapped:
            out.line(f"Not in the map, so left where they are: {', '.join(report.unmapped)}.")
    return code
