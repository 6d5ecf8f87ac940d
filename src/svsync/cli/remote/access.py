"""Secrets as a service's caller reads and writes them; an `Access` of `services.transfer`."""

from collections.abc import AsyncGenerator
from typing import Any, Final

from svsync.cli.remote.opening import told
from svsync.client import Client
from svsync.client import SvsyncError as Answered
from svsync.domain.errors import SvsyncError
from svsync.domain.ids import LocalPath
from svsync.services.transfer import Given, Held, Names, is_absent

_PAGE: Final = 1000


class ByService:
    """Those of the token's tenant. The service records each access itself."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def names(self, prefix: str) -> AsyncGenerator[Names, None]:
        cursor = None
        while True:
            try:
                page = await self._client.secrets.page(prefix, limit=_PAGE, cursor=cursor)
            except Answered as error:
                raise told(error) from None
            yield Names(
                tuple(LocalPath(one["path"]) for one in page["secrets"]), page["incomplete"]
            )
            if (cursor := page["next_cursor"]) is None:
                break

    async def read(self, path: LocalPath) -> Held:
        try:
            secret = await self._client.secrets.read(path)
        except Answered as error:
            raise told(error) from None
        metadata = secret.metadata
        return Held(
            secret.text,
            secret.version,
            secret.secret_type,
            tuple(metadata["tags"]),
            metadata["owner"],
            metadata["description"],
            metadata["custom"],
            secret.in_conflict,
            secret.source == "standby",
        )

    async def was_deleted(self, path: LocalPath) -> bool:
        try:
            versions = await self._client.secrets.history(path)
        except Answered as error:
            known: SvsyncError = told(error)
            # Who may not look at a history may not bring anything back by it either.
            if is_absent(known):
                return False
            raise known from None
        return any(version["state"] == "live" for version in versions)

    async def write(self, path: LocalPath, given: Given, *, cas: int, detail: str) -> int:
        """`detail` is the store's own matter: the service tells of the request."""
        labels: dict[str, Any] = {
            "tags": None if given.tags is None else list(given.tags),
            "owner": given.owner,
            "description": given.description,
            "custom": None if given.custom is None else dict(given.custom),
        }
        metadata = {name: label for name, label in labels.items() if label is not None}
        try:
            written = await self._client.secrets.write(
                path,
                text=given.text,
                secret_type=given.secret_type,
                metadata=metadata or None,
                max_versions=given.max_versions,
                cas=cas,
                skip_if_equal=given.skip_if_equal,
            )
        except Answered as error:
            raise told(error) from None
        return written["version"]
