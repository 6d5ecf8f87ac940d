"""Does a sealed text open in its place, and in no other?

`vectors/envelope` and `vectors/wrapped_key` hold a case each: inputs and what is
expected, by name. A case with a `base` is that case with something changed, and
must fail as it says. They were made by another program from the construction
as the module describes it.
"""

import traceback
from collections.abc import Iterable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import example, given, settings
from hypothesis import strategies as st

from svsync.domain.envelope import (
    Binding,
    KeyPurpose,
    Purpose,
    cipher_of,
    open_sealed,
    padded,
    seal,
    unpadded,
    unwrap_key,
    wrap_key,
)
from svsync.domain.errors import KeyServiceError
from svsync.domain.ids import KeyId, LocalPath, SecretId, TenantId

VECTORS = Path(__file__).parent / "vectors"
KEY = bytes(32)
NONCE = bytes(12)
PLACE = Binding(TenantId(1), SecretId(2), LocalPath("app/db"), 3, KeyId(4), Purpose.VALUE)

Case = dict[str, str]


def read(file: Path) -> Case:
    lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    case = {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return {**read(file.with_name(case["base"])), **case} if "base" in case else case


def cases(folder: str, *, opens: bool) -> list[object]:
    files = sorted((VECTORS / folder).glob("*.txt"))
    found = [(file.stem, read(file)) for file in files]
    return [
        pytest.param(case, id=name) for name, case in found if (case["expect"] == "opens") is opens
    ]


def binding(case: Case) -> Binding:
    return Binding(
        TenantId(int(case["tenant_id"])),
        SecretId(int(case["secret_id"])),
        LocalPath(case["path"]),
        int(case["version"]),
        KeyId(int(case["key_id"])),
        Purpose(case["purpose"]),
        extra=case["extra"],
        format=int(case.get("format", 1)),
    )


def hexes(case: Case, names: Iterable[str]) -> list[bytes]:
    return [bytes.fromhex(case[name]) for name in names]


# --- vectors ----------------------------------------------------------------------


@pytest.mark.parametrize("case", cases("envelope", opens=True))
def test_a_vector_is_sealed_to_its_very_bytes_and_opens(case: Case) -> None:
    key, nonce, plaintext, sealed = hexes(case, ("key", "nonce", "plaintext", "sealed"))
    assert binding(case).associated_data().hex() == case["associated_data"]
    assert seal(cipher_of(key), nonce, binding(case), plaintext) == sealed
    assert open_sealed(cipher_of(key), nonce, binding(case), sealed) == plaintext


@pytest.mark.parametrize("case", cases("envelope", opens=False))
def test_a_changed_vector_fails_as_it_says(case: Case) -> None:
    key, nonce, sealed = hexes(case, ("key", "nonce", "sealed"))
    with pytest.raises(KeyServiceError) as refused:
        open_sealed(cipher_of(key), nonce, binding(case), sealed)
    assert refused.value.code == case["expect"]


@pytest.mark.parametrize("case", cases("wrapped_key", opens=True))
def test_a_key_is_wrapped_to_its_very_bytes_and_opens(case: Case) -> None:
    root, nonce, key, wrapped = hexes(case, ("root", "nonce", "data_key", "wrapped"))
    place = (
        TenantId(int(case["tenant_id"])),
        KeyId(int(case["key_id"])),
        KeyPurpose(case["purpose"]),
    )
    assert wrap_key(cipher_of(root), nonce, *place, key) == wrapped
    assert unwrap_key(cipher_of(root), *place, wrapped) == key


@pytest.mark.parametrize("case", cases("wrapped_key", opens=False))
def test_a_changed_wrapped_key_fails_as_it_says(case: Case) -> None:
    root, wrapped = hexes(case, ("root", "wrapped"))
    place = (
        TenantId(int(case["tenant_id"])),
        KeyId(int(case["key_id"])),
        KeyPurpose(case["purpose"]),
    )
    with pytest.raises(KeyServiceError) as refused:
        unwrap_key(cipher_of(root), *place, wrapped)
    assert refused.value.code == case["expect"]


# --- places -----------------------------------------------------------------------

numbers = st.integers(0, 2**64 - 1)
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
bindings = st.builds(
    Binding, numbers, numbers, names, numbers, numbers, st.sampled_from(Purpose), names,
    st.integers(0, 255),
)  # fmt: skip
quick = settings(max_examples=80, deadline=None)


@quick
@given(bindings, bindings)
@example(PLACE._replace(path=LocalPath("ab")), PLACE._replace(path=LocalPath("a"), extra="b"))
@example(
    PLACE._replace(purpose=Purpose.VALUE, path=LocalPath("")),
    PLACE._replace(purpose=Purpose.RAW, path=LocalPath("ue")),
)
def test_no_two_places_have_the_same_associated_data(one: Binding, other: Binding) -> None:
    assert (one.associated_data() == other.associated_data()) is (one == other)


@quick
@given(bindings, st.binary(max_size=100), st.binary(min_size=12, max_size=12))
def test_whatever_is_sealed_opens_again(place: Binding, plaintext: bytes, nonce: bytes) -> None:
    sealed = seal(cipher_of(KEY), nonce, place, plaintext)
    assert open_sealed(cipher_of(KEY), nonce, place, sealed) == plaintext


@pytest.mark.parametrize("purpose", Purpose)
def test_a_sealed_text_opens_for_its_own_purpose_alone(purpose: Purpose) -> None:
    cipher = cipher_of(KEY)
    sealed = seal(cipher, NONCE, PLACE._replace(purpose=purpose), b"v")
    for other in set(Purpose) - {purpose}:
        with pytest.raises(KeyServiceError):
            open_sealed(cipher, NONCE, PLACE._replace(purpose=other), sealed)


@pytest.mark.parametrize(
    "place",
    [
        PLACE._replace(version=-1),
        PLACE._replace(tenant_id=TenantId(2**64)),
        PLACE._replace(format=256),
    ],
)
def test_a_number_that_does_not_fit_is_a_mistake_of_the_caller(place: Binding) -> None:
    with pytest.raises(ValueError, match="does not fit its field"):
        seal(cipher_of(KEY), NONCE, place, b"v")
    with pytest.raises(ValueError, match="does not fit its field"):
        open_sealed(cipher_of(KEY), NONCE, place, bytes(48))


# --- lengths ----------------------------------------------------------------------


@quick
@given(st.binary(max_size=100))
@example(b"")
@example(b"\0" * 64)
@example(b"\x80")
@example(b"\x80" + b"\0" * 31)
def test_padding_is_undone_for_any_bytes(plaintext: bytes) -> None:
    text = padded(plaintext)
    assert len(text) % 32 == 0
    assert len(plaintext) < len(text) <= len(plaintext) + 32
    assert unpadded(text) == plaintext


@pytest.mark.parametrize(
    "text",
    [
        b"",
        bytes(32),
        b"\x80",
        b"\x80" + bytes(30),
        b"\x80" + bytes(63),
        b"a" * 32,
        b"a" * 31 + b"\1",
    ],
)
def test_what_padding_does_not_make_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match="not padded"):
        unpadded(text)


