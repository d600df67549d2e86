"""A Redis that is asked by scripts, and whose errors become ours."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import (
    ClusterCrossSlotError,
    NoScriptError,
    OutOfMemoryError,
    RedisError,
    ResponseError,
)
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)

from app.errors import StoreCorrupt, StoreFull, StoreUnavailable, TracerError

Run = Callable[[], Awaitable[Any]]


class StoreApart(Exception):
    """The keys of one call do not lie together: the server is of a cluster."""


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua file and the name the server knows it by."""

    text: str
    sha: str


class RedisClient:
    """One client, and the scripts that a server may have to be given."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self._scripts: list[Script] = []
        self._under_way: set[asyncio.Future[Any]] = set()

    def script(self, name: str, *before: str) -> Script:
        """Return the script `lua/<name>.lua`, behind `history` and others; servers are given it."""
        folder = files("app.store") / "lua"
        parts = (folder / f"{part}.lua" for part in ("history", *before, name))
        text = "".join(part.read_text(encoding="utf-8") for part in parts)
        script = Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
        self._scripts.append(script)
        return script

    async def ask(self, run: Run, *, repeat: bool) -> Any:
        """Return what `run()` gives; its errors become ours. `repeat` allows a second try.

        A caller who leaves does not stop it: a connection dropped between question and answer
        would have to be made anew.
        """
        task = asyncio.ensure_future(self._tried(run, repeat))
        self._under_way.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    async def with_scripts(self, run: Run) -> Any:
        """Run; where the server is new and has no scripts yet, give it them and run again."""
        try:
            return await run()
        except NoScriptError:
            for script in self._scripts:
                await self.redis.script_load(script.text)
            return await run()

    def _done(self, task: asyncio.Future[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # seen: the caller may have left

    async def _tried(self, run: Run, repeat: bool) -> Any:
        try:
            try:
                return await self.with_scripts(run)
            except (RedisConnectionError, ConnectionError):  # not for time-outs: they would double
                if not repeat:
                    raise
                return await self.with_scripts(run)
        except ClusterCrossSlotError as exc:
            raise StoreApart from exc
        except ResponseError as exc:
            if "same slot" in str(exc):  # a script's own words for the same
                raise StoreApart from exc
            raise _translated(exc, repeat) from exc
        except (RedisError, OSError) as exc:
            raise _translated(exc, repeat) from exc


def _translated(exc: Exception, repeat: bool) -> TracerError:
    text = str(exc)
    if isinstance(exc, OutOfMemoryError) or text.startswith("OOM "):
        return StoreFull("the store is out of memory; raise its maxmemory or forget users")
    if isinstance(exc, ResponseError) and ("KTCORRUPT" in text or text.startswith("WRONGTYPE")):
        return StoreCorrupt()
    doubt = "" if repeat else "; whether these answers were recorded is not known"
    return StoreUnavailable(f"the store does not answer as it should ({_kind(exc)}){doubt}")


def _kind(exc: Exception) -> str:
    """Return the kind of error without its text, which may hold an address or a password."""
    words = str(exc).split(maxsplit=1)
    is_code = bool(words) and words[0].isupper() and isinstance(exc, ResponseError)
    return words[0] if is_code else type(exc).__name__
