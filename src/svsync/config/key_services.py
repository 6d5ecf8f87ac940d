"""Which key services wrap the root key, as `KMS_PROVIDER`, `KMS_KEY_ID` and their kin say.

The secondary may be of another kind: its key is named `PROVIDER:key`. Without a provider
it is a key of `KMS_PROVIDER`. How each is reached, and as whom, stands in `kms_access` and
`kms_access_secondary`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from svsync.config.document import Node
from svsync.config.endpoints import KEY_VAULT_SUFFIXES, URL
from svsync.config.kinds import FILE_PATH, REFERENCE, Key, Kind, object_schema, read_object, text
from svsync.config.references import Place, Reference
from svsync.domain.errors import ConfigError

_MOUNT: Final = r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*"
_ROLE_ARN: Final = r"arn:aws[a-z-]*:iam::[0-9]{12}:role/[A-Za-z0-9+=,.@_/-]+"

ACCESS: Final = (
    Key(
        "credentials_path",
        REFERENCE,
        "Where its login stands, as `env:NAME` or `file:/path`, as for a backend of that kind; "
        "for `pkcs11` the PIN. Never in the store: it could not be opened to read it.",
        default_words="the identity of the process; for `vault` the variable `VAULT_TOKEN`",
    ),
    Key(
        "endpoint",
        URL,
        "`vault`: the server. `aws`, `gcp`: an address to call in place of the vendor's own.",
        default_words="`vault`: the variable `VAULT_ADDR`",
    ),
    Key(
        "region",
        text(r"[a-z0-9-]+", "a region such as eu-central-1", max_length=64),
        "`aws`: the region of a key that is named without its ARN.",
        default_words="`AWS_REGION`, `AWS_DEFAULT_REGION`",
    ),
    Key(
        "role_arn",
        text(_ROLE_ARN, "the ARN of a role", max_length=2048),
        "`aws`: a role that is assumed to use the key.",
    ),
    Key(
        "external_id",
        text(r"[A-Za-z0-9+=,.@:/_-]+", "an external id", max_length=1224),
        "`aws`: what the role's trust policy asks for.",
    ),
    Key(
        "auth_mount",
        text(_MOUNT, "a path of letters, digits, _ and -", max_length=256),
        "`vault`: where AppRole is mounted, if its login is `{role_id, secret_id}`.",
        default_words="`approle`",
    ),
    Key(
        "namespace",
        text(_MOUNT, "a namespace", max_length=256),
        "`vault`: the namespace of the mount.",
        default_words="`VAULT_NAMESPACE`",
    ),
    Key(
        "ca_file",
        FILE_PATH,
        "`vault`, `gcp`, `azure`: who signed the server's certificate, as PEM.",
        default_words="the system's authorities; for `vault` the variable `VAULT_CACERT`",
    ),
    Key(
        "module",
        FILE_PATH,
        "`pkcs11`: the library of the token's maker.",
    ),
)
_MAY: Final[Mapping[str, frozenset[str]]] = {
    "local": frozenset(),
    "aws": frozenset({"credentials_path", "endpoint", "region", "role_arn", "external_id"}),
    "gcp": frozenset({"credentials_path", "endpoint", "ca_file"}),
    "azure": frozenset({"credentials_path", "ca_file"}),
    "vault": frozenset({"credentials_path", "endpoint", "auth_mount", "namespace", "ca_file"}),
    "pkcs11": frozenset({"credentials_path", "module"}),
}
_VAULT_HOST: Final = "|".join(
    (*(rf"[A-Za-z0-9-]+{re.escape(suffix)}" for suffix in KEY_VAULT_SUFFIXES), r"localhost:[0-9]+")
)
_KEYS: Final = {
    "local": (r"(file:/[^\x00-\x1f\x7f]+)?", "file: and an absolute path, or nothing"),
    "aws": (
        r"arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:(key|alias)/[A-Za-z0-9/_-]+"
        r"|alias/[A-Za-z0-9/_-]+|[0-9a-f-]{36}|mrk-[0-9a-f]{32}",
        "a key's ARN, its id, or alias/NAME",
    ),
    "gcp": (
        r"projects/[a-z0-9.:-]+/locations/[a-z0-9-]+/keyRings/[A-Za-z0-9_-]{1,63}"
        r"/cryptoKeys/[A-Za-z0-9_-]{1,63}",
        "projects/P/locations/L/keyRings/R/cryptoKeys/K",
    ),
    "azure": (
        rf"https://({_VAULT_HOST})/keys/[A-Za-z0-9-]{{1,127}}(/[0-9a-f]{{32}})?",
        "a key's address, such as https://NAME.vault.azure.net/keys/KEY",
    ),
    "vault": (rf"{_MOUNT}/[A-Za-z0-9_.-]+", "the mount and the key of transit, such as transit/k"),
    "pkcs11": (
        r"token=[^;?\x00-\x1f\x7f]+;object=[^;?\x00-\x1f\x7f]+",
        "token=LABEL;object=LABEL",
    ),
}
"""A key in its provider's own words, and those for people."""


