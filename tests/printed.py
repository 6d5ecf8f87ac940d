"""Holds what a command prints with `--json` to the schema of that command."""

import json
from collections.abc import Sequence
from contextlib import redirect_stderr
from functools import cache
from io import StringIO
from typing import Any

from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from svsync.cli.arguments import Parser
from svsync.cli.main import build_parser
from svsync.cli.schema import schema_of

_LINES = "svsync status"
"""Prints an object a line with `--watch`."""
_SILENT = "svsync serve"
"""Says nothing when it is told to end."""


def check(args: Sequence[str], code: int, out: str) -> None:
    """One object, with nothing in it that its schema does not know; none on exit code 2, and
    of what was killed or serves nothing needs to be there."""
    if code == 2 or "--json" not in args:
        return
    with redirect_stderr(StringIO()):
        parsed = _parser().parse_args(args)
    if not parsed.json or (not out and (code < 0 or parsed.words == _SILENT)):
        return
    watched = parsed.words == _LINES and parsed.watch
    for text in out.splitlines() if watched else (out,):
        _validator(parsed.words).validate(json.loads(text))


@cache
def _parser() -> Parser:
    parser = build_parser()
    assert isinstance(parser, Parser)
    return parser


@cache
def _validator(words: str) -> Any:
    return Draft202012Validator(schema_of(words))
