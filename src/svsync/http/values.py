"""The value of a secret as a body brings it: one object, checked before anything is done.

No message repeats any of it.
"""

from typing import Final

from svsync.domain.errors import UndecodableError
from svsync.domain.values import Encoding, Payload, check_limits
from svsync.http.body import RequestError

MAX_VALUE: Final = 1024 * 1024
"""Bytes of the text of `data`."""


def value_of(exact: str) -> Payload:
    """The value that the exact text of `data` is (`body.read_value_body`).

    Raises RequestError: 422, or 400 for what no UTF-8 has.
    """
    if not exact.startswith("{"):
        raise unusable_value('must be an object: a text goes into one, as {"value": "…"}')
    raw = exact.encode("utf-8")
    if reason := check_limits(raw, MAX_VALUE):
        raise unusable_value("is larger than 1 MiB: store a reference instead", reason)
    try:
        payload = Payload.from_json_text(raw)
    except UndecodableError as problem:
        raise unusable_value(problem.message, problem.code) from None
    if payload.encoding is not Encoding.JSON:
        raise RequestError(
            400,
            "holds half a surrogate pair, which no UTF-8 has",
            code="malformed_body",
            field="data",
        )
    return payload


def unusable_value(message: str, code: str = "invalid_field") -> RequestError:
    return RequestError(422, message, code=code, field="data")
