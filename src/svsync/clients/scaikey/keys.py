"""The keys of an issuer, kept; and what a token says that one of them has signed.

They are had anew every five minutes, so that a key that was withdrawn soon counts no more,
and when a token names a key that is not known, at most once a minute. While the issuer does
not answer, those that are known go on counting for a day.
"""

import asyncio
import base64
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import jwt

from svsync.clients.scaikey.documents import DocumentError
from svsync.domain.scaikey import IssuerUnavailableError, header_of, not_valid
from svsync.observe.logs import get_logger

FRESH_S: Final = 300.0
"""Seconds after which keys are had anew."""
AGAIN_S: Final = 60.0
"""Seconds between two attempts for a key that is not known, and after one that failed."""
FIRST_S: Final = 5.0
"""The same while no key is known at all."""
KEPT_S: Final = 24 * 3600.0
"""Seconds for which keys count while the issuer does not answer."""
MAX_KEYS: Final = 100
_RSA_BITS: Final = range(2048, 8192 + 1)

Keys = Mapping[tuple[str, str], jwt.PyJWK]
"""By key id and the one algorithm that the key is good for."""


class IssuerKeys:
    """The keys of one issuer."""

    def __init__(
        self,
        fetch: Callable[[], Awaitable[Mapping[str, Any]]],
        *,
        clock: Callable[[], float] = time.monotonic,
        name: str = "ScaiKey",
    ) -> None:
        """`fetch` gets what the issuer publishes, and raises DocumentError; `clock` gives
        seconds that never go back; by `name` the log tells of it."""
        self._fetch = fetch
        self._clock = clock
        self._name = name
        self._keys: Keys = {}
        self._had_at: float | None = None
        self._asked_at: float | None = None
        self._tried_at: float | None = None
        self._failing = False
        self._attempts = 0
        self._one = asyncio.Lock()

    async def payload_of(self, text: str) -> bytes:
        """The claims of a token, as they were signed.

        Raises:
            UnauthenticatedError: none of the issuer's keys has signed it.
            IssuerUnavailableError: that cannot be told now.
        """
        header = header_of(text)
        named = (header.key_id, header.algorithm)
        key = self._known().get(named)
        if key is None:
            await self._look_for_more()
            key = self._known().get(named)
        if key is None:
            raise IssuerUnavailableError if self._failing or not self._is_known else not_valid()
        try:
            opened = jwt.PyJWS().decode_complete(text, key=key, algorithms=[header.algorithm])
        except jwt.PyJWTError:
            raise not_valid() from None
        payload: bytes = opened["payload"]
        return payload

    async def keep_fresh(self) -> None:
        """Have the keys anew, now and again, until cancelled."""
        while True:
            await self.refresh()
            if self._failing:
                await asyncio.sleep(AGAIN_S if self._is_known else FIRST_S)
            else:
                await asyncio.sleep(FRESH_S)

    async def refresh_old(self) -> None:
        """Have the keys anew if it is time: for whoever does not keep them fresh."""
        wait = FRESH_S
        if self._failing:
            wait = AGAIN_S if self._is_known else FIRST_S
        if self._tried_at is None or self._clock() - self._tried_at >= wait:
            await self.refresh()

    async def refresh(self) -> None:
        """Have the keys anew. Whoever asks while it is under way waits for the same."""
        seen = self._attempts
        async with self._one:
            if self._attempts != seen:
                return
            self._tried_at = self._clock()
            try:
                keys = keys_of(await self._fetch())
            except DocumentError as problem:
                self._note_failure(problem)
            else:
                self._note(keys)
            self._attempts += 1

    @property
    def _is_known(self) -> bool:
        return self._had_at is not None and self._clock() - self._had_at < KEPT_S

    def _known(self) -> Keys:
        return self._keys if self._is_known else {}

    async def _look_for_more(self) -> None:
        """For a key that is not known. Anybody can name one, so the issuer is seldom asked."""
        now, wait = self._clock(), AGAIN_S if self._is_known else FIRST_S
        if self._one.locked():
            await self.refresh()
        elif self._asked_at is None or now - self._asked_at >= wait:
            self._asked_at = now
            await self.refresh()

    def _note(self, keys: Keys) -> None:
        if self._failing:
            get_logger().info("issuer_answers_again", provider=self._name)
        if keys.keys() != self._keys.keys():
            get_logger().info("issuer_keys", provider=self._name, count=len(keys))
        self._keys, self._had_at, self._failing = keys, self._clock(), False

    def _note_failure(self, problem: DocumentError) -> None:
        if not self._failing:
            get_logger().warning(
                "issuer_unavailable",
                provider=self._name,
                error_code=problem.code,
                detail=f"{self._name}'s keys cannot be had: {problem.message}; those that are known"
                " count for a day",
            )
        self._failing = True


def keys_of(published: Mapping[str, Any]) -> Keys:
    """The keys in what an issuer publishes that can be used here, as public keys for the one
    algorithm that fits each; others are left out.

    Raises DocumentError: it is no set of keys.
    """
    entries = published.get("keys")
    if not isinstance(entries, list) or len(entries) > MAX_KEYS:
        raise DocumentError(
            f"what it publishes is no set of at most {MAX_KEYS} keys", code="jwks_unreadable"
        )
    found: dict[tuple[str, str], jwt.PyJWK] = {}
    for entry in entries:
        if isinstance(entry, dict) and (made := _key_of(entry)) is not None:
            # Of two with one name the first counts, however often they are read.
            found.setdefault((entry["kid"], made.algorithm_name), made)
    return found


def _key_of(entry: dict[str, Any]) -> jwt.PyJWK | None:
    kid, use = entry.get("kid"), entry.get("use", "sig")
    does = entry.get("key_ops", ["verify"])
    if not isinstance(kid, str) or use != "sig" or not isinstance(does, list):
        return None
    if "verify" not in does or "d" in entry:  # with "d" it is no secret any more
        return None
    match entry:
        case {"kty": "RSA", "n": str(n), "e": str(e)} if _bits(n) in _RSA_BITS:
            algorithm, plain = "RS256", {"kty": "RSA", "n": n, "e": e}
        case {"kty": "EC", "crv": "P-256", "x": str(x), "y": str(y)}:
            algorithm, plain = "ES256", {"kty": "EC", "crv": "P-256", "x": x, "y": y}
        case {"kty": "OKP", "crv": "Ed25519", "x": str(x)}:
            algorithm, plain = "EdDSA", {"kty": "OKP", "crv": "Ed25519", "x": x}
        case _:
            return None
    if entry.get("alg", algorithm) != algorithm:
        return None
    try:
        return jwt.PyJWK(plain, algorithm)
    except (jwt.PyJWTError, ValueError, TypeError):
        return None


def _bits(number: str) -> int:
    """Of a number as a key has it; 0: it is none."""
    try:
        decoded = base64.urlsafe_b64decode(number + "=" * (-len(number) % 4))
    except ValueError:
        return 0
    return int.from_bytes(decoded).bit_length()
