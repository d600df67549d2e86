"""Calls of the scripts that change a history: on terms, behind forecasts, on so many replicas."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Literal

from redis.asyncio import Redis

from app.errors import (
    AnswerLate,
    HistoryChanged,
    IdempotencyKeyReused,
    InteractionUnknown,
    StoreUnavailable,
    TracerError,
)
from app.store.durability import Replicas
from app.store.histories import Terms, Version
from app.store.keys import BESIDE, CALLS, HISTORY, user_key
from app.store.redis_client import RedisClient, Script
from app.store.redis_outcomes import Carried

_REFUSALS: dict[Any, type[TracerError]] = {
    b"changed": HistoryChanged,
    b"reused": IdempotencyKeyReused,
    b"late": AnswerLate,
    b"unknown": InteractionUnknown,
}
"""What is raised where a script has refused a change, by its word for that."""


class RedisChanges:
    """Makes changes behind one client."""

    def __init__(self, client: RedisClient, keep: int, replicas: Replicas) -> None:
        """`keep` interactions of a history are left."""
        self._client = client
        self._keep = keep
        self._replicas = replicas

    def call(
        self,
        script: Script,
        user_id: str,
        terms: Terms,
        content: bytes,
        *arguments: Any,
        more: Sequence[str] = (),
    ) -> Sequence[Any]:
        """Return the call of a script behind `change`, with `more` keys behind its own."""
        keys = [user_key(kind, user_id) for kind in (HISTORY, BESIDE, CALLS)]
        call = b""
        if terms.call_key is not None:
            call = _digest(terms.call_key.encode()) + _digest(content)
        keys += more
        wanted = _versions(terms.meant), _versions(terms.not_meant)
        return (
            *(script.sha, len(keys), *keys),
            *(secrets.token_bytes(4), self._keep, *wanted, call),
            *arguments,
        )

    async def made(
        self,
        user_id: str,
        call: Sequence[Any],
        is_repeatable: bool,
        carried: Carried | None = None,
    ) -> tuple[list[Any], int]:
        """Return what a script has done by such a call, and how many replicas have it.

        Forecasts are kept before it.
        """

        async def run(redis: Redis) -> Any:
            if not (self._replicas.least or carried):
                return await redis.evalsha(*call), 0
            pipe = redis.pipeline(transaction=False)
            if carried is not None:
                pipe.evalsha(*carried.call)
            if self._replicas.least:
                # WAIT is for what this connection wrote: where nothing was, for this.
                pipe.set(user_key(BESIDE, user_id), b"", px=1)
            pipe.evalsha(*call)
            if self._replicas.least:
                pipe.execute_command("WAIT", self._replicas.least, self._replicas.wait_ms)
            answers = await pipe.execute(raise_on_error=False)
            waited = answers.pop() if self._replicas.least else 0
            done = answers.pop()
            failed = next((one for one in (done, waited) if isinstance(one, Exception)), None)
            # Those that were kept are not to come again, whatever came of the rest.
            if carried is not None and not (failed and isinstance(answers[0], Exception)):
                carried.were_kept(answers[0])
            if failed is not None:
                raise failed
            return done, waited

        done, replicas = await self._client.ask(
            run, key=user_key(HISTORY, user_id), repeat=is_repeatable
        )
        return _accepted(done), replicas

    def require(self, replicas: int) -> None:
        """Raise `StoreUnavailable` where a change is on fewer replicas than it must be."""
        if replicas < self._replicas.least:
            raise StoreUnavailable(
                f"recorded, but on {replicas} replicas and not on {self._replicas.least} "
                "(KT_REDIS_MIN_REPLICAS): a fail-over now might lose it"
            )


def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=16).digest()


def _versions(versions: Sequence[Version] | Literal["*"] | None) -> bytes:
    """Return versions as `change.lua` reads them."""
    if versions is None:
        return b""
    if versions == "*":
        return b"*"
    return b"=" + b"".join(v.name + v.total.to_bytes(8, "little") for v in versions)


def _accepted(found: list[Any]) -> list[Any]:
    """Return what a script has done; raise where it has refused to."""
    word, *more = found
    if word in _REFUSALS:
        raise _REFUSALS[word](*more)
    return found
