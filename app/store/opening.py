"""From the settings to a store that can be read and written."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import hiredis
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import (
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from app.settings import Settings, SettingsInvalid
from app.store.addresses import Address, Host, address_of
from app.store.cluster import Cluster
from app.store.embedded import embedded_server
from app.store.redis_client import RedisClient
from app.store.redis_histories import RedisHistories
from app.store.redis_outcomes import RedisOutcomes
from app.store.redis_states import RedisStates, Tell
from app.store.servers import OneServer, Servers

_DAY_S = 86_400
_PER_MODEL = 8
"""Callers who may wait for the store, over those who may wait for one model."""


class Store(NamedTuple):
    """What one server keeps."""

    histories: RedisHistories
    states: RedisStates
    outcomes: RedisOutcomes


def _nobody(what: str, times: int) -> None:
    """Hear nothing."""
    del what, times


@asynccontextmanager
async def open_store(
    settings: Settings, tell: Tell = _nobody, tell_of_outcomes: Tell = _nobody
) -> AsyncIterator[Store]:
    """Give the store at `redis_url`, or else in an embedded server on `data_dir`.

    A Redis that is not there yet is no error here: every call says so until it is. `tell` hears
    what becomes of states, `tell_of_outcomes` what of forecasts and outcomes. Raises
    `SettingsInvalid` where the address is none or the password's file cannot be read, and
    `StoreUnavailable` where the embedded server cannot be started.
    """
    async with AsyncExitStack() as stack:
        if settings.redis_url is None:
            socket = await stack.enter_async_context(embedded_server(settings.data_dir))
            address, kind = address_of(f"unix://{socket}"), "embedded"
        else:
            address = _address(settings.redis_url, settings.redis_password_file)
            kind = address.kind
        servers = await _servers(address, settings, stack)
        longest_s = settings.redis_timeout_ms / 1000
        client = RedisClient(servers, longest_s)
        states = RedisStates(
            client, settings.history_max_items, _PER_MODEL * settings.queue_max_items, tell
        )
        stack.push_async_callback(states.aclose)
        outcomes = RedisOutcomes(client, settings.quality_within_s, tell_of_outcomes)
        stack.push_async_callback(outcomes.aclose)
        yield Store(
            RedisHistories(
                client,
                settings.history_max_items,
                kind,
                late=settings.late_answers,
                life_s=settings.retention_days * _DAY_S,
                min_replicas=settings.redis_min_replicas,
                longest_s=longest_s,
                outcomes=outcomes if settings.quality_share else None,
            ),
            states,
            outcomes,
        )


def _address(url: str, password_file: Path | None) -> Address:
    try:
        address = address_of(url)
    except ValueError as exc:
        raise SettingsInvalid(f"KT_REDIS_URL is no address of a store: {exc}") from exc
    if password_file is None:
        return address
    return replace(address, options={"password": _password(password_file), **address.options})


def _password(path: Path) -> str:
    try:
        password = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsInvalid(f"KT_REDIS_PASSWORD_FILE: {path} cannot be read: {exc}") from exc
    if not password:
        raise SettingsInvalid(f"KT_REDIS_PASSWORD_FILE: {path} holds no password")
    return password


async def _servers(address: Address, settings: Settings, stack: AsyncExitStack) -> Servers:
    """Return who is asked; hung up at the end of `stack`."""
    options = _options(address.options, settings)
    match address.kind:
        case "cluster":
            cluster = Cluster(
                address.hosts, partial(_client_of, options), settings.redis_connections
            )
            stack.push_async_callback(cluster.aclose)
            await cluster.open()
            return cluster
        case "sentinel":
            sentinels = Sentinel(  # type: ignore[no-untyped-call]
                address.hosts, sentinel_kwargs=_options(address.sentinel_options, settings)
            )
            stack.push_async_callback(sentinels.aclose)
            make = partial(_client_by, sentinels, address.service, options)
        case _:
            make = partial(_client, options)
    servers = OneServer(make, settings.redis_connections)
    stack.push_async_callback(servers.aclose)
    return servers


def _options(given: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    timeout_s = settings.redis_timeout_ms / 1000
    return {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "health_check_interval": 15,
        # Whether a command may be sent twice is known one floor up, where its meaning is.
        "retry": Retry(NoBackoff(), 0),
        **given,
    }


def _client(options: Mapping[str, Any], connections: int) -> Redis:
    kind = _connecting_by(options.get("connection_class", Connection))
    pool = BlockingConnectionPool(
        **{
            **options,
            "connection_class": kind,
            "max_connections": connections,
            "timeout": options["socket_timeout"],  # for a free connection
        }
    )
    return Redis.from_pool(pool)


def _client_of(options: Mapping[str, Any], host: Host, connections: int) -> Redis:
    return _client({**options, "host": host[0], "port": host[1]}, connections)


def _client_by(
    sentinels: Sentinel, service: str, options: Mapping[str, Any], connections: int
) -> Redis:
    """Return a client of whichever server the sentinels say, asked anew for every connection."""
    is_tls = options.get("connection_class") is SSLConnection
    kind = SentinelManagedSSLConnection if is_tls else SentinelManagedConnection
    pool = _WatchedPool(  # type: ignore[no-untyped-call]
        service,
        sentinels,
        **{
            **options,
            "connection_class": _connecting_by(kind),
            "max_connections": connections,
            "timeout": options["socket_timeout"],
        },
    )
    return Redis.from_pool(pool)


class _WatchedPool(SentinelConnectionPool, BlockingConnectionPool):
    """Who finds no free connection waits, here as with one server."""


def _connecting_by(kind: type[AbstractConnection]) -> type[AbstractConnection]:
    """Return a kind of connection with two things of our own.

    hiredis writes its commands, as it reads the answers: the client's own way joins strings for
    every argument, and a call for many users has hundreds. And where it has been cut, uvloop's way
    of saying so is an error of the connection.
    """

    class Ours(kind):  # type: ignore[misc, valid-type]
        def pack_command(self, *args: Any) -> list[bytes]:
            words = args[0].encode() if isinstance(args[0], str) else args[0]
            return [hiredis.pack_command((*words.split(), *args[1:]))]

        async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
            try:
                await super().send_packed_command(command, check_health)
            except RuntimeError as exc:  # "the handler is closed"
                raise RedisConnectionError("the connection was closed") from exc

    return Ours
