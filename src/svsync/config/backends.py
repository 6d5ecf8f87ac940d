"""A backend as it is written, in the file and in the API alike, into a BackendSpec.

The tables of `backend_keys` say what each key takes; what stands here is which
settings contradict each other, and what the API may not say. Wildcards are not
compiled here: that needs the alphabet of the backend's type, which its driver
knows.
"""

import base64
import difflib
import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from svsync.config.backend_keys import BACKEND, EXTRA
from svsync.config.backend_types import TYPES, BackendType
from svsync.config.document import Node, below, from_json
from svsync.config.endpoints import KEY_VAULT_SUFFIXES, endpoint_problem
from svsync.config.feed_types import FEEDS, queue_region
from svsync.config.kinds import ANY_TEXT, Key, list_of, mapping_of, read_object, text_of
from svsync.config.literals import refuse_literals
from svsync.config.references import REFERENCE_NOT_ALLOWED
from svsync.domain.federation import (
    BackendSpec,
    Guard,
    ManagedBy,
    OnRemoteDelete,
    RemoteChanges,
    Writes,
)
from svsync.domain.ids import BackendId


@dataclass(frozen=True, slots=True)
class Policy:
    """What the operator's settings allow the backends that are read under them."""

    allow_loopback: bool = False
    allowed_plugins: Collection[str] = ()
    ambient_identity_tenants: Collection[str] = ()


def read_backends(node: Node, policy: Policy) -> tuple[BackendSpec, ...]:
    """The backends of the operator's file, in its order.

    Raises:
        ConfigError: what is wrong with one, or two that share an id or name.
    """
    items = list_of(node)
    specs = [_read_backend(item, policy, ManagedBy.FILE, None, None) for item in items]
    taken: dict[tuple[str, ...], Node] = {}
    for spec, item in zip(specs, items, strict=True):
        for what, key in (("id", ("id", spec.id)), ("name", ("name", spec.tenant, spec.name))):
            if first := taken.get(key):
                raise _member(item, what).error(
                    f"is the {what} of {first.path} too; each backend needs its own"
                )
            taken[key] = item
    by_id = {str(spec.id): spec for spec in specs}
    for spec, item in zip(specs, items, strict=True):
        owner = by_id.get(str(spec.extra.get("standby_for")), spec)
        if (owner.type, owner.tenant) != (spec.type, spec.tenant):
            raise _member(item, "standby_for").error(
                "must name a backend of the same type and tenant"
            )
    return tuple(specs)


def backend_from_api(
    body: object, *, tenant: str, new_id: BackendId, policy: Policy
) -> BackendSpec:
    """The backend that a body of the API describes, for the caller's tenant.

    Raises:
        ConfigError: `where` is the field. Its code is `reference_not_allowed`,
            `file_only_setting`, `ambient_identity_not_allowed`, or
            `literal_credential` for what only the operator's file may say.
    """
    node = from_json(body)
    refuse_literals(node)
    return _read_backend(node, policy, ManagedBy.API, tenant, new_id)


def derived_id(tenant: str, name: str) -> BackendId:
    """The id of a backend that the file gives none: the same at each reload.

    A hash of tenant and name, so that nothing has to be remembered between two
    reads of the file; renaming such a backend makes it another one.
    """
    digest = hashlib.sha256(f"{tenant}\0{name}".encode()).digest()
    return BackendId("fed_" + base64.b32encode(digest).decode().lower()[:12])


# --- one backend --------------------------------------------------------------------


def _read_backend(
    node: Node, policy: Policy, managed_by: ManagedBy, tenant: str | None, new_id: BackendId | None
) -> BackendSpec:
    api = managed_by is ManagedBy.API
    if api:
        for part in ("config", "events"):
            _refuse_references(_member(node, part))
    given = read_object(node, BACKEND, api=api)
    if tenant is not None and given.setdefault("tenant", tenant) != tenant:
        raise _member(node, "tenant").error("must be your own tenant; leave it out")
    owner = given.get("tenant", "default")
    backend_id = BackendId(given["id"]) if "id" in given else new_id
    config = _read_config(given["config"], given["type"], _member(node, "type"), policy, api)
    spec = BackendSpec(
        id=backend_id or derived_id(owner, given["name"]),
        name=given["name"],
        type=given["type"],
        rules=given["path_mapping"],
        config=config,
        tenant=owner,
        writes=_writes(node, given),
        guard=Guard(**given.get("guard", {})),
        filters=_read_filters(given.get("filters"), given["type"]),
        events=tuple(
            _read_feed(item, given["type"], config, api) for item in given.get("events", ())
        ),
        extra={key.name: given[key.name] for key in EXTRA if key.name in given},
        managed_by=managed_by,
        **{name: given[name] for name in _AS_GIVEN if name in given},
    )
    _refuse_contradictions(node, spec)
    if api:
        _refuse_ambient(node, spec, policy)
    return spec


