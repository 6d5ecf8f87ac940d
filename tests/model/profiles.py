"""What the model takes from a type of backend: what it declares, and how a value goes there.

Names, sizes and batches are the adapter's matter and stay those of the backend in memory;
whatever bears on what is decided is taken from the type's own `Features`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from svsync import registry
from svsync.ports import Features
from svsync.testing.memory import FEATURES

FORMS: Final = ("delete", "undelete", "destroy", "remove", "rollback")
_FORMS: Final = {
    # A window of thirty days, or for good at once; AWSCURRENT moved back (API reference,
    # DeleteSecret and UpdateSecretVersionStage).
    "aws-secrets-manager": ("delete", "undelete", "remove", "rollback"),
    # Soft-deleted or disabled, recovered or enabled, purged (Key Vault, "Soft-delete overview").
    "azure-key-vault": ("delete", "undelete", "remove"),
    # The newest version disabled, enabled, destroyed; the secret deleted (Secret Manager,
    # "Secret version states").
    "gcp-secret-manager": ("delete", "undelete", "destroy", "remove"),
}
_DECIDES: Final = (
    "history",
    "ordered_tokens",
    "compare_and_set",
    "tags",
    "push_interval_s",
    "consistency_window_s",
)
"""Of `Features`, what the merge and the pushes look at."""


@dataclass(frozen=True, slots=True)
class Profile:
    """
    Attributes:
        forms: what a person may do there to a value, beside writing it.
        recoverable: a deleted value can be brought back.
        marks: versions have ids in place of numbers.
    """

    features: Features
    forms: tuple[str, ...] = FORMS
    recoverable: bool = True
    marks: bool = False

    @property
    def lags(self) -> bool:
        """May a read show what was, too?"""
        return self.features.consistency_window_s > 0


KV1: Final = Profile(
    replace(FEATURES, history=False, ordered_tokens=False, compare_and_set=False, tags=False),
    forms=("remove",),
    recoverable=False,
)
"""Neither condition nor history, as Vault's first kind of store has them."""


def names() -> list[str]:
    """Every type that svsync speaks to, and the store that declares nothing."""
    return ["kv1", *sorted(registry._BACKENDS)]


def profile(name: str) -> Profile:
    if name == "kv1":
        return KV1
    declared: Features = registry._named(registry._BACKENDS[name]).features
    features = replace(FEATURES, **_taken(declared, _DECIDES))
    return Profile(features, _FORMS.get(name, FORMS), marks=not declared.ordered_tokens)


def _taken(declared: Features, keys: Iterable[str]) -> dict[str, Any]:
    return {key: getattr(declared, key) for key in keys}
