"""What becomes of a service's error on the command line, and which commands ask one?"""

import argparse
import subprocess
import sys
from typing import Any

import pytest
from tests.docs.cli_page import commands

from svsync.cli import main as program
from svsync.cli.arguments import token_of
from svsync.cli.main import build_parser, exit_code, main
from svsync.cli.remote import WHY, counterpart, of, why
from svsync.cli.remote.opening import told
from svsync.client import SvsyncError
from svsync.domain.errors import (
    ConflictChangedError,
    UsageError,
    WriteOutcomeUnknownError,
)  # fmt: skip
from svsync.domain.errors import (
    SvsyncError as Known,
)


@pytest.fixture(autouse=True)
def _leave_this_process_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "_keep_memory_private", lambda: None)
    monkeypatch.setattr(program, "_have_standard_streams", lambda: None)


def answered(code: str, status: int | None, **more: Any) -> Known:
    return told(SvsyncError("A sentence.", code=code, status=status, **more))


@pytest.mark.parametrize(
    ("status", "code", "exits"),
    [
        (400, "malformed_body", 2),
        (422, "invalid_field", 2),
        (422, "illegal_path", 2),
        (409, "managed_by_file", 2),
        (409, "backend_paused", 2),
        (422, "number_would_change", 1),
        (422, "value_too_large", 1),
        (409, "version_conflict", 1),
        (412, "version_conflict", 1),
        (401, "unauthenticated", 1),
        (403, "forbidden", 1),
        (404, "secret_not_found", 1),
        (502, "backend_denied", 1),
        (502, "backend_unreachable", 3),
        (504, "backend_unreachable", 3),
        (503, "store_unavailable", 1),
        (409, "backend_busy", 75),
        (None, "service_unreachable", 1),
        (None, "outcome_unknown", 1),
        (None, "invalid_argument", 2),
    ],
)
def test_code_of_the_api_ends_as_on_the_store(status: int | None, code: str, exits: int) -> None:
    error = answered(code, status)
    assert (error.code, exit_code(error)) == (code, exits)


def test_what_comes_with_an_error_is_kept() -> None:
    lost = answered("write_outcome_unknown", 504, push_id="psh_1")
    assert isinstance(lost, WriteOutcomeUnknownError)
    assert lost.push_id == "psh_1"
    moved = answered("conflict_changed", 409, conflict={"path": "a"})
    assert isinstance(moved, ConflictChangedError)
    assert moved.conflict == {"path": "a"}


def test_arguments_of_the_client_are_named_as_options() -> None:
    error = told(SvsyncError("base_url must be a URL", code="invalid_argument"))
    assert error.message == "--url must be a URL"
    kept = told(SvsyncError("base_url is a field", code="invalid_field", status=422))
    assert kept.message == "base_url is a field"


def parsed(words: str) -> argparse.Namespace:
    args: argparse.Namespace = build_parser().parse_args(words.split())
    return args


def test_command_is_asked_of_a_service_or_refused() -> None:
    asking = counterpart(parsed("--url u secrets get a"))
    assert (asking.__module__, asking.__name__) == ("svsync.cli.remote.secrets", "get")
    for words in ("groups list", "retire plan --idle 7d a", "serve", "demo", "config check"):
        with pytest.raises(UsageError, match=f"`svsync {words.split(' --')[0]}` asks no service"):
            counterpart(parsed(f"--url u {words}"))


def test_each_that_asks_no_service_says_what_to_do_instead() -> None:
    silent = {" ".join(words) for words, one, _ in commands(build_parser()) if not _asks(one)}
    assert {words: why(f"svsync {words}") for words in silent}.keys() == silent
    assert {words.split()[0] for words in WHY} == {words.split()[0] for words in silent}
    asking = {" ".join(words) for words, one, _ in commands(build_parser()) if _asks(one)}
    assert not asking & WHY.keys()


def _asks(parser: argparse.ArgumentParser) -> bool:
    return of(parser.get_default("command")) is not None


def test_address_in_the_environment_stops_what_would_go_to_another_store() -> None:
    for words in ("serve", "demo", "config check", "map lint", "completion bash", "schema"):
        args = parsed(words)
        assert counterpart(args) is args.command
    for words in ("groups list", "migrate", "doctor", "retention run"):
        with pytest.raises(UsageError, match="unset SVSYNC_URL"):
            counterpart(parsed(words))


def test_token_is_taken_from_where_it_is_said_to_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.delenv("SVSYNC_TOKEN", raising=False)
    assert token_of(parsed("auth whoami")) is None
    monkeypatch.setenv("SVSYNC_TOKEN", "svt_env")
    assert token_of(parsed("auth whoami")) == "svt_env"
    assert token_of(parsed("auth whoami --token svt_said")) == "svt_said"
    monkeypatch.setenv("MINE", "svt_mine")
    assert token_of(parsed("auth whoami --token env:MINE")) == "svt_mine"
    file = tmp_path / "token"
    file.write_text("svt_file\n")
    file.chmod(0o600)
    assert token_of(parsed(f"auth whoami --token file:{file}")) == "svt_file"
    file.chmod(0o644)
    assert main(["auth", "whoami", "--url", "https://a.example", "--token", f"file:{file}"]) == 2


def test_help_loads_no_client() -> None:
    script = (
        "import sys; from svsync.cli.main import build_parser; build_parser();"
        "print([m for m in ('aiohttp', 'asyncpg', 'svsync.client') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert run.stdout == b"[]\n"


def test_client_loads_nothing_of_the_service() -> None:
    script = (
        "import sys, svsync.client;"
        "print([m for m in ('asyncpg', 'structlog', 'cryptography', 'svsync.services',"
        " 'svsync.store', 'svsync.app') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert run.stdout == b"[]\n"
