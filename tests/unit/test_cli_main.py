"""Which exit code has an error, which sentence, and what is taken before or after a verb?"""

import argparse
import json
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from tests import printed

from svsync.cli import main as program
from svsync.cli.main import build_parser, exit_code, main
from svsync.domain import errors
from svsync.domain.errors import SvsyncError

AT_A_BACKEND: Any = {"operation": "list"}
EXPECTED: list[tuple[SvsyncError, int]] = [
    (errors.UsageError("x"), 2),
    (errors.ConfigError("x"), 2),
    (errors.MappingError("x"), 2),
    (errors.BackendBusyError("x", holder="h", expires_at=None), 75),
    (errors.BackendUnreachableError("x", **AT_A_BACKEND), 3),
    (errors.BackendTimeoutError("x", **AT_A_BACKEND), 3),
    (errors.ThrottledError("x", **AT_A_BACKEND), 1),
    (errors.LoginError("x", **AT_A_BACKEND), 1),
    (errors.DeniedError("x", **AT_A_BACKEND), 1),
    (errors.ProtocolError("x", **AT_A_BACKEND), 1),
    (errors.ListingError("x", **AT_A_BACKEND), 1),
    (errors.BackendError("x", **AT_A_BACKEND), 1),
    (errors.GuardError("x", code="mass_delete_guard", plan={}), 1),
    (errors.NotFoundError("x"), 1),
    (errors.UndecodableError("x"), 1),
    (errors.VersionConflictError("x"), 1),
    (errors.WriteOutcomeUnknownError("x", push_id="psh_1"), 1),
    (errors.ConflictChangedError("x", conflict={}), 1),
    (errors.StoreError("x"), 1),
    (errors.StoreUnavailableError("x"), 1),
    (errors.SchemaError("x"), 1),
    (errors.FenceLostError("x"), 1),
    (errors.HandedOverError("x"), 1),
    (errors.KeyServiceError("x"), 1),
    (errors.KeyServiceAwayError("x"), 1),
    (errors.SetupError("x"), 1),
    (errors.AnchorError("x"), 1),
    (errors.SvsyncError("x"), 1),
]


@pytest.fixture(autouse=True)
def _leave_this_process_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "_keep_memory_private", lambda: None)
    monkeypatch.setattr(program, "_have_standard_streams", lambda: None)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells whether it is so")
def test_memory_is_kept_private() -> None:
    """No core dump, and no other process of the same user that reads along."""
    script = (
        "import ctypes, resource; from svsync.cli.main import _keep_memory_private as keep; keep();"
        "print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE))"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert told.stdout == b"0 (0, 0)\n"


def test_every_error_has_its_exit_code() -> None:
    named = {kind for kind in vars(errors).values() if isinstance(kind, type)}
    tree = {kind for kind in named if issubclass(kind, SvsyncError)}
    assert {type(error) for error, _ in EXPECTED} == tree
    assert [(e, exit_code(e)) for e, _ in EXPECTED] == EXPECTED


@pytest.mark.parametrize(
    "words",
    [
        "--config f --tenant t --json --no-migrate runs list --backend b",
        "runs --config f --tenant t --json --no-migrate list --backend b",
        "runs list --backend b --config f --tenant t --json --no-migrate",
        "--config e --tenant t runs --json list --backend b --config=f --no-migrate",
    ],
)
def test_common_options_are_taken_before_and_after_the_verb(words: str) -> None:
    args = build_parser().parse_args(words.split())
    assert (args.config, args.tenant, args.json, args.no_migrate) == ("f", "t", True, True)


@pytest.mark.parametrize(
    "words",
    [
        "--url u --token env:T --ca c auth whoami",
        "auth --url u --ca c whoami --token env:T",
        "auth whoami --ca c --url=u --token env:T",
    ],
)
def test_service_is_named_before_and_after_the_verb(words: str) -> None:
    args = build_parser().parse_args(words.split())
    assert (args.service, args.token, args.ca, args.tenant_named) == ("u", "env:T", "c", False)


def test_codes_that_end_as_of_a_wrong_configuration_are_those_of_the_api() -> None:
    from svsync.cli.remote.opening import STATES, VALUES
    from svsync.domain.runs import SkipReason
    from svsync.http import server

    assert STATES == server._STATES
    values = {code for code, status in server._OF_CODES.items() if status == 422}
    asked_wrongly = {"illegal_path"}
    assert {str(code) for code in values} - asked_wrongly == VALUES - {"backend_not_healthy"}
    assert values <= set(SkipReason)


def test_common_options_have_defaults() -> None:
    args = build_parser().parse_args(["migrate"])
    assert (args.config, args.tenant, args.json, args.no_migrate) == (None, "default", False, False)
    assert (args.service, args.token, args.ca, args.tenant_named) == (None, None, None, False)


def _fail_with(
    monkeypatch: pytest.MonkeyPatch, error: Exception, backend: str | None = "fed_a"
) -> None:
    async def command(args: argparse.Namespace) -> int:
        raise error

    parser = build_parser()
    parser.set_defaults(backend=backend)
    monkeypatch.setattr(program, "build_parser", lambda: parser)
    monkeypatch.setattr("svsync.cli.admin.migrate", command)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            action.choices["migrate"].set_defaults(command=command)


def test_what_nobody_foresaw_is_a_sentence_without_its_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _fail_with(monkeypatch, ZeroDivisionError("canary"))
    assert main(["migrate", "--json"]) == 1
    told = capsys.readouterr()
    assert told.err.count("\n") == 1
    assert "ZeroDivisionError" in told.err
    assert "canary" not in told.err + told.out
    assert json.loads(told.out)["error"]["code"] == "internal"
    printed.check(["migrate", "--json"], 1, told.out)


def test_debug_shows_where_and_still_no_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SVSYNC_DEBUG", "1")
    _fail_with(monkeypatch, ZeroDivisionError("canary"))
    assert main(["migrate"]) == 1
    told = capsys.readouterr().err
    assert "test_cli_main" in told
    assert "canary" not in told


def test_busy_says_who_and_until_when(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    until = datetime(2026, 11, 24, 12, tzinfo=UTC)
    _fail_with(monkeypatch, errors.BackendBusyError("busy", holder="host:1", expires_at=until))
    assert main(["migrate", "--json"]) == 75
    told = capsys.readouterr().out
    assert json.loads(told)["error"] == {
        "code": "backend_busy",
        "holder": "host:1",
        "expires_at": "2026-11-24T12:00:00Z",
    }
    printed.check(["migrate", "--json"], 75, told)


def test_a_write_without_an_answer_names_its_push(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _fail_with(monkeypatch, errors.WriteOutcomeUnknownError("not said", push_id="psh_1"))
    assert main(["migrate", "--json"]) == 1
    out = capsys.readouterr().out
    told = json.loads(out)["error"]
    assert told == {"code": "write_outcome_unknown", "message": "not said", "push_id": "psh_1"}
    printed.check(["migrate", "--json"], 1, out)


def test_an_unreachable_backend_that_no_option_named_is_told_without_a_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = errors.BackendUnreachableError("no answer", operation="login")
    _fail_with(monkeypatch, error, backend=None)
    assert main(["migrate"]) == 3
    assert capsys.readouterr().err.startswith("svsync: no answer; check config.endpoint")


def test_a_backend_that_does_not_answer_is_named_with_what_to_look_at(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _fail_with(monkeypatch, errors.BackendUnreachableError("no answer", operation="list"))
    assert main(["migrate"]) == 3
    assert capsys.readouterr().err == (
        "svsync: fed_a: no answer; check config.endpoint, and the network on the way there\n"
    )
