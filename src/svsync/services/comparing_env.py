"""Secrets compared with the variables that they were imported from, without showing either.

It answers whether a `.env` file may be removed, so a variable that the map does not name
counts as a difference: it is nowhere else.
"""

from collections.abc import Callable, Mapping

from svsync.config.env_map import EnvMap, Grouped
from svsync.domain.globs import Glob
from svsync.services.comparing import (
    Comparison,
    Difference,
    What,
    placed_differently,
    read_side,
)
from svsync.services.env_files import (
    Variable,
    Variables,
    given,
    is_present,
    left,
    source,
    unmapped,
    unusable,
    wanted,
)
from svsync.services.transfer import TARGET_IN_CONFLICT, Access, each, unsure


async def compare_env(
    access: Access,
    env_map: EnvMap,
    variables: Variables,
    comparison: Comparison,
    *,
    only: Glob | None,
    tell: Callable[[int, int], None],
) -> None:
    """Compare each secret of the map of which a variable is there. A value that holds `${NAME}`
    is compared as it stands.

    Raises:
        SvsyncError: what is not about one secret alone.
    """
    # Neither is in any secret, and both go with the file.
    comparison.left = left(env_map, variables)
    comparison.comments = variables.comments
    if only is None:
        comparison.differences += [
            Difference(name, name, What.NOT_COMPARED, reason="not_mapped")
            for name in unmapped(env_map, variables)
        ]
    secrets = [
        one
        for one in env_map.secrets
        if is_present(one, variables) and (only is None or only(one.path))
    ]

    async def work(one: Grouped) -> None:
        comparison.differences += await _compare(access, one, variables)
        comparison.compared += 1
        tell(comparison.compared, len(secrets))

    await each(secrets, work)


async def _compare(
    access: Access, one: Grouped, variables: Mapping[str, Variable]
) -> list[Difference]:
    there = source(one)
    if broken := unusable(one, variables, literal=True):
        return [Difference(one.path, there, What.NOT_COMPARED, reason=broken.reason)]
    here = await read_side(access, one.path, one.path, there)
    if isinstance(here, Difference):
        return [here]
    if here is None:
        return [Difference(one.path, there, What.MISSING_HERE)]
    if reason := unsure(here, TARGET_IN_CONFLICT):
        return [Difference(one.path, there, What.NOT_COMPARED, reason=reason)]
    return placed_differently(one.path, there, here, given(one, variables).text, wanted(one))
