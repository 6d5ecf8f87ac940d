"""The audit log over HTTP."""

from datetime import UTC, datetime
from typing import Final

from aiohttp import web

from svsync.config.document import Node
from svsync.config.kinds import Key, Kind, choice, integer, text, text_of
from svsync.domain.access import Caller, Scope
from svsync.domain.audit import Decision
from svsync.domain.moments import WORDS, parse_moment
from svsync.domain.paths import IllegalPath, parse_local
from svsync.http.body import read_query
from svsync.http.identity import for_scope
from svsync.http.replica import aged
from svsync.services.audit import CURSOR, QUERY, Asked, AuditLog


def _read_moment(node: Node) -> str:
    given = text_of(node, WORDS)
    try:
        parse_moment(given, datetime.now(UTC))
    except ValueError:
        raise node.error(f"must be {WORDS}") from None
    return given


def _read_path(node: Node) -> str:
    given = text_of(node, "a secret's path")
    try:
        parse_local(given.removesuffix("/**"))
    except IllegalPath:
        raise node.error("must be a secret's path, or whatever is below one: app/**") from None
    return given


_MOMENT: Final = Kind(_read_moment, {"type": "string"}, WORDS)
_QUERY: Final = (
    Key("identity_id", text(r"[!-~]{1,160}", "an identity, as sa:billing"), "Whose accesses."),
    Key("secret_path", Kind(_read_path, {"type": "string"}, "a secret's path"), "To what."),
    Key(
        "action", text(r"[a-z_]{1,40}(\.[a-z_]{1,40}){0,3}", "an action, as secret.read"), "Which."
    ),
    Key("decision", choice(Decision), "How they ended."),
    Key("from", _MOMENT, "From when on."),
    Key("to", _MOMENT, "Before when."),
    Key("limit", integer(1, 1000), "Items of one page."),
    Key("cursor", text(CURSOR, "the next_cursor of the page before"), "Go on there."),
)


class AuditRoutes:
    """`/v1/audit/logs`."""

    def __init__(self, log: AuditLog) -> None:
        self._log = log

    def routes(self) -> list[web.RouteDef]:
        # A look at the log is an access as well, and recorded before it is answered.
        return [web.get("/v1/audit/logs", aged(for_scope(Scope.AUDIT_READ, QUERY, self.logs)))]

    async def logs(self, request: web.Request, caller: Caller) -> web.Response:
        given = read_query(request, _QUERY)
        begin, end = given.pop("from", None), given.pop("to", None)
        asked = Asked(begin=begin, end=end, **given)
        return web.json_response(await self._log.logs(caller.tenant, asked))
