"""What `doctor` finds of the keys: who wraps the root key, and whether it opens."""

from collections.abc import Awaitable, Callable

from svsync.config.model import KmsProvider, Settings
from svsync.domain.errors import SvsyncError
from svsync.services.findings import Finding, ok, warning, wrong
from svsync.services.root_keys import Word
from svsync.services.sealing import Sealing
from svsync.store.database import Database

OpenRoot = Callable[[Database], Awaitable[Sealing | None]]
"""Opens the root key, None where there is none yet. Raises KeyServiceError, ConfigError."""

_NEXT_START = "the next start of svsync lets it"


async def look_at_keys(settings: Settings, db: Database, open_root: OpenRoot) -> list[Finding]:
    """Nothing is made or stored by looking."""
    found = []
    if settings.kms_provider is KmsProvider.LOCAL:
        found.append(
            warning(
                "key service",
                "a key file on this machine wraps the root key: whoever has it and the database"
                " has the secrets",
                "set KMS_PROVIDER, or keep the file and backups of the database apart",
            )
        )
    if settings.kms_key_id_secondary is None:
        found.append(
            warning(
                "key service",
                "no second key wraps the root key: were the first one lost, everything would be",
                "set KMS_KEY_ID_SECONDARY, or keep a copy of the key elsewhere",
            )
        )
    try:
        sealing = await open_root(db)
    except SvsyncError as problem:
        return [*found, wrong("root key", problem.message)]
    if sealing is None:
        return [*found, ok("root key", "there is none yet: the first start makes it")]
    found += _of_services(settings, sealing)
    if sealing.warnings:
        return [*found, *(warning("root key", said) for said in sealing.warnings)]
    return [*found, ok("root key", "it opens")]


def _of_services(settings: Settings, sealing: Sealing) -> list[Finding]:
    found = []
    for one in sealing.standings:
        if one.word is Word.UNUSED:
            says = f"{one.reference} does not wrap the root key yet"
            found.append(warning("key service", says, _NEXT_START))
        elif one.word is Word.OPENS and not one.reference.startswith("local:"):
            found.append(ok("key service", f"{one.reference} wraps the root key"))
    second = settings.kms_key_id_secondary is not None
    if second and len(sealing.standings) < 2 and not sealing.warnings:
        # A key file that is not there yet is not made by a look.
        says = "the second key does not wrap the root key yet"
        found.append(warning("key service", says, _NEXT_START))
    return found
