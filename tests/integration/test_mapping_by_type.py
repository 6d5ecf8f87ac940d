"""Rules are held against what a type of backend can name when they are configured, and
`separator` and `escape` spell what the other side forbids, both ways."""

from typing import Any, Final

import pytest

from svsync.config.model import Settings
from svsync.domain.errors import MappingError
from svsync.domain.federation import BackendSpec, RuleSpec
from svsync.domain.ids import BackendId, LocalPath, RemotePath
from svsync.domain.mapping import Mapped, RuleSet, Unmapped
from svsync.registry import _BACKENDS, Registry

CONFIG: Final[dict[str, dict[str, Any]]] = {
    "hashicorp-vault": {
        "endpoint": "https://vault.internal",
        "auth_method": "token",
        "auth_config_path": "a/b",
    },
    "aws-secrets-manager": {"region": "eu-central-1", "credentials_path": "a/b"},
    "azure-key-vault": {
        "vault_url": "https://acme.vault.azure.net",
        "auth_method": "client_secret",
        "credentials_path": "a/b",
    },
    "gcp-secret-manager": {"project_id": "acme-prod", "credentials_path": "a/b"},
}


def rules(kind: str, *mapping: RuleSpec) -> RuleSet:
    """As the registry compiles them for a type, when a backend is applied."""

    async def nothing(*_: object) -> Any:
        raise AssertionError("no credential is read to check rules")

    spec = BackendSpec(BackendId("fed_one"), "one", kind, mapping, config=CONFIG[kind])
    compiled, _ = Registry(Settings(state_dir="."), nothing).rules(spec)
    return compiled


def test_each_type_has_its_cases_here() -> None:
    assert set(CONFIG) == set(_BACKENDS)


@pytest.mark.parametrize(
    ("kind", "mapping", "where", "says"),
    [
        (
            "hashicorp-vault",
            [RuleSpec("x/**", "kv/data/**", separator="--")],
            "path_mapping[0].transform.separator",
            "have '/' already",
        ),
        (
            "aws-secrets-manager",
            [RuleSpec("x/**", "**", separator="--")],
            "path_mapping[0].transform.separator",
            "have '/' already",
        ),
        (
            "aws-secrets-manager",
            [RuleSpec("x/**", "a b/**")],
            "path_mapping[0].remote",
            "no name of this backend can look like this",
        ),
        (
            "azure-key-vault",
            [RuleSpec("x/**", "apps/**")],
            "path_mapping[0].remote",
            "set transform.separator",
        ),
        (
            "azure-key-vault",
            [RuleSpec("x/**", "**", separator="_")],
            "path_mapping[0].transform.separator",
            "the separator cannot be used",
        ),
        (
            "azure-key-vault",
            [RuleSpec("x/*", "Apps-*"), RuleSpec("y/*", "apps-*")],
            "path_mapping[1].remote",
            "ignores case",
        ),
        (
            "gcp-secret-manager",
            [RuleSpec("x/**", "apps/**")],
            "path_mapping[0].remote",
            "set transform.separator",
        ),
        (
            "gcp-secret-manager",
            [RuleSpec("x/**", "**", separator=".")],
            "path_mapping[0].transform.separator",
            "the separator cannot be used",
        ),
    ],
)
def test_rule_that_the_type_cannot_name_is_refused_where_it_stands(
    kind: str, mapping: list[RuleSpec], where: str, says: str
) -> None:
    with pytest.raises(MappingError, match=says) as caught:
        rules(kind, *mapping)
    assert caught.value.where == where


@pytest.mark.parametrize(
    ("kind", "rule", "local", "remote"),
    [
        ("aws-secrets-manager", RuleSpec("x/**", "app/**", escape=True), "x/a_x2Bb", "app/a+b"),
        ("azure-key-vault", RuleSpec("x/**", "**", separator="--"), "x/db/pass-1", "db--pass-1"),
        ("azure-key-vault", RuleSpec("x/*", "*", escape=True), "x/a.b", "a-x2Eb"),
        ("gcp-secret-manager", RuleSpec("x/**", "**", separator="--"), "x/db/pass_1", "db--pass_1"),
        ("gcp-secret-manager", RuleSpec("x/*", "*", escape=True), "x/a.b", "a_x2Eb"),
        (
            "gcp-secret-manager",
            RuleSpec("x/**", "**", separator="--", escape=True),
            "x/db/a.b",
            "db--a_x2Eb",
        ),
    ],
)
def test_what_the_other_side_forbids_is_spelled_and_read_back(
    kind: str, rule: RuleSpec, local: str, remote: str
) -> None:
    compiled = rules(kind, rule)
    there = compiled.to_remote(LocalPath(local))
    assert isinstance(there, Mapped)
    assert there.remote == remote
    back = compiled.to_local(RemotePath(remote))
    assert isinstance(back, Mapped)
    assert back.local == local


@pytest.mark.parametrize(
    ("kind", "rule", "remote", "reason"),
    [
        ("aws-secrets-manager", RuleSpec("x/**", "app/**"), "app/a+b", "illegal_path"),
        ("azure-key-vault", RuleSpec("x/**", "**", separator="--"), "a---b", "ambiguous_separator"),
        (
            "gcp-secret-manager",
            RuleSpec("x/**", "**", separator="--"),
            "a---b",
            "ambiguous_separator",
        ),
    ],
)
def test_name_without_a_counterpart_is_skipped_with_its_reason(
    kind: str, rule: RuleSpec, remote: str, reason: str
) -> None:
    found = rules(kind, rule).to_local(RemotePath(remote))
    assert isinstance(found, Unmapped)
    assert found.reason == reason
