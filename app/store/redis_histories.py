"""Histories in Redis, or in any server that speaks as Redis does.

    kt:h1:{user}   string: 16 bytes of header, then a record an interaction, oldest first: `packed`
    kt:s1:{user}   hash: states that models have kept, see `redis_states`
    kt:t1          hash: 8-byte key -> the outside id, or the text of a skill set, behind it

The header is the form of the records (`KTH2` to `KTH5`), four random bytes that tell this history
from one forgotten before under the same name, and the number of older records dropped as a 64-bit
integer.
A history is cut to what is kept only when it has grown a quarter past it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.store.histories import Page, Recorded, StoredHistory
from app.store.keys import BESIDE, HISTORY, STATES
from app.store.packed import packed, unpacked
from app.store.redis_client import RedisClient
from models.contract.interaction import NO_KEY

_TEXTS, _PING = "kt:t1", "kt:ping"


class RedisHistories:
    """Every user's newest `keep` interactions, behind one client."""

    def __init__(self, client: RedisClient, keep: int, kind: str) -> None:
        """`kind` says in /readyz which server this is: `redis` or `embedded`."""
        self._client = client
        self._redis = client.redis
        self._keep = keep
        self._kind = kind
        self._append = client.script("append")
        self._read = client.script("read")
        self._note = client.script("note")

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
        keys = HISTORY % user_id, BESIDE % user_id
        arguments: list[Any] = [packed(interactions), str(self._keep), secrets.token_bytes(4)]
        noted: list[Any] = [part for key, text in texts.items() for part in (_packed(key), text)]

        async def run() -> Any:
            pipe = self._redis.pipeline(transaction=False)
            pipe.evalsha(self._note.sha, 1, _TEXTS, *noted)
            pipe.evalsha(self._append.sha, 2, *keys, *arguments)
            note, added = await pipe.execute(raise_on_error=False)
            if isinstance(added, Exception):
                raise added
            if isinstance(note, Exception):  # the answers are kept: only their names are owed
                await self._client.with_scripts(
                    lambda: self._redis.evalsha(self._note.sha, 1, _TEXTS, *noted)
                )
            return added

        recorded, duplicates, length = await self._client.ask(run, repeat=is_repeatable)
        return Recorded(int(recorded), int(duplicates), int(length))

    async def texts(self, keys: Iterable[int]) -> dict[int, str]:
        """Return the outside ids behind keys; a key never met is left out."""
        wanted = list(keys)
        if not wanted:
            return {}
        packed = [_packed(key) for key in wanted]
        found = await self._client.ask(lambda: self._redis.hmget(_TEXTS, packed), repeat=True)
        return {k: t.decode() for k, t in zip(wanted, found, strict=True) if t is not None}

    async def forget(self, user_id: str) -> bool:
        """Delete everything kept of a user; True if there was anything."""
        # The history first: a state that is written meanwhile finds none, and is not kept.
        keys = HISTORY % user_id, STATES % user_id
        return bool(await self._client.ask(lambda: self._redis.unlink(*keys), repeat=True))

    async def ping(self) -> None:
        """Return when the store answers and would take a write."""

        async def run() -> Any:
            pipe = self._redis.pipeline(transaction=False)
            pipe.ping()
            pipe.set(_PING, b"1", ex=60)
            return await pipe.execute()

        await self._client.ask(run, repeat=True)

    async def _slice(
        self, user_id: str, start: str, limit: int
    ) -> tuple[NDArray[np.void], int, int, int]:
        """Return records, the first one's number, how many are kept, and the next number."""
        arguments = (start, str(limit), str(self._keep))
        records, first, kept, total, form = await self._client.ask(
            lambda: self._redis.evalsha(self._read.sha, 1, HISTORY % user_id, *arguments),
            repeat=True,
        )
        return unpacked(records, form), int(first), int(kept), int(total)


def _packed(key: int) -> bytes:
    return key.to_bytes(8, "little")
