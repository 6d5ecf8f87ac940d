"""Log lines, from which no value can leak by accident.

A line is the name of an event and fields. What may be written is listed, not
what may not: a field whose name is not in `FIELDS` is dropped, and its name is
told once. A field's value is a number, a name or a short text; of any other
object only its class is written. Exceptions are described by `failures.py`.

    log = get_logger()
    with log_context(tenant="default", backend_id=backend, run_id=run):
        log.info("run_claimed", attempts=2)

Lines go to stderr, as JSON or as text for people. Libraries may warn, at any
level of ours: their debug lines hold requests and responses. What they say is
cut down too: the logger, the message where it is a constant of the library's code,
the exception's class and place.
"""

import contextlib
import json
import logging
import math
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from enum import Enum
from pathlib import PurePath
from types import FrameType, TracebackType
from typing import Any, Final, TextIO, cast
from uuid import UUID

import structlog
from structlog.typing import EventDict, FilteringBoundLogger

from svsync.config.model import LogFormat, LogLevel
from svsync.observe.failures import class_name, describe

_WHO = """tenant backend_id run_id request_id conflict_id push_id endpoint_id event_id instance_id
identity_id identity_type policy token_id key_id root_id secret_id backend_type feed provider role
roles worker holder fence instance version"""
_WHAT = """kind trigger mode state result stage reason action permission decision operation method
route status setting variable detail hint warning event_type migration signal"""
_NAMES = "path remote_path local_path prefix folder file address endpoint listen"
_NUMBERS = """count counts calls stages_ms attempts failures size bytes limit total remaining rows
batch duration_ms latency_ms delay retry_after interval lag age deadline expires_at due_at at since
rev epoch port pid"""
_FAILURE = "error error_class error_code where causes members stack"
_LIBRARY = "logger template"

FIELDS: Final = frozenset(f"{_WHO} {_WHAT} {_NAMES} {_NUMBERS} {_FAILURE} {_LIBRARY}".split())
"""What a line may hold. Not in it: `url`, which may carry a password; say `address`."""

LEVELS: Final = {"debug": 10, "info": 20, "warn": 30, "error": 40}
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_LOGGER = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_WORD = re.compile(r"[A-Za-z0-9_./:@+-]+")
_LONGEST = 500  # characters of one text
_MOST_ITEMS = 20
_MOST_UNKNOWN = 50
_MOST_CALLERS = 20


@dataclass(slots=True)
class _Output:
    """Where lines go; one for the process, safe before `configure` was called."""

    level: int = LEVELS["info"]
    text: bool = False
    stream: TextIO | None = None  # None: what sys.stderr is at that moment
    unknown: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def msg(self, line: str) -> None:
        """Write one line. A log that cannot be written stops nothing."""
        with self.lock, contextlib.suppress(OSError, ValueError):
            stream = self.stream or sys.stderr
            stream.write(line + "\n")
            stream.flush()

    debug = info = warning = warn = error = critical = msg


_output = _Output()


def get_logger() -> FilteringBoundLogger:
    """The logger of svsync. Its context comes from `log_context`, not from a name."""
    return cast(FilteringBoundLogger, _logger)


@contextlib.contextmanager
def log_context(
    *,
    tenant: str | None = None,
    backend_id: str | None = None,
    run_id: str | None = None,
    request_id: str | None = None,
) -> Iterator[None]:
    """Put these ids into every line written in the block, also by tasks it starts."""
    given = {"tenant": tenant, "backend_id": backend_id, "run_id": run_id, "request_id": request_id}
    with structlog.contextvars.bound_contextvars(
        **{name: value for name, value in given.items() if value is not None}
    ):
        yield


def configure(level: LogLevel, form: LogFormat, stream: TextIO | None = None) -> None:
    """Set how lines are written, and take over what libraries log. May be called again."""
    _output.level = LEVELS[level]
    _output.text = form is LogFormat.TEXT
    _output.stream = stream
    _output.unknown.clear()
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, _LibraryHandler):
            root.removeHandler(handler)
    root.addHandler(_LibraryHandler(logging.WARNING))
    root.setLevel(logging.WARNING)
    logging.lastResort = None
    warnings.showwarning = _show_warning


def log_what_nobody_caught() -> None:
    """Describe exceptions that end a thread or the program, instead of printing their text."""

    def program(
        kind: type[BaseException], error: BaseException, traceback: TracebackType | None
    ) -> None:
        if not issubclass(kind, KeyboardInterrupt):
            get_logger().error("uncaught", exc_info=error)

    def thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and not issubclass(args.exc_type, SystemExit):
            get_logger().error("uncaught", exc_info=args.exc_value)

    def finalizer(args: "sys.UnraisableHookArgs") -> None:
        get_logger().error("uncaught", exc_info=args.exc_value or True)

    sys.excepthook = program
    threading.excepthook = thread
    sys.unraisablehook = finalizer


