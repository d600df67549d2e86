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
    AskError,
    ClusterCrossSlotError,
    ClusterDownError,
    MovedError,
    NoScriptError,
    TryAgainError,
)

from app.errors import TracerError
from app.store.failures import BREAKS, FAILURES, is_gone, translated
from app.store.servers import Servers

Run = Callable[[Redis], Awaitable[Any]]

_BREAKS = 2  # tries more, where the connection breaks: the next one may have been cut with it
_MOVES = 5  # times that a key may be found elsewhere in one call
_AGAIN_S = 0.05  # until a slot that is being moved is asked for again


class StoreApart(Exception):
    """The keys of one call do not lie together: the server is of a cluster."""


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua file and the name the server knows it by."""

    text: str
    sha: str


class RedisClient:
    """One store, of one server or several, and the scripts that they may have to be given."""

    def __init__(self, servers: Servers, longest_s: float) -> None:
        """`longest_s` is how long a caller may wait for a slot that is being moved."""
        self.servers = servers
        self._longest_s = longest_s
        self._scripts: list[Script] = []
        self._under_way: set[asyncio.Future[Any]] = set()

    @property
    def redis(self) -> Redis:
        """The one server's client; of a cluster, that of one of them."""
        return self.servers.of("").redis

    def script(self, name: str, *before: str) -> Script:
        """Return the script `lua/<name>.lua`, behind `history` and others; servers are given it."""
        folder = files("app.store") / "lua"
        parts = (folder / f"{part}.lua" for part in ("history", *before, name))
        text = "".join(part.read_text(encoding="utf-8") for part in parts)
        script = Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
        self._scripts.append(script)
        return script

    async def ask(self, run: Run, *, key: str, repeat: bool) -> Any:
        """Return what `run` gives with the server that has `key`; its errors become ours.

        `repeat` allows to try again. A caller who leaves does not stop it: a connection dropped
        between question and answer would have to be made anew.
        """
        task = asyncio.ensure_future(self._tried(run, key, repeat))
        self._under_way.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    async def ask_each(
        self, run: Callable[[Redis, str], Awaitable[Any]], template: str
    ) -> list[Any]:
        """Return what `run` gives with each server and a key of its own, or the error it raised."""
        return await asyncio.gather(
            *(
                self.ask(lambda redis, key=key: run(redis, key), key=key, repeat=True)  # type: ignore[misc]
                for key in self.servers.one_of_each(template)
            ),
            return_exceptions=True,
        )

    async def with_scripts(self, run: Run, redis: Redis) -> Any:
        """Run; where the server is new and has no scripts yet, give it them and run again."""
        try:
            return await run(redis)
        except NoScriptError:
            for script in self._scripts:
                await redis.script_load(script.text)
            return await run(redis)

    def _done(self, task: asyncio.Future[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # seen: the caller may have left

    async def _tried(self, run: Run, key: str, repeat: bool) -> Any:
        breaks, moves = _BREAKS if repeat else 0, _MOVES
        until_s: float | None = None
        while True:
            server = self.servers.of(key)
            await server.health.check()
            try:
                with server.health.call():
                    return await self.with_scripts(run, server.redis)
            except MovedError as exc:  # so nothing has been done
                self.servers.moved(exc)
                moves -= 1
                if moves < 0:
                    raise _ours(exc, repeat) from exc
            except (AskError, TryAgainError) as exc:  # nor here: the slot is on its way
                now_s = asyncio.get_running_loop().time()
                until_s = until_s or now_s + self._longest_s
                if now_s > until_s:
                    raise _ours(exc, repeat) from exc
                await asyncio.sleep(_AGAIN_S)
            except FAILURES as exc:
                if is_gone(exc):
                    server.health.doubt()
                if isinstance(exc, ClusterDownError):
                    self.servers.doubt()
                # Not for time-outs: they would double.
                if not (breaks and isinstance(exc, BREAKS)):
                    raise _ours(exc, repeat) from exc
                breaks -= 1


def _ours(exc: Exception, repeat: bool) -> StoreApart | TracerError:
    # The second is a script's own way of saying it.
    if isinstance(exc, ClusterCrossSlotError) or "same slot" in str(exc):
        return StoreApart()
    return translated(exc, is_repeatable=repeat)
