"""Scripts that are run for many users at once, wherever what is kept of them lies."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis

from app.errors import TracerError
from app.store.keys import HISTORY, user_key
from app.store.redis_client import RedisClient, Script, StoreApart

Arguments = tuple[Any, ...]

Ran = list[tuple[list[Any] | TracerError, list[int]]]
"""What each server gave, or its error, and for which users."""


class CrowdScripts:
    """Scripts whose keys are, user by user, the same few of each."""

    def __init__(self, client: RedisClient, *kinds: str) -> None:
        """`kinds` are of the keys that a script is given of each user."""
        self._client = client
        self._kinds = kinds
        self._is_apart = client.servers.is_cluster  # a plain client finds it out by a refusal

    async def run(
        self,
        script: Script,
        users: Sequence[str],
        common: Arguments,
        each: Sequence[Arguments],
    ) -> Ran:
        """Run a script for users; what goes wrong on one server is told of its users alone.

        A plain server gives one thing for all. In a cluster the keys of a script must lie in one
        slot, and users do not: each has a call, and those of one server go in one trip.
        """
        if not self._is_apart:
            try:
                call = self._call(script, users, common, each)
                return [await self._asked([call], users, range(len(users)))]
            except StoreApart:
                self._is_apart = True
        places: dict[str, list[int]] = {}
        for at, user_id in enumerate(users):
            place = self._client.servers.place_of(user_key(HISTORY, user_id))
            places.setdefault(place, []).append(at)
        calls = [
            self._call(script, [user_id], common, [one])
            for user_id, one in zip(users, each, strict=True)
        ]
        return await asyncio.gather(
            *(self._asked([calls[i] for i in at], users, at) for at in places.values())
        )

    def _call(
        self, script: Script, users: Sequence[str], common: Arguments, each: Sequence[Arguments]
    ) -> Arguments:
        keys = [user_key(kind, user_id) for user_id in users for kind in self._kinds]
        return (script.sha, len(keys), *keys, *common, *(part for one in each for part in one))

    async def _asked(
        self, calls: Sequence[Arguments], users: Sequence[str], at: Sequence[int]
    ) -> tuple[list[Any] | TracerError, list[int]]:
        """Send calls in one go to the server that has the users at these places."""

        async def sent(redis: Redis) -> list[Any]:
            if len(calls) == 1:
                return [await redis.evalsha(*calls[0])]
            pipe = redis.pipeline(transaction=False)
            for call in calls:
                pipe.evalsha(*call)
            return await pipe.execute()

        try:
            found = await self._client.ask(sent, key=user_key(HISTORY, users[at[0]]), repeat=True)
        except TracerError as exc:
            return exc, [*at]
        return found, [*at]
