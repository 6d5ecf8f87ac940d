"""What is a token's text, whom does it name, and what is it good for?"""

import pytest

from svsync.domain.access import (
    Caller,
    ForbiddenError,
    Identity,
    IdentityType,
    Scope,
    is_token_id,
    token_hash,
    token_name,
    token_text,
)
from svsync.domain.errors import UsageError
from svsync.domain.ids import TenantId

ID = "tok_" + "0a" * 16
TEXT = token_text(TenantId(7), ID, bytes(range(32)))


def test_a_text_names_its_tenant_and_its_row() -> None:
    assert token_name(TEXT) == (7, ID)
    assert is_token_id(ID)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "svt_",
        TEXT + "\n",
        TEXT + "0",
        TEXT[:-1],
        " " + TEXT,
        TEXT.upper(),
        TEXT.replace("svt_7", "svt_0"),
        TEXT.replace("svt_7", "svt_07"),
        TEXT.replace("svt_7", "svt_-7"),
        TEXT.replace("svt_7", "svt_\u0667"),
        TEXT.replace("svt_7", "svt_2147483648"),
        TEXT.replace("svt_7", "svt_" + "9" * 5000),
        TEXT[:-1] + "\0",
        TEXT[:-1] + "\ud800",
        "ä" * 103,
    ],
)
def test_another_text_names_nobody(text: str) -> None:
    assert token_name(text) is None


def test_the_hash_is_of_the_whole_text() -> None:
    others = (TEXT.replace("svt_7", "svt_8"), TEXT.replace("0a0a", "0b0a", 1), TEXT[:-1] + "0")
    assert len({token_hash(text) for text in (TEXT, *others)}) == 4


def test_an_identity_is_a_service_account_or_a_user() -> None:
    assert Identity.parse("sa:billing-prod") == Identity(
        IdentityType.SERVICE_ACCOUNT, "sa:billing-prod"
    )
    assert Identity.parse("user:ada@example.com").type is IdentityType.USER


@pytest.mark.parametrize(
    "text", ["", "sa:", "ci", "group:x", "sa:a b", "sa:" + "x" * 129, "sa:a\n"]
)
def test_another_name_is_no_identity(text: str) -> None:
    with pytest.raises(UsageError, match="sa:NAME or user:NAME"):
        Identity.parse(text)


def caller(*scopes: Scope) -> Caller:
    return Caller(TenantId(1), "default", Identity.parse("sa:x"), ID, frozenset(scopes))


def test_a_scope_is_good_for_itself_alone() -> None:
    caller(Scope.FEDERATION_READ).require(Scope.FEDERATION_READ)
    for held in set(Scope) - {Scope.FEDERATION_WRITE, Scope.ADMIN}:
        with pytest.raises(ForbiddenError, match="federation:write"):
            caller(held).require(Scope.FEDERATION_WRITE)


def test_admin_stands_for_every_scope() -> None:
    for scope in Scope:
        caller(Scope.ADMIN).require(scope)
