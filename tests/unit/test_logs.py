"""Can anything but what is listed get into a log line?"""

import ast
import asyncio
import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from tests.canary import Canary

import svsync
from svsync.config.model import LogFormat, LogLevel
from svsync.domain.errors import BackendUnreachableError, KeyServiceError
from svsync.domain.values import Credential, Payload, SecretValue
from svsync.observe.logs import (
    FIELDS,
    configure,
    get_logger,
    log_context,
    log_what_nobody_caught,
)


class Log:
    """What was written since the test began."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]

    @property
    def line(self) -> dict[str, Any]:
        """The only line, without its time."""
        (line,) = self.lines
        moment = datetime.fromisoformat(line.pop("timestamp"))
        assert moment.tzinfo == UTC
        return line

    def configure(self, level: LogLevel = LogLevel.DEBUG, form: LogFormat = LogFormat.JSON) -> None:
        configure(level, form, self.stream)


@pytest.fixture
def log() -> Iterator[Log]:
    root = logging.getLogger()
    before = (list(root.handlers), root.level, logging.lastResort)
    log = Log()
    log.configure()
    yield log
    configure(LogLevel.INFO, LogFormat.JSON)
    root.handlers[:], level, logging.lastResort = before
    root.setLevel(level)


@pytest.fixture
def bird() -> Canary:
    return Canary()


def planted(bird: Canary) -> Exception:
    """An exception as a library raises it, its text quoting a value, with a local variable."""
    local = bird.value()
    try:
        raise asyncpg.UniqueViolationError(f"duplicate key: {local}")
    except asyncpg.UniqueViolationError as error:
        error.add_note(local)
        return error


# --- fields -----------------------------------------------------------------------


def test_line_has_event_ids_and_listed_fields(log: Log) -> None:
    with log_context(tenant="default", backend_id="fed_abc", run_id="run_1", request_id="r-1"):
        get_logger().info("run_ended", counts={"created": 2}, path=Path("a/b"), duration_ms=1.5)
    assert log.line == {
        "level": "info",
        "event": "run_ended",
        "tenant": "default",
        "backend_id": "fed_abc",
        "run_id": "run_1",
        "request_id": "r-1",
        "counts": {"created": 2},
        "path": "a/b",
        "duration_ms": 1.5,
    }


def test_ids_end_with_their_block_and_reach_the_tasks_started_in_it(log: Log) -> None:
    async def work() -> None:
        get_logger().info("inside")

    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            with log_context(run_id="run_1"):
                tasks.create_task(work())
            with log_context(run_id="run_2"):
                tasks.create_task(work())
        get_logger().info("outside")

    asyncio.run(main())
    assert [line.get("run_id") for line in log.lines] == ["run_1", "run_2", None]


def test_unknown_field_is_dropped_and_named_once(log: Log, bird: Canary) -> None:
    for _ in range(2):
        get_logger().info("read", password=bird.value(), path="a/b")
    assert bird.found_in(log.text) == set()
    assert [line.get("dropped_fields") for line in log.lines] == [["password"], None]
    assert all(line["path"] == "a/b" for line in log.lines)


def test_value_that_became_the_name_of_a_field_is_not_told(log: Log, bird: Canary) -> None:
    get_logger().info("read", **{bird.marker: 1, bird.value(): 2})
    assert bird.found_in(log.text) == set()


def test_event_composed_for_the_occasion_is_not_told(log: Log, bird: Canary) -> None:
    get_logger().info(f"read {bird.value()}")
    get_logger().info("read %s", bird.value())
    assert [line["event"] for line in log.lines] == ["unnamed", "unnamed"]
    assert bird.found_in(log.text) == set()


def test_secret_in_a_listed_field_shows_its_class_only(log: Log, bird: Canary) -> None:
    value = SecretValue(bird.value())
    credential = Credential.parse(json.dumps({"token": bird.value()}), "test")
    payload = Payload.from_text(bird.value())
    for secret in (value, credential, payload, bird.value().encode(), [value], {"a": value}, bird):
        get_logger().info("login", detail=secret)
    assert bird.found_in(log.text) == set()
    assert log.lines[0]["detail"] == "<SecretValue>"


def test_long_text_is_cut_and_a_line_stays_a_line(log: Log) -> None:
    get_logger().info("read", detail="x" * 10_000, path='a\nb "c" \x1b[31m\u2028')
    log.configure(form=LogFormat.TEXT)
    get_logger().info("read", path='a\nb "c" \x1b[31m\u2028', kind="full")
    first, second = log.text.splitlines()
    assert len(first) < 1000
    assert second.endswith(r'info  read path="a\nb \"c\" \u001b[31m\u2028" kind=full')


def test_lines_below_the_level_are_not_written(log: Log) -> None:
    log.configure(level=LogLevel.WARN)
    get_logger().debug("quiet")
    get_logger().info("quiet")
    get_logger().warning("loud")
    get_logger().error("loud")
    assert [line["level"] for line in log.lines] == ["warn", "error"]


def test_log_that_cannot_be_written_stops_nothing(log: Log) -> None:
    log.stream.close()
    get_logger().error("lost")


def test_before_it_is_configured_the_log_is_as_careful_and_goes_to_stderr(
    log: Log, bird: Canary, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(LogLevel.INFO, LogFormat.JSON)
    get_logger().info("started", password=bird.value())
    out, err = capsys.readouterr()
    assert out == ""
    assert json.loads(err)["event"] == "started"
    assert bird.found_in(err) == set()


# --- exceptions -------------------------------------------------------------------


def test_own_exception_is_told_by_class_code_text_and_fields(log: Log) -> None:
    error = BackendUnreachableError("No answer in 10 s.", operation="list", status=502)
    get_logger().error("run_failed", exc_info=error)
    assert log.line == {
        "level": "error",
        "event": "run_failed",
        "error_class": "BackendUnreachableError",
        "error_code": "backend_unreachable",
        "error": "No answer in 10 s.",
        "operation": "list",
        "status": 502,
    }


def test_foreign_exception_is_told_by_class_and_place(log: Log, bird: Canary) -> None:
    get_logger().error("run_failed", exc_info=planted(bird))
    line = log.line
    assert line["error_class"] == "asyncpg.exceptions.UniqueViolationError"
    assert line["error_code"] == "23505"
    assert line["stack"][-1].endswith(" planted")
    assert "error" not in line
    assert bird.found_in(log.text) == set()


def test_exception_as_a_field_and_in_hand_is_told_alike(log: Log, bird: Canary) -> None:
    try:
        raise planted(bird)
    except asyncpg.PostgresError as error:
        get_logger().exception("failed")
        get_logger().error("failed", error=error)
        get_logger().error("failed", exc_info=sys.exc_info())
    for line in log.lines:
        assert line["error_class"] == "asyncpg.exceptions.UniqueViolationError"
        assert "error" not in line
    assert bird.found_in(log.text) == set()


def test_causes_and_members_are_told_by_class(log: Log, bird: Canary) -> None:
    try:
        try:
            raise planted(bird)
        except asyncpg.PostgresError as error:
            raise ValueError(bird.value()) from error
    except ValueError as error:
        own = KeyServiceError("No key.")
        get_logger().error("failed", exc_info=ExceptionGroup(bird.value(), [error, own]))
        get_logger().error("failed", exc_info=error)
    group, chained = log.lines
    assert group["members"] == ["ValueError", "KeyServiceError: key_unavailable: No key."]
    assert chained["causes"] == ["asyncpg.exceptions.UniqueViolationError"]
    assert bird.found_in(log.text) == set()


def test_what_nobody_caught_is_told_without_its_text(
    log: Log, bird: Canary, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, hook in ((sys, "excepthook"), (threading, "excepthook"), (sys, "unraisablehook")):
        monkeypatch.setattr(module, hook, getattr(module, hook))
    log_what_nobody_caught()
    error = planted(bird)

    def fail() -> None:
        raise error

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    sys.excepthook(type(error), error, error.__traceback__)

    class Fragile:
        def __del__(self) -> None:
            raise error

    Fragile()
    assert [line["event"] for line in log.lines] == ["uncaught"] * 3
    assert {line["error_class"] for line in log.lines} == {
        "asyncpg.exceptions.UniqueViolationError"
    }
    assert bird.found_in(log.text) == set()


# --- libraries --------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["asyncio", "asyncpg", "aiohttp.access", "hvac.adapters", "urllib3", "botocore", "azure"],
)
def test_library_is_held_at_warning_even_if_it_asks_for_more(
    log: Log, bird: Canary, name: str
) -> None:
    library = logging.getLogger(name)
    before = library.level
    library.setLevel(logging.DEBUG)
    try:
        library.debug("body %s", bird.value())
        library.info("body %s", bird.value())
        assert log.text == ""
        library.warning("pool of %s is full", bird.value())
    finally:
        library.setLevel(before)
    line = log.line
    assert (line["level"], line["logger"], line["template"]) == ("warn", name, "pool of %s is full")
    assert bird.found_in(log.text) == set()


def test_library_message_that_may_be_composed_is_not_told(log: Log, bird: Canary) -> None:
    try:
        raise planted(bird)
    except asyncpg.PostgresError:
        logging.getLogger("library").exception(f"failed with {bird.value()}")
    line = log.line
    assert line["level"] == "error"
    assert line["logger"] == "library"
    assert line["where"].startswith("test_logs:")
    assert line["error_class"] == "asyncpg.exceptions.UniqueViolationError"
    assert bird.found_in(log.text) == set()


def test_library_message_is_told_only_as_it_stands_in_the_code(log: Log, bird: Canary) -> None:
    library = logging.getLogger("library")
    library.warning("Connection pool is full")
    library.warning(f"{bird.marker} of %s", 1)
    library.warning(bird.marker)
    library.warning(ValueError(bird.value()))
    logging.getLogger(f"library {bird.value()}").warning("started")
    assert [line["template"] for line in log.lines] == [
        "Connection pool is full",
        None,
        None,
        None,
        "started",
    ]
    assert [line["logger"] for line in log.lines] == ["library"] * 4 + [None]
    assert bird.found_in(log.text) == set()


def test_warning_of_python_is_told_by_class_and_place(log: Log, bird: Canary) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn(f"unclosed <socket {bird.value()}>", ResourceWarning, stacklevel=1)
    line = log.line
    assert (line["event"], line["error_class"]) == ("python_warning", "ResourceWarning")
    assert line["where"].startswith("test_logs.py:")
    assert bird.found_in(log.text) == set()


def test_task_whose_failure_nobody_looked_at_shows_no_text(log: Log, bird: Canary) -> None:
    async def main() -> None:
        failed = asyncio.get_running_loop().create_future()
        failed.set_exception(planted(bird))
        del failed

    asyncio.run(main())
    assert log.line["logger"] == "asyncio"
    assert bird.found_in(log.text) == set()


# --- the program's own lines ------------------------------------------------------


def test_each_line_that_the_program_writes_has_a_constant_name_and_listed_fields() -> None:
    """What is not listed would be dropped, and what is composed would not be told."""
    written, wrong = 0, []
    for file in Path(svsync.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Call(func=ast.Name(id="get_logger"))),
                    args=[event, *rest],
                ):
                    written += 1
                    fields = {str(k.arg) for k in node.keywords if k.arg} - {"exc_info"}
                    if rest or not isinstance(event, ast.Constant) or fields - FIELDS:
                        unlisted = " ".join(sorted(fields - FIELDS))
                        wrong.append(f"{file.name}:{node.lineno} {unlisted}")
    assert written > 5
    assert wrong == []
