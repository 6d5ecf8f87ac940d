"""Whom does a request come from, and by what are its failures counted?"""

from typing import cast
from unittest.mock import Mock

import pytest
from aiohttp import web
from multidict import CIMultiDict

from svsync.http.addresses import Addresses, site_of

PROXIES = ("10.0.0.0/8", "fd00::/8")


def seen(peer: str | None, *forwarded: str, trusted: tuple[str, ...] = PROXIES) -> str:
    transport = Mock(get_extra_info=lambda _name: None if peer is None else (peer, 1234))
    headers = CIMultiDict([("X-Forwarded-For", line) for line in forwarded])
    request = Mock(transport=transport, headers=headers)
    return Addresses(trusted).of(cast(web.Request, request))


def test_a_stranger_is_not_believed_about_whom_he_forwards_for() -> None:
    assert seen("203.0.113.9", "198.51.100.1") == "203.0.113.9"
    assert seen("10.0.0.1", "198.51.100.1", trusted=()) == "10.0.0.1"


def test_a_trusted_proxy_tells_its_client() -> None:
    assert seen("10.0.0.1", "198.51.100.1") == "198.51.100.1"


def test_what_the_client_wrote_before_the_proxies_is_not_believed() -> None:
    assert seen("10.0.0.1", "192.0.2.66, 198.51.100.1, 10.0.0.2") == "198.51.100.1"
    assert seen("10.0.0.1", "192.0.2.66", "198.51.100.1") == "198.51.100.1"


@pytest.mark.parametrize("entry", ["", "unknown", "198.51.100.1:80", "a, ", "1.2.3.4.5"])
def test_an_entry_that_is_no_address_ends_the_way_back(entry: str) -> None:
    assert seen("10.0.0.1", f"192.0.2.66, {entry}") == "10.0.0.1"


def test_an_ipv4_address_in_ipv6_form_is_the_same_address() -> None:
    assert seen("::ffff:10.0.0.1", "::ffff:198.51.100.1") == "198.51.100.1"


def test_a_connection_without_an_address_is_unknown() -> None:
    assert seen(None, "198.51.100.1") == "unknown"


def test_an_ipv6_address_counts_as_its_network() -> None:
    assert site_of("2001:db8:1:2:3:4:5:6") == site_of("2001:db8:1:2::9") == "2001:db8:1:2::/64"
    assert site_of("2001:db8:1:3::9") != site_of("2001:db8:1:2::9")
    assert site_of("198.51.100.1") == "198.51.100.1"
    assert site_of("unknown") == "unknown"
