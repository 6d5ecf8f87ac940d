"""Which codes the code has, and which the page of errors tells of."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

from svsync.domain.runs import SkipReason

_REPOSITORY: Final = Path(__file__).parents[2]
_SOURCE: Final = _REPOSITORY / "src/svsync"
PAGE: Final = _REPOSITORY / "docs/reference/errors.md"
_CODE: Final = re.compile(r"[a-z][a-z0-9_]*")
_ROW: Final = re.compile(r"^\| `([a-z0-9_]+)` \|([0-9, ]*)\|", re.MULTILINE)
_STATUSES: Final = range(400, 600)


@cache
def told() -> dict[str, frozenset[int]]:
    """Each code of the page, with the statuses of its answers; none for a code that the API
    does not answer."""
    rows = _ROW.findall(PAGE.read_text("utf-8"))
    assert len({code for code, _ in rows}) == len(rows), "a code stands twice"
    return {code: frozenset(map(int, re.findall(r"\d+", statuses))) for code, statuses in rows}


def in_source() -> tuple[set[str], set[tuple[int, str]], set[str]]:
    """Codes; those that stand beside a status, with it; and what could not be understood: a code
    that is put together, or a name for one that is not found."""
    trees = [ast.parse(file.read_text("utf-8")) for file in sorted(_SOURCE.rglob("*.py"))]
    named = {
        name: value for tree in trees for node in tree.body for name, value in _constants(node)
    }
    codes = {str(reason) for reason in SkipReason}
    pairs: set[tuple[int, str]] = set()
    others: set[str] = set()
    for tree in trees:
        at = _positions(tree)
        for node in ast.walk(tree):
            for value in _codes_of(node, at):
                found = _texts(value, named)
                codes |= found
                if isinstance(value, ast.JoinedStr) or (_is_constant(value) and not found):
                    others.add(ast.unparse(value))
                pairs |= {(status, code) for status in _status_of(node) for code in found}
    return codes, pairs, others


def _constants(node: ast.stmt) -> Iterator[tuple[str, str]]:
    """`NAME: Final = "text"`."""
    match node:
        case ast.AnnAssign(ast.Name(name), value=ast.Constant(str(text))) if name.isupper():
            yield name, text


def _positions(tree: ast.Module) -> dict[str, int]:
    """Where a code stands among the arguments of functions of this module that take one."""
    return {
        node.name: [arg.arg for arg in node.args.args].index("code")
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and any(arg.arg == "code" for arg in node.args.args)
    }


def _codes_of(node: ast.AST, at: dict[str, int]) -> Iterator[ast.expr]:
    match node:
        case ast.ClassDef(body=body):
            for line in body:
                match line:
                    case ast.Assign([ast.Name("code")], value):
                        yield value
        case ast.Call(func, args, keywords):
            yield from (keyword.value for keyword in keywords if keyword.arg == "code")
            place = at.get(func.id, len(args)) if isinstance(func, ast.Name) else len(args)
            if not any(isinstance(given, ast.Starred) for given in args):
                yield from args[place : place + 1]
        case ast.FunctionDef(args=ast.arguments(args=given, defaults=defaults)):
            for arg, default in zip(given[len(given) - len(defaults) :], defaults, strict=True):
                if arg.arg == "code":
                    yield default
        case ast.Assign([ast.Tuple(names)], ast.Tuple(values)):
            for name, value in zip(names, values, strict=True):
                if isinstance(name, ast.Name) and name.id == "code":
                    yield value
        case ast.Assign([ast.Name("code")], value):
            yield value
        case ast.Assign([ast.Name("told")], ast.Tuple([ast.Constant(str()) as value, _])):
            yield value
        # An answer that is made where there is no error: status, code, sentence.
        case ast.Tuple([ast.Constant(int(status)), ast.Constant(str()) as code, _]):
            if status in _STATUSES:
                yield code
        case ast.Dict(keys, values):
            for key, value in zip(keys, values, strict=True):
                match key, value:
                    case ast.Constant(int(status)), ast.Tuple([ast.Constant(str()) as code, _]):
                        if status in _STATUSES:
                            yield code


def _status_of(node: ast.AST) -> Iterator[int]:
    match node:
        case ast.Call(ast.Name("RequestError"), [ast.Constant(int(status)), *_]):
            yield status
        case ast.Tuple([ast.Constant(int(status)), *_]):
            yield status


def _is_constant(value: ast.expr) -> bool:
    return isinstance(value, ast.Name) and value.id.isupper()


def _texts(value: ast.expr, named: dict[str, str]) -> set[str]:
    """The codes that an expression may be; none where it is one that was made elsewhere."""
    match value:
        case ast.Constant(str(text)) if _CODE.fullmatch(text):
            return {text}
        case ast.Name(name) if name in named:
            return {named[name]}
        case ast.IfExp(body=body, orelse=orelse):
            return _texts(body, named) | _texts(orelse, named)
    return set()
