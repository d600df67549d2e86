"""States in Redis, beside the histories they are caches of.

    kt:s1:{user}   hash: key of a rule -> 24 bytes of header, then the state as its graph gives it

The header is `KTS1`, the four bytes that name the history, and two 64-bit integers: the number of
the first interaction that the state stands on, and the number after the last one. A history only
grows, so these say all of a state: two servers that make it make the same.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any, NamedTuple

import numpy as np

from app.errors import Overloaded, StoreCorrupt, TracerError
from app.store.keys import HISTORY, STATES
from app.store.packed import unpacked_all
from app.store.redis_client import RedisClient, Script, StoreApart
from app.store.states import STANDING, Known, Standing, Standings, StateRule
from app.store.trips import Trips

log = logging.getLogger(__name__)

Tell = Callable[[str, int], None]  # what became of states, how many
_Arguments = tuple[Any, ...]

_Ask = tuple[str, StateRule, Known | tuple[()]]

_NOTHING = Known(b"", 0, 0)

_TOGETHER = 128  # a script holds up every other caller of the server for as long as it runs
_WAITING = 4096
_AT_A_TIME = 2  # trips of many users: the server has one to do while the other is read
_HEADER_BYTES = 24
_A_USER = 32  # states of one user, at most: of every model served, and of some before
_LIFE_S = 30 * 86_400


class _Kept(NamedTuple):
    user_id: str
    key: str
    value: bytes


class RedisStates:
    """States behind one client."""

    def __init__(self, client: RedisClient, keep: int, max_waiting: int, tell: Tell) -> None:
        """`keep` is how many interactions are kept; `tell` hears of written, outrun and lost."""
        self._client = client
        self._keep = keep
        self._tell = tell
        self._stand = client.script("stand")
        self._settle = client.script("settle")
        self._is_apart = False  # a cluster: found out by its refusal
        self._trips: Trips[_Ask, Standing] = Trips(
            self._standings, most=_TOGETHER, max_waiting=max_waiting
        )
        self._max_waiting = max_waiting
        self._many_waiting = 0  # users of trips of their own
        self._at_a_time = asyncio.Semaphore(_AT_A_TIME)
        self._waiting: deque[_Kept] = deque()
        self._writing: asyncio.Task[None] | None = None

    async def stand(self, user_id: str, rule: StateRule, known: Known | None = None) -> Standing:
        """Return how a user stands, in a round trip shared with all who ask meanwhile."""
        return await self._trips((user_id, rule, known or ()))

    async def stand_all(self, user_ids: Sequence[str], rule: StateRule) -> Standings:
        """Return how users stand, in a trip of their own; `Overloaded` where too many wait."""
        if self._many_waiting >= self._max_waiting:
            raise Overloaded(f"{self._max_waiting} users are waiting for the store already")
        self._many_waiting += len(user_ids)
        try:
            # Few at a time, so that connections are left and nobody waits long for the server.
            async with self._at_a_time:
                return await self._stood(user_ids, rule)
        finally:
            self._many_waiting -= len(user_ids)

    def keep(self, user_id: str, rule: StateRule, standing: Standing, state: bytes) -> None:
        """Keep a state soon. Where too many wait the oldest is lost: it will be made again."""
        header = b"KTS1" + standing.history + struct.pack("<qq", standing.start, standing.total)
        if len(self._waiting) >= _WAITING:
            self._waiting.popleft()
            self._tell("lost", 1)
        self._waiting.append(_Kept(user_id, rule.key, header + state))
        if self._writing is None:
            # Apart from the request that it comes from: it writes the states of others as well.
            self._writing = asyncio.create_task(self._write(), context=Context())

    async def aclose(self) -> None:
        """Return when what waits has been written, or cannot be."""
        if self._writing is not None:
            await self._writing

    async def _standings(self, asks: Sequence[_Ask]) -> Sequence[Standing | Exception]:
        """Answer a trip: a script for each rule in it, and most trips have one."""
        places: dict[StateRule, list[int]] = {}
        for place, (_, rule, _) in enumerate(asks):
            places.setdefault(rule, []).append(place)
        found: list[Standing | Exception] = [StoreCorrupt()] * len(asks)
        parts = await asyncio.gather(
            *(
                self._stood([asks[i][0] for i in at], rule, [asks[i][2] for i in at])
                for rule, at in places.items()
            )
        )
        for at, part in zip(places.values(), parts, strict=True):
            for place, one in zip(at, part.each(), strict=True):
                if one is not None:
                    found[place] = one
        return found

    async def _stood(
        self, user_ids: Sequence[str], rule: StateRule, known: Sequence[_Arguments] = ()
    ) -> Standings:
        whole = "window" if rule.whole_window else ""
        common = (self._keep, rule.key, rule.size, rule.length, rule.cut, whole)
        if not any(known):
            known = [()] * len(user_ids)
        else:
            known = [one or _NOTHING for one in known]
        parts = await self._run(self._stand, user_ids, common, known)
        table = np.frombuffer(b"".join(part[0] for part in parts), STANDING)
        states, records = ([one for part in parts for one in part[column]] for column in (1, 2))
        kept = np.frombuffer(b"".join(states), np.uint8).reshape(-1, _HEADER_BYTES + rule.size)
        forms = table["form"][table["total"] > table["first"]]
        return Standings(table, kept[:, _HEADER_BYTES:], unpacked_all(records, forms))

    async def _write(self) -> None:
        try:
            while self._waiting:
                count = min(len(self._waiting), _TOGETHER)
                await self._settled([self._waiting.popleft() for _ in range(count)])
        finally:
            self._writing = None

    async def _settled(self, states: Sequence[_Kept]) -> None:
        users, arguments = [s.user_id for s in states], [(s.key, s.value) for s in states]
        try:
            written = sum(await self._run(self._settle, users, (_LIFE_S, _A_USER), arguments))
        except TracerError as exc:
            log.warning("states_not_kept", extra={"states": len(states), "code": exc.code})
            self._tell("lost", len(states))
            return
        self._tell("written", written)
        self._tell("outrun", len(states) - written)

    async def _run(
        self,
        script: Script,
        users: Sequence[str],
        common: _Arguments,
        each: Sequence[_Arguments],
    ) -> list[Any]:
        """Run a script for users: one call for all, or, in a cluster, a call for each.

        In a cluster the keys of a script must lie in one slot, and users do not.
        """
        if not self._is_apart:
            try:
                together = [_call(script, users, common, each)]
                all_in_one: list[Any] = await self._client.ask(
                    lambda: self._sent(together), repeat=True
                )
                return all_in_one
            except StoreApart:
                self._is_apart = True
        calls = [_call(script, [u], common, [one]) for u, one in zip(users, each, strict=True)]
        found: list[Any] = await self._client.ask(lambda: self._sent(calls), repeat=True)
        return found

    async def _sent(self, calls: Sequence[_Arguments]) -> list[Any]:
        """Send calls in one go."""
        if len(calls) == 1:
            return [await self._client.redis.evalsha(*calls[0])]
        pipe = self._client.redis.pipeline(transaction=False)
        for call in calls:
            pipe.evalsha(*call)
        return await pipe.execute()


def _call(
    script: Script, users: Sequence[str], common: _Arguments, each: Sequence[_Arguments]
) -> _Arguments:
    keys = [template % user_id for user_id in users for template in (HISTORY, STATES)]
    return (script.sha, len(keys), *keys, *common, *(part for one in each for part in one))
