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
from typing import NamedTuple

import numpy as np

from app.errors import Overloaded, StoreCorrupt, TracerError
from app.store.crowd import Arguments, CrowdScripts
from app.store.keys import HISTORY, STATES, user_key
from app.store.packed import unpacked_all
from app.store.redis_client import RedisClient
from app.store.states import STANDING, UNREACHED, Known, Standing, Standings, StateRule
from app.store.trips import Trips

log = logging.getLogger(__name__)

Tell = Callable[[str, int], None]  # what became of states, how many
_Ask = tuple[str, StateRule, Known | tuple[()]]

_NOTHING = Known(b"", 0, 0)

_Part = tuple[bytes, list[bytes], list[bytes]]  # rows, states, records: what `stand` gives
_UNREACHED: _Part = (np.array((0, UNREACHED, 0, 0, 0, b"", 0, 0), STANDING).tobytes(), [], [])

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
        self._crowd = CrowdScripts(client, HISTORY, STATES)
        self._trips: dict[str, Trips[_Ask, Standing]] = {}  # by server: none waits for another
        self._max_waiting = max_waiting
        self._many_waiting = 0  # users of trips of their own
        self._at_a_time = asyncio.Semaphore(_AT_A_TIME)
        self._waiting: deque[_Kept] = deque()
        self._writing: asyncio.Task[None] | None = None

    async def stand(self, user_id: str, rule: StateRule, known: Known | None = None) -> Standing:
        """Return how a user stands, in a round trip shared with all who ask meanwhile."""
        place = self._client.servers.place_of(user_key(HISTORY, user_id))
        if place not in self._trips:
            self._trips[place] = Trips(
                self._standings, most=_TOGETHER, max_waiting=self._max_waiting
            )
        return await self._trips[place]((user_id, rule, known or ()))

    async def stand_all(self, user_ids: Sequence[str], rule: StateRule) -> Standings:
        """Return how users stand, in a trip of their own; `Overloaded` where too many wait."""
        if self._many_waiting >= self._max_waiting:
            raise Overloaded(f"{self._max_waiting} users are waiting for the store already")
        self._many_waiting += len(user_ids)
        try:
            # Few at a time, so that connections are left and nobody waits long for the server.
            async with self._at_a_time:
                return await self._stood(user_ids, rule, partly=True)
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
        self,
        user_ids: Sequence[str],
        rule: StateRule,
        known: Sequence[Arguments] = (),
        *,
        partly: bool = False,
    ) -> Standings:
        """Read how users stand; `partly` also where some of the servers are gone."""
        whole = "window" if rule.whole_window else ""
        common = (self._keep, rule.key, rule.size, rule.length, rule.cut, whole)
        if not any(known):
            known = [()] * len(user_ids)
        else:
            known = [one or _NOTHING for one in known]
        parts: list[_Part] = [_UNREACHED] * len(user_ids)
        failed: TracerError | None = None
        ran = await self._crowd.run(self._stand, user_ids, common, known)
        for found, at in ran:
            if isinstance(found, TracerError):
                failed = found
            elif len(found) == len(at):
                for place, part in zip(at, found, strict=True):
                    parts[place] = part
            else:
                parts = found  # one for all
        if failed is not None and not (partly and len(ran) > 1):
            raise failed
        table = np.frombuffer(b"".join(part[0] for part in parts), STANDING)
        states = [one for part in parts for one in part[1]]
        records = [one for part in parts for one in part[2]]
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
        written = lost = 0
        for part, at in await self._crowd.run(self._settle, users, (_LIFE_S, _A_USER), arguments):
            if isinstance(part, TracerError):
                log.warning("states_not_kept", extra={"states": len(at), "code": part.code})
                lost += len(at)
            else:
                written += sum(part)
        if lost:
            self._tell("lost", lost)
        self._tell("written", written)
        self._tell("outrun", len(states) - lost - written)
