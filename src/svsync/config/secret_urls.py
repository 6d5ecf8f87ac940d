"""Addresses that may hold a password, so that they are never printed.

In the file such an address is a reference, or literal where it holds no
password; a variable may hold it whole, as the deployment guide has it.
"""

import re
from typing import Any

from svsync.config.document import Node
from svsync.config.kinds import Kind, text_of
from svsync.config.references import Place, Reference
from svsync.domain.errors import ConfigError
from svsync.domain.values import SecretValue

MAX_LENGTH = 4096


def secret_url(schemes: str, example: str) -> Kind:
    """A URL of one of `schemes` (a regular expression), kept as a SecretValue."""
    pattern = re.compile(f"({schemes})://[!-~]+")

    def read(node: Node) -> SecretValue:
        value = text_of(node, f"a URL such as {example}")
        if len(value) > MAX_LENGTH or not pattern.fullmatch(value):
            raise node.error(f"must be a URL such as {example}, without blanks")
        return SecretValue(value)

    schema: dict[str, Any] = {
        "type": "string",
        "pattern": f"^(({schemes})://[!-~]+|env:[A-Za-z_][A-Za-z0-9_]*|file:/.+)$",
    }
    return Kind(read, schema, f"`env:NAME`, `file:/path`, or a URL without password ({example})")


POSTGRES_URL = secret_url("postgres(ql)?", "postgresql://svsync@db.internal/svsync")
REDIS_URL = secret_url(
    r"rediss?(\+(sentinel|cluster))?|valkeys?|unix", "rediss://cache.internal:6379/0"
)


def reference_in(node: Node) -> Reference | None:
    """The `env:` or `file:` reference that stands in place of a URL."""
    if not isinstance(node.value, str) or not node.value.startswith(("env:", "file:")):
        return None
    try:
        reference = Reference.parse(node.value)
    except ConfigError as e:
        raise node.error(e.message) from None
    return None if reference.place is Place.SCAIVAULT else reference
