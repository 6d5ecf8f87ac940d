"""What a set of backends may not be: two claims on one path, a key inside its own lock."""

import pytest

from svsync.domain.errors import ConfigError, MappingError
from svsync.domain.federation import BackendSpec, RuleSpec
from svsync.domain.ids import BackendId
from svsync.domain.mapping import RuleSet
from svsync.services.federation import refuse_circular_credentials, refuse_overlaps


def backend(
    name: str, local: str, *, credential: str = "env:TOKEN", tenant: str = "default"
) -> tuple[BackendSpec, RuleSet]:
    rules = (RuleSpec(local, "kv/data/**"),)
    spec = BackendSpec(
        BackendId(name), name, "hashicorp-vault", rules, {"auth_config_path": credential}, tenant
    )
    return spec, RuleSet.compile(rules)


def test_two_backends_that_claim_one_path_are_refused_with_that_path() -> None:
    with pytest.raises(MappingError, match="both claim ext/a") as refused:
        refuse_overlaps([backend("one", "ext/**"), backend("two", "ext/a/**")])
    assert refused.value.code == "mapping_overlap"


def test_two_tenants_may_use_the_same_path() -> None:
    refuse_overlaps([backend("one", "ext/**"), backend("two", "ext/**", tenant="other")])


def test_a_credential_that_its_own_backend_serves_is_refused() -> None:
    with pytest.raises(ConfigError, match="one → one") as refused:
        refuse_circular_credentials([backend("one", "ext/**", credential="ext/infra/vault")])
    assert refused.value.code == "circular_credential"


def test_a_credential_that_comes_back_through_others_is_refused() -> None:
    with pytest.raises(ConfigError, match="one → two → one"):
        refuse_circular_credentials(
            [backend("one", "a/**", credential="b/vault"), backend("two", "b/**", credential="a/x")]
        )


def test_a_credential_that_another_backend_serves_is_fine() -> None:
    refuse_circular_credentials(
        [backend("one", "a/**", credential="b/vault"), backend("two", "b/**")]
    )
