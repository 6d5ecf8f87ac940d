"""A federated path that is not to be written here is not written, secret or none."""

import pytest
from tests.house import House

from svsync.domain.errors import SvsyncError
from svsync.domain.federation import Mode, Overrides, RuleSpec, Writes

PROXY = Overrides(mode=Mode.PROXY)
DISABLED = Overrides(writes=Writes.DISABLED)


async def refusal(house: House, path: str) -> str:
    with pytest.raises(SvsyncError) as refused:
        await house.write(path, {"k": "local"})
    assert not await house.rows("secrets", path=path, current_version=2)
    return refused.value.code


@pytest.mark.parametrize(
    ("overrides", "code"),
    [(PROXY, "proxied_path_read_only"), (DISABLED, "federated_path_read_only")],
    ids=["proxy", "disabled"],
)
async def test_path_below_a_read_only_rule_is_refused_where_no_secret_is_yet(
    house: House, overrides: Overrides, code: str
) -> None:
    free, shut = RuleSpec("ext/a/**", "kv/a/**"), RuleSpec("ext/b/**", "kv/b/**")
    await house.configure(rules=(free, RuleSpec(shut.local, shut.remote, overrides=overrides)))
    assert await refusal(house, "ext/b/new") == code
    assert not await house.rows("secrets")
    assert await house.write("ext/a/new", {"k": "local"}) == 1
    assert await house.write("elsewhere/new", {"k": "local"}) == 1


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"mode": Mode.PROXY}, "proxied_path_read_only"),
        ({"writes": Writes.DISABLED}, "federated_path_read_only"),
    ],
    ids=["proxy", "disabled"],
)
async def test_backend_that_is_read_only_as_a_whole_refuses_every_path_of_its_own(
    house: House, changes: dict[str, object], code: str
) -> None:
    await house.configure(**changes)
    assert await refusal(house, "ext/new") == code
    assert not await house.rows("secrets")


async def test_synced_secret_below_a_read_only_rule_is_refused_too(house: House) -> None:
    await house.configure(
        rules=(RuleSpec("ext/a/**", "kv/a/**"), RuleSpec("ext/b/**", "kv/b/**", overrides=DISABLED))
    )
    house.there.put("kv/b/x", {"k": "1"})
    await house.run()
    assert await refusal(house, "ext/b/x") == "federated_path_read_only"
    assert await house.data("ext/b/x") == {"k": "1"}
