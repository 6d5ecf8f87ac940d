"""What `doctor` looks at on this machine: who may change or read svsync's files, and for how
long the listener's certificates are good."""

import os
import ssl
import stat
from collections.abc import Sequence
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509

from svsync.config.model import Settings
from svsync.services.findings import Finding, ok, warning, wrong

SOON_DAYS: Final = 14
"""A certificate that is renewed by itself is so before; the last days are for people."""


def look_at_files(settings: Settings) -> list[Finding]:
    """May anybody else change the configuration or the state, or read a key?

    Files that `file:` references name are looked at where they are used: when a backend
    is tested, when the root key is opened.
    """
    found = []
    for path, what in ((settings.source, "the configuration"), (settings.state_dir, "the state")):
        if path is not None and (mode := _mode(path)) & 0o022:
            found.append(
                wrong(
                    "files",
                    f"{path} holds {what}, and may be changed by other users"
                    f" (mode {stat.S_IMODE(mode):04o})",
                    f"run: chmod go-w {path}",
                )
            )
    key = settings.tls_key_file
    # One that is not there is told with the certificate.
    if key is not None and (mode := _mode(key)) and mode & _others(key):
        found.append(
            wrong(
                "files",
                f"the private key {key} may be read by other users (mode {stat.S_IMODE(mode):04o})",
                f"run: chmod 600 {key}",
            )
        )
    return found or [ok("files", "nobody else may change or read what svsync relies on")]


def look_at_certificates(settings: Settings, now: datetime) -> list[Finding]:
    """Do certificate and key belong together, and how long are they good?"""
    chain = settings.tls_cert_file
    if chain is None:
        return [_without_tls(settings.bind_address)]
    found = []
    try:
        # A key with a pass phrase would make OpenSSL ask for it at the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            chain, settings.tls_key_file, password=""
        )
    except OSError as error:  # ssl.SSLError too
        why = error.reason if isinstance(error, ssl.SSLError) else error.strerror
        found.append(
            wrong(
                "certificate",
                f"{chain} and {settings.tls_key_file or 'the key in it'} cannot be used"
                f" ({why or type(error).__name__})",
                "give PEM files that svsync may read, the key that of the certificate and without"
                " a pass phrase",
            )
        )
    files = [chain, *filter(None, [settings.tls_client_ca_file])]
    return found + [_expiry(path, now) for path in files]


def _without_tls(address: str) -> Finding:
    host = address.rpartition(":")[0].strip("[]")
    if _is_loopback(host):
        return ok("certificate", f"none: the API listens on {address}, on this machine alone")
    return warning(
        "certificate",
        f"none: the API listens on {address} without TLS",
        "set tls_cert_file, or let nobody reach it but the proxy that ends TLS before it",
    )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _expiry(path: str, now: datetime) -> Finding:
    """By the certificate of the file whose time is over first."""
    try:
        ends = min(c.not_valid_after_utc for c in _certificates(path))
    except (OSError, ValueError):
        return wrong("certificate", f"{path} holds no certificate that svsync can read", _RENEW)
    days = (ends - now).total_seconds() / 86_400
    if days <= 0:
        return wrong("certificate", f"{path} has been over since {ends:%Y-%m-%d}", _RENEW)
    if days < SOON_DAYS:
        return warning("certificate", f"{path} is over on {ends:%Y-%m-%d}", _RENEW)
    return ok("certificate", f"{path} is good until {ends:%Y-%m-%d}")


_RENEW: Final = "put a new one there, and send SIGHUP to each `svsync serve`"


def _certificates(path: str) -> Sequence[x509.Certificate]:
    return x509.load_pem_x509_certificates(Path(path).read_bytes())


def _mode(path: str) -> int:
    """Its permissions; none of what is not there, or not ours to look at."""
    try:
        return os.stat(path).st_mode
    except OSError:
        return 0


def _others(path: str) -> int:
    """As of `file:` references: a mounted secret of root's is read through its group."""
    return 0o077 if os.stat(path).st_uid == os.geteuid() else 0o027
