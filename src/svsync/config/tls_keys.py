"""How a server's certificate is checked, as a setting says it."""

import re

from svsync.config.document import Node
from svsync.config.kinds import FILE_PATH, Kind, text_of, wrong_type

_CERTIFICATE = re.compile(
    r"\s*(-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----\s*)+"
)


def _read_certificates(node: Node) -> str:
    value = text_of(node, "PEM certificates")
    if not _CERTIFICATE.fullmatch(value):
        raise node.error("must be one or more PEM certificates (-----BEGIN CERTIFICATE-----)")
    return value


CERTIFICATES = Kind(_read_certificates, {"type": "string"}, "PEM certificates")


def _read_tls_verify(node: Node) -> bool | str:
    if isinstance(node.value, bool):
        return node.value
    if not isinstance(node.value, str):
        raise wrong_type(node, "true, false or a CA bundle")
    if node.value.lstrip().startswith("-----BEGIN"):
        return str(CERTIFICATES.read(node))
    return str(FILE_PATH.read(node))


TLS_VERIFY = Kind(
    _read_tls_verify,
    {"anyOf": [{"type": "boolean"}, {"type": "string"}]},
    "`true`, `false` or a CA bundle (file path or PEM text)",
)
