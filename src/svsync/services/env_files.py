"""Variables of a `.env` file, grouped into secrets and brought to their places.

The file is read as its programs read it (python-dotenv), but for references: what a value
would get from other variables depends on where it is read, so one that holds `${NAME}` is
told of and not imported, unless it is meant as it stands.

What `env -0` prints is taken too: each variable as the process has it, where nothing is
quoted, left out or referred to.
"""

import io
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from dotenv.parser import Binding, parse_stream

from svsync.config.env_map import DEFAULT_TYPE, EnvMap, Grouped
from svsync.domain.errors import UsageError
from svsync.services.transfer import Access, Given, Outcome, Placed, Report, Wanted, each, place

_REFERENCE: Final = re.compile(r"\$\{[^}]*\}")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_EMPTY_NAME: Final = re.compile(r"[A-Z_][A-Z0-9_]*|[a-z_][a-z0-9_]*")
_UP_TO_QUOTED: Final = re.compile(
    r"""[^=]*=[^\S\r\n]*('(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")?""", re.DOTALL
)
_DETAIL: Final = json.dumps({"imported_from": "env"})


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable; `value` None: it is named and has none. `line` None: it is of a process.
    `twice`: it has another value further up, which line that is; of a process, which of its
    variables."""

    value: str | None = field(repr=False)
    line: int | None = None
    twice: int | None = None


class Variables(dict[str, Variable]):
    """Variables by their names, in their order.

    Attributes:
        comments: lines with a comment in which a variable may be left, or the rest of a value.
    """

    def __init__(self) -> None:
        self.comments: list[int] = []


@dataclass(slots=True)
class ImportReport(Report):
    """What an import did so far.

    Attributes:
        unmapped: variables of the file that the map does not name, as `unmapped` tells them.
        absent: paths none of whose variables is in the file.
    """

    unmapped: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, object]:
        # `super()` without arguments does not work in a class with slots.
        told = Report.as_json(self)
        return {**told, "not_mapped": self.unmapped, "absent": self.absent}


def read_variables(data: bytes, name: str) -> Variables:
    """The variables of a `.env` file or of `env -0`, in their order.

    Raises:
        UsageError: it cannot be read, with the line and never what stands there.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{name}:{line}: is not UTF-8 here; save the file as UTF-8") from None
    if process := _of_process(text):
        return process
    if "\x00" in text:
        line = text[: text.index("\x00")].count("\n") + 1
        raise UsageError(f"{name}:{line}: holds a NUL character; remove it")
    found = Variables()
    for binding in parse_stream(io.StringIO(text)):
        # A binding begins with the empty lines before it.
        raw = binding.original.string
        line = binding.original.line + len(raw[: len(raw) - len(raw.lstrip())].splitlines())
        if binding.error:
            raise UsageError(
                f"{name}:{line}: is no NAME=value; look for a missing = or closing quote"
            )
        if _has_comment(binding):
            found.comments.append(line)
        if binding.key is None:
            continue
        before = found.get(binding.key)
        twice = None
        if before is not None and (before.twice or before.value != binding.value):
            twice = before.twice or before.line
        found[binding.key] = Variable(binding.value, line, twice)
    return found


def _has_comment(binding: Binding) -> bool:
    """Is there a comment behind a value, or one that may be a variable that was put aside?"""
    raw = binding.original.string.strip()
    if binding.key is None:
        return "=" in raw
    if binding.value is None or not (begun := _UP_TO_QUOTED.match(raw)):
        return "#" in raw
    rest = raw[begun.end() :]
    # Unquoted, a # is part of the value unless a space is before it.
    return "#" in rest if begun[1] else rest != binding.value


def _of_process(text: str) -> Variables:
    """What `env -0` printed; empty where it is nothing of that, as a file with a NUL at its end."""
    *entries, last = text.split("\x00")
    found = Variables()
    if last or len(entries) < 2:
        return found
    places: dict[str, int] = {}
    for number, entry in enumerate(entries, 1):
        name, equals, value = entry.partition("=")
        if not (name and equals):
            return Variables()
        before = found.get(name)
        # A process can have a name twice, and which value counts is up to who asks for it.
        twice = None
        if before is not None and (before.twice or before.value != value):
            twice = before.twice or places[name]
        found[name] = Variable(value, twice=twice)
        places[name] = number
    return found


