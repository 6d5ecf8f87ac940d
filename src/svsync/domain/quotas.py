"""How hard a backend may be called: limits by kind of call, and where they come from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

from svsync.domain.errors import ConfigError

Operation = Literal["list", "metadata", "read", "write", "delete", "login"]
"""Operation classes: limits, counts and metrics are kept per class.
`read` is every call that returns a value, batches too."""

OPERATIONS: Final[tuple[Operation, ...]] = get_args(Operation)


@dataclass(frozen=True, slots=True)
class Limit:
    """Of one operation class: calls at one time, and calls a second (None: any)."""

    concurrency: int = 16
    per_second: float | None = None


def parse_limits(
    settings: Mapping[str, object], defaults: Mapping[Operation, Limit] | None = None
) -> dict[Operation, Limit]:
    """The limits of a `rate_limit` setting: `{read: {concurrency: 16, per_second: 50}}`.

    Args:
        defaults: what holds where the setting is silent, also about one of the two.

    Raises ConfigError naming the key that cannot be used.
    """
    limits: dict[Operation, Limit] = {o: (defaults or {}).get(o, Limit()) for o in OPERATIONS}
    for name, given in settings.items():
        operation = next((o for o in OPERATIONS if o == name), None)
        if operation is None:
            raise ConfigError(f"has no operation {name!r}", where="rate_limit")
        if not isinstance(given, Mapping) or not given.keys() <= {"concurrency", "per_second"}:
            raise ConfigError("holds concurrency and per_second", where=f"rate_limit.{name}")
        concurrency = given.get("concurrency", limits[operation].concurrency)
        rate = given.get("per_second", limits[operation].per_second)
        if type(concurrency) is not int or not 1 <= concurrency <= 256:
            raise ConfigError("is a number from 1 to 256", where=f"rate_limit.{name}.concurrency")
        if rate is not None and (type(rate) not in (int, float) or rate <= 0):
            raise ConfigError("is a number above 0", where=f"rate_limit.{name}.per_second")
        limits[operation] = Limit(concurrency, None if rate is None else float(rate))
    return limits
