"""A certificate authority for one server on loopback, made in place.

The authority's key signs one certificate and is forgotten: nobody can make
another that its users would trust.
"""

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from svsync.embedded.openbao import TlsFiles

_VALID: Final = timedelta(days=30)
_SKEW: Final = timedelta(minutes=5)
_PRIVATE: Final = 0o600


def make_loopback_tls(folder: Path) -> TlsFiles:
    """Write a certificate for 127.0.0.1 and localhost, good for a month, and who signed it.

    `folder` is made if missing. The server's key is readable by its owner alone.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = _named("svsync loopback authority", "svsync loopback authority", authority_key)
    authority = authority.add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
    authority = authority.add_extension(_usage(signs_certificates=True), critical=True)
    server = _named("localhost", "svsync loopback authority", key)
    server = server.add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
    server = server.add_extension(_usage(signs_certificates=False), critical=True)
    server = server.add_extension(
        x509.SubjectAlternativeName(
            [
                x509.DNSName("localhost"),
                x509.IPAddress(ipaddress.IPv4Address("127.0.0.1")),
            ]
        ),
        critical=False,
    )
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    server = server.add_extension(identifier, critical=False)
    files = TlsFiles(folder / "server.pem", folder / "server.key", folder / "ca.pem")
    files.ca.write_bytes(_pem(authority.sign(authority_key, hashes.SHA256())))
    files.certificate.write_bytes(_pem(server.sign(authority_key, hashes.SHA256())))
    files.key.touch(mode=_PRIVATE)
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return files


def _named(subject: str, issuer: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + _VALID)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
