"""Does the connection test tell what a token may write, without writing?"""

from collections.abc import Callable, Mapping

import pytest
from tests.openbao import Bao, guide_policy, new_mount
from tests.vault_writes import older_policy, writing_policy
from tests.vaults import opened, spec_of

from svsync.domain.federation import BackendSpec, Mode, Overrides, RuleSpec, Writes
from svsync.domain.mapping import RuleSet
from svsync.embedded.openbao import OpenBaoServer
from svsync.ports import Check

ASKING = 'path "sys/capabilities-self" { capabilities = ["update"] }'


def both_ways(bao: Bao, **settings: object) -> BackendSpec:
    given = {"mode": Mode.SYNC, "writes": Writes.WRITE_THROUGH, **settings}
    return spec_of(bao, **given)  # type: ignore[arg-type]


async def looked_at(spec: BackendSpec, token: str) -> tuple[str, Mapping[str, Check]]:
    """The status, and the checks by their names with `kv` for the mount."""
    mount = spec.rules[0].remote.partition("/")[0]
    async with opened(spec, token) as backend:
        found = await backend.connect(RuleSet.compile(spec.rules).list_prefixes())
    return found.status, {check.name.replace(mount, "kv"): check for check in found.checks}


def states(checks: Mapping[str, Check]) -> dict[str, str]:
    verbs = ("write", "tag", "delete", "undelete")
    return {n: c.state for n, c in checks.items() if n.partition(" ")[0] in verbs}


async def test_each_right_to_write_that_is_missing_is_named_with_its_line(kv2: Bao) -> None:
    token = await kv2.token(guide_policy(kv2.mount))
    status, checks = await looked_at(both_ways(kv2, propagate_deletes=True), token)
    assert status == "degraded"
    assert states(checks) == {
        "write kv/data/": "missing",
        "tag kv/data/": "missing_optional",
        "delete kv/data/": "missing",
        "undelete kv/data/": "missing",
    }
    # Whoever pastes the lines that are told may write.
    lines = "\n".join(check.hint for check in checks.values())
    assert f'path "{kv2.mount}/data/*" {{ capabilities = ["read", "create", "update"] }}' in lines
    _, checks = await looked_at(both_ways(kv2, propagate_deletes=True), await kv2.token(lines))
    assert set(states(checks).values()) == {"granted"}


@pytest.mark.parametrize("policy", [writing_policy, older_policy])
async def test_any_way_that_a_write_can_take_is_enough(
    kv2: Bao, policy: Callable[[str], str]
) -> None:
    spec = both_ways(kv2, propagate_deletes=True)
    status, checks = await looked_at(spec, await kv2.token(policy(kv2.mount)))
    assert (status, set(states(checks).values())) == ("healthy", {"granted"})


async def test_nothing_is_written_by_looking(kv2: Bao) -> None:
    spec = both_ways(kv2, propagate_deletes=True)
    await looked_at(spec, kv2.root_token)
    with pytest.raises(Exception, match="404"):
        await kv2.request("GET", f"{kv2.mount}/metadata/?list=true")


async def test_to_overwrite_alone_is_not_enough(kv2: Bao) -> None:
    policy = guide_policy(kv2.mount).replace('["read", "list"]', '["read", "update"]', 1)
    _, checks = await looked_at(both_ways(kv2), await kv2.token(policy))
    assert states(checks)["write kv/data/"] == "missing", "nothing new could be made"


async def test_only_what_is_written_through_is_looked_at(kv2: Bao) -> None:
    mount = kv2.mount
    shared = Overrides(writes=Writes.WRITE_THROUGH)
    rules = (
        RuleSpec("ext/one", f"{mount}/data/one", overrides=shared),
        RuleSpec("ext/shared/**", f"{mount}/data/shared/**", overrides=shared),
        RuleSpec("ext/live/**", f"{mount}/data/live/**", overrides=Overrides(mode=Mode.PROXY)),
        RuleSpec("ext/**", f"{mount}/data/**"),
    )
    spec = spec_of(kv2, rules=rules, mode=Mode.SYNC)
    granted = f'path "{mount}/data/shared/*" {{ capabilities = ["create", "update"] }}\n'
    _, checks = await looked_at(spec, await kv2.token(guide_policy(mount) + granted))
    assert states(checks) == {
        "write kv/data/one": "missing",
        "tag kv/data/one": "missing_optional",
        "write kv/data/shared/": "granted",
        "tag kv/data/shared/": "missing_optional",
    }
    assert checks["write kv/data/one"].hint.startswith(f'path "{mount}/data/one" ')
    assert checks["tag kv/data/shared/"].hint == (
        f'path "{mount}/metadata/shared/*" {{ capabilities = ["read", "list", "patch"] }}'
    )


async def test_kv1_knows_neither_tags_nor_deletes(kv1: Bao) -> None:
    spec = both_ways(kv1, extra={"allow_blind_push": True})
    _, checks = await looked_at(spec, await kv1.token(guide_policy(kv1.mount, version=1)))
    assert states(checks) == {"write kv/": "missing"}
    status, checks = await looked_at(spec, await kv1.token(writing_policy(kv1.mount, version=1)))
    assert (status, states(checks)) == ("healthy", {"write kv/": "granted"})


async def test_a_token_that_may_not_ask_is_told_how_it_could(kv2: Bao) -> None:
    token = await kv2.token(writing_policy(kv2.mount), no_default_policy=True)
    status, checks = await looked_at(both_ways(kv2), token)
    assert (status, states(checks)) == ("healthy", {})
    asking = checks["look up what it may write"]
    assert (asking.state, asking.hint) == ("missing_optional", ASKING)
    token = await kv2.token(writing_policy(kv2.mount) + ASKING, no_default_policy=True)
    _, checks = await looked_at(both_ways(kv2), token)
    assert set(states(checks).values()) == {"granted"}
    assert "look up what it may write" not in checks


async def test_a_backend_that_only_reads_is_asked_for_no_more(kv2: Bao) -> None:
    token = await kv2.token(guide_policy(kv2.mount), no_default_policy=True)
    _, checks = await looked_at(spec_of(kv2), token)
    assert states(checks) == {}
    assert "look up what it may write" not in checks


async def test_rights_are_those_of_the_namespace(openbao: OpenBaoServer) -> None:
    await openbao.request("PUT", "sys/namespaces/rights")
    bao = await new_mount(openbao, namespace="rights")
    _, checks = await looked_at(both_ways(bao), await bao.token(writing_policy(bao.mount)))
    assert states(checks) == {"write kv/data/": "granted", "tag kv/data/": "granted"}
    _, checks = await looked_at(both_ways(bao), await bao.token(guide_policy(bao.mount)))
    assert states(checks)["write kv/data/"] == "missing"