_AS_GIVEN = (
    "mode",
    "sync_interval",
    "conflict_resolution",
    "remote_changes",
    "propagate_deletes",
    "seed_remote",
    "on_remote_delete",
    "history",
    "max_versions",
    "max_error_ratio",
    "max_staleness",
    "max_value_bytes",
    "max_secrets",
    "rate_limit",
    "call_budget",
)
"""Keys whose checked value is the field of the same name."""


def _writes(node: Node, given: Mapping[str, Any]) -> Writes:
    writes: Writes | None = given.get("writes")
    through: bool | None = given.get("write_through")
    if through is None or (through and writes is None):
        return Writes.WRITE_THROUGH if through else writes or Writes.LOCAL
    if writes is not None and through != (writes is Writes.WRITE_THROUGH):
        raise _member(node, "write_through").error(
            f"contradicts writes: {writes}; keep one of the two"
        )
    return writes or Writes.LOCAL


def _refuse_contradictions(node: Node, spec: BackendSpec) -> None:
    rules = [(i, spec.for_rule(rule)) for i, rule in enumerate(spec.rules) if not rule.exclude]
    if not rules:
        raise _member(node, "path_mapping").error("only excludes; add a rule that federates paths")
    if not any(settings.writes is Writes.WRITE_THROUGH for _, settings in rules):
        for name in ("propagate_deletes", "seed_remote"):
            if getattr(spec, name):
                raise _member(node, name).error(
                    "needs writes: write_through; set that or remove it"
                )
    for i, settings in rules:
        if (
            settings.on_remote_delete is OnRemoteDelete.SOFT_DELETE
            and settings.remote_changes is RemoteChanges.HOLD
        ):
            overrides = spec.rules[i].overrides != type(spec.rules[i].overrides)()
            at = _rule(node, i) if overrides else node
            raise _member(at, "on_remote_delete").error(
                "soft_delete takes a remote delete over, which remote_changes: hold (the default "
                "under local_wins) leaves where it is; set on_remote_delete: retain or "
                "remote_changes: pull"
            )
    if spec.extra.get("standby_for") == spec.id:
        raise _member(node, "standby_for").error("must name another backend")


# --- what depends on the type ---------------------------------------------------------


def _read_config(
    node: Node, type_name: str, type_node: Node, policy: Policy, api: bool
) -> dict[str, Any]:
    known = TYPES.get(type_name)
    if known is None:
        if type_name in policy.allowed_plugins:
            return _plain_members(node)
        nearest = difflib.get_close_matches(type_name, TYPES, 1, 0.4)
        hint = f"; did you mean {nearest[0]}?" if nearest else f"; known are {', '.join(TYPES)}"
        raise type_node.error(f"is not a type that this svsync has{hint}")
    config = read_object(node, known.keys, api=api)
    if api:
        _refuse_weaker_tls(node, config)
    if problem := known.problem(config):
        raise _member(node, problem[0]).error(problem[1])
    if known.endpoint in config:
        _check_endpoint(_member(node, known.endpoint), config[known.endpoint], policy)
    return config


def _check_endpoint(node: Node, url: str, policy: Policy) -> None:
    if problem := endpoint_problem(url, allow_loopback=policy.allow_loopback):
        raise node.error(problem)


def _refuse_weaker_tls(node: Node, config: Mapping[str, Any]) -> None:
    verify = config.get("tls_verify", True)
    if verify is False or (isinstance(verify, str) and verify.startswith("/")):
        raise _member(node, "tls_verify").error(
            "must be true or PEM text; anything else is for the operator's configuration file",
            code="file_only_setting",
        )


def _read_filters(node: Node | None, type_name: str) -> dict[str, Any]:
    if node is None:
        return {}
    known = TYPES.get(type_name)
    if known is None:
        return _plain_members(node)
    if not known.filters:
        raise node.error(f"is not for {type_name}, which cannot filter a listing; remove it")
    given = read_object(node, known.filters)
    # As JSON has it, so that a stored spec equals the one that was read.
    return {name: list(v) if isinstance(v, tuple) else v for name, v in given.items()}


