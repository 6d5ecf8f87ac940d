"""What a backend is authorised for, and where a credential may be sent."""

from dataclasses import replace
from typing import Any

import pytest
from tests.house import backend

from svsync.domain.authorisations import authorised_of, may_be_sent, origin_of
from svsync.domain.federation import Mode, Overrides, RuleSpec, TagTransform, Writes
from svsync.domain.ids import BackendId

SPEC = backend(
    [RuleSpec("a/**", "kv/**")],
    config={"endpoint": "https://vault:8200/x", "auth_config_path": "infra/v", "namespace": "n"},
)


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "other"},
        {"rules": (RuleSpec("a/*", "kv/*"),)},
        {"rules": (RuleSpec("a/**", "kv/**", separator="--"),)},
        {"rules": (RuleSpec("a/**", "kv/**", escape=True),)},
        {"rules": (RuleSpec("a/x", exclude=True), *SPEC.rules)},
        {"filters": {"prefix": "x"}},
        *({"config": {**SPEC.config, key: "other"}} for key in (*SPEC.config, "auth_mount")),
    ],
)
def test_another_endpoint_credential_or_mapping_is_another(changes: dict[str, Any]) -> None:
    assert authorised_of(replace(SPEC, **changes)) != authorised_of(SPEC)


@pytest.mark.parametrize(
    "changes",
    [
        {"id": BackendId("fed_x"), "name": "x"},
        {"mode": Mode.PROXY, "writes": Writes.DISABLED, "sync_interval": 60},
        {"rules": (RuleSpec("a/**", "kv/**", overrides=Overrides(mode=Mode.PROXY)),)},
        {"rules": (RuleSpec("a/**", "kv/**", tags=TagTransform(drop=True)),)},
        {"config": dict(reversed(list(SPEC.config.items())))},
    ],
)
def test_anything_else_is_not(changes: dict[str, Any]) -> None:
    assert authorised_of(replace(SPEC, **changes)) == authorised_of(SPEC)


def test_what_is_stored_is_read_as_it_was_written() -> None:
    """A newer svsync must not take what an older one bound for something else."""
    assert authorised_of(SPEC).mapping == (
        "1:1b465be09ca9c9fa7b03d30c909ac1dd4c0f598355c73962ed35b209aecf4f32"
    )
    assert (authorised_of(SPEC).credential, authorised_of(SPEC).origin) == (
        "infra/v",
        "https://vault:8200",
    )


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://Vault.Internal", "https://vault.internal:443"),
        ("https://vault.internal.:443/x/", "https://vault.internal:443"),
        ("http://127.0.0.1:8200", "http://127.0.0.1:8200"),
        ("https://[::1]:8200", "https://[::1]:8200"),
        ("vault.internal", ""),
        ("ftp://vault", ""),
        ("https://vault:x", ""),
        ("", ""),
    ],
)
def test_origins_are_written_in_one_way(url: str, origin: str) -> None:
    assert origin_of(url) == origin


@pytest.mark.parametrize(
    ("custom", "allowed"),
    [
        ({}, True),
        ({"svsync_endpoints": "https://vault"}, True),
        ({"svsync_endpoints": "https://other, https://VAULT:443/"}, True),
        ({"svsync_endpoints": ["https://other", "https://vault"]}, True),
        ({"svsync_endpoints": "http://vault"}, False),
        ({"svsync_endpoints": "https://vault:8200"}, False),
        ({"svsync_endpoints": "https://vault.evil"}, False),
        ({"svsync_endpoints": "vault"}, False),
        ({"svsync_endpoints": ""}, False),
        ({"svsync_endpoints": None}, False),
        ({"svsync_endpoints": {"https://vault": 1}}, False),
        ({"svsync_endpoints": [1]}, False),
    ],
)
def test_a_credential_is_sent_only_where_it_says(custom: dict[str, Any], allowed: bool) -> None:
    assert may_be_sent(custom, "https://vault:443") is allowed


def test_a_credential_that_says_where_is_not_sent_to_the_unnamed() -> None:
    assert not may_be_sent({"svsync_endpoints": "nonsense"}, "")
    assert may_be_sent({}, "")
