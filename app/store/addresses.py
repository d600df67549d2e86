"""KT_REDIS_URL taken apart: one server, a service that sentinels watch, or a cluster.

    redis://[user:password@]host[:port][/db]     rediss:// with TLS, unix:// a socket
    redis+sentinel://[user:password@]host[:port],host[:port],.../service[/db]
    redis+cluster://[user:password@]host[:port],host[:port],...

`rediss+sentinel` and `rediss+cluster` speak TLS. What redis-py reads from `?name=value` holds for
every server; `sentinel_username` and `sentinel_password` are for the sentinels themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from redis.asyncio.connection import parse_url

Host = tuple[str, int]

_SENTINEL_PORT, _PORT = 26379, 6379
_SENTINELS_OWN = "sentinel_"


@dataclass(frozen=True, slots=True)
class Address:
    """Where the store is."""

    kind: Literal["redis", "sentinel", "cluster"]
    options: Mapping[str, Any]  # of a connection to any of its servers
    hosts: tuple[Host, ...] = ()  # of sentinels, or of servers of the cluster
    service: str = ""  # the name that sentinels know it by
    sentinel_options: Mapping[str, Any] = field(default_factory=dict)


def address_of(url: str) -> Address:
    """Read an address; raise `ValueError`, which does not quote it, where it is none."""
    scheme, _, rest = url.partition("://")
    base, _, kind = scheme.partition("+")
    if not kind:
        return Address("redis", parse_url(url))
    if base not in ("redis", "rediss") or kind not in ("sentinel", "cluster"):
        raise ValueError(
            "its scheme is none of redis, rediss, unix, redis+sentinel, redis+cluster, "
            "rediss+sentinel and rediss+cluster"
        )
    parts = urlsplit(f"//{rest}")
    login, _, hosts = parts.netloc.rpartition("@")
    found = tuple(
        _host(one, _SENTINEL_PORT if kind == "sentinel" else _PORT) for one in hosts.split(",")
    )
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    own = {k.removeprefix(_SENTINELS_OWN): v for k, v in query.items() if _is_sentinels_own(k)}
    query = {k: v for k, v in query.items() if not _is_sentinels_own(k)}
    service, _, db = unquote(parts.path).strip("/").partition("/")
    if kind == "cluster":
        if service not in ("", "0"):
            raise ValueError("a cluster has no databases but 0")
        db = ""
    elif not service:
        raise ValueError("the name of the service is missing: .../NAME behind the sentinels")
    if db and not db.isdecimal():
        raise ValueError("behind the service's name stands the number of a database, or nothing")
    options = parse_url(f"{base}://{login}{'@' if login else ''}host/{db}?{urlencode(query)}")
    options.pop("host")
    if kind == "cluster":
        return Address("cluster", options, found)
    tls = {k: v for k, v in options.items() if k.startswith("ssl_")}
    of_sentinels = {**own, **tls, "ssl": base == "rediss"}
    return Address("sentinel", options, found, service, of_sentinels)


def _is_sentinels_own(name: str) -> bool:
    return name in (f"{_SENTINELS_OWN}username", f"{_SENTINELS_OWN}password")


def _host(text: str, port: int) -> Host:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError("a host is missing: host[:port],host[:port],...")
    return parts.hostname, parts.port or port
