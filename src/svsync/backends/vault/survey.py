"""What is mounted in a Vault, what its KV mounts hold, and how a person deletes it there.

The mounts are those that `sys/internal/ui/mounts` shows the token: with a narrow policy only
what that reaches. No value and no secret's metadata is read for a survey.
"""

from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final

from svsync.backends.vault.calls import VaultCalls
from svsync.backends.vault.kv import Mount
from svsync.backends.vault.listing import VaultListing
from svsync.domain.errors import DeniedError
from svsync.domain.federation import BackendSpec
from svsync.domain.ids import RemotePath
from svsync.domain.inventory import Engine, Surveyed, SurveyPage
from svsync.domain.readers import Login
from svsync.domain.retirement import Deletion

_OWN: Final = frozenset({"system", "identity", "cubbyhole", "ns_system", "ns_identity", "token"})
"""Engines that every Vault has, and that hold nothing to move."""


class VaultSurvey:
    """One survey of one server."""

    def __init__(self, calls: VaultCalls, spec: BackendSpec) -> None:
        self._calls = calls
        self._spec = spec

    async def pages(self) -> AsyncGenerator[SurveyPage]:
        """Raises DeniedError: not even the mounts are shown; ListingError."""
        await self._calls.session.sign_in()  # in a call, it would be tried again by both
        mounts = await self._mounts()
        engines = [_engine(path, about) for path, about in sorted(mounts.items())]
        found = [engine for engine in engines if engine is not None]
        yield SurveyPage(engines=tuple(found))
        listing = VaultListing(self._calls, False, self._spec.max_secrets)
        async for page in listing.pages([engine.root for engine in found if engine.root]):
            yield SurveyPage(
                secrets=tuple(Surveyed(entry.remote_path, entry.gone) for entry in page.entries),
                scopes=page.scopes,
                rejected=page.rejected,
            )

    async def own_login(self) -> Login | None:
        """As the audit devices name it; None where the token may not look itself up."""
        await self._calls.session.sign_in()
        try:
            answer = await self._calls.request("login", "GET", "auth/token/lookup-self", "")
        except DeniedError:
            return None
        told = _mapping(answer.json().get("data"))
        about = _mapping(told.get("meta"))
        role = _text(about, "role_name") or _text(about, "role")
        return Login(_text(told, "display_name"), role, _text(told, "entity_id"))

    async def _mounts(self) -> Mapping[str, Any]:
        answer = await self._calls.request("metadata", "GET", "sys/internal/ui/mounts", "")
        return _mapping(_mapping(answer.json().get("data")).get("secret"))


def deletion(spec: BackendSpec, mount: Mount, path: RemotePath) -> Deletion | None:
    """On KV v2 the current version is deleted and can be undeleted; KV v1 keeps nothing.

    None: the command would trim the name, and delete another secret.
    """
    namespace = str(spec.config.get("namespace") or "")
    name = path[len(mount.root) :]
    if (name, mount.path) != (name.strip(), mount.path.strip()):
        return None
    words = (
        "vault",
        "kv",
        "delete",
        f"-address={spec.config['endpoint']}",
        *([f"-namespace={namespace}"] if namespace else []),
        f"-mount={mount.path}",
        *(["--"] if name.startswith("-") else []),
        name,
    )
    return Deletion(words, recoverable=mount.version == 2)


def _engine(path: str, about: object) -> Engine | None:
    told = _mapping(about)
    kind = _text(told, "type")
    if kind in _OWN:
        return None
    if kind not in ("kv", "generic"):
        return Engine(path, kind)
    version = 2 if _mapping(told.get("options")).get("version") == "2" else 1
    return Engine(path, f"kv-v{version}", Mount(path.strip("/"), version).root)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(found: Mapping[str, Any], key: str) -> str:
    value = found.get(key)
    return value if isinstance(value, str) else ""
