"""File and environment into Settings.

The file is read first, then each variable that is set replaces the file's value
of its key. Nothing is contacted and no backend's credential is read: what can
be told from the text alone is told here, with file and line.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from svsync.config.backends import Policy, read_backends
from svsync.config.document import MAX_BYTES, Node, read_yaml
from svsync.config.endpoints import endpoint_problem
from svsync.config.key_services import specs_of
from svsync.config.kinds import Key, mapping_of, node_of_variable, unknown_key
from svsync.config.literals import refuse_literals
from svsync.config.model import ROWS, KmsProvider, Settings
from svsync.config.references import resolve
from svsync.config.secret_urls import POSTGRES_URL, REDIS_URL, reference_in
from svsync.domain.errors import ConfigError

DEFAULT_FILES = ("/etc/svsync/svsync.yaml", "./config/svsync.yaml")
"""Where the file is looked for when none is named; the first that exists."""

_SECRET_KINDS = (POSTGRES_URL, REDIS_URL)

_OF_MAPPINGS = ("backends", "audit_anchors", "kms_access", "kms_access_secondary")
"""Mappings, and lists of such: their variables hold YAML or JSON."""
_NEVER_EMPTY = ("database_url", "kms_provider", "kms_key_id", "state_dir")
"""An empty variable means "not given", but for these: a deployment whose secret
came out empty must not start on an empty store or under a key of its own."""


def load(path: str | None, environ: Mapping[str, str]) -> Settings:
    """The settings of this process.

    `path` is what `--config` named; without one the default files are tried,
    and having none of them is fine.

    Raises:
        ConfigError: one sentence, `file:line: key: what is wrong and what to do`.
    """
    source, root = _read_file(path)
    members = dict(mapping_of(root)) if root else {}
    for name, member in members.items():
        if name not in ROWS:
            raise unknown_key(member, name, ROWS)
    if root:
        refuse_literals(root)
    for name, row in ROWS.items():
        if row.variable in environ:
            node = _from_variable(row, environ[row.variable])
            members.pop(name, None)
            if node is not None:
                members[name] = node
    return _settings(members, environ, source)


def default_state_dir(environ: Mapping[str, str], euid: int) -> str:
    """`/var/lib/svsync` for root, else svsync's folder among the user's state.

    Raises:
        ConfigError: a user without `XDG_STATE_HOME` and without `HOME`.
    """
    if euid == 0:
        return "/var/lib/svsync"
    state, home = environ.get("XDG_STATE_HOME", ""), environ.get("HOME", "")
    # The XDG specification has relative paths ignored.
    if state.startswith("/"):
        return f"{state.rstrip('/')}/svsync"
    if home.startswith("/"):
        return f"{home.rstrip('/')}/.local/state/svsync"
    raise ConfigError(
        "has no default without HOME; set SVSYNC_STATE_DIR to a folder that svsync may write to",
        where="state_dir",
    )


# --- reading --------------------------------------------------------------------------


def _read_file(path: str | None) -> tuple[str | None, Node | None]:
    for name in DEFAULT_FILES if path is None else (path,):
        try:
            data = _read_bytes(name)
        except (FileNotFoundError, NotADirectoryError):
            if path is None:
                continue
            raise ConfigError(
                "does not exist; create it or correct --config", where=_printable(name)
            ) from None
        except (OSError, ValueError) as e:
            reason = os.strerror(e.errno) if isinstance(e, OSError) and e.errno else "no such name"
            raise ConfigError(
                f"cannot be read ({reason}); name a YAML file that svsync may read",
                where=_printable(name),
            ) from None
        root = read_yaml(data, _printable(name))
        if root.value is None:
            # A file cut short by a failed copy would pause every backend.
            raise root.error("is empty; write at least backends: [] or remove the file")
        return name, root
    return None, None


def _read_bytes(name: str) -> bytes:
    with Path(name).open("rb") as file:
        return file.read(MAX_BYTES + 1)


def _printable(name: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in name)


def _from_variable(row: Key, raw: str) -> Node | None:
    """The node of a variable that is set; None where an empty one means "not given"."""
    if not raw.strip():
        if row.name in _NEVER_EMPTY:
            raise ConfigError("is set but empty; give it a value or unset it", where=row.variable)
        return None
    if row.name in _OF_MAPPINGS:
        node = read_yaml(raw.encode("utf-8", "surrogateescape"), row.variable, row.name)
        refuse_literals(node)
        return node
    node = node_of_variable(row, row.variable, raw)
    if row.kind not in _SECRET_KINDS:
        refuse_literals(node)
    return node


# --- checking -------------------------------------------------------------------------


def _settings(
    members: Mapping[str, Node], environ: Mapping[str, str], source: str | None
) -> Settings:
    values: dict[str, Any] = {}
    for name, row in ROWS.items():
        if name in members and row.kind not in _SECRET_KINDS and name != "backends":
            values[name] = row.kind.read(members[name])
    for name, row in ROWS.items():
        if name in members and row.kind in _SECRET_KINDS:
            values[name] = _secret(members[name], row, environ, values.get("allowed_file_roots"))
    if "state_dir" not in values:
        values["state_dir"] = default_state_dir(environ, os.geteuid())
    if "backends" in members:
        policy = Policy(
            allow_loopback=values.get("allow_loopback", False),
            allowed_plugins=values.get("allowed_plugins", ()),
            ambient_identity_tenants=values.get("ambient_identity_tenants", ()),
        )
        values["backends"] = read_backends(members["backends"], policy)
    places = {n.path: n.where for member in members.values() for n in member.walk() if n.path}
    settings = Settings(source=source, places=places, **values)
    _refuse_contradictions(settings, members)
    _check_key_services(settings, members)
    return settings


def _secret(node: Node, row: Key, environ: Mapping[str, str], roots: tuple[str, ...] | None) -> Any:
    reference = reference_in(node)
    if reference is None:
        return row.kind.read(node)
    try:
        text = resolve(reference, environ=environ, allowed_file_roots=roots).reveal()
    except ConfigError as e:
        raise node.error(e.message) from None
    return row.kind.read(Node(text, node.path, node.source, node.line))


def _refuse_contradictions(settings: Settings, members: Mapping[str, Node]) -> None:
    def error(name: str, message: str) -> ConfigError:
        return members.get(name, Node(None, name)).error(message)

    if bool(settings.tls_cert_file) != bool(settings.tls_key_file):
        given, other = ("tls_cert_file", "tls_key_file")
        if settings.tls_key_file:
            given, other = other, given
        raise error(given, f"needs {other} beside it")
    if settings.tls_client_ca_file and not settings.tls_cert_file:
        raise error("tls_client_ca_file", "needs tls_cert_file and tls_key_file beside it")
    if settings.kms_provider is not KmsProvider.LOCAL and not settings.kms_key_id:
        raise error("kms_provider", f"{settings.kms_provider} needs kms_key_id (KMS_KEY_ID)")
    if settings.scaikey_jwks_url and not settings.scaikey_url:
        raise error("scaikey_jwks_url", "needs scaikey_url (SCAIKEY_URL), the issuer of the tokens")
    for name in ("scaikey_url", "scaikey_jwks_url"):
        url = getattr(settings, name)
        problem = url and endpoint_problem(url, allow_loopback=settings.allow_loopback)
        if problem:
            raise error(name, problem)
    for entry in settings.audit_anchors:
        url = entry.get("endpoint_url")
        problem = url and endpoint_problem(url, allow_loopback=settings.allow_loopback)
        if problem:
            raise error("audit_anchors", f"endpoint_url {problem}")
    if settings.database_url_read and not settings.database_url:
        raise error("database_url_read", "needs database_url (DATABASE_URL) beside it")


def _check_key_services(settings: Settings, members: Mapping[str, Node]) -> None:
    def error(name: str, message: str) -> ConfigError:
        return members.get(name, Node(None, name)).error(message)

    try:
        specs = specs_of(settings)
    except ConfigError as e:
        raise error(e.where, e.message.removeprefix(f"{e.where}: ")) from None
    for spec, name in zip(specs, ("kms_access", "kms_access_secondary"), strict=False):
        url = spec.access.get("endpoint")
        problem = url and endpoint_problem(url, allow_loopback=settings.allow_loopback)
        if problem:
            raise error(name, f"endpoint {problem}")
