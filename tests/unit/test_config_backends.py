"""A backend as written, in the file and in the API, becomes a BackendSpec or a sentence."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from svsync.config.backend_document import describe
from svsync.config.backends import Policy, backend_from_api, derived_id, read_backends
from svsync.config.document import from_json
from svsync.config.literals import refuse_literals
from svsync.config.load import load
from svsync.domain.errors import ConfigError
from svsync.domain.federation import (
    BackendSpec,
    ConflictPolicy,
    Guard,
    HistoryMode,
    ManagedBy,
    Mode,
    OnRemoteDelete,
    Overrides,
    RemoteChanges,
    RuleSpec,
    TagTransform,
    Writes,
)
from svsync.domain.ids import BackendId

CANARY = "c4n4ry"
STRICT = Policy()
VAULT: Mapping[str, Any] = {
    "endpoint": "https://vault.internal:8200",
    "auth_method": "approle",
    "auth_config_path": "infra/hashicorp/approle",
}
PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
MINIMAL: Mapping[str, Any] = {
    "id": "fed_abc",
    "name": "hashicorp-production",
    "type": "hashicorp-vault",
    "config": VAULT,
    "path_mapping": {"external/hashicorp/**": "kv/data/**"},
}


def backend(**changes: Any) -> dict[str, Any]:
    return {**MINIMAL, **changes}


def vault(**changes: Any) -> dict[str, Any]:
    """A backend with other `config` keys; None takes one away."""
    config = {k: v for k, v in {**VAULT, **changes}.items() if v is not None}
    return backend(config=config)


def typed(type_name: str, config: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    return backend(type=type_name, config=config, **changes)


def from_file(*bodies: Mapping[str, Any], policy: Policy = STRICT) -> tuple[BackendSpec, ...]:
    node = from_json(list(bodies), "backends")
    refuse_literals(node)
    return read_backends(node, policy)


def from_api(
    body: Mapping[str, Any], policy: Policy = STRICT, tenant: str = "default"
) -> BackendSpec:
    return backend_from_api(body, tenant=tenant, new_id=BackendId("fed_new"), policy=policy)


def refusal(*bodies: Mapping[str, Any], policy: Policy = STRICT) -> str:
    with pytest.raises(ConfigError) as caught:
        from_file(*bodies, policy=policy)
    assert CANARY not in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def api_refusal(body: Mapping[str, Any], policy: Policy = STRICT) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        from_api(body, policy)
    assert CANARY not in str(caught.value)
    return caught.value


# --- what is accepted -----------------------------------------------------------------


def test_the_least_that_a_backend_needs_leaves_every_default_to_the_domain() -> None:
    assert from_file(MINIMAL) == (
        BackendSpec(
            id=BackendId("fed_abc"),
            name="hashicorp-production",
            type="hashicorp-vault",
            rules=(RuleSpec("external/hashicorp/**", "kv/data/**"),),
            config=VAULT,
        ),
    )


FULL = backend(
    tenant="acme",
    path_mapping=[
        {"local": "a/tmp/**", "exclude": True},
        {"remote": "kv/data/old/**", "exclude": True},
        {
            "local": "a/**",
            "remote": "kv/data/a/**",
            "mode": "proxy",
            "writes": "write_through",
            "conflict_resolution": "manual",
            "on_remote_delete": "retain",
            "remote_changes": "pull",
            "transform": {
                "separator": "--",
                "escape": True,
                "tags": {
                    "format": "{key}:{value}",
                    "include": ["a"],
                    "exclude": ["b"],
                    "rename": {"token": "t"},
                    "drop": True,
                },
            },
        },
    ],
    mode="sync",
    sync_interval="1h",
    conflict_resolution="local_wins",
    remote_changes="pull",
    write_through=True,
    propagate_deletes=True,
    seed_remote=True,
    on_remote_delete="soft_delete",
    history="full",
    max_versions=3,
    guard={"max_delete_ratio": 1, "max_delete_count": 0, "max_overwrite_ratio": 0.25},
    max_error_ratio=0.1,
    max_staleness="1d",
    max_value_bytes="64KiB",
    max_secrets=5,
    rate_limit={"read": 20, "write": {"per_second": 0.5, "concurrency": 1}},
    call_budget={"per_day": 1000},
    events=[{"feed": "vault-events"}],
    consistency_window=0,
    trim_grace="2h",
    proxy_purge_after="0s",
    feed_min_interval="5s",
    allow_blind_push=True,
    allow_hide=True,
    standby_for="fed_other",
    delete_only_owned=True,
)


def test_every_key_of_a_backend_arrives() -> None:
    assert from_file(FULL) == (
        BackendSpec(
            id=BackendId("fed_abc"),
            name="hashicorp-production",
            type="hashicorp-vault",
            rules=(
                RuleSpec("a/tmp/**", exclude=True),
                RuleSpec("", "kv/data/old/**", exclude=True),
                RuleSpec(
                    "a/**",
                    "kv/data/a/**",
                    separator="--",
                    escape=True,
                    tags=TagTransform("{key}:{value}", ("a",), ("b",), {"token": "t"}, drop=True),
                    overrides=Overrides(
                        Mode.PROXY,
                        Writes.WRITE_THROUGH,
                        ConflictPolicy.MANUAL,
                        OnRemoteDelete.RETAIN,
                        RemoteChanges.PULL,
                    ),
                ),
            ),
            config=VAULT,
            tenant="acme",
            mode=Mode.SYNC,
            sync_interval=3600,
            conflict_resolution=ConflictPolicy.LOCAL_WINS,
            remote_changes=RemoteChanges.PULL,
            writes=Writes.WRITE_THROUGH,
            propagate_deletes=True,
            seed_remote=True,
            on_remote_delete=OnRemoteDelete.SOFT_DELETE,
            history=HistoryMode.FULL,
            max_versions=3,
            guard=Guard(1.0, 0, 0.25),
            max_error_ratio=0.1,
            max_staleness=86400,
            max_value_bytes=65536,
            max_secrets=5,
            rate_limit={
                "read": {"per_second": 20.0},
                "write": {"per_second": 0.5, "concurrency": 1},
            },
            call_budget={"per_day": 1000},
            events=({"feed": "vault-events"},),
            extra={
                "consistency_window": 0,
                "trim_grace": 7200,
                "proxy_purge_after": 0,
                "feed_min_interval": 5,
                "allow_blind_push": True,
                "allow_hide": True,
                "standby_for": "fed_other",
                "delete_only_owned": True,
            },
        ),
    )


def test_a_mapping_written_as_an_object_keeps_its_textual_order() -> None:
    mapping = {"z/**": "1/**", "a/**": "2/**", "m/**": "3/**"}
    (spec,) = from_file(backend(path_mapping=mapping))
    assert [rule.local for rule in spec.rules] == list(mapping)


@pytest.mark.parametrize(
    "body",
    [
        MINIMAL,
        FULL,
        backend(mode="sync", max_staleness=90),
        typed(
            "aws-secrets-manager",
            {"region": "us-east-1", "replica_regions": ["eu-west-1"]},
            filters={"name": ["prod/"], "tag-key": ["env"]},
        ),
    ],
)
def test_a_backend_described_and_read_again_is_the_same(body: Mapping[str, Any]) -> None:
    (spec,) = from_file(body)
    document = json.loads(json.dumps(describe(spec)))
    assert from_file(document) == (spec,)


def test_a_setting_that_was_not_given_is_described_as_not_given() -> None:
    (spec,) = from_file(MINIMAL)
    assert {"remote_changes", "history", "max_staleness"}.isdisjoint(describe(spec))


def test_a_backend_without_id_gets_the_same_one_at_each_reload() -> None:
    body = {k: v for k, v in MINIMAL.items() if k != "id"}
    (spec,) = from_file(body)
    assert spec.id == from_file(body)[0].id == derived_id("default", "hashicorp-production")
    assert spec.id.startswith("fed_")
    assert len(spec.id) == 16
    assert derived_id("a", "bc") != derived_id("ab", "c")


@pytest.mark.parametrize("verify", [True, False, "/etc/ca.pem", PEM])
def test_tls_verify_takes_a_switch_or_a_ca_bundle(verify: object) -> None:
    assert from_file(vault(tls_verify=verify))[0].config["tls_verify"] == verify


AWS: Mapping[str, Any] = {"region": "us-east-1", "credentials_path": "infra/aws/sm-reader"}
AZURE: Mapping[str, Any] = {
    "vault_url": "https://acme.vault.azure.net",
    "auth_method": "managed_identity",
}
GCP: Mapping[str, Any] = {"project_id": "acme-prod", "auth_method": "workload_identity"}
ROLE = "arn:aws:iam::123456789012:role/svsync"


@pytest.mark.parametrize(
    ("type_name", "config"),
    [
        ("hashicorp-vault", {**VAULT, "namespace": "acme/finance", "auth_mount": "approle-2"}),
        ("hashicorp-vault", {**VAULT, "auth_method": "kubernetes", "role": "svsync"}),
        ("aws-secrets-manager", AWS),
        ("aws-secrets-manager", {"region": "us-gov-west-1", "role_arn": ROLE, "external_id": "xy"}),
        ("aws-secrets-manager", {"region": "cn-north-1"}),
        (
            "aws-secrets-manager",
            {**AWS, "kms_key_id": "alias/acme", "replica_regions": ["eu-west-1"]},
        ),
        ("azure-key-vault", AZURE),
        ("azure-key-vault", {**AZURE, "auth_method": "certificate", "credentials_path": "a/b"}),
        ("gcp-secret-manager", GCP),
        ("gcp-secret-manager", {**GCP, "location": "europe-west3"}),
        ("gcp-secret-manager", {"project_id": "acme-prod", "credentials_path": "file:/run/gcp"}),
        (
            "gcp-secret-manager",
            {
                **GCP,
                "kms_key_id": "projects/p/locations/{location}/keyRings/r/cryptoKeys/k",
                "replica_locations": ["europe-west3", "us-east1"],
                "labels": {"team": "x"},
            },
        ),
    ],
)
def test_each_type_takes_the_keys_that_the_guides_print(
    type_name: str, config: Mapping[str, Any]
) -> None:
    (spec,) = from_file(typed(type_name, config))
    assert spec.config == config


def test_a_plugins_type_is_taken_as_it_stands_where_the_plugin_is_allowed() -> None:
    body = typed("acme-store", {"anything": {"at": [1, None]}}, filters={"x": "y"})
    assert "is not a type that this svsync has" in refusal(body)
    (spec,) = from_file(body, policy=Policy(allowed_plugins=("acme-store",)))
    assert (spec.config, spec.filters) == ({"anything": {"at": [1, None]}}, {"x": "y"})


# --- what is refused --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (backend(nmae=CANARY), "backends[0].nmae: is an unknown key; did you mean name?"),
        (backend(id="a b"), "backends[0].id: must be letters, digits"),
        (backend(name=""), "backends[0].name: must be letters"),
        (backend(name=7), "backends[0].name: must be letters, digits, `.`, `_`, `-`, not a number"),
        (backend(tenant="Acme"), "backends[0].tenant: must be a tenant's slug"),
        (backend(type="vault"), "backends[0].type: is not a type that this svsync has; did you"),
        (backend(type=CANARY), "type: is not a type that this svsync has"),
        (backend(config=[]), "backends[0].config: must be a mapping of keys to values, not a list"),
        ({k: v for k, v in MINIMAL.items() if k != "name"}, "backends[0].name: is missing; add"),
        ({k: v for k, v in MINIMAL.items() if k != "config"}, "backends[0].config: is missing"),
        (backend(mode="Sync"), "mode: must be proxy or sync"),
        (backend(mode=True), "mode: must be proxy or sync, not true or false"),
        (backend(sync_interval="29s"), "sync_interval: must be a duration from 30s to 7d"),
        (backend(sync_interval="8d"), "sync_interval: must be a duration from 30s to 7d"),
        (backend(sync_interval=29), "sync_interval: must be a duration from 30s to 7d"),
        (backend(sync_interval="15 m"), "sync_interval: must be a duration"),
        (backend(sync_interval=float("nan")), "sync_interval: must be a duration"),
        (backend(max_value_bytes="1MB"), "max_value_bytes: must be a size from 1B to 4MiB"),
        (backend(max_versions=0), "max_versions: must be a whole number from 1 to 10,000"),
        (backend(max_versions=True), "max_versions: must be a whole number"),
        (backend(max_error_ratio=float("nan")), "max_error_ratio: must be a number from 0 to 1"),
        (backend(max_error_ratio=float("inf")), "max_error_ratio: must be a number from 0 to 1"),
        (backend(guard={"max_delete_ratio": 1.1}), "guard.max_delete_ratio: must be a number"),
        (backend(guard={"max_delet_ratio": 1}), "did you mean max_delete_ratio?"),
        (
            backend(rate_limit={"reads": 1}),
            "rate_limit.reads: is an unknown key; did you mean read",
        ),
        (backend(rate_limit={"read": 0}), "rate_limit.read: must be a number from 0.001"),
        (backend(call_budget={"per_hour": 1}), "call_budget.per_hour: is an unknown key"),
        (backend(filters={"name": ["x"]}), "filters: is not for hashicorp-vault"),
        (backend(write_through=True, writes="local"), "write_through: contradicts writes: local"),
        (backend(write_through=False, writes="write_through"), "write_through: contradicts writes"),
        (backend(propagate_deletes=True), "propagate_deletes: needs writes: write_through"),
        (backend(seed_remote=True, write_through=False), "seed_remote: needs writes: write_thr"),
        (backend(standby_for="fed_abc"), "standby_for: must name another backend"),
    ],
)
def test_a_bad_setting_is_one_sentence_with_its_key(body: Mapping[str, Any], expected: str) -> None:
    assert expected in refusal(body)


@pytest.mark.parametrize(
    ("mapping", "expected"),
    [
        ([], "path_mapping: is empty"),
        ({}, "path_mapping: is empty"),
        ("a/**", "path_mapping: must be a list, not text"),
        (["a/**"], "path_mapping[0]: must be a mapping of keys to values, not text"),
        ({"a/**": 5}, 'path_mapping["a/**"]: must be a pattern such as `team/**`, not a number'),
        ({"a/**": ""}, 'path_mapping["a/**"]: must be a pattern'),
        ([{"local": "a/**"}], "path_mapping[0]: has no remote"),
        ([{"remote": "a/**"}], "path_mapping[0]: has no local"),
        ([{"exclude": True}], "path_mapping[0]: has no local"),
        ([{"local": "a/**", "exclude": True}], "path_mapping: only excludes"),
        ([{"local": "a/**", "exclude": True, "mode": "sync"}], "path_mapping[0]: excludes its"),
        (
            [{"local": "a/**", "remote": "b/**", "sync_interval": 60}],
            "[0].sync_interval: is an unk",
        ),
        ([{"local": "a\0", "remote": "b"}], "path_mapping[0].local: holds a control character"),
        (
            [{"local": "a", "remote": "b", "transform": {"tags": {"format": "x"}}}],
            "path_mapping[0].transform.tags.format: the tag format holds neither",
        ),
        (
            [{"local": "a", "remote": "b", "transform": {"separator": "/"}}],
            "path_mapping[0].transform.separator: must be",
        ),
    ],
)
def test_a_bad_mapping_is_one_sentence_with_its_rule(mapping: object, expected: str) -> None:
    assert expected in refusal(backend(path_mapping=mapping))


HELD = {"local": "a/**", "remote": "b/**", "remote_changes": "hold"}


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"remote_changes": "hold"}, "backends[0].on_remote_delete"),
        ({"conflict_resolution": "local_wins"}, "backends[0].on_remote_delete"),
        ({"path_mapping": [HELD]}, "backends[0].path_mapping[0].on_remote_delete"),
    ],
)
def test_soft_delete_is_refused_where_remote_changes_are_held(
    changes: Mapping[str, Any], where: str
) -> None:
    message = refusal(backend(on_remote_delete="soft_delete", **changes))
    assert message.startswith(f"{where}: soft_delete takes a remote delete over, which")


def test_soft_delete_is_fine_where_remote_changes_are_pulled_all_the_same() -> None:
    (spec,) = from_file(
        backend(
            on_remote_delete="soft_delete",
            conflict_resolution="local_wins",
            remote_changes="pull",
        )
    )
    assert spec.on_remote_delete is OnRemoteDelete.SOFT_DELETE


def test_deletes_may_be_propagated_where_one_rule_writes_through() -> None:
    rule = {"local": "a/**", "remote": "b/**", "writes": "write_through"}
    (spec,) = from_file(backend(path_mapping=[rule], propagate_deletes=True))
    assert spec.propagate_deletes


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        (backend(name="other"), "backends[1].id: is the id of backends[0] too"),
        (backend(id="fed_two"), "backends[1].name: is the name of backends[0] too"),
    ],
)
def test_two_backends_may_not_share_an_id_or_a_name(
    second: Mapping[str, Any], expected: str
) -> None:
    assert expected in refusal(MINIMAL, second)


def test_two_tenants_may_use_one_name() -> None:
    assert len(from_file(MINIMAL, backend(id="fed_two", tenant="acme"))) == 2


def test_a_standby_is_of_the_same_type_and_tenant() -> None:
    standby = typed("aws-secrets-manager", AWS, id="fed_two", name="b", standby_for="fed_abc")
    assert "backends[1].standby_for: must name a backend of the same type" in refusal(
        MINIMAL, standby
    )
    foreign = backend(id="fed_two", tenant="acme", standby_for="fed_abc")
    assert "same type and tenant" in refusal(MINIMAL, foreign)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"endpoint": None}, "config.endpoint: is missing"),
        ({"endpoint": "http://vault.internal"}, "config.endpoint: must begin with https://"),
        ({"endpoint": "https://u:c4n4ry@v"}, "config.endpoint: holds a credential"),
        ({"endpoint": "https://c4n4ry@v"}, "config.endpoint: must not hold a user or password"),
        ({"endpoint": "https://v?token"}, "config.endpoint: must not hold a query or fragment"),
        ({"endpoint": "https://v#"}, "config.endpoint: must not hold a query or fragment"),
        ({"endpoint": "https://v:99999"}, "config.endpoint: must be a URL with a valid host and"),
        ({"endpoint": "https://[::1"}, "config.endpoint: must be a URL with a valid host and"),
        ({"endpoint": "https://v\\@w"}, "config.endpoint: must be a URL of visible ASCII"),
        ({"endpoint": "https://v\u0430ult"}, "config.endpoint: must be a URL of visible ASCII"),
        ({"endpoint": "https://-v"}, "config.endpoint: must be a URL with a valid host name"),
        ({"endpoint": "vault.internal"}, "config.endpoint: must be a URL such as"),
        ({"endpoint": "https://"}, "config.endpoint: must be a URL such as"),
        ({"endpoint": "https://127.0.0.1:8200"}, "config.endpoint: is on loopback; set allow_loop"),
        ({"endpoint": "https://localhost"}, "config.endpoint: is on loopback"),
        ({"endpoint": "https://[::ffff:127.0.0.1]"}, "config.endpoint: is on loopback"),
        ({"endpoint": "https://169.254.169.254"}, "config.endpoint: is a link-local"),
        ({"endpoint": "https://[::ffff:169.254.169.254]"}, "config.endpoint: is a link-local"),
        ({"endpoint": "https://0.0.0.0"}, "config.endpoint: is a link-local, multicast, unspec"),
        ({"endpoint": "https://224.0.0.1"}, "config.endpoint: is a link-local, multicast"),
        ({"auth_method": "userpass"}, "config.auth_method: must be token, approle, kubernetes"),
        ({"auth_method": None}, "config.auth_method: is missing"),
        ({"auth_config_path": None}, "config.auth_config_path: is missing; approle needs"),
        ({"auth_config_path": "c4n4ry !"}, "config.auth_config_path: must be a reference"),
        ({"auth_config_path": "/etc/c4n4ry"}, "config.auth_config_path: must be a reference"),
        ({"auth_method": "kubernetes"}, "config.role: is missing; kubernetes signs in as a role"),
        ({"jwt_path": "/x"}, "config.jwt_path: is for auth_method: kubernetes only"),
        ({"aws_region": "us-east-1"}, "config.aws_region: is for auth_method: aws only"),
        (
            {"gcp_service_account": "a@b"},
            "config.gcp_service_account: is for auth_method: gcp only",
        ),
        (
            {"auth_method": "gcp", "role": "r", "gcp_service_account": "a@b.c"},
            "config.gcp_service_account: is for svsync's own identity, which auth_config_path",
        ),
        (
            {"auth_method": "kubernetes", "role": "r", "jwt_path": "/x"},
            "config.jwt_path: is for svsync's own identity, which auth_config_path replaces",
        ),
        ({"namespace": "a b"}, "config.namespace: must be letters, digits"),
        ({"namespace": "a\r\nX-Evil: 1"}, "config.namespace: holds a control character"),
        ({"namespace": "a\n"}, "config.namespace: must be letters, digits"),
        ({"tls_verify": "yes"}, "config.tls_verify: must be an absolute file path"),
        ({"tls_verify": 1}, "config.tls_verify: must be true, false or a CA bundle"),
        ({"tls_verify": "-----BEGIN c4n4ry"}, "config.tls_verify: must be one or more PEM"),
        ({"end_point": "c4n4ry"}, "config.end_point: is an unknown key; did you mean endpoint?"),
    ],
)
def test_a_bad_vault_config_is_one_sentence_with_its_key(
    config: Mapping[str, Any], expected: str
) -> None:
    assert expected in refusal(vault(**config))


@pytest.mark.parametrize("url", ["http://127.0.0.1:8200", "http://[::1]:1", "https://localhost:1"])
def test_loopback_is_reached_also_by_http_where_the_operator_allows_it(url: str) -> None:
    policy = Policy(allow_loopback=True)
    assert from_file(vault(endpoint=url), policy=policy)[0].config["endpoint"] == url
    assert "must begin with https" in refusal(vault(endpoint="http://10.0.0.1"), policy=policy)


@pytest.mark.parametrize(
    ("type_name", "config", "expected"),
    [
        ("aws-secrets-manager", {}, "config.region: is missing"),
        ("aws-secrets-manager", {"region": "us"}, "config.region: must be a region such as"),
        ("aws-secrets-manager", {**AWS, "role_arn": "x"}, "config.role_arn: must be a role's ARN"),
        ("aws-secrets-manager", {**AWS, "external_id": "xy"}, "config.external_id: goes with role"),
        (
            "aws-secrets-manager",
            {**AWS, "endpoint_url": "http://x"},
            "endpoint_url: must begin with",
        ),
        (
            "azure-key-vault",
            {**AZURE, "vault_url": "https://x.example.com"},
            "vault_url: must be a",
        ),
        (
            "azure-key-vault",
            {**AZURE, "auth_method": "certificate"},
            "credentials_path: is missing",
        ),
        ("azure-key-vault", {**AZURE, "credentials_path": "a"}, "is not used by managed_identity"),
        ("gcp-secret-manager", {"project_id": "A"}, "config.project_id: must be a project's id"),
        (
            "gcp-secret-manager",
            {**GCP, "credentials_path": "a"},
            "is not used by workload_identity",
        ),
        (
            "gcp-secret-manager",
            {**GCP, "location": "us-east1", "replica_locations": ["us-east1"]},
            "config.replica_locations: is for global secrets",
        ),
        (
            "gcp-secret-manager",
            {
                **GCP,
                "replica_locations": ["us-east1", "us-west1"],
                "kms_key_id": "projects/p/locations/us-east1/keyRings/r/cryptoKeys/k",
            },
            "config.kms_key_id: is one key for several locations",
        ),
        (
            "gcp-secret-manager",
            {**GCP, "kms_key_id": "projects/p/locations/{location}/keyRings/r/cryptoKeys/k"},
            "config.kms_key_id: holds {location}",
        ),
        ("gcp-secret-manager", {**GCP, "kms_key_id": "alias/k"}, "kms_key_id: must be a key"),
        (
            "gcp-secret-manager",
            {**GCP, "auth_method": "service_account"},
            "config.credentials_path: is missing; service_account needs",
        ),
    ],
)
def test_a_bad_cloud_config_is_one_sentence_with_its_key(
    type_name: str, config: Mapping[str, Any], expected: str
) -> None:
    assert expected in refusal(typed(type_name, config))


def test_filters_are_those_of_the_type() -> None:
    (aws,) = from_file(typed("aws-secrets-manager", AWS, filters={"tag-key": ["a"]}))
    assert aws.filters == {"tag-key": ["a"]}
    (gcp,) = from_file(typed("gcp-secret-manager", GCP, filters={"labels": {"env": "prod"}}))
    assert gcp.filters == {"labels": {"env": "prod"}}
    assert "filters.tags: is an unknown key" in refusal(
        typed("aws-secrets-manager", AWS, filters={"tags": ["a"]})
    )


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({}, "events[0].feed: is missing; add feed: vault-audit, "),
        (
            {"feed": "vault-event"},
            "; did you mean vault-events?",
        ),
        ({"feed": "xyzzy"}, "events[0].feed: must be vault-audit, vault-events, aws-sqs, "),
        (
            {"feed": "aws-sqs", "queue_url": "https://x"},
            "feed: is for aws-secrets-manager, not for",
        ),
        ({"feed": "vault-audit"}, "events[0].listen: is missing"),
        ({"feed": "vault-audit", "listen": "tcp:0.0.0.0:9390"}, "events[0].listen: must be unix:"),
        (
            {"feed": "vault-audit", "listen": "tcp:localhost:9390"},
            "events[0].listen: must be unix:",
        ),
        ({"feed": "vault-audit", "listen": "unix:relative"}, "events[0].listen: must be unix:"),
        ({"feed": "vault-events", "path": "x"}, "events[0].path: is an unknown key"),
    ],
)
def test_a_bad_feed_is_one_sentence_with_its_key(event: Mapping[str, Any], expected: str) -> None:
    assert expected in refusal(backend(events=[event]))


QUEUE = "https://sqs.us-east-1.amazonaws.com/123456789012/svsync"


@pytest.mark.parametrize(
    "url",
    [
        QUEUE,
        f"{QUEUE}.fifo",
        "https://vpce-0a-b1.sqs.us-east-1.vpce.amazonaws.com/123456789012/svsync",
        "https://queue.amazonaws.com/123456789012/svsync",
        "http://127.0.0.1:4566/123456789012/svsync",
    ],
)
def test_a_queue_is_named_by_its_url(url: str) -> None:
    entry = {"feed": "aws-sqs", "queue_url": url}
    (spec,) = from_file(typed("aws-secrets-manager", AWS, events=[entry]))
    assert spec.events == (entry,)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (None, "events[0].queue_url: is missing"),
        ("svsync", "events[0].queue_url: must be a queue's URL such as https://sqs."),
        (f"{QUEUE}?x=1", "events[0].queue_url: must be a queue's URL"),
        ("https://sqs.us-east-1.amazonaws.com/1/svsync", "queue_url: must be a queue's URL"),
        (
            QUEUE.replace("us-east-1", "eu-west-1"),
            "events[0].queue_url: is a queue of eu-west-1, and the secrets are of us-east-1",
        ),
    ],
)
def test_a_queue_that_cannot_be_the_right_one_is_refused(url: str | None, expected: str) -> None:
    entry = {"feed": "aws-sqs"} | ({"queue_url": url} if url else {})
    assert expected in refusal(typed("aws-secrets-manager", AWS, events=[entry]))


def test_event_grid_is_named_as_the_guides_print_it() -> None:
    entry = {"feed": "azure-eventgrid", "secret_path": "infra/azure/eventgrid"}
    filters = {"tags": {"team": "x"}}
    config = {**AZURE, "content_type": "application/json; charset=utf-8", "tls_verify": True}
    (spec,) = from_file(typed("azure-key-vault", config, events=[entry], filters=filters))
    assert (spec.events, spec.filters, spec.config) == ((entry,), filters, config)
    assert "feed: is for azure-key-vault, not for aws-secrets-manager" in refusal(
        typed("aws-secrets-manager", AWS, events=[entry])
    )


DIRECTORY = "72f988bf-86f1-41af-91ab-2d7cd011db47"
PINNED = {
    "feed": "azure-eventgrid",
    "entra_tenant_id": DIRECTORY,
    "entra_audience": "api://svsync",
    "entra_app_id": "4962773b-9cdb-44cf-a8bf-237846a00ab7",
}


def test_the_tokens_of_event_grid_are_pinned_as_the_guide_prints_it() -> None:
    (spec,) = from_file(typed("azure-key-vault", AZURE, events=[PINNED]))
    assert spec.events == (PINNED,)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"entra_tenant_id": None}, "events[0].entra_tenant_id: is missing"),
        ({"entra_audience": None}, "events[0].entra_audience: is missing"),
        (
            {"entra_tenant_id": None, "entra_audience": None},
            "events[0].entra_tenant_id: is missing",
        ),
        ({"entra_tenant_id": "common"}, "events[0].entra_tenant_id: must be an id such as"),
        ({"entra_tenant_id": DIRECTORY.upper()}, "in small letters"),
        ({"entra_audience": "two words"}, "events[0].entra_audience: must be"),
        ({"entra_app_id": "Event Grid"}, "events[0].entra_app_id: must be an id such as"),
    ],
)
def test_a_pin_that_is_not_whole_is_refused(changes: Mapping[str, Any], expected: str) -> None:
    entry = {name: value for name, value in {**PINNED, **changes}.items() if value is not None}
    assert expected in refusal(typed("azure-key-vault", AZURE, events=[entry]))


def test_tokens_of_another_cloud_are_not_pinned() -> None:
    config = {**AZURE, "vault_url": "https://acme.vault.azure.cn"}
    assert "events[0].entra_tenant_id: is for Azure's public cloud" in refusal(
        typed("azure-key-vault", config, events=[PINNED])
    )
    from_file(typed("azure-key-vault", config, events=[{"feed": "azure-eventgrid"}]))


def test_a_subscription_is_named_in_full() -> None:
    entry = {"feed": "gcp-pubsub", "subscription": "projects/acme/subscriptions/svsync"}
    (spec,) = from_file(typed("gcp-secret-manager", GCP, events=[entry]))
    assert spec.events == (entry,)
    short = {"feed": "gcp-pubsub", "subscription": "svsync"}
    assert "events[0].subscription: must be a subscription such as projects/" in refusal(
        typed("gcp-secret-manager", GCP, events=[short])
    )
    assert "feed: is for gcp-secret-manager, not for aws-secrets-manager" in refusal(
        typed("aws-secrets-manager", AWS, events=[entry])
    )


@pytest.mark.parametrize(
    "listen", ["unix:/run/svsync/audit.sock", "tcp:127.0.0.1:9390", "tcp:[::1]:1", "file:/a.log"]
)
def test_an_audit_feed_listens_on_this_machine(listen: str) -> None:
    (spec,) = from_file(backend(events=[{"feed": "vault-audit", "listen": listen}]))
    assert spec.events == ({"feed": "vault-audit", "listen": listen},)


WRONG: tuple[object, ...] = (
    None,
    True,
    -1,
    float("nan"),
    10**400,
    CANARY,
    "",
    [CANARY],
    {CANARY: CANARY},
    [[]],
    [None],
)


def places(value: Any) -> Iterator[tuple[str | int, ...]]:
    """The way to each member of a JSON value."""
    members = value.items() if isinstance(value, dict) else enumerate(value)
    for key, member in members:
        yield (key,)
        if isinstance(member, (dict, list)):
            yield from ((key, *rest) for rest in places(member))


def replaced(value: Any, way: tuple[str | int, ...], new: object) -> Any:
    copy = value.copy()
    copy[way[0]] = new if len(way) == 1 else replaced(copy[way[0]], way[1:], new)
    return copy


@pytest.mark.parametrize("way", list(places(FULL)), ids=lambda way: ".".join(map(str, way)))
def test_a_wrong_type_at_any_level_is_a_sentence_about_that_place(
    way: tuple[str | int, ...],
) -> None:
    for new in WRONG:
        error = problem_of(replaced(FULL, way, new))
        if error is not None:
            assert CANARY not in str(error).removeprefix(error.where)
            assert "\n" not in str(error)
            assert error.where.startswith("backends[0]")


def problem_of(body: Mapping[str, Any]) -> ConfigError | None:
    try:
        from_file(body)
    except ConfigError as e:
        return e
    return None


# --- literal credentials ------------------------------------------------------------------

RANDOM = "Zk3/" + CANARY + "Q7wE+9tYb2LmXv5sHd8RpJ1fGuN0aC"
assert len(RANDOM) == 40


@pytest.mark.parametrize(
    ("config", "key"),
    [
        *(
            ({name: CANARY}, name)
            for name in (
                "token", "secret_id", "role_id", "password", "secret_access_key", "access_key_id",
                "client_secret", "private_key", "vault-token", "credentials", "auth_config",
            )
        ),
        ({"auth_config_path": {"token": CANARY}}, "auth_config_path"),
        ({"auth_config": {"role_id": CANARY, "secret_id": CANARY}}, "auth_config"),
        ({"auth_config_path": f"hvs.CAESIJ{CANARY}aaaaaaaaaaaa"}, "auth_config_path"),
        ({"auth_config_path": f"s.{CANARY}AAAABBBBCCCCDDDD12"}, "auth_config_path"),
        ({"auth_config_path": f"b.{CANARY}AAAABBBBCCCCDDDD12"}, "auth_config_path"),
        ({"role": f"hvb.{CANARY}aaaaaaaaaaaaaaaa"}, "role"),
        ({"auth_config_path": f"AKIA{'Q' * 16}"}, "auth_config_path"),
        ({"auth_config_path": RANDOM}, "auth_config_path"),
        ({"auth_config_path": f'{{"token": "{CANARY}"}}'}, "auth_config_path"),
        ({"tls_verify": f"-----BEGIN RSA PRIVATE KEY-----\n{CANARY}\n"}, "tls_verify"),
        ({"tls_verify": f"{PEM}-----BEGIN PRIVATE KEY-----\n{CANARY}\n"}, "tls_verify"),
        ({"endpoint": f"https://svsync:{CANARY}@vault.internal"}, "endpoint"),
    ],
)  # fmt: skip
def test_a_literal_credential_is_refused_by_key_and_never_shown(
    tmp_path: Path, config: Mapping[str, Any], key: str
) -> None:
    text = json.dumps(vault(**config), indent=1)
    line = next(n for n, row in enumerate(text.split("\n"), 1) if f'"{key}"' in row)
    path = tmp_path / "f.yaml"
    path.write_text("backends:\n- " + text.replace("\n", "\n  "))
    with pytest.raises(ConfigError) as caught:
        load(str(path), {"HOME": "/home/ada"})
    assert str(caught.value).startswith(f"{path}:{line + 1}: backends[0].config.{key}: holds a ")
    assert CANARY not in str(caught.value)
    assert caught.value.code == "literal_credential"


def test_a_credential_as_a_key_is_refused_without_being_shown() -> None:
    assert "has a key that is a credential" in refusal(
        backend(path_mapping={f"hvs.CAESIJ{CANARY}aaaaaaaaaaaa": "x"})
    )


@pytest.mark.parametrize(
    "path",
    [
        "infra/hashicorp/approle",
        "prod/billing/stripe-credentials-2024/aws/rd",
        "Platform/Team1/Secrets/Reader/Prod/West",
        "9b74c9897bac770ffc029102a200c5de1f3e4a5b",
        "s.short",
    ],
)
def test_an_ordinary_path_is_not_taken_for_a_credential(path: str) -> None:
    assert from_file(vault(auth_config_path=path))[0].config["auth_config_path"] == path


def test_names_of_secrets_in_a_mapping_are_not_taken_for_credentials() -> None:
    mapping = {"app/token": "kv/data/token", "password": "kv/data/password"}
    (spec,) = from_file(backend(path_mapping=mapping))
    assert len(spec.rules) == 2


# --- the API --------------------------------------------------------------------------------


def test_the_api_makes_the_backend_that_the_file_would() -> None:
    body = {k: v for k, v in MINIMAL.items() if k != "id"}
    spec = from_api(body, tenant="acme")
    assert (spec.id, spec.tenant, spec.managed_by) == ("fed_new", "acme", ManagedBy.API)
    assert from_api(MINIMAL).id == "fed_abc"


@pytest.mark.parametrize(
    ("body", "where", "code"),
    [
        (vault(auth_config_path="env:TOKEN"), "config.auth_config_path", "reference_not_allowed"),
        (vault(auth_config_path="file:/etc/x"), "config.auth_config_path", "reference_not_allowed"),
        (vault(tls_verify=False), "config.tls_verify", "file_only_setting"),
        (vault(tls_verify="/etc/ca.pem"), "config.tls_verify", "file_only_setting"),
        (
            vault(auth_method="kubernetes", role="r", jwt_path="/x"),
            "config.jwt_path",
            "file_only_setting",
        ),
        (
            backend(events=[{"feed": "vault-audit", "listen": "file:/etc/shadow"}]),
            "events[0].listen",
            "reference_not_allowed",
        ),
        (
            backend(events=[{"feed": "vault-audit", "listen": "unix:/run/x"}]),
            "events[0].listen",
            "file_only_setting",
        ),
        (
            typed(
                "azure-key-vault",
                {**AZURE, "auth_method": "client_secret", "credentials_path": "infra/azure"},
            )
            | {"events": [PINNED]},
            "events[0].entra_tenant_id",
            "file_only_setting",
        ),
        (
            typed("azure-key-vault", {**AZURE, "auth_method": "certificate"})
            | {"events": [{"feed": "azure-eventgrid", "secret_path": "env:X"}]},
            "events[0].secret_path",
            "reference_not_allowed",
        ),
        (
            vault(auth_config_path={"token": CANARY}),
            "config.auth_config_path",
            "literal_credential",
        ),
        (vault(token=CANARY), "config.token", "literal_credential"),
        (vault(endpoint="https://127.0.0.1"), "config.endpoint", "invalid_configuration"),
        (backend(tenant="other"), "tenant", "invalid_configuration"),
    ],
)
def test_what_only_the_operators_file_may_say_is_refused_by_field(
    body: Mapping[str, Any], where: str, code: str
) -> None:
    error = api_refusal(body)
    assert (error.where, error.code) == (where, code)


def test_an_unknown_plugin_key_cannot_smuggle_a_reference_through_the_api() -> None:
    policy = Policy(allowed_plugins=("acme-store",))
    error = api_refusal(typed("acme-store", {"deep": [{"key": "file:/etc/x"}]}), policy)
    assert (error.where, error.code) == ("config.deep[0].key", "reference_not_allowed")


AMBIENT = [
    (vault(auth_method="kubernetes", role="r", auth_config_path=None), "config.auth_config_path"),
    (vault(auth_method="aws", role="r", auth_config_path=None), "config.auth_config_path"),
    (typed("aws-secrets-manager", {"region": "us-east-1"}), "config.credentials_path"),
    (typed("azure-key-vault", AZURE), "config.credentials_path"),
    (typed("gcp-secret-manager", GCP), "config.credentials_path"),
    (
        typed("aws-secrets-manager", {"region": "us-east-1", "role_arn": ROLE}),
        "config.external_id",
    ),
    (
        typed("aws-secrets-manager", {**AWS, "role_arn": ROLE, "external_id": "svsync:other:x"}),
        "config.external_id",
    ),
]


@pytest.mark.parametrize(("body", "where"), AMBIENT)
def test_the_daemons_own_identity_is_not_lent_to_an_api_made_backend(
    body: Mapping[str, Any], where: str
) -> None:
    error = api_refusal(body)
    assert (error.where, error.code) == (where, "ambient_identity_not_allowed")
    assert from_api(body, Policy(ambient_identity_tenants=("default",))).type == body["type"]
    assert from_file(body)[0].type == body["type"]


@pytest.mark.parametrize("last", ["fed_abc", "hashicorp-production"])
def test_an_api_made_role_is_assumed_with_the_external_id_of_its_backend(last: str) -> None:
    config = {"region": "us-east-1", "role_arn": ROLE, "external_id": f"svsync:default:{last}"}
    assert from_api(typed("aws-secrets-manager", config)).config == config


@pytest.mark.parametrize("body", [None, [], "c4n4ry", 5, {}, {"config": None}, {"events": {}}])
def test_any_json_body_gets_an_answer(body: object) -> None:
    with pytest.raises(ConfigError) as caught:
        backend_from_api(body, tenant="default", new_id=BackendId("fed_x"), policy=Policy())
    assert CANARY not in str(caught.value)
