"""Both sides compared, of copies, of a backend or of a `.env` file; nothing is printed where
they are equal."""

import argparse
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from svsync.cli.arguments import add_command
from svsync.cli.copy import Tell, counting, operating, tell_unmatched
from svsync.cli.imports import read_files
from svsync.cli.output import Output, quoted, say
from svsync.domain.errors import UsageError

if TYPE_CHECKING:
    from svsync.domain.globs import Glob
    from svsync.services.comparing import Comparison, Difference
    from svsync.services.transfer import Access

_SIDES: Final = {"different": "differs", "only_here": "is only here", "only_there": "is only there"}


def add_commands(subparsers: Any) -> None:
    compared = add_command(
        subparsers,
        "verify",
        "compare both sides without showing values; prints what differs",
        verify,
    )
    sides = compared.add_mutually_exclusive_group(required=True)
    sides.add_argument(
        "--mapping", metavar="FILE", help="copies with their sources, by the file of `copy`"
    )
    sides.add_argument("--backend", metavar="ID", help="what a backend syncs with what it has now")
    sides.add_argument(
        "--env", metavar="FILE", help="a .env file with what `import env` made of it; - is stdin"
    )
    compared.add_argument("--map", metavar="FILE", help="for --env: the file of `import env`")
    compared.add_argument("--path", metavar="GLOB", help="only local paths that this matches")


async def verify(args: argparse.Namespace) -> int:
    from svsync.config.copy_mapping import load_copy_mapping
    from svsync.services.comparing_backends import Comparing

    only = glob_of(args)
    if args.env is not None:
        env_map, variables = env_of(args)
        async with operating(args) as (_, _, access):
            return await verify_env(args, env_map, variables, access, only)
    if args.mapping is not None:
        mapping = load_copy_mapping(args.mapping)
        async with operating(args) as (_, _, access):
            return await verify_copies(args, mapping, access, only)
    async with operating(args) as (app, tenant, access):
        comparing = Comparing(app.db, app.registry, app.proxying.open, app.secrets, access)

        async def work(comparison: "Comparison", tell: Tell) -> None:
            await comparing.compare(
                tenant, args.backend, comparison, only=only, tell=lambda done: tell(done, None)
            )

        return await compared(args, work)


def glob_of(args: argparse.Namespace) -> "Glob | None":
    """What is to be compared; None: all. Raises UsageError: the words do not fit together."""
    from svsync.domain.globs import Glob

    if args.map is not None and args.env is None:
        raise UsageError("--map is of a .env file: name that by --env FILE, or leave it out")
    return None if args.path is None else Glob(args.path)


def env_of(args: argparse.Namespace) -> tuple[Any, Any]:
    """The map of --map, and the variables of --env.

    Raises ConfigError, UsageError: one of the files cannot be used, or there is no map.
    """
    if args.map is None:
        raise UsageError("--env needs the map that it was imported by: add --map FILE")
    return read_files(args.map, args.env)


async def verify_env(
    args: argparse.Namespace,
    env_map: Any,
    variables: Any,
    access: "Access",
    only: "Glob | None",
) -> int:
    """Secrets with the variables that they were imported from, whoever reads them."""
    from svsync.services.comparing_env import compare_env
    from svsync.services.env_files import left

    async def work(comparison: "Comparison", tell: Tell) -> None:
        await compare_env(access, env_map, variables, comparison, only=only, tell=tell)

    code = await compared(args, work)
    if args.out.json:  # which tells of both
        return code
    if only is not None:
        say("--path leaves out the rest of the file: compare without it before the file goes")
    if kept := left(env_map, variables):
        say(f"the map leaves {', '.join(kept)} in the environment: keep that before the file goes")
    if lines := variables.comments:
        where = f"{'line' if len(lines) == 1 else 'lines'} {', '.join(map(str, lines))}"
        say(
            f"comments are not compared: see that there is no variable and no rest of a"
            f" value in {where} before the file goes"
        )
    return code


async def verify_copies(
    args: argparse.Namespace, mapping: Any, access: "Access", only: "Glob | None"
) -> int:
    """Copies with their sources, whoever reads them."""
    from svsync.services.comparing import compare_copies

    async def work(comparison: "Comparison", tell: Tell) -> None:
        await compare_copies(
            access, mapping, comparison, only=only, tell=lambda done: tell(done, None)
        )

    return await compared(args, work)


async def compared(
    args: argparse.Namespace,
    work: Callable[["Comparison", Tell], Awaitable[None]],
) -> int:
    """Compare, and tell what differs, also where it ends early. The exit code."""
    from svsync.services.comparing import Comparison

    out: Output = args.out
    comparison = Comparison()
    try:
        with counting(out, "comparing") as tell:
            await work(comparison, tell)
    except BaseException:  # a signal too, which cancels it: what differs was found already
        args.failure = comparison.as_json()
        if not out.json:
            _tell(out, comparison)
        raise
    if out.json:
        out.document(comparison.as_json())
    else:
        _tell(out, comparison)
        tell_unmatched(comparison.unmatched)
        # Who sees less compares less, and what is printed looks alike.
        many = comparison.compared
        say(f"compared {many:,} {'secret' if many == 1 else 'secrets'}" if many else _nothing(args))
    return 0 if comparison.clean else 1


def _tell(out: Output, comparison: "Comparison") -> None:
    for one in sorted(comparison.differences, key=lambda one: (one.path, one.what)):
        out.line(f"{quoted(one.path)}: {sentence(one)}")


def _nothing(args: argparse.Namespace) -> str:
    """Why nothing was compared, which is not the same as clean."""
    if args.path is not None:
        return f"nothing was compared: --path {args.path} matches no secret that could be seen"
    if args.env is not None:
        return f"nothing was compared: {args.env} has no variable that {args.map} makes a secret of"
    what = f"of {args.backend}" if args.mapping is None else f"that {args.mapping} leads to"
    return f"nothing was compared: there is no secret {what} that could be seen"


def sentence(one: "Difference") -> str:
    """What differs, in words."""
    from svsync.services.comparing import What

    beside = "" if one.there == one.path else f" ({quoted(one.there)})"
    match one.what:
        case What.MISSING_HERE:
            return f"missing here{beside}"
        case What.MISSING_THERE:
            return f"missing there{beside}"
        case What.VALUE:
            return f"value differs{beside}: {_named(one.fields)}"
        case What.LABELS:
            return f"labels differ{beside}: {_named(one.fields)}"
        case What.TAGS:
            return f"tags differ{beside}: {_named(one.tags)}"
        case _:
            return f"not compared{beside}: {one.reason}"


def _named(sides: tuple[tuple[str, str], ...]) -> str:
    return ", ".join(f"{name} {_SIDES[side]}" for name, side in sides)
