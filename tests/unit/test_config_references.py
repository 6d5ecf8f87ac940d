"""References lead to a credential, or to one sentence that says why not."""

import os
from pathlib import Path

import pytest

from svsync.config.references import Place, Reference, api_reference_problem, resolve
from svsync.domain.errors import ConfigError
from svsync.domain.values import SecretValue

CANARY = "c4n4ry"


def credential_file(folder: Path, content: str | bytes = CANARY, mode: int = 0o600) -> Path:
    path = folder / "credential"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(mode)
    return path


def read(path: Path | str, roots: list[str] | None = None) -> SecretValue:
    return resolve(Reference.parse(f"file:{path}"), environ={}, allowed_file_roots=roots)


def refusal(path: Path | str, roots: list[str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        read(path, roots)
    assert CANARY not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.code == "credential_unavailable"
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "place", "target"),
    [
        ("env:VAULT_TOKEN", Place.ENVIRONMENT, "VAULT_TOKEN"),
        ("file:/run/secrets/a b", Place.FILE, "/run/secrets/a b"),
        ("infra/hashicorp/approle", Place.SCAIVAULT, "infra/hashicorp/approle"),
        ("top", Place.SCAIVAULT, "top"),
    ],
)
def test_a_reference_is_parsed_and_written_back(text: str, place: Place, target: str) -> None:
    reference = Reference.parse(text)
    assert (reference.place, reference.target) == (place, target)
    assert str(reference) == text


@pytest.mark.parametrize(
    "text",
    [
        "", "env:", "env:A-B", "env:1A", "ENV:A", "file:", "file:relative", "file:/a\0b", "/abs",
        "a//b", "a/", "a/../b", ".", "..", "a/./b", "c4n4ry c4n4ry", "https://c4n4ry", "a\n", "ä/b",
        "a/" * 300 + "b",
    ],
)  # fmt: skip
def test_what_is_no_reference_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(ConfigError, match="must be a reference: env:NAME") as caught:
        Reference.parse(text)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("text", ["env:A", "file:/a", "a//b", "../b", "scheme:x", ""])
def test_the_api_takes_scaivault_paths_only(text: str) -> None:
    problem = api_reference_problem(text)
    assert problem is not None
    assert "ScaiVault path of this tenant" in problem


def test_the_api_takes_a_scaivault_path() -> None:
    assert api_reference_problem("infra/hashicorp/approle") is None


def test_a_variable_is_read_as_it_is_now() -> None:
    environ = {"TOKEN": "one"}
    reference = Reference.parse("env:TOKEN")
    assert resolve(reference, environ=environ, allowed_file_roots=None) == SecretValue("one")
    environ["TOKEN"] = "two"
    assert resolve(reference, environ=environ, allowed_file_roots=None) == SecretValue("two")


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "env:TOKEN: is not set; export TOKEN"),
        ({"TOKEN": " \n"}, "env:TOKEN: is empty; give TOKEN its value"),
        ({"TOKEN": "c4n4ry\udcff"}, "env:TOKEN: is not UTF-8 text"),
    ],
)
def test_a_variable_that_gives_nothing_is_refused(environ: dict[str, str], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(Reference.parse("env:TOKEN"), environ=environ, allowed_file_roots=None)
    assert str(caught.value).startswith(expected)
    assert CANARY not in str(caught.value)


def test_a_scaivault_path_is_for_the_store_to_resolve() -> None:
    with pytest.raises(ValueError, match="resolved by the store"):
        resolve(Reference.parse("a/b"), environ={}, allowed_file_roots=None)


def test_a_file_loses_its_last_line_end_and_nothing_else(tmp_path: Path) -> None:
    assert read(credential_file(tmp_path, " a\n b \r\n")) == SecretValue(" a\n b ")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o602, 0o601, 0o610])
def test_a_file_that_others_may_touch_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    path = credential_file(tmp_path, mode=mode)
    assert refusal(path).endswith(f"(mode {mode:04o}); run: chmod 600 {path}")


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_file_of_ones_own_is_read(tmp_path: Path, mode: int) -> None:
    assert read(credential_file(tmp_path, mode=mode)) == SecretValue(CANARY)


def test_a_group_may_read_a_file_that_belongs_to_somebody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mounted Kubernetes secret: owned by root, read through the pod's group."""
    owner = os.geteuid()
    files = {}
    for mode in (0o440, 0o444, 0o460):
        (tmp_path / f"{mode:o}").mkdir()
        files[mode] = credential_file(tmp_path / f"{mode:o}", mode=mode)
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert read(files[0o440]) == SecretValue(CANARY)
    assert "may be read or changed by other users" in refusal(files[0o444])
    assert "may be read or changed by other users" in refusal(files[0o460])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty; write the credential into it"),
        (b" \n", "is empty"),
        (b"c4n4ry\xff", "is not UTF-8 text"),
        (b"c4n4ry\x00", "holds a NUL"),
        (b"x" * 65_537, "is larger than 64 KiB"),
    ],
)
def test_a_file_that_holds_no_credential_is_refused(
    tmp_path: Path, content: bytes, expected: str
) -> None:
    assert expected in refusal(credential_file(tmp_path, content))


def test_a_missing_file_a_folder_and_a_pipe_are_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no").endswith("does not exist; create it or correct the path")
    assert "is a directory" in refusal(tmp_path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert "is not a regular file" in refusal(tmp_path / "pipe")


@pytest.mark.skipif(os.geteuid() == 0, reason="root opens every file")
def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    assert "cannot be opened (Permission denied)" in refusal(credential_file(tmp_path, mode=0))


def test_a_loop_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "cannot be opened" in refusal(tmp_path / "loop")


def test_a_link_is_followed_and_its_target_judged(tmp_path: Path) -> None:
    """Mounted secrets are links; what counts is the file they lead to."""
    (tmp_path / "link").symlink_to(credential_file(tmp_path))
    assert read(tmp_path / "link") == SecretValue(CANARY)
    (tmp_path / "credential").chmod(0o644)
    assert "may be read or changed by other users" in refusal(tmp_path / "link")


def test_files_lie_under_the_allowed_roots_with_links_followed(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    secret = credential_file(outside)
    (inside / "link").symlink_to(secret)
    (tmp_path / "alias").symlink_to(outside)
    roots = [str(inside)]
    for path in (secret, inside / "link", f"{inside}/../outside/credential"):
        assert "outside allowed_file_roots" in refusal(path, roots)
    assert read(secret, [str(outside)]) == SecretValue(CANARY)
    assert read(secret, [str(tmp_path / "alias")]) == SecretValue(CANARY)
    assert read(secret, ["/"]) == SecretValue(CANARY)
    assert "outside allowed_file_roots" in refusal(secret, [])
    assert "outside allowed_file_roots" in refusal(secret, [str(tmp_path / "out")])


def test_the_file_that_was_checked_is_the_file_that_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name is exchanged for another file between the check and the read."""
    path = credential_file(tmp_path)
    other = tmp_path / "other"
    other.write_text("forged")
    status = os.fstat

    def swap(descriptor: int) -> os.stat_result:
        os.replace(other, path) if other.exists() else None
        return status(descriptor)

    monkeypatch.setattr(os, "fstat", swap)
    assert read(path) == SecretValue(CANARY)
