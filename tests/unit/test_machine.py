"""Are files that others may change or read told of, and certificates before their time is over?"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from svsync.config.model import Settings
from svsync.services.findings import Finding, State
from svsync.services.machine import look_at_certificates, look_at_files

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
Certify = Callable[[timedelta], None]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder that holds certificate and key, once `certify` was called."""
    tmp_path.chmod(0o700)
    return tmp_path


@pytest.fixture
def certify(files: Path) -> Certify:
    authority = trustme.CA()

    def make(length: timedelta) -> None:
        pair = authority.issue_cert("svsync.test", not_after=NOW + length)
        (files / "cert.pem").write_bytes(b"".join(b.bytes() for b in pair.cert_chain_pems))
        (files / "key.pem").write_bytes(pair.private_key_pem.bytes())
        (files / "key.pem").chmod(0o600)

    return make


def settings(files: Path, **changes: str | None) -> Settings:
    given = {"tls_cert_file": str(files / "cert.pem"), "tls_key_file": str(files / "key.pem")}
    return Settings(state_dir=str(files), **{**given, **changes})  # type: ignore[arg-type]


def certificates(files: Path, **changes: str | None) -> list[Finding]:
    return look_at_certificates(settings(files, **changes), NOW)


@pytest.mark.parametrize(
    ("length", "state", "says"),
    [
        (timedelta(days=60), State.OK, "is good until"),
        (timedelta(days=13), State.WARNING, "is over on 2026-12-07"),
        (timedelta(seconds=-1), State.WRONG, "has been over since 2026-11-24"),
    ],
)
def test_certificate_is_told_of_before_its_time_is_over(
    files: Path, certify: Certify, length: timedelta, state: State, says: str
) -> None:
    certify(length)
    [found] = certificates(files)
    assert found.state is state
    assert says in found.says
    assert bool(found.advice) == (state is not State.OK)


def test_authority_of_client_certificates_has_its_time_too(files: Path, certify: Certify) -> None:
    certify(timedelta(days=60))
    other = files / "clients.pem"
    other.write_bytes((files / "cert.pem").read_bytes())
    certify(timedelta(days=1))
    own, clients = certificates(files, tls_client_ca_file=str(other))
    assert (own.state, clients.state) == (State.WARNING, State.OK)


def test_key_of_another_certificate_is_wrong(files: Path, certify: Certify) -> None:
    certify(timedelta(days=60))
    before = (files / "cert.pem").read_bytes()
    certify(timedelta(days=60))
    (files / "cert.pem").write_bytes(before)
    assert [f.state for f in certificates(files)] == [State.WRONG, State.OK]


def test_file_that_is_no_certificate_is_wrong(files: Path, certify: Certify) -> None:
    certify(timedelta(days=60))
    (files / "cert.pem").write_text("nothing")
    assert [f.state for f in certificates(files)] == [State.WRONG, State.WRONG]
    assert {f.state for f in certificates(files / "missing")} == {State.WRONG}


@pytest.mark.parametrize(
    ("address", "state"),
    [
        ("127.0.0.1:8443", State.OK),
        ("[::1]:8443", State.OK),
        ("localhost:8443", State.OK),
        ("0.0.0.0:8443", State.WARNING),
        ("svsync.internal:8443", State.WARNING),
    ],
)
def test_listener_without_tls_is_told_of_where_others_reach_it(
    files: Path, address: str, state: State
) -> None:
    [found] = certificates(files, tls_cert_file=None, tls_key_file=None, bind_address=address)
    assert found.state is state


def test_private_key_that_others_may_read_is_wrong(files: Path, certify: Certify) -> None:
    certify(timedelta(days=60))
    assert [f.state for f in look_at_files(settings(files))] == [State.OK]
    (files / "key.pem").chmod(0o640)
    [found] = look_at_files(settings(files))
    assert (found.state, found.advice) == (State.WRONG, f"run: chmod 600 {files / 'key.pem'}")


def test_private_key_that_is_not_there_is_told_with_its_certificate(
    files: Path, certify: Certify
) -> None:
    certify(timedelta(days=60))
    (files / "key.pem").unlink()
    assert [f.state for f in look_at_files(settings(files))] == [State.OK]
    assert [f.state for f in certificates(files)] == [State.WRONG, State.OK]


@pytest.mark.parametrize("name", ["source", "state_dir"])
def test_configuration_and_state_that_others_may_change_are_wrong(files: Path, name: str) -> None:
    open_to_all = files / "open"
    open_to_all.mkdir()
    given = {"tls_cert_file": None, "tls_key_file": None, "state_dir": str(files)}
    look = Settings(**{**given, name: str(open_to_all)})  # type: ignore[arg-type]
    open_to_all.chmod(0o755)
    assert [f.state for f in look_at_files(look)] == [State.OK]
    open_to_all.chmod(0o775)
    [found] = look_at_files(look)
    assert (found.state, found.advice) == (State.WRONG, f"run: chmod go-w {open_to_all}")
    assert "mode 0775" in found.says
