"""Static tokens, for those whose own has the scope `admin`."""

from collections.abc import Sequence
from typing import Final

from svsync.client.calls import Calls, new_key, segment
from svsync.client.federation import every
from svsync.client.records import MadeToken, StaticToken

_TOKENS: Final = "/v1/auth/tokens"


class Tokens:
    """`client.tokens`. Each method raises SvsyncError."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def list(self) -> tuple[StaticToken, ...]:
        """Every token of the tenant, newest first, without its text."""
        return tuple(await every(self._calls, _TOKENS, "tokens"))

    async def create(
        self, identity_id: str, scopes: Sequence[str], *, expires_in: str | None = None
    ) -> MadeToken:
        """Make a token; its text is shown this once.

        Args:
            identity_id: who calls with it: `sa:NAME` or `user:NAME`.
            expires_in: how long it is good: `12h`, `30d` or `never`; None: 90 days.

        Raises:
            SvsyncError: `idempotency_answer_not_kept`: it was made, and the answer with it was
                lost on the way: revoke it, and make another.
        """
        body: dict[str, object] = {"identity_id": identity_id, "scopes": [*scopes]}
        if expires_in is not None:
            body["expires_in"] = expires_in
        made: MadeToken = await self._calls.send("POST", _TOKENS, body, key=new_key())
        return made

    async def revoke(self, token_id: str) -> None:
        """Let a token count no more, from the next request on; by its id, never by its text."""
        await self._calls.send("DELETE", f"{_TOKENS}/{segment(token_id, 'token_id')}")
