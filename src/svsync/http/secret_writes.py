"""Writes to secrets over HTTP: put, delete and restore.

Each is asked for by a body that was understood, decided and recorded, and then done, once
for each `Idempotency-Key`. `cas` in the body and `If-Match` ask for the same; who asks in
the body is answered 409 where it does not hold, who asks in the header 412.
"""

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from aiohttp import web

from svsync.config.document import Node
from svsync.config.kinds import (
    BOOLEAN,
    Key,
    Kind,
    integer,
    mapping_of,
    record,
    sequence,
    text,
    text_of,
)
from svsync.domain.access import Caller, Scope
from svsync.domain.errors import VersionConflictError
from svsync.domain.ids import LocalPath
from svsync.domain.policies import Permission
from svsync.domain.values import Payload
from svsync.http.body import RequestError, read_body, read_query, read_value_body
from svsync.http.idempotency import once
from svsync.http.identity import AUTHORIZING, RIGHTS, call_of, for_scope
from svsync.http.secrets import path_of
from svsync.http.values import unusable_value, value_of
from svsync.services.authorizing import may_read
from svsync.services.secret_writes import SecretWrites
from svsync.services.write_rows import Put

MOST_VERSIONS: Final = 10_000
MOST_TAGS: Final = 100
MOST_CUSTOM: Final = 64
_MAX_TEXT: Final = 4_096
_MAX_NAME: Final = 128
_LAST_VERSION: Final = 2**31 - 1
_VERSION_TAG: Final = re.compile(r'"v([1-9][0-9]{0,9})"')


# --- what a body holds --------------------------------------------------------------


def _read_nullable(node: Node) -> str:
    """Text; empty where it is to be taken away."""
    if node.value is None:
        return ""
    given = text_of(node)
    if len(given) > _MAX_TEXT:
        raise node.error(f"has more than {_MAX_TEXT:,} characters")
    return given


def _read_custom(node: Node) -> dict[str, str]:
    members = mapping_of(node)
    if len(members) > MOST_CUSTOM:
        raise node.error(f"has more than {MOST_CUSTOM} fields")
    for name in members:
        if not name or len(name) > _MAX_NAME or not name.isprintable():
            raise node.error(f"has a field whose name is not 1 to {_MAX_NAME} printable characters")
    return {name: _CUSTOM_TEXT.read(member) for name, member in members.items()}


_CUSTOM_TEXT: Final = text(r"(.|\n)*", "text", max_length=_MAX_TEXT)
_NULLABLE: Final = Kind(_read_nullable, {"type": ["string", "null"]}, "text")
_CUSTOM: Final = Kind(_read_custom, {"type": "object"}, "a mapping of names to text")
_TAG: Final = text(r".+", "a tag of at most 256 characters", max_length=256)
_METADATA: Final = record(
    (
        Key("tags", sequence(_TAG, "a list of tags", max_items=MOST_TAGS), "In place of all."),
        Key("owner", _NULLABLE, "Who answers for it; null takes it away."),
        Key("description", _NULLABLE, "What it is for; null takes it away."),
        Key("custom", _CUSTOM, "Fields of your own, in place of all."),
    ),
    "a mapping of tags, owner, description and custom",
)
_OPTIONS: Final = record(
    (
        Key("max_versions", integer(1, MOST_VERSIONS), "Versions that are kept of it."),
        Key("cas", integer(0, _LAST_VERSION), "Only if it is at this version; 0: not there."),
        Key("skip_if_equal", BOOLEAN, "No new version where the value is the same."),
    ),
    "a mapping of max_versions, cas and skip_if_equal",
)
_PUT_KEYS: Final = (
    Key("secret_type", text(r".+", "a word of at most 64 characters", max_length=64), "A label."),
    Key("metadata", _METADATA, "What is left out keeps its value."),
    Key("options", _OPTIONS, "What is left out keeps its value."),
)
_RESTORE_KEYS: Final = (Key("version", integer(1, _LAST_VERSION), "An earlier version."),)


def _payload(exact: str | None) -> Payload:
    if exact is None:
        raise unusable_value('is missing: give it an object, as {"password": "…"}')
    return value_of(exact)


def _unusable(message: str, field: str) -> RequestError:
    return RequestError(422, message, code="invalid_field", field=field)


# --- conditions ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Condition:
    """The version that the secret must be at (0: it must not be there; None: any).

    `header` is the one that asks for it, if one does.
    """

    cas: int | None
    header: str | None = None

    @classmethod
    def of(cls, request: web.Request, cas: int | None = None) -> "_Condition":
        """What the headers ask for, and the body. Raises RequestError."""
        given = [
            (name, value)
            for name in ("If-Match", "If-None-Match")
            for value in request.headers.getall(name, [])
        ]
        if not given:
            return cls(cas)
        if len(given) > 1:
            raise _unusable("is given more than once, or beside the other", field=given[1][0])
        [(name, value)] = given
        wanted = _wanted(name, value.strip())
        if cas not in (None, wanted):
            raise _unusable("says something else than options.cas: give one of them", field=name)
        return cls(wanted, name)

    @contextmanager
    def told(self) -> Iterator[None]:
        """A header that does not hold is 412, as HTTP has it; raises RequestError then."""
        try:
            yield
        except VersionConflictError as error:
            if self.header is None or error.code != VersionConflictError.code:
                raise
            raise RequestError(412, error.message, code=error.code, field=self.header) from None


