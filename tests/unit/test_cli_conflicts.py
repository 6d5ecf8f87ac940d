"""What `conflicts` refuses before anything is opened."""

import io
import sys
from types import SimpleNamespace

import pytest

from svsync.cli import main as program


@pytest.fixture(autouse=True)
def _leave_this_process_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "_keep_memory_private", lambda: None)
    monkeypatch.setattr(program, "_have_standard_streams", lambda: None)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "--use-local --use-remote --use-value"),
        (["--use-local", "--use-remote"], "--use-remote: not allowed with argument --use-local"),
        (["--use-value", "/no/such"], "--use-value: the file cannot be read"),
        (["--use-value", "-"], "--use-value: it is JSON, but not an object"),
    ],
    ids=["none", "two", "no_file", "no_object"],
)
def test_decision_that_is_none_is_wrong_usage(
    words: list[str],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"[1]")))
    code = program.main(["conflicts", "resolve", "any/a", "--backend", "fed_any", *words, "--json"])
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert says in err


def test_completion_offers_files_for_the_value(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["completion", "bash"]) == 0
    told = capsys.readouterr().out
    assert "_conflicts_resolve___use_value_COMPGEN=_shtab_compgen_files" in told


@pytest.mark.parametrize("verb", [["show"], ["resolve", "--use-local"]])
def test_path_that_cannot_be_one_is_wrong_usage(
    verb: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main(["conflicts", *verb, "../a", "--backend", "fed_any"]) == 2
    assert capsys.readouterr().err.startswith("svsync: the path cannot be one: ")
