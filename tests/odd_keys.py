"""Private keys in PEM that no cloud takes."""

from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

UNKNOWN: Final = "-----BEGIN PRIVATE KEY-----\nMA0CAQAwBQYDKgMEBAEB\n-----END PRIVATE KEY-----\n"
"""Of an algorithm that there is not (1.2.3.4)."""


def elliptic() -> str:
    return (
        ec.generate_private_key(ec.SECP256R1())
        .private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        .decode()
    )
