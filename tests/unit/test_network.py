"""Which addresses may be connected to, and which URLs and authorities are taken."""

import ipaddress
import os
import ssl
from pathlib import Path

import aiohttp
import pytest
import trustme
from tests.servers import Front

from svsync.domain.errors import ConfigError
from svsync.embedded.openbao import TlsFiles
from svsync.network import (
    AddressRefusedError,
    NetworkPolicy,
    check_url,
    guarded_connector,
    refuse_reason,
    tls_context,
)

FILE = NetworkPolicy(file_managed=True)
API = NetworkPolicy()
LAPTOP = NetworkPolicy(allow_loopback=True, file_managed=True)
_CLIENT = ssl.PROTOCOL_TLS_CLIENT


@pytest.mark.parametrize(
    "text",
    [
        "169.254.169.254",
        "169.254.1.1",
        "fe80::1",
        "fd00:ec2::254",
        "168.63.129.16",
        "100.100.100.200",
        "224.0.0.1",
        "ff02::1",
        "0.0.0.0",
        "0.1.2.3",
        "::",
        "255.255.255.255",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
    ],
)
def test_some_addresses_are_refused_under_every_policy(text: str) -> None:
    everything = NetworkPolicy(
        allow_loopback=True, file_managed=True, allowed_hosts=("0.0.0.0/0", "::/0")
    )
    assert refuse_reason(ipaddress.ip_address(text), everything)


@pytest.mark.parametrize("text", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_loopback_needs_allow_loopback(text: str) -> None:
    address = ipaddress.ip_address(text)
    assert "loopback" in (refuse_reason(address, FILE) or "")
    assert refuse_reason(address, LAPTOP) is None


@pytest.mark.parametrize("text", ["10.1.2.3", "192.168.0.9", "172.16.0.1", "fd12::1", "100.64.0.1"])
def test_private_addresses_are_for_the_operators_file(text: str) -> None:
    address = ipaddress.ip_address(text)
    assert refuse_reason(address, FILE) is None
    assert "private" in (refuse_reason(address, API) or "")


def test_allowed_hosts_open_private_addresses_by_network_and_by_name() -> None:
    policy = NetworkPolicy(allowed_hosts=("10.1.0.0/16", "vault.internal"))
    assert refuse_reason(ipaddress.ip_address("10.1.2.3"), policy) is None
    assert refuse_reason(ipaddress.ip_address("10.2.2.3"), policy)
    assert refuse_reason(ipaddress.ip_address("10.2.2.3"), policy, host="Vault.internal.") is None
    assert refuse_reason(ipaddress.ip_address("10.2.2.3"), policy, host="other.internal")


def test_public_addresses_are_fine() -> None:
    assert refuse_reason(ipaddress.ip_address("93.184.216.34"), API) is None
    assert refuse_reason(ipaddress.ip_address("2606:2800:220:1::1"), API) is None


def test_our_own_listener_is_refused_and_its_neighbour_port_is_not() -> None:
    policy = NetworkPolicy(allow_loopback=True, own_listeners=frozenset({("127.0.0.1", 8443)}))
    address = ipaddress.ip_address("127.0.0.1")
    assert "listener" in (refuse_reason(address, policy, port=8443) or "")
    assert refuse_reason(address, policy, port=8200) is None


@pytest.mark.parametrize(
    "text",
    [
        "http://vault.internal:8200",
        "ftp://vault.internal",
        "https://",
        "vault.internal:8200",
        "https://user:pw@vault.internal",
        "https://vault.internal/?x=1",
        "https://vault.internal/#x",
        "https://169.254.169.254/",
        "https://[::ffff:127.0.0.1]:8200",
        "http://127.0.0.1:8200",
        "https://vault:99999",
    ],
)
def test_urls_that_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="endpoint"):
        check_url(text, FILE, where="endpoint")


def test_http_is_for_loopback_on_a_laptop_only() -> None:
    assert check_url("http://127.0.0.1:8200", LAPTOP).port == 8200
    assert check_url("http://localhost:8200", LAPTOP).host == "localhost"
    with pytest.raises(ConfigError, match="https"):
        check_url("http://10.0.0.1:8200", LAPTOP)
    assert str(check_url("https://vault.internal:8200/base", FILE)).endswith("/base")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_the_connected_address_is_judged_for_names_and_numbers(host: str) -> None:
    async with Front("http://127.0.0.1:1") as front:
        url = front.url.replace("127.0.0.1", host)
        front.refuse("GET /", 200)
        connector = guarded_connector(FILE, host, tls=None, limit=1)
        async with aiohttp.ClientSession(connector=connector) as session:
            with pytest.raises(aiohttp.ClientConnectorError) as caught:
                await session.get(url)
        assert isinstance(caught.value.os_error, AddressRefusedError)
        assert front.seen == []
        connector = guarded_connector(LAPTOP, host, tls=None, limit=1)
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get(url) as answer,
        ):
            assert answer.status == 200


