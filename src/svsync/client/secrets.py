"""Secrets: read, written, deleted, brought back, listed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from svsync.client.calls import Answer, Calls, body_text, key_of, not_svsync
from svsync.client.errors import unusable
from svsync.client.exact import decode, encode
from svsync.client.records import (
    DeletedSecret,
    SecretFederation,
    SecretInBrief,
    SecretMetadata,
    SecretPage,
    SecretVersion,
    SecretWritten,
    WriteThrough,
)
from svsync.domain.errors import UndecodableError
from svsync.domain.json_text import slice_members
from svsync.domain.paths import IllegalPath, parse_local

_PAGE: Final = 1000
Source = Literal["store", "backend", "standby"]


@dataclass(frozen=True, slots=True, repr=False)
class Secret:
    """A secret as it was read. What it holds does not show unless it is asked for.

    Attributes:
        path: its local path.
        version: its number; of a secret that is read through, the backend's own.
        secret_type: the label that it was given.
        created_at: when this version was made, RFC 3339; None where a backend does not say.
        data: the value. A number that is no integer is a `Number`, which keeps its text.
        text: the value as the exact text that is stored, a JSON object.
        metadata: tags, owner, description and fields of its own.
        federation: the backend that it comes from; None where there is none.
        source: where it was read: in svsync's own store, through its backend just now, or in
            another backend that stands by for that.
        in_conflict: both sides were changed, and a person has to decide; this is the local one.
    """

    path: str
    version: int
    secret_type: str
    created_at: str | None
    data: dict[str, Any]
    text: str
    metadata: SecretMetadata
    federation: SecretFederation | None
    source: Source = "store"
    in_conflict: bool = False

    def __repr__(self) -> str:
        return f"Secret(path={self.path!r}, version={self.version})"


@dataclass(frozen=True, slots=True)
class Listing:
    """Secrets by path, without values; it can be iterated over.

    Attributes:
        secrets: those that the caller may list.
        incomplete: some of what is read through may be missing, for a backend did not list it.
    """

    secrets: tuple[SecretInBrief, ...]
    incomplete: bool

    def __iter__(self) -> Iterator[SecretInBrief]:
        return iter(self.secrets)

    def __len__(self) -> int:
        return len(self.secrets)


class Secrets:
    """`client.secrets`. Each method raises SvsyncError."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def read(self, path: str, *, version: int | None = None) -> Secret:
        """A secret with its value: the current version, or an earlier one.

        Raises:
            SvsyncError: `secret_not_found` (it is not there, or the token may not know of
                it), `forbidden`, `version_not_found`, `backend_unreachable` and others.
        """
        answer = await self._calls.call("GET", _place(path), query={"version": version})
        return _secret_of(answer)

    async def write(
        self,
        path: str,
        data: Mapping[str, Any] | None = None,
        *,
        secret_type: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        max_versions: int | None = None,
        cas: int | None = None,
        skip_if_equal: bool = False,
        text: str | None = None,
        idempotency_key: str | None = None,
    ) -> SecretWritten:
        """Write a secret, or a new version of it.

        Args:
            data: the value. A `Number` in it is written as it was read, Decimal is none.
            secret_type: a label, as `api_key`; left out, it stays.
            metadata: any of `tags`, `owner`, `description`, `custom`; what is left out stays.
            max_versions: how many versions are kept.
            cas: only if the secret is at this version; 0: only if there is none.
            skip_if_equal: no new version where the value is the same.
            text: the value as the exact text of a JSON object, in place of `data`.
            idempotency_key: go on with a write that was not answered; else one is drawn.

        Raises:
            SvsyncError: `version_conflict`, `remote_changed`, `write_outcome_unknown` and
                others; `outcome_unknown`: no answer came at all.
        """
        if (data is None) == (text is None):
            raise unusable("give the value as data, or as text")
        options = _given(max_versions=max_versions, cas=cas, skip_if_equal=skip_if_equal or None)
        members = _given(secret_type=secret_type, metadata=metadata, options=options or None)
        body = body_text(members, encode(data) if text is None else text)
        answer = await self._calls.call("PUT", _place(path), body=body, key=key_of(idempotency_key))
        written: SecretWritten = answer.document()
        return written

    async def delete(
        self, path: str, *, cas: int | None = None, idempotency_key: str | None = None
    ) -> DeletedSecret:
        """Delete a secret; `restore` brings it back, for a time.

        Raises:
            SvsyncError: `secret_not_found`, `version_conflict` where it is at another version
                than `cas`, and as `write`.
        """
        answer = await self._calls.call(
            "DELETE", _place(path), headers=_at_version(cas), key=key_of(idempotency_key)
        )
        state: Any = answer.headers.get("X-SVSync-Write-Through", "not_configured")
        through: WriteThrough = {
            "state": state,
            "push_id": answer.headers.get("X-SVSync-Push-Id"),
        }
        return {"path": path, "write_through": through}

    async def restore(
        self,
        path: str,
        version: int | None = None,
        *,
        cas: int | None = None,
        idempotency_key: str | None = None,
    ) -> SecretWritten:
        """Bring a deleted secret back, or an earlier version of one, as a new version.

        Raises:
            SvsyncError: `not_deleted` (it is there, and no version was named), and as `write`.
        """
        written: SecretWritten = await self._calls.send(
            "POST",
            f"{_place(path)}/restore",
            _given(version=version),
            headers=_at_version(cas),
            key=key_of(idempotency_key),
        )
        return written

    async def history(self, path: str) -> tuple[SecretVersion, ...]:
        """Every version that is kept, newest first, without values; of a deleted secret too.

        Raises SvsyncError: `secret_not_found`, and others.
        """
        place, found = _place(path), []
        cursor: str | None = None
        while True:
            page = await self._calls.get(place, versions=True, limit=_PAGE, cursor=cursor)
            found += page["versions"]
            if (cursor := page["next_cursor"]) is None:
                return tuple(found)

    async def list(self, prefix: str = "") -> Listing:
        """Every secret whose path begins with `prefix`, page after page.

        Raises SvsyncError: `forbidden` where nothing below it may be listed, and others.
        """
        found: list[SecretInBrief] = []
        incomplete, cursor = False, None
        while True:
            page = await self.page(prefix, limit=_PAGE, cursor=cursor)
            found += page["secrets"]
            incomplete = incomplete or page["incomplete"]
            if (cursor := page["next_cursor"]) is None:
                return Listing(tuple(found), incomplete)

    async def page(
        self, prefix: str = "", *, limit: int = 100, cursor: str | None = None
    ) -> SecretPage:
        """One page of a list; it goes on while `next_cursor` is not None, also where it is
        empty. Raises SvsyncError."""
        page: SecretPage = await self._calls.get(
            "/v1/secrets", prefix=prefix or None, limit=limit, cursor=cursor
        )
        return page


def _place(path: str) -> str:
    """Where a secret is. A path that cannot be one is not sent: `..` would lead elsewhere."""
    try:
        return f"/v1/secrets/{parse_local(path)}"
    except IllegalPath as problem:
        raise unusable(f"the path cannot be one: {problem.message}") from None


def _at_version(cas: int | None) -> dict[str, str]:
    return {} if cas is None else {"If-Match": f'"v{cas}"'}


def _given(**members: Any) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def _secret_of(answer: Answer) -> Secret:
    about = answer.document()
    try:
        start, end = slice_members(answer.text)["data"]
        text = answer.text[start:end]
        source: Any = answer.headers.get("X-SVSync-Source", "store")
        return Secret(
            **{name: about[name] for name in ("path", "version", "secret_type", "created_at")},
            data=decode(text),
            text=text,
            metadata=about["metadata"],
            federation=about["federation"],
            source=source,
            in_conflict=answer.headers.get("X-SVSync-Conflict") == "true",
        )
    except (ValueError, KeyError, TypeError, UndecodableError):
        raise not_svsync(answer.status) from None
