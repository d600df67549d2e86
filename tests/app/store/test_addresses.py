"""An address is taken apart as it was meant, or refused without being quoted."""

from __future__ import annotations

import pytest
from redis.asyncio.connection import SSLConnection

from app.store.addresses import address_of


def test_sentinels_and_the_service_they_watch():
    """The login is for the service; theirs stands behind the question mark."""
    found = address_of(
        "redis+sentinel://me:p%40ss@one:1,two,[::1]:3/histories/2?sentinel_password=s&socket_timeout=4"
    )

    assert (found.kind, found.service) == ("sentinel", "histories")
    assert found.hosts == (("one", 1), ("two", 26379), ("::1", 3))
    assert found.options == {"username": "me", "password": "p@ss", "db": 2, "socket_timeout": 4.0}
    assert found.sentinel_options == {"password": "s", "ssl": False}


def test_servers_of_a_cluster():
    """Over TLS, where the address says so."""
    found = address_of("rediss+cluster://:p@one:1,two?ssl_ca_certs=/ca")

    assert (found.kind, found.hosts) == ("cluster", (("one", 1), ("two", 6379)))
    assert found.options == {
        "password": "p",
        "ssl_ca_certs": "/ca",
        "connection_class": SSLConnection,
    }


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://:secret@x", "redis"),
        ("redis+ring://:secret@x", "redis\\+sentinel"),
        ("unix+cluster://:secret@x", "redis\\+cluster"),
        ("redis+sentinel://:secret@x", "name of the service is missing"),
        ("redis+sentinel://:secret@x/name/two", "number of a database"),
        ("redis+cluster://:secret@x/1", "no databases"),
        ("redis+cluster://:secret@x,,y", "host is missing"),
        ("redis+cluster://:secret@x:many", "."),
        ("redis+cluster://:secret@x?socket_timeout=long", "socket_timeout"),
    ],
)
def test_what_is_no_address_is_refused(url, said):
    """By what would do, and never with the password in it."""
    with pytest.raises(ValueError, match=said) as caught:
        address_of(url)

    assert "secret" not in str(caught.value)