@dataclass(frozen=True, slots=True)
class KeyServiceSpec:
    """One configured key service.

    Attributes:
        provider: `local`, `aws`, `gcp`, `azure`, `vault` or `pkcs11`.
        key: in the provider's own words; empty: the local one's default.
        access: what `kms_access` says of it, by the keys of ACCESS.
    """

    provider: str
    key: str
    access: Mapping[str, Any] = field(default_factory=dict)


class Configured(Protocol):
    """What `model.Settings` has of this, which is made of this module's rows."""

    @property
    def kms_provider(self) -> str: ...
    @property
    def kms_key_id(self) -> str | None: ...
    @property
    def kms_key_id_secondary(self) -> str | None: ...
    @property
    def kms_access(self) -> Mapping[str, Any] | None: ...
    @property
    def kms_access_secondary(self) -> Mapping[str, Any] | None: ...


def specs_of(settings: Configured) -> tuple[KeyServiceSpec, ...]:
    """The primary key service, and the secondary one if there is one.

    Raises ConfigError for a key that is none of its provider's, for access that the provider
    does not take, and for two that are one; `where` is the setting's key in the file.
    """
    provider, secondary = str(settings.kms_provider), settings.kms_key_id_secondary
    first = _spec(provider, settings.kms_key_id or "", settings.kms_access or {}, "")
    if not secondary:
        if settings.kms_access_secondary:
            raise ConfigError("needs kms_key_id_secondary beside it", where="kms_access_secondary")
        return (first,)
    second = _spec(provider, secondary, settings.kms_access_secondary or {}, "_secondary")
    if _named(first) == _named(second):
        raise ConfigError(
            "is the key of kms_key_id: name another one, or none", where="kms_key_id_secondary"
        )
    return first, second


def _named(spec: KeyServiceSpec) -> tuple[object, ...]:
    """By which two keys are told apart; two names of one key are told when they are used."""
    return spec.provider, spec.key, *map(spec.access.get, ("endpoint", "region", "namespace"))


def _spec(provider: str, key: str, access: Mapping[str, Any], which: str) -> KeyServiceSpec:
    named, colon, rest = key.partition(":")
    if key.startswith("file:"):
        provider = "local"
    elif colon and named in _KEYS and (which or named == provider):
        provider, key = named, rest
    pattern, words = _KEYS[provider]
    if not re.fullmatch(pattern, key):
        other = " (another provider's key is named PROVIDER:key)" if which else ""
        raise ConfigError(f"must be, for {provider}, {words}{other}", where=f"kms_key_id{which}")
    for name in access:
        if name not in _MAY[provider]:
            takes = ", ".join(sorted(_MAY[provider])) or "nothing"
            raise ConfigError(
                f"has the key {name}, and {provider} takes {takes}", where=f"kms_access{which}"
            )
    if provider == "pkcs11" and not {"module", "credentials_path"} <= access.keys():
        raise ConfigError(
            "needs module, the library of the token's maker, and credentials_path, its PIN",
            where=f"kms_access{which}",
        )
    return KeyServiceSpec(provider, key, access)


def _read(node: Node) -> Mapping[str, Any]:
    found = read_object(node, ACCESS)
    path = found.get("credentials_path")
    # The store cannot be opened before the key that it holds would be used.
    if path is not None and Reference.parse(path).place is Place.SCAIVAULT:
        raise node.error("credentials_path must be env:NAME or file:/absolute/path")
    return found


KMS_ACCESS: Final = Kind(_read, object_schema(ACCESS), "how it is reached, and as whom")