_FEED_NAMES: Final = f"{', '.join(list(FEEDS)[:-1])} or {list(FEEDS)[-1]}"


def _read_feed(node: Node, type_name: str, config: Mapping[str, Any], api: bool) -> dict[str, Any]:
    feed_node = _member(node, "feed")
    if feed_node.value is None:
        raise feed_node.error(f"is missing; add feed: {_FEED_NAMES}")
    wanted, keys = _known_feed(feed_node)
    if wanted and type_name in TYPES and type_name != wanted:
        raise feed_node.error(f"is for {wanted}, not for {type_name}")
    entry = read_object(node, (Key("feed", ANY_TEXT, ""), *keys), api=api)
    pinned = [name for name in ("entra_tenant_id", "entra_audience") if name in entry]
    if len(pinned) == 1 or (not pinned and "entra_app_id" in entry):
        missing = "entra_audience" if pinned == ["entra_tenant_id"] else "entra_tenant_id"
        raise _member(node, missing).error(
            "is missing: a token counts by its directory and its audience together; name both, "
            "or no entra_ key"
        )
    host = urlsplit(str(config.get("vault_url", ""))).hostname or ""
    if pinned and host.endswith(KEY_VAULT_SUFFIXES[1:]):
        raise _member(node, "entra_tenant_id").error(
            "is for Azure's public cloud, and the vault is in another; leave the entra_ keys out "
            "and use the feed's secret"
        )
    of, region = queue_region(str(entry.get("queue_url", ""))), config.get("region")
    if of and of != region:
        raise _member(node, "queue_url").error(
            f"is a queue of {of}, and the secrets are of {region}: EventBridge sends what changed "
            "there to a queue of the same region; name that"
        )
    return entry


def _known_feed(node: Node) -> tuple[str, tuple[Key, ...]]:
    """The type of backend that a feed is for, and its keys."""
    name = text_of(node, "the name of a feed")
    if name in FEEDS:
        return FEEDS[name]
    nearest = difflib.get_close_matches(name, list(FEEDS), 1, 0.4)
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    raise node.error(f"must be {_FEED_NAMES}{hint}")


# --- what the API may not say ---------------------------------------------------------


def _refuse_references(node: Node) -> None:
    """`env:` and `file:` anywhere below `node`, also under keys that only a plugin knows."""
    for member in node.walk():
        if isinstance(member.value, str) and member.value.startswith(("env:", "file:")):
            raise member.error(REFERENCE_NOT_ALLOWED, code="reference_not_allowed")


def _refuse_ambient(node: Node, spec: BackendSpec, policy: Policy) -> None:
    """The daemon's own identity is the operator's to lend, not a tenant's to take."""
    known: BackendType | None = TYPES.get(spec.type)
    if known is None or spec.tenant in policy.ambient_identity_tenants:
        return
    config = _member(node, "config")
    if known.ambient(spec.config):
        raise _member(config, known.credential).error(
            "is missing, and svsync's own identity is not for this tenant; give a ScaiVault path "
            "(or have the operator add the tenant to ambient_identity_tenants)",
            code="ambient_identity_not_allowed",
        )
    if "role_arn" in spec.config:
        allowed = [f"svsync:{spec.tenant}:{part}" for part in (spec.id, spec.name)]
        if spec.config.get("external_id") not in allowed:
            raise _member(config, "external_id").error(
                f"must be {allowed[1]}, which the role's trust policy then asks for",
                code="ambient_identity_not_allowed",
            )


# --- places -------------------------------------------------------------------------


def _plain(node: Node) -> Any:
    """A node's value without its places, for what no table describes."""
    if isinstance(node.value, dict):
        return _plain_members(node)
    if isinstance(node.value, list):
        return [_plain(member) for member in node.value]
    return node.value


def _plain_members(node: Node) -> dict[str, Any]:
    return {name: _plain(member) for name, member in mapping_of(node).items()}


def _member(node: Node, name: str) -> Node:
    """The member, or the place where it would be."""
    if isinstance(node.value, dict) and name in node.value:
        return node.value[name]
    return Node(None, below(node.path, name), node.source, node.line)


def _rule(node: Node, index: int) -> Node:
    mapping = _member(node, "path_mapping")
    return mapping.value[index] if isinstance(mapping.value, list) else mapping
