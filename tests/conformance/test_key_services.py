"""Does each kind of key service keep the promises of `ports.KeyService`?"""

from pathlib import Path

import pytest
from tests.key_services import Home

from svsync.domain.errors import KeyServiceAwayError, KeyServiceError

KEY = bytes(range(100, 132))
CONTEXT = {"svsync": "root", "of": "tests"}


def silent(home: Home, problem: BaseException) -> str:
    """What is said, in one sentence that gives nothing away."""
    text = str(problem)
    for secret in (*home.secrets, KEY.hex(), repr(KEY)):
        assert secret not in text
    assert "\n" not in text
    assert problem.__cause__ is None
    return text


async def test_what_was_wrapped_opens_with_its_context_in_any_order(
    home: Home, state_dir: Path
) -> None:
    wrapped = await home.service(state_dir).wrap(KEY, CONTEXT)
    assert KEY not in wrapped
    again = home.service(state_dir)
    assert await again.unwrap(wrapped, dict(reversed(CONTEXT.items()))) == KEY
    if home.seals:
        assert await again.wrap(KEY, CONTEXT) != wrapped


@pytest.mark.parametrize("other", [{}, {"svsync": "root"}, {"svsync": "root", "of": "others"}])
async def test_another_context_does_not_open_it(
    home: Home, state_dir: Path, other: dict[str, str]
) -> None:
    service = home.service(state_dir)
    wrapped = await service.wrap(KEY, CONTEXT)
    with pytest.raises(KeyServiceError, match="does not open") as refused:
        await service.unwrap(wrapped, other)
    assert not isinstance(refused.value, KeyServiceAwayError)
    assert service.reference in silent(home, refused.value)


async def test_another_key_does_not_open_it(home: Home, state_dir: Path) -> None:
    wrapped = await home.service(state_dir).wrap(KEY, CONTEXT)
    other = home.service(state_dir, kms_key_id=home.other)
    # Key Vault lacks the version that wrapped; moto has another word for it than AWS.
    says = "does not open|no such version|denies decrypt"
    with pytest.raises(KeyServiceError, match=says) as refused:
        await other.unwrap(wrapped, CONTEXT)
    assert not isinstance(refused.value, KeyServiceAwayError)
    assert other.reference in silent(home, refused.value)


async def test_what_is_damaged_does_not_open(home: Home, state_dir: Path) -> None:
    service = home.service(state_dir)
    wrapped = await service.wrap(KEY, CONTEXT)
    changed = bytearray(wrapped)
    changed[-3 if home.seals else 5] ^= 1
    for damaged in (bytes(changed), wrapped[:-1], wrapped[:9], wrapped[:4], b""):
        with pytest.raises(KeyServiceError) as refused:
            await service.unwrap(damaged, CONTEXT)
        silent(home, refused.value)


async def test_what_another_kind_wrapped_is_not_even_sent(home: Home, state_dir: Path) -> None:
    away = home.service(state_dir, kms_access=home.away)
    with pytest.raises(KeyServiceError, match="was not made by") as refused:
        await away.unwrap(b"sv?1" + bytes(60), CONTEXT)
    assert not isinstance(refused.value, KeyServiceAwayError)


async def test_key_that_is_not_there_is_said(home: Home, state_dir: Path) -> None:
    missing = home.service(state_dir, kms_key_id=home.missing)
    with pytest.raises(KeyServiceError) as refused:
        await missing.wrap(KEY, CONTEXT)
    assert not isinstance(refused.value, KeyServiceAwayError)
    assert missing.reference in silent(home, refused.value)


async def test_key_service_that_is_away_is_told_from_one_that_refuses(
    home: Home, state_dir: Path
) -> None:
    wrapped = await home.service(state_dir).wrap(KEY, CONTEXT)
    away = home.service(state_dir, kms_key_id=home.away_key or home.key, kms_access=home.away)
    with pytest.raises(KeyServiceAwayError) as refused:
        await away.unwrap(wrapped, CONTEXT)
    assert away.reference in silent(home, refused.value)


async def test_key_that_was_disabled_opens_nothing(home: Home, state_dir: Path) -> None:
    service = home.service(state_dir)
    wrapped = await service.wrap(KEY, CONTEXT)
    await home.disable()
    with pytest.raises(KeyServiceError) as refused:
        await service.unwrap(wrapped, CONTEXT)
    assert not isinstance(refused.value, KeyServiceAwayError)
    silent(home, refused.value)


async def test_login_that_cannot_be_read_is_said(home: Home, state_dir: Path) -> None:
    wrapped = await home.service(state_dir).wrap(KEY, CONTEXT)
    nameless = {**home.access, "credentials_path": "env:NOBODY_SET_THIS"}
    service = home.service(state_dir, kms_access=nameless)
    with pytest.raises(KeyServiceError, match="NOBODY_SET_THIS") as refused:
        await service.unwrap(wrapped, CONTEXT)
    silent(home, refused.value)
