"""What goes out to Secret Manager and comes back: bytes, labels and annotations, tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svsync.backends.gcp.entries import (
    bytes_of,
    creation_parameters,
    is_label,
    number_of,
    project_of,
    split_pairs,
    split_token,
    value_token,
)
from svsync.domain.values import Encoding, Payload, fingerprint

_KEY = bytes(32)


@given(st.one_of(st.binary(max_size=40), st.text(max_size=40).map(str.encode)))
def test_bytes_that_were_read_go_out_as_they_came(raw: bytes) -> None:
    payload = Payload.from_json_text(raw)
    assert bytes_of(payload) == (raw or b'{"value": ""}')


@given(
    st.sampled_from([Payload.from_bytes, lambda raw: Payload.from_text(raw.decode("latin-1"))]),
    st.binary(max_size=40),
)
def test_value_comes_back_as_the_same_value_whatever_it_looks_like(
    make: object, raw: bytes
) -> None:
    assert callable(make)
    payload = make(raw)
    back = Payload.from_json_text(bytes_of(payload))
    assert fingerprint(_KEY, back) == fingerprint(_KEY, payload)


def test_text_that_looks_like_an_object_comes_back_as_a_text() -> None:
    assert bytes_of(Payload(Encoding.TEXT, b'{"a": 1}')) == b'{"value": "{\\"a\\": 1}"}'


_KEYS = st.one_of(st.text(max_size=5), st.sampled_from(["a", "B", "c.d", "e_f", "ü", "x" * 64]))
_PAIRS = st.dictionaries(_KEYS, st.one_of(st.text(max_size=5), st.sampled_from(["v", "A b"])))


@given(_PAIRS, _PAIRS, _PAIRS)
def test_pairs_that_are_split_are_those_that_are_shown(
    wanted: dict[str, str], labels: dict[str, str], annotations: dict[str, str]
) -> None:
    split = split_pairs(wanted, labels, annotations)
    if split is None:
        return
    as_labels, as_annotations = split
    assert {**as_annotations, **as_labels} == wanted
    assert all(is_label(key, text) for key, text in as_labels.items())


@pytest.mark.parametrize(
    ("key", "text", "fits"),
    [
        ("a", "", True),
        ("ü-_1", "ü-_1", True),
        ("a" * 63, "b" * 63, True),
        ("a" * 64, "b", False),
        ("a", "b" * 64, False),
        ("é" * 63, "b", True),
        ("\u4e2d" * 43, "b", False),  # 129 bytes
        ("1a", "b", False),
        ("-a", "b", False),
        ("A", "b", False),
        ("a", "B", False),
        ("a", "b c", False),
        ("a.b", "c", False),
        ("", "c", False),
    ],
)
def test_label_is_what_google_takes_as_one(key: str, text: str, fits: bool) -> None:
    assert is_label(key, text) is fits


def test_pair_stays_where_it_stands() -> None:
    assert split_pairs({"a": "2", "b": "2"}, {"a": "1"}, {"b": "1"}) == ({"a": "2"}, {"b": "2"})


def test_too_many_labels_and_too_large_annotations_are_none() -> None:
    assert split_pairs({f"k{n}": "" for n in range(65)}, {}, {}) is None
    assert split_pairs({"Note": "x" * 16 * 1024}, {}, {}) is None
    assert split_pairs({"a b": "c"}, {}, {}) is None


def test_tokens_and_names_are_read_back() -> None:
    assert split_token(value_token(7, "disabled")) == (7, "disabled")
    assert number_of("projects/1/secrets/a/versions/7") == 7
    assert number_of("projects/1/secrets/a/versions/latest") == 0
    assert project_of("projects/123/secrets/a") == "123"
    assert project_of("projects/acme/secrets/a") == ""


def test_secret_of_the_project_is_replicated_as_google_likes_unless_it_is_told() -> None:
    assert creation_parameters({}) == {"replication": {"automatic": {}}}
    assert creation_parameters({"location": "us-east1"}) == {}
    one = creation_parameters({"kms_key_id": "k"})
    encrypted = {"customer_managed_encryption": {"kms_key_name": "k"}}
    assert one == {"replication": {"automatic": encrypted}}
