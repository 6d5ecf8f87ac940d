"""Conditions on a revision: `If-Match` with the `ETag` that an answer gave.

What is not understood is refused, for a condition that is passed over lets a change through.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from aiohttp import web

from svsync.domain.errors import VersionConflictError
from svsync.http.body import RequestError

HEADER: Final = "If-Match"
_TAG: Final = re.compile(r'"r([1-9][0-9]{0,17})"')


def tag_of(rev: object) -> dict[str, str]:
    """The header that names a revision, as `ETag: "r3"`."""
    return {"ETag": f'"r{rev}"'}


def wanted_revision(request: web.Request) -> int | None:
    """The revision that must stand; None: any. Raises RequestError."""
    given = request.headers.getall(HEADER, [])
    if not given or given == ["*"]:
        return None
    named = _TAG.fullmatch(given[0].strip()) if len(given) == 1 else None
    if named is None:
        raise RequestError(
            422, 'takes the ETag of one revision, as "r3"', code="invalid_field", field=HEADER
        )
    return int(named[1])


@contextmanager
def told_as_condition(rev: int | None) -> Iterator[None]:
    """Another revision than the header asked for is 412, as HTTP has it; raises RequestError
    then."""
    try:
        yield
    except VersionConflictError as moved:
        if rev is None:
            raise
        raise RequestError(412, moved.message, code=moved.code, field=HEADER) from None
