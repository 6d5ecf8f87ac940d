"""Tokens and numbers made of what Key Vault tells: whole seconds, and no version's id."""

from datetime import UTC, datetime
from typing import Any

import pytest

from svsync.backends.azure.entries import (
    Version,
    entry_of,
    is_young,
    numbered,
    order_of,
    same_second,
    value_token,
    version_of,
)
from svsync.clients.azure.settings import CLOUDS, AzureSettings
from svsync.config.endpoints import KEY_VAULT_SUFFIXES
from svsync.domain.errors import ConfigError

T = 1_800_000_000


def at(second: int) -> datetime:
    return datetime.fromtimestamp(second, UTC)


def version(
    now: int = T + 100, *, id: str = "", deleted: bool = False, **attributes: Any
) -> Version:
    item = {
        "id": f"https://kv.vault.azure.net/secrets/a/{id}".rstrip("/"),
        "attributes": {"created": T, "updated": T, "enabled": True, **attributes},
    }
    found = version_of(item, at(now), deleted=deleted)
    assert found is not None
    return found


def test_token_is_another_one_once_no_second_write_can_look_like_it() -> None:
    tokens = [value_token(version(T + n), at(T + n)) for n in range(5)]
    assert tokens[0] == tokens[1] == tokens[2] != tokens[3] == tokens[4]
    assert [is_young(token) for token in tokens] == [True, True, True, False, False]
    assert same_second(tokens[0], tokens[4])
    assert not same_second(tokens[0], value_token(version(updated=T + 1), at(T + 100)))


def test_second_that_no_database_could_hold_is_none() -> None:
    odd = version(created=10**30, updated=-1, exp=10**30)
    assert (odd.created, odd.updated, odd.expires) == (0, 0, None)


def test_state_is_told_by_the_clock_of_the_vault() -> None:
    states = {
        "": version(exp=T + 101, nbf=T + 99),
        "disabled": version(enabled=False),
        "expired": version(exp=T + 100),
        "not_yet_valid": version(nbf=T + 101),
        "deleted": version(deleted=True),
    }
    assert {state: one.state for state, one in states.items()} == {s: s for s in states}
    assert [state for state, one in states.items() if one.gone] == [
        "disabled",
        "expired",
        "deleted",
    ]
    tokens = {value_token(one, at(T + 100)) for one in states.values()}
    assert len(tokens) == len(states)


def test_numbers_rise_with_the_seconds_and_the_current_one_is_the_last_of_its_own() -> None:
    versions = [version(id=i, created=c) for i, c in (("b", T), ("z", T + 1), ("a", T + 1))]
    found = [(number, one.version) for number, one in numbered(versions, "a")]
    assert [name for _, name in found] == ["b", "z", "a"]
    numbers = [number for number, _ in found]
    assert numbers == sorted(set(numbers))
    assert numbers[0] == order_of(versions[0])
    assert numbers[2] == order_of(versions[2])
    assert max(numbers) < 2**53, "a number that JSON keeps"


def test_entry_shows_neither_the_tag_of_a_push_nor_what_has_no_name() -> None:
    item: dict[str, Any] = {
        "id": "https://kv.vault.azure.net/secrets/a",
        "attributes": None,
        "tags": {"svsync-push": "psh_1", "team": "x"},
    }
    found = version_of(item, at(T))
    assert found is not None
    assert entry_of(found, at(T)).tags == {"team": "x"}
    for odd in ({}, {"id": 7}, {"id": "https://kv.vault.azure.net/secrets/"}):
        assert version_of(odd, at(T)) is None


def test_each_cloud_whose_vaults_may_be_named_has_who_signs_in() -> None:
    assert tuple(cloud.suffix for cloud in CLOUDS) == KEY_VAULT_SUFFIXES
    settings = AzureSettings("https://acme.vault.azure.cn", "client_secret")
    assert settings.cloud.authority == "login.chinacloudapi.cn"
    with pytest.raises(ConfigError, match="vault_url"):
        _ = AzureSettings("https://acme.example.com", "client_secret").cloud
