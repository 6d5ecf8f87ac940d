"""Does the help of each command end with examples that mean something?"""

import shlex

import pytest
from tests.docs.cli_page import commands

from svsync.cli.examples import EXAMPLES
from svsync.cli.main import build_parser, main

COMMANDS = {
    " ".join(words): parser.get_default("command") for words, parser, _ in commands(build_parser())
}


def test_each_command_has_one_or_two_and_nothing_else_has() -> None:
    assert sorted(EXAMPLES) == sorted(COMMANDS)
    assert {len(lines) for lines in EXAMPLES.values()} <= {1, 2}


@pytest.mark.parametrize("words", COMMANDS)
def test_each_is_taken_by_the_parser_as_that_command(words: str) -> None:
    for line in EXAMPLES[words]:
        program, *given = shlex.split(line)
        args = build_parser().parse_args(given)
        assert (program, args.command) == ("svsync", COMMANDS[words])
        assert args.words == f"svsync {words}"  # by which it is told of, and described


@pytest.mark.parametrize("columns", ["40", "200"])
def test_they_stand_as_they_are_to_be_typed_whatever_the_width(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    for words in ("audit query", "conflicts resolve", "inventory readers"):
        assert main([*words.split(), "--help"]) == 0
        ends = capsys.readouterr().out.rpartition("\n\n")[2].splitlines()
        assert ends == ["examples:", *(f"  {line}" for line in EXAMPLES[words])]


def test_the_program_itself_ends_with_its_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "75 somebody else runs" in " ".join(capsys.readouterr().out.split())


def test_completion_knows_every_command_and_where_files_are_meant(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["completion", "bash"]) == 0
    told = capsys.readouterr().out
    for words in COMMANDS:
        assert f"_shtab_svsync_{words.replace(' ', '_').replace('-', '_')}_" in told
    for option in ("copy___mapping", "import_env___map", "inventory_readers___audit_log"):
        assert f"_shtab_svsync_{option}_COMPGEN=_shtab_compgen_files" in told
    assert "_shtab_svsync_demo___state_dir_COMPGEN=_shtab_compgen_dirs" in told
