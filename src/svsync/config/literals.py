"""Credentials that stand where a reference belongs.

The file and the API hold references only. A credential written out is told by
the name of its key or by its own shape, and refused before anything else looks
at it; the refusal names key and line, never the value.
"""

import math
import re
from collections import Counter

from svsync.config.document import Node
from svsync.domain.errors import ConfigError

REMEDY = (
    "holds a credential in plain text; put it at a ScaiVault path, in a file or in a variable, "
    "and write the reference instead (infra/vault/approle, file:/path or env:NAME)"
)

_NAMES = re.compile(
    r"(.*_)?(token|secret|secret_id|role_id|password|passwd|passphrase|pin|credentials?"
    r"|auth_config|access_key|access_key_id|secret_key|secret_access_key|session_token"
    r"|api_key|private_key|client_secret|connection_string|certificate_pem|key_pem"
    r"|service_account(_json|_key)?)"
)

_SHAPES = re.compile(
    r"""
      \b hv[sbr] \. [A-Za-z0-9_-]{16,}                       # Vault token, since 1.10
    | ^ [sbr] \. [A-Za-z0-9]{20,}                            # Vault and OpenBao token
    | \b (AKIA|ASIA) [A-Z0-9]{16} \b                         # AWS access key id
    | \b AIza [A-Za-z0-9_-]{35} \b                           # Google API key
    | \b ya29 \. [A-Za-z0-9_-]{20,}                          # Google access token
    | \b whsec_ [A-Za-z0-9+/=]{16,}                          # webhook secret
    | \b eyJ [A-Za-z0-9_-]{8,} \. [A-Za-z0-9_-]+ \.          # JSON web token
    | -----BEGIN [ ] ([A-Z]+[ ])* PRIVATE [ ] KEY            # PEM private key
    | ^ [a-z][a-z0-9+.-]* :// [^/?\#\s]* : [^/?\#\s]* @      # URL with a password
    | [?&;] (password|pin-value) =                           # ... or with one among its options
    | ^ \s* \{ .* "(token|secret_id|secret_access_key|client_secret|private_key)"
    """,
    re.X | re.S,
)

_AWS_SECRET_KEY = re.compile(r"[A-Za-z0-9/+]{40}")
_ENTROPY = 4.3
"""Bits a character: 40 random base64 characters have 4.5 to 5.1, a path as long below 4.2."""


def names_credential(key: str) -> bool:
    """Whether a key of this name would hold a credential rather than a reference."""
    return _NAMES.fullmatch(key.lower().replace("-", "_")) is not None


def looks_like_credential(text: str) -> bool:
    """Whether the text itself has the shape of a credential."""
    if _SHAPES.search(text):
        return True
    return _AWS_SECRET_KEY.fullmatch(text) is not None and _entropy(text) >= _ENTROPY


def refuse_literals(root: Node) -> None:
    """Raise ConfigError for the first value or key below `root` that is a credential."""
    for node in root.walk():
        if isinstance(node.value, str) and looks_like_credential(node.value):
            raise literal(node)
        if isinstance(node.value, dict):
            for key in node.value:
                if looks_like_credential(key):
                    raise node.error("has a key that is a credential in plain text; remove it")


def literal(node: Node) -> ConfigError:
    return node.error(REMEDY, code="literal_credential")


def _entropy(text: str) -> float:
    counts = Counter(text).values()
    return -sum(n / len(text) * math.log2(n / len(text)) for n in counts)
