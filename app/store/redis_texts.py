"""Outside ids in Redis, under the keys that stand for them in histories."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from redis.asyncio import Redis

from app.errors import StoreFull, StoreReadOnly, StoreUnavailable
from app.store.durability import Replicas
from app.store.keys import BESIDE, user_key
from app.store.redis_client import RedisClient

TEXTS = "kt:t1"

_NOTED = 65_536  # keys of texts that a process remembers to have kept apart from answers


class RedisTexts:
    """Texts behind keys, of all users together."""

    def __init__(self, client: RedisClient, replicas: Replicas) -> None:
        self._client = client
        self._replicas = replicas
        self._noted: set[int] = set()  # keys whose texts are kept, as far as this process knows
        self._note = client.script("note")

    async def keep(self, texts: Mapping[int, str]) -> None:
        """Keep texts where they are on another server than answers are.

        Where that one is gone, or takes none, it is enough that they have been kept: answers to
        questions met before can be recorded still.
        """
        is_new = not texts.keys() <= self._noted
        min_replicas = self._replicas.least if is_new else 0

        async def run(redis: Redis) -> int:
            pipe = redis.pipeline(transaction=False)
            pipe.evalsha(self._note.sha, 1, TEXTS, *notes_of(texts))
            if min_replicas:
                pipe.set(user_key(BESIDE, TEXTS), b"", px=1)  # as for answers
                pipe.execute_command("WAIT", min_replicas, self._replicas.wait_ms)
            return int((await pipe.execute())[-1])

        try:
            replicas = await self._client.ask(run, key=TEXTS, repeat=True)
        except (StoreFull, StoreReadOnly, StoreUnavailable):
            if is_new:
                raise
            return
        if replicas < min_replicas:
            raise StoreUnavailable(
                f"not recorded: the ids in it are on {replicas} replicas and not on {min_replicas} "
                "(KT_REDIS_MIN_REPLICAS)"
            )
        if len(self._noted) + len(texts) > _NOTED:
            self._noted.clear()
        self._noted |= texts.keys()

    async def behind(self, keys: Iterable[int]) -> dict[int, str]:
        """Return the outside ids behind keys; a key never met is left out."""
        wanted = list(keys)
        if not wanted:
            return {}
        packed = [key.to_bytes(8, "little") for key in wanted]
        found = await self._client.ask(
            lambda redis: redis.hmget(TEXTS, packed), key=TEXTS, repeat=True
        )
        return {k: t.decode() for k, t in zip(wanted, found, strict=True) if t is not None}


def notes_of(texts: Mapping[int, str]) -> list[Any]:
    """Return texts behind their keys, as scripts read them."""
    return [part for key, text in texts.items() for part in (key.to_bytes(8, "little"), text)]