def _wanted(name: str, value: str) -> int:
    if name == "If-None-Match":
        if value != "*":
            raise _unusable("takes `*` alone: the secret must not be there yet", field=name)
        return 0
    named = _VERSION_TAG.fullmatch(value)
    if named is None or int(named[1]) > _LAST_VERSION:
        raise _unusable('takes the ETag of one version, as "v3"', field=name)
    return int(named[1])


# --- the routes ---------------------------------------------------------------------


class SecretWriteRoutes:
    """What changes secrets, in `/v1/secrets`."""

    def __init__(self, writes: SecretWrites) -> None:
        self._writes = writes

    def routes(self) -> list[web.RouteDef]:
        one = "/v1/secrets/{path:(?s:.+)}"

        def done(
            action: str, handler: Callable[[web.Request, Caller], Awaitable[web.StreamResponse]]
        ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
            # The handler records it, with its path, once it knows what is asked for.
            return for_scope(Scope.SECRETS_WRITE, action, handler, recorded=False)

        return [
            web.put(one, done("secret.write", self.put)),
            web.delete(one, done("secret.delete", self.delete)),
            web.post(f"{one}/restore", done("secret.restore", self.restore)),
        ]

    async def put(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        read_query(request, ())
        path = path_of(request)
        asked, exact = await read_value_body(request, _PUT_KEYS, "data")
        payload = _payload(exact)
        metadata: Mapping[str, Any] = asked.get("metadata", {})
        options: Mapping[str, Any] = asked.get("options", {})
        condition = _Condition.of(request, options.get("cas"))
        put = Put(
            payload,
            secret_type=asked.get("secret_type"),
            tags=metadata.get("tags"),
            owner=metadata.get("owner"),
            description=metadata.get("description"),
            custom=metadata.get("custom"),
            max_versions=options.get("max_versions"),
            cas=condition.cas,
            skip_if_equal=options.get("skip_if_equal", False),
            may_read=_may_read(request, path),
        )
        await _require(request, Permission.WRITE, path, "secret.write", compares=put.skip_if_equal)

        async def write() -> web.Response:
            with condition.told():
                done = await self._writes.write(caller.tenant, path, put, by=caller.identity.id)
            return _answer(done.answer, 201 if done.new else 200)

        return await once(request, await request.read(), write)

    async def delete(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        read_query(request, ())
        path = path_of(request)
        await read_body(request, ())
        condition = _Condition.of(request)
        await _require(request, Permission.DELETE, path, "secret.delete")

        async def bury() -> web.Response:
            with condition.told():
                done: Mapping[str, Any] = await self._writes.delete(
                    caller.tenant, path, by=caller.identity.id, cas=condition.cas
                )
            through = done["write_through"]
            headers = {"X-SVSync-Write-Through": str(through["state"])}
            if through["push_id"] is not None:
                headers["X-SVSync-Push-Id"] = str(through["push_id"])
            return web.Response(status=204, headers=headers)

        return await once(request, await request.read(), bury)

    async def restore(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        read_query(request, ())
        path = path_of(request)
        asked = await read_body(request, _RESTORE_KEYS)
        condition = _Condition.of(request)
        version = asked.get("version")
        await _require(request, Permission.WRITE, path, "secret.restore", version)
        bring = partial(
            self._bring_back, caller, path, version, condition, _may_read(request, path)
        )
        return await once(request, await request.read(), bring)

    async def _bring_back(
        self,
        caller: Caller,
        path: LocalPath,
        version: int | None,
        condition: _Condition,
        may_read: bool,
    ) -> web.Response:
        with condition.told():
            done = await self._writes.restore(
                caller.tenant,
                path,
                version,
                by=caller.identity.id,
                cas=condition.cas,
                may_read=may_read,
            )
        return _answer(done, 200)


async def _require(
    request: web.Request,
    permission: Permission,
    path: LocalPath,
    action: str,
    version: int | None = None,
    *,
    compares: bool = False,
) -> None:
    await request.app[AUTHORIZING].require(
        call_of(request), request[RIGHTS].permissions, permission, path, action,
        scope=Scope.SECRETS_WRITE, version=version, compares=compares,
    )  # fmt: skip


def _may_read(request: web.Request, path: LocalPath) -> bool:
    rights = request[RIGHTS]
    return may_read(rights.caller, rights.permissions, path)


def _answer(written: Mapping[str, object], status: int) -> web.Response:
    headers = {"ETag": f'"v{written["version"]}"'}
    return web.json_response(written, status=status, headers=headers)