async def import_env(
    access: Access,
    env_map: EnvMap,
    variables: Mapping[str, Variable],
    report: ImportReport,
    *,
    overwrite: bool,
    literal: bool,
    tell: Callable[[int, int], None],
) -> None:
    """Bring each secret of the map to its place. `report` tells what was done at any moment;
    `literal`: a value that holds `${NAME}` is meant as it stands.

    Raises:
        SvsyncError: what is not about one secret alone.
    """
    report.unmapped.extend(unmapped(env_map, variables))
    present = []
    for one in env_map.secrets:
        if is_present(one, variables):
            present.append(one)
        else:
            report.absent.append(one.path)
    done = 0

    async def work(one: Grouped) -> None:
        nonlocal done
        report.add(
            unusable(one, variables, literal=literal)
            or await place(
                access,
                one.path,
                source(one),
                given(one, variables),
                wanted(one),
                overwrite=overwrite,
                dry=report.dry,
                detail=_DETAIL,
            )
        )
        done += 1
        tell(done, len(present))

    await each(present, work)


def unmapped(env_map: EnvMap, variables: Mapping[str, Variable]) -> list[str]:
    """Names of variables that a map does not tell of; a line where it may be no name."""
    named = {variable for one in env_map.secrets for variable in one.fields} | env_map.left
    return [_told(name, one) for name, one in variables.items() if name not in named]


def left(env_map: EnvMap, variables: Mapping[str, Variable]) -> list[str]:
    """Names of variables that a map leaves in the environment."""
    return [name for name in variables if name in env_map.left]


def _told(name: str, variable: Variable) -> str:
    """What stands before an = may be a piece of a value, the further lines of one that was
    not quoted: base64 ends with =, and a line of it that has none is read as a name alone."""
    if variable.line is None:  # a process has names
        return name
    if variable.value is not None and set(variable.value) != {"="}:
        pattern = _NAME if variable.value else _EMPTY_NAME
        if pattern.fullmatch(name):
            return name
    return f"line {variable.line}"


def is_present(one: Grouped, variables: Mapping[str, Variable]) -> bool:
    """Is any variable of a secret there? If none is, the file is another's."""
    return any(variable in variables for variable in one.fields)


def source(one: Grouped) -> str:
    """The variables of a secret, as its other side."""
    return ", ".join(one.fields)


def unusable(one: Grouped, variables: Mapping[str, Variable], *, literal: bool) -> Placed | None:
    """Why a secret cannot be made of its variables; None: it can."""

    def told(reason: str, message: str) -> Placed:
        return Placed(one.path, source(one), Outcome.FAILED, reason, message)

    missing = [name for name in one.fields if name not in variables]
    if missing:
        # Half a secret would take the place of a whole one.
        return told("variable_missing", f"{', '.join(missing)} is not in the file: add it there")
    for name in one.fields:
        variable = variables[name]
        where = name if variable.line is None else f"{name} in line {variable.line}"
        if variable.twice is not None and variable.line is None:
            return told("variable_twice", f"{name} has two values there: keep one")
        if variable.twice is not None:
            return told(
                "variable_twice", f"{where} has another value in line {variable.twice}: keep one"
            )
        if variable.value is None:
            return told("variable_without_value", f"{where} has no value: write {name}=VALUE")
        if not literal and variable.line is not None and _REFERENCE.search(variable.value):
            return told(
                "variable_refers",
                f"{where} refers to another variable: write the value out, or give --literal"
                " where it is meant as it stands",
            )
    return None


def given(one: Grouped, variables: Mapping[str, Variable]) -> Given:
    """What a secret is where it is not there yet; none of its variables is unusable."""
    fields = {named: variables[variable].value for variable, named in one.fields.items()}
    return Given(
        json.dumps(fields, ensure_ascii=False),
        secret_type=one.secret_type,
        tags=one.tags,
        owner=one.owner,
        description=one.description,
        max_versions=one.max_versions,
    )


def wanted(one: Grouped) -> Wanted:
    """The labels that a map gives a secret."""
    return Wanted(
        one.tags,
        # A type that the map does not name is no wish.
        secret_type=None if one.secret_type == DEFAULT_TYPE else one.secret_type,
        owner=one.owner,
        description=one.description,
        max_versions=one.max_versions,
    )