def test_plaintexts_of_nearly_the_same_length_look_alike() -> None:
    sizes = {len(seal(cipher_of(KEY), NONCE, PLACE, bytes(n))) for n in range(32)}
    assert sizes == {32 + 16}


@pytest.mark.parametrize("size", [0, 8, 11, 13, 16])
def test_a_nonce_of_another_length_seals_nothing(size: int) -> None:
    with pytest.raises(ValueError, match="a nonce has 12 bytes"):
        seal(cipher_of(KEY), bytes(size), PLACE, b"v")
    with pytest.raises(ValueError, match="a nonce has 12 bytes"):
        wrap_key(cipher_of(KEY), bytes(size), TenantId(1), KeyId(1), KeyPurpose.VALUE, KEY)


@pytest.mark.parametrize("size", [0, 16, 24, 31, 33, 64])
def test_a_key_of_another_length_is_no_key(size: int) -> None:
    with pytest.raises(KeyServiceError, match="a key has 32 bytes"):
        cipher_of(bytes(size))
    with pytest.raises(ValueError, match="a data key has 32 bytes"):
        wrap_key(cipher_of(KEY), NONCE, TenantId(1), KeyId(1), KeyPurpose.VALUE, bytes(size))


# --- errors -----------------------------------------------------------------------


def test_a_failure_to_open_tells_nothing_of_what_it_saw() -> None:
    place = PLACE._replace(extra="c4n4ry")
    with pytest.raises(KeyServiceError) as refused:
        open_sealed(cipher_of(KEY), NONCE, place, b"c4n4ry" * 8)
    assert str(refused.value) == "a sealed value does not open"
    assert "InvalidTag" not in "".join(traceback.format_exception(refused.value))


def test_the_construction_is_aes_256_gcm_and_nothing_else() -> None:
    sealed = seal(cipher_of(KEY), NONCE, PLACE, b"v")
    opened = AESGCM(KEY).decrypt(NONCE, sealed, PLACE.associated_data())
    assert opened == b"v\x80" + bytes(30)