# --- from call to line ------------------------------------------------------------


def _drop_below_level(_logger: Any, method: str, event: EventDict) -> EventDict:
    method = {"warning": "warn", "critical": "error"}.get(method, method)
    if LEVELS.get(method, LEVELS["error"]) < _output.level:
        raise structlog.DropEvent
    event["level"] = method
    return event


def _keep_what_is_listed(_logger: Any, _method: str, event: EventDict) -> Mapping[str, Any]:
    name = event.pop("event", None)
    line: dict[str, Any] = {
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": event.pop("level"),
        # An event's name is a constant; a text composed for the occasion may hold anything.
        "event": name if isinstance(name, str) and _NAME.fullmatch(name) else "unnamed",
    }
    if error := _error_of(event.pop("exc_info", None)):
        event.update(describe(error))
    unknown = [key for key in event if key not in FIELDS]
    for key, value in event.items():
        if key not in FIELDS:
            continue
        if isinstance(value, BaseException):
            line.update({name: _shown(part) for name, part in describe(value).items()})
        else:
            line[key] = _shown(value)
    if told := _told_once(unknown):
        line["dropped_fields"] = told
    return line


def _error_of(exc_info: object) -> BaseException | None:
    match exc_info:
        case BaseException():
            return exc_info
        case (_, BaseException() as error, _):
            return error
        case True:
            return sys.exception()
    return None


def _told_once(unknown: list[str]) -> list[str]:
    """Names not told before, as far as they look like names somebody wrote into the program."""
    new = [key for key in unknown if re.fullmatch(r"[a-z_]{1,40}", key)]
    new = [key for key in new if key not in _output.unknown]
    room = max(0, _MOST_UNKNOWN - len(_output.unknown))
    _output.unknown.update(new[:room])
    return new[:room]


def _shown(value: object) -> Any:
    """A field's value as it may be written."""
    match value:
        case Enum():
            return _shown(value.value)
        case float() if not math.isfinite(value):
            return str(value)  # JSON has no word for it
        case None | bool() | int() | float():
            return value
        case datetime() | date():
            return value.isoformat()
        case UUID() | PurePath():
            return str(value)
        case BaseException():
            return class_name(value)
        case Mapping():  # counts by a name from a closed list
            return {
                key: number
                for key, number in list(value.items())[:_MOST_ITEMS]
                if isinstance(key, str) and _NAME.fullmatch(key) and type(number) in (int, float)
            }
        case list() | tuple() | set() | frozenset():
            return [_shown(item) for item in list(value)[:_MOST_ITEMS]]
    if type(value) is str:
        return value if len(value) <= _LONGEST else value[:_LONGEST] + "…"
    return f"<{type(value).__name__}>"


def _render(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> str:
    if not _output.text:
        return json.dumps(line)
    rest = {key: line[key] for key in line if key not in ("timestamp", "level", "event")}
    fields = "".join(f" {key}={_text(value)}" for key, value in rest.items())
    return f"{line['timestamp']} {line['level']:<5} {line['event']}{fields}"


def _text(value: object) -> str:
    """A value on one line, quoted where it would be ambiguous."""
    if isinstance(value, str) and _WORD.fullmatch(value):
        return value
    return json.dumps(value)


_logger = structlog.wrap_logger(
    _output,
    processors=[
        _drop_below_level,
        structlog.contextvars.merge_contextvars,
        _keep_what_is_listed,
        _render,
    ],
    wrapper_class=structlog.make_filtering_bound_logger(logging.NOTSET),
    cache_logger_on_first_use=False,
)


class _LibraryHandler(logging.Handler):
    """What libraries log through the standard library, without what they fill in.

    A message is shown where it stands as it is in the code that logs it; any other may
    have been composed of anything.
    """

    def emit(self, record: logging.LogRecord) -> None:
        report: Callable[..., Any] = (
            get_logger().error if record.levelno >= logging.ERROR else get_logger().warning
        )
        constant = _is_constant(record.msg, sys._getframe())
        report(
            "library_message",
            logger=record.name if _LOGGER.fullmatch(record.name) else None,
            where=f"{record.module}:{record.lineno}",
            template=record.msg if constant else None,
            exc_info=record.exc_info,
        )


def _is_constant(message: object, frame: FrameType | None) -> bool:
    """Is it a text that stands in the code of one of the nearest callers?"""
    for _ in range(_MOST_CALLERS):
        if frame is None:
            return False
        if any(type(c) is str and c == message for c in frame.f_code.co_consts):
            return True
        frame = frame.f_back
    return False


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A warning of Python's or a library's: its class and place, for its text is composed."""
    where = f"{PurePath(filename).name}:{lineno}"
    get_logger().warning("python_warning", error_class=category.__name__, where=where)
