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
from redis.asyncio import Redis

from app.errors import StoreFull, StoreReadOnly, StoreUnavailable
from app.store.histories import Page, Recorded, StoredHistory
from app.store.keys import BESIDE, HISTORY, STATES
from app.store.packed import packed, unpacked
from app.store.redis_client import RedisClient
from models.contract.interaction import NO_KEY

_TEXTS, _PING = "kt:t1", "kt:ping%s"

_NOTED = 65_536  # keys of texts that a process remembers to have kept, in a cluster


class RedisHistories:
    """Every user's newest `keep` interactions, behind one client."""

    def __init__(
        self,
        client: RedisClient,
        keep: int,
        kind: str,
        min_replicas: int = 0,
        longest_s: float = 1.0,
    ) -> None:
        """`kind` says in /readyz which store this is: `redis`, `sentinel`, `cluster` or `embedded`.

        Answers are acknowledged when so many replicas have them, or refused after `longest_s`.
        """
        self._client = client
        self._keep = keep
        self._kind = kind
        self._min_replicas = min_replicas
        self._replicas_wait_ms = round(500 * longest_s)  # shorter than the connection waits
        self._noted: set[int] = set()  # keys whose texts are kept, as far as this process knows
        self._append = client.script("append")
        self._read = client.script("read")
        self._note = client.script("note")
        self._rehearse = client.script("rehearse")

    def describe(self) -> dict[str, Any]:
        """Return what /readyz tells of this store."""
        return {
            "kind": self._kind,
            "history_max_items": self._keep,
            **self._client.servers.describe(),
        }

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
        is_cluster = self._client.servers.is_cluster
        if is_cluster:
            await self._note_first(noted, texts)

        async def note(redis: Redis) -> None:
            await redis.evalsha(self._note.sha, 1, _TEXTS, *noted)

        async def run(redis: Redis) -> Any:
            pipe = redis.pipeline(transaction=False)
            if not is_cluster:
                pipe.evalsha(self._note.sha, 1, _TEXTS, *noted)
            if self._min_replicas:
                # WAIT is for what this connection wrote: where all are duplicates, for this.
                pipe.set(keys[1], b"", px=1)
            pipe.evalsha(self._append.sha, 2, *keys, *arguments)
            if self._min_replicas:
                pipe.execute_command("WAIT", self._min_replicas, self._replicas_wait_ms)
            answers = await pipe.execute(raise_on_error=False)
            waited = answers.pop() if self._min_replicas else 0
            added = answers.pop()
            for failed in (added, waited):
                if isinstance(failed, Exception):
                    raise failed
            if not is_cluster and isinstance(answers[0], Exception):
                # The answers are kept: only their names are owed.
                await self._client.with_scripts(note, redis)
            return added, waited

        added, replicas = await self._client.ask(run, key=keys[0], repeat=is_repeatable)
        if replicas < self._min_replicas:
            raise StoreUnavailable(
                f"recorded, but on {replicas} replicas and not on {self._min_replicas} "
                "(KT_REDIS_MIN_REPLICAS): a fail-over now might lose it"
            )
        recorded, duplicates, length = added
        return Recorded(int(recorded), int(duplicates), int(length))

    async def _note_first(self, noted: list[Any], texts: Mapping[int, str]) -> None:
        """Keep texts where they are on another server than answers are.

        Where that one is gone, or takes none, it is enough that they have been kept: answers to
        questions met before can be recorded still.
        """
        is_new = not texts.keys() <= self._noted
        min_replicas = self._min_replicas if is_new else 0

        async def run(redis: Redis) -> int:
            pipe = redis.pipeline(transaction=False)
            pipe.evalsha(self._note.sha, 1, _TEXTS, *noted)
            if min_replicas:
                pipe.set(BESIDE % _TEXTS, b"", px=1)  # as for answers
                pipe.execute_command("WAIT", min_replicas, self._replicas_wait_ms)
            return int((await pipe.execute())[-1])

        try:
            replicas = await self._client.ask(run, key=_TEXTS, repeat=True)
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

    async def texts(self, keys: Iterable[int]) -> dict[int, str]:
        """Return the outside ids behind keys; a key never met is left out."""
        wanted = list(keys)
        if not wanted:
            return {}
        packed = [_packed(key) for key in wanted]
        found = await self._client.ask(
            lambda redis: redis.hmget(_TEXTS, packed), key=_TEXTS, repeat=True
        )
        return {k: t.decode() for k, t in zip(wanted, found, strict=True) if t is not None}

    async def forget(self, user_id: str) -> bool:
        """Delete everything kept of a user; True if there was anything."""
        # The history first: a state that is written meanwhile finds none, and is not kept.
        keys = HISTORY % user_id, STATES % user_id
        return bool(
            await self._client.ask(lambda redis: redis.unlink(*keys), key=keys[0], repeat=True)
        )

    async def ping(self) -> None:
        """Return when the store, or a server of its cluster, answers and would take a write."""

        async def run(redis: Redis, key: str) -> Any:
            pipe = redis.pipeline(transaction=False)
            pipe.ping()
            pipe.set(key, b"1", ex=60)
            pipe.evalsha(self._rehearse.sha, 1, key)
            answers = await pipe.execute(raise_on_error=False)
            for one in answers:
                if isinstance(one, Exception):
                    raise one
            return answers[-1]

        told = await self._client.ask_each(run, _PING)
        failed = [one for one in told if isinstance(one, Exception)]
        if len(failed) == len(told):
            raise failed[0]
        forbidden = sorted({c.decode() for one in told if isinstance(one, list) for c in one})
        if forbidden:
            raise StoreUnavailable(
                f"the user of KT_REDIS_URL may not {', '.join(forbidden)}; "
                "docs/operations.md has the rule that lets it"
            )

    async def _slice(
        self, user_id: str, start: str, limit: int
    ) -> tuple[NDArray[np.void], int, int, int]:
        """Return records, the first one's number, how many are kept, and the next number."""
        arguments = (start, str(limit), str(self._keep))
        records, first, kept, total, form = await self._client.ask(
            lambda redis: redis.evalsha(self._read.sha, 1, HISTORY % user_id, *arguments),
            key=HISTORY % user_id,
            repeat=True,
        )
        return unpacked(records, form), int(first), int(kept), int(total)


def _packed(key: int) -> bytes:
    return key.to_bytes(8, "little")