def test_a_ca_path_and_no_verification_are_for_the_operators_file(tls_files: TlsFiles) -> None:
    path = str(tls_files.ca)
    assert tls_context(path, FILE).verify_mode is ssl.CERT_REQUIRED
    assert tls_context(False, FILE).verify_mode is ssl.CERT_NONE
    for value in (path, False):
        with pytest.raises(ConfigError, match="operator's file"):
            tls_context(value, API)
    assert tls_context(tls_files.ca.read_text(), API).verify_mode is ssl.CERT_REQUIRED


def test_authorities_are_read_once_until_they_change(
    tls_files: TlsFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To read the system's takes longer than all the rest of a quiet cycle."""
    system = tmp_path / "system.pem"
    system.write_bytes(tls_files.ca.read_bytes())
    monkeypatch.setenv("SSL_CERT_FILE", str(system))
    first = tls_context(True, API)
    assert tls_context(True, FILE) is first
    assert len(first.get_ca_certs()) == 1
    trustme.CA().cert_pem.write_to_path(str(system), append=True)
    second = tls_context(True, API)
    assert len(second.get_ca_certs()) == 2
    assert tls_context(True, API) is second
    given = tls_files.ca.read_text()
    assert tls_context(given, API) is tls_context(given, API)
    assert len({tls_context(value, FILE) for value in (True, False, given)}) == 3
    monkeypatch.setattr("svsync.network._MOST_CONTEXTS", 1)
    tls_context(f"{given}\n", API)
    assert tls_context(True, API) is not second


def test_authority_that_is_changed_where_it_lies_is_trusted_no_more(
    tls_files: TlsFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenSSL keeps those of a directory that it has used, and knows lists of directories."""
    system, there, linked = tmp_path / "system.pem", tmp_path / "there.pem", tmp_path / "linked"
    for path in (system, there):
        path.write_bytes(tls_files.ca.read_bytes())
    linked.mkdir()
    (linked / "0a1b2c3d.0").symlink_to(there)
    (linked / "readme").touch()
    monkeypatch.setenv("SSL_CERT_FILE", str(system))
    monkeypatch.setenv("SSL_CERT_DIR", f"{tmp_path}:{linked}")
    first = tls_context(True, API)
    (linked / "readme").write_text("no authority")
    assert tls_context(True, API) is first
    there.write_bytes(b"")
    second = tls_context(True, API)
    assert second is not first
    # Its size and time are what they were, as after a copy that keeps them.
    seen = system.stat()
    system.write_bytes(b"#" * seen.st_size)
    os.utime(system, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    assert tls_context(True, API).get_ca_certs() == []


def test_authorities_that_could_not_be_read_for_a_moment_are_read_again(
    tls_files: TlsFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tls_files.ca))
    with monkeypatch.context() as moment:
        moment.setattr(ssl, "create_default_context", lambda: ssl.SSLContext(_CLIENT))
        assert tls_context(True, API).get_ca_certs() == []
    assert len(tls_context(True, API).get_ca_certs()) == 1


def test_empty_file_names_no_authority_and_not_the_systems(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").touch()
    with pytest.raises(ConfigError, match="no certificate authority"):
        tls_context(str(tmp_path / "ca.pem"), FILE)


@pytest.mark.parametrize(
    "value", [3, None, "/nowhere/ca.pem", "-----BEGIN CERTIFICATE-----\nnonsense"]
)
def test_authorities_that_cannot_be_read_are_a_configuration_error(value: object) -> None:
    with pytest.raises(ConfigError, match="tls_verify"):
        tls_context(value, FILE)


def test_own_listener_on_every_address_is_refused_at_each_of_this_machine() -> None:
    everywhere = NetworkPolicy(
        allow_loopback=True, file_managed=True, own_listeners=frozenset({("0.0.0.0", 8443)})
    )

    def reason(address: str, port: int) -> str | None:
        return refuse_reason(ipaddress.ip_address(address), everywhere, port=port)

    assert reason("127.0.0.1", 8443) == "is svsync's own listener"
    assert reason("127.0.0.1", 8200) is None
    assert reason("192.0.2.1", 8443) is None, "another machine's"
