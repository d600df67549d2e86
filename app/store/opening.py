"""From the settings to a store that can be read and written."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import hiredis
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from app.settings import Settings, SettingsInvalid
from app.store.embedded import embedded_server
from app.store.redis_client import RedisClient
from app.store.redis_histories import RedisHistories
from app.store.redis_states import RedisStates, Tell

_DAY_S = 86_400
_PER_MODEL = 8
"""Callers who may wait for the store, over those who may wait for one model."""


class Store(NamedTuple):
    """What one server keeps."""

    histories: RedisHistories
    states: RedisStates


@asynccontextmanager
async def open_store(settings: Settings, tell: Tell = lambda *_: None) -> AsyncIterator[Store]:
    """Give the store at `redis_url`, or else in an embedded server on `data_dir`.

    A Redis that is not there yet is no error here: every call says so until it is. `tell` hears
    what becomes of states. Raises `SettingsInvalid` where the address is none or the password's
    file cannot be read, and `StoreUnavailable` where the embedded server cannot be started.
    """
    async with AsyncExitStack() as stack:
        if settings.redis_url is None:
            socket = await stack.enter_async_context(embedded_server(settings.data_dir))
            url, kind, password = f"unix://{socket}", "embedded", None
        else:
            url, kind = settings.redis_url, "redis"
            password = _password(settings.redis_password_file)
        redis = _client(url, password, settings)
        stack.push_async_callback(redis.aclose)
        client = RedisClient(redis)
        states = RedisStates(
            client, settings.history_max_items, _PER_MODEL * settings.queue_max_items, tell
        )
        stack.push_async_callback(states.aclose)
        histories = RedisHistories(
            client,
            settings.history_max_items,
            kind,
            late=settings.late_answers,
            life_s=settings.retention_days * _DAY_S,
        )
        yield Store(histories, states)


def _password(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        password = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsInvalid(f"KT_REDIS_PASSWORD_FILE: {path} cannot be read: {exc}") from exc
    if not password:
        raise SettingsInvalid(f"KT_REDIS_PASSWORD_FILE: {path} holds no password")
    return password


def _client(url: str, password: str | None, settings: Settings) -> Redis:
    timeout_s = settings.redis_timeout_ms / 1000
    try:
        pool = BlockingConnectionPool.from_url(
            url,
            password=password,
            max_connections=settings.redis_connections,
            timeout=timeout_s,  # for a free connection
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            health_check_interval=15,
            # Whether a command may be sent twice is known one floor up, where its meaning is.
            retry=Retry(NoBackoff(), 0),
        )
    except ValueError as exc:
        raise SettingsInvalid(f"KT_REDIS_URL is no address of a store: {exc}") from exc
    pool.connection_class = _packing_in_c(pool.connection_class)
    return Redis.from_pool(pool)


def _packing_in_c(kind: type[AbstractConnection]) -> type[AbstractConnection]:
    """Return a kind of connection that lets hiredis write its commands, as it reads the answers.

    The client's own way joins strings for every argument, and a call for many users has hundreds.
    """

    class Packing(kind):  # type: ignore[misc, valid-type]
        def pack_command(self, *args: Any) -> list[bytes]:
            words = args[0].encode() if isinstance(args[0], str) else args[0]
            return [hiredis.pack_command((*words.split(), *args[1:]))]

    return Packing
