"""What a sender may say to a feed over HTTP: read or refused, whatever it is."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from svsync.domain.errors import ConfigError
from svsync.domain.feeds import HTTP_FEEDS, secret_name, secret_text
from svsync.domain.ids import TenantId
from svsync.domain.paths import remote_problem
from svsync.feeds import azure_eventgrid, http
from svsync.ports import Arrived, ArrivingFeed
from svsync.registry import _ARRIVING

MEMBERS = ("paths", "eventType", "type", "data", "ObjectName", "ObjectType", "VaultName")
KINDS = (
    "Microsoft.KeyVault.SecretNewVersionCreated",
    "Microsoft.EventGrid.SubscriptionValidationEvent",
)
WORDS = st.sampled_from(
    (*MEMBERS, *KINDS, "validationCode", "Secret", "kv/a", "../a", "\ud800", "")
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8) | WORDS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(WORDS | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)
SECRET = secret_text(TenantId(7), "fds_" + "0a" * 16, b"\x01" * 32)


def read(feed: ArrivingFeed, said: object, **config: object) -> Arrived | None:
    """None: it is refused."""
    try:
        return feed.read(said, config)
    except ConfigError:
        return None


@given(said=ANYTHING)
@example(said={"paths": ["\ud800", "kv/\udfff", "\x00", "kv/" + "x" * 5000]})
@example(said={"type": "Microsoft.KeyVault.SecretNewVersionCreated", "data": ["a"]})
@example(
    said={"type": "Microsoft.KeyVault.SecretNewVersionCreated", "data": {"ObjectName": "\ud800"}}
)
def test_whatever_is_said_is_read_as_names_or_refused(said: Any) -> None:
    for feed in (http.FEED, azure_eventgrid.FEED):
        arrived = read(feed, said, vault_url="https://[")
        if arrived is None:
            continue
        assert all(remote_problem(path) is None for path in arrived.paths)
        json.dumps(arrived.reply).encode()


def test_a_refusal_repeats_nothing() -> None:
    for feed in (http.FEED, azure_eventgrid.FEED):
        for said in ("CANARY", {"CANARY": 1}, {"paths": {"CANARY": 1}}, [["CANARY"]]):
            with pytest.raises(ConfigError) as refused:
                feed.read(said, {})
            assert "CANARY" not in str(refused.value)


def test_each_feed_over_http_has_its_reader_and_no_other() -> None:
    assert set(HTTP_FEEDS) == set(_ARRIVING)


def test_a_secret_names_its_tenant_and_itself() -> None:
    assert secret_name(SECRET) == (7, "fds_" + "0a" * 16)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "svf_",
        SECRET.replace("svf_", "svt_"),
        SECRET.replace("svf_7", "svf_0"),
        SECRET.replace("svf_7", "svf_07"),
        SECRET.replace("svf_7", "svf_\u0667"),
        SECRET.replace("svf_7", "svf_2147483648"),
        SECRET[:-1],
        SECRET + "0",
        SECRET + "\n",
        SECRET.upper(),
    ],
)
def test_what_only_looks_like_a_secret_names_nothing(text: str) -> None:
    assert secret_name(text) is None
