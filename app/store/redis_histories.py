"""Histories in Redis, or in any server that speaks as Redis does.

    kt:h1:{user}   string: 16 bytes of header, then one 40-byte INTERACTION a record, oldest first
    kt:t1          hash: 8-byte key -> the outside id, or the text of a skill set, behind it

The header is `KTH1`, four zero bytes, and the number of older records dropped as a 64-bit integer.
A history is cut to what is kept only when it has grown a quarter past it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray
from redis.asyncio import Redis
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    NoScriptError,
    OutOfMemoryError,
    RedisError,
    ResponseError,
)

from app.errors import StoreCorrupt, StoreFull, StoreUnavailable, TracerError
from app.store.histories import Page, Recorded, StoredHistory
from models.contract.interaction import INTERACTION, NO_KEY

Run = Callable[[], Awaitable[Any]]

_HISTORY, _TEXTS, _PING = "kt:h1:{%s}", "kt:t1", "kt:ping"


@dataclass(frozen=True, slots=True)
class _Script:
    """A Lua file and the name the server knows it by."""

    text: str
    sha: str


class RedisHistories:
    """Every user's newest `keep` interactions, behind one client."""

    def __init__(self, redis: Redis, keep: int, kind: str) -> None:
        """`kind` says in /readyz which server this is: `redis` or `embedded`."""
        self._redis = redis
        self._keep = keep
        self._kind = kind
        self._append = _script("append")
        self._read = _script("read")
        self._note = _script("note")
        self._under_way: set[asyncio.Future[Any]] = set()

    def describe(self) -> dict[str, Any]:
        """Return what /readyz tells of this store."""
        return {"kind": self._kind, "history_max_items": self._keep}

    async def read(self, user_id: str, last: int) -> StoredHistory:
        """Return the newest `last` interactions, in one round trip."""
        interactions, _, kept, total = await self._slice(user_id, "", last)
        return StoredHistory(interactions, total - len(interactions), kept)

    async def page(self, user_id: str, start: int, limit: int) -> Page:
        """Return up to `limit` interactions from number `start` on; dropped ones are skipped."""
        interactions, first, kept, total = await self._slice(user_id, str(start), limit)
        following = first + len(interactions)
        return Page(interactions, first, following if following < total else None, kept)

    async def append(
        self, user_id: str, interactions: NDArray[np.void], texts: Mapping[int, str]
    ) -> Recorded:
        """Add interactions atomically, all or none, but for those whose event key is there already.

        Event keys are compared with what is still held. Where the connection breaks before the
        answer, nobody knows whether they were added: they are sent again only when each of them
        carries an event key, which makes that harmless.
        """
        is_repeatable = bool((interactions["event_key"] != NO_KEY).all())
        arguments: list[Any] = [interactions.tobytes(), str(self._keep)]
        noted: list[Any] = [part for key, text in texts.items() for part in (_packed(key), text)]

        async def run() -> Any:
            pipe = self._redis.pipeline(transaction=False)
            pipe.evalsha(self._note.sha, 1, _TEXTS, *noted)
            pipe.evalsha(self._append.sha, 1, _HISTORY % user_id, *arguments)
            note, added = await pipe.execute(raise_on_error=False)
            if isinstance(added, Exception):
                raise added
            if isinstance(note, Exception):  # the answers are kept: only their names are owed
                await self._with_scripts(
                    lambda: self._redis.evalsha(self._note.sha, 1, _TEXTS, *noted)
                )
            return added

        recorded, duplicates, length = await self._ask(run, repeat=is_repeatable)
        return Recorded(int(recorded), int(duplicates), int(length))

    async def texts(self, keys: Iterable[int]) -> dict[int, str]:
        """Return the outside ids behind keys; a key never met is left out."""
        wanted = list(keys)
        if not wanted:
            return {}
        packed = [_packed(key) for key in wanted]
        found = await self._ask(lambda: self._redis.hmget(_TEXTS, packed), repeat=True)
        return {k: t.decode() for k, t in zip(wanted, found, strict=True) if t is not None}

    async def forget(self, user_id: str) -> bool:
        """Delete everything kept of a user; True if there was anything."""
        return bool(await self._ask(lambda: self._redis.unlink(_HISTORY % user_id), repeat=True))

    async def ping(self) -> None:
        """Return when the store answers and would take a write."""

        async def run() -> Any:
            pipe = self._redis.pipeline(transaction=False)
            pipe.ping()
            pipe.set(_PING, b"1", ex=60)
            return await pipe.execute()

        await self._ask(run, repeat=True)

    async def _slice(
        self, user_id: str, start: str, limit: int
    ) -> tuple[NDArray[np.void], int, int, int]:
        """Return records, the first one's number, how many are kept, and the next number."""
        arguments = (start, str(limit), str(self._keep))
        records, first, kept, total = await self._ask(
            lambda: self._redis.evalsha(self._read.sha, 1, _HISTORY % user_id, *arguments),
            repeat=True,
        )
        return np.frombuffer(records, INTERACTION), int(first), int(kept), int(total)

    async def _ask(self, run: Run, *, repeat: bool) -> Any:
        """Return what `run()` gives; its errors become ours. `repeat` allows a second try.

        A caller who leaves does not stop it: a connection dropped between question and answer
        would have to be made anew.
        """
        task = asyncio.ensure_future(self._tried(run, repeat))
        self._under_way.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _done(self, task: asyncio.Future[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # seen: the caller may have left

    async def _tried(self, run: Run, repeat: bool) -> Any:
        try:
            try:
                return await self._with_scripts(run)
            except (RedisConnectionError, ConnectionError):  # not for time-outs: they would double
                if not repeat:
                    raise
                return await self._with_scripts(run)
        except (RedisError, OSError) as exc:
            raise _translated(exc, repeat) from exc

    async def _with_scripts(self, run: Run) -> Any:
        """Run; where the server is new and has no scripts yet, give it them and run again."""
        try:
            return await run()
        except NoScriptError:
            for script in (self._append, self._read, self._note):
                await self._redis.script_load(script.text)
            return await run()


def _script(name: str) -> _Script:
    text = (files("app.store") / "lua" / f"{name}.lua").read_text(encoding="utf-8")
    return _Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def _packed(key: int) -> bytes:
    return key.to_bytes(8, "little")


def _translated(exc: Exception, repeat: bool) -> TracerError:
    text = str(exc)
    if isinstance(exc, OutOfMemoryError) or text.startswith("OOM "):
        return StoreFull("the store is out of memory; raise its maxmemory or forget users")
    if isinstance(exc, ResponseError) and ("KTCORRUPT" in text or text.startswith("WRONGTYPE")):
        return StoreCorrupt("the history of this user is not in a form that was written here")
    doubt = "" if repeat else "; whether these answers were recorded is not known"
    return StoreUnavailable(f"the store does not answer as it should ({_kind(exc)}){doubt}")


def _kind(exc: Exception) -> str:
    """Return the kind of error without its text, which may hold an address or a password."""
    words = str(exc).split(maxsplit=1)
    is_code = bool(words) and words[0].isupper() and isinstance(exc, ResponseError)
    return words[0] if is_code else type(exc).__name__
