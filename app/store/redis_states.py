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
from typing import Any, NamedTuple

import numpy as np

from app.errors import TracerError
from app.store.keys import HISTORY, STATES
from app.store.redis_client import RedisClient, corrupt
from app.store.states import Standing, StateRule
from app.store.trips import Trips
from models.contract.interaction import INTERACTION

log = logging.getLogger(__name__)

Tell = Callable[[str, int], None]  # what became of states, how many

_TOGETHER = 128  # a script holds up every other caller of the server for as long as it runs
_WAITING = 4096
_A_USER = 8  # states of one user, at most
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
        self._trips: Trips[tuple[str, StateRule], Standing] = Trips(
            self._standings, most=_TOGETHER, max_waiting=max_waiting
        )
        self._waiting: deque[_Kept] = deque()
        self._writing: asyncio.Task[None] | None = None

    async def stand(self, user_id: str, rule: StateRule) -> Standing:
        """Return how a user stands, in a round trip shared with all who ask meanwhile."""
        return await self._trips((user_id, rule))

    def keep(self, user_id: str, rule: StateRule, standing: Standing, state: bytes) -> None:
        """Keep a state soon. Where too many wait the oldest is lost: it will be made again."""
        header = b"KTS1" + standing.history + struct.pack("<qq", standing.start, standing.total)
        if len(self._waiting) >= _WAITING:
            self._waiting.popleft()
            self._tell("lost", 1)
        self._waiting.append(_Kept(user_id, rule.key, header + state))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())

    async def aclose(self) -> None:
        """Return when what waits has been written, or cannot be."""
        if self._writing is not None:
            await self._writing

    async def _standings(
        self, asks: Sequence[tuple[str, StateRule]]
    ) -> Sequence[Standing | Exception]:
        keys = [template % user_id for user_id, _ in asks for template in (HISTORY, STATES)]
        arguments: list[Any] = [self._keep]
        for _, rule in asks:
            wanted = "window" if rule.whole_window else ""
            arguments += (rule.key, rule.size, rule.length, rule.cut, wanted)
        found = await self._client.ask(
            lambda: self._client.redis.evalsha(self._stand.sha, len(keys), *keys, *arguments),
            repeat=True,
        )
        return [corrupt() if len(one) == 1 else _standing(one) for one in found]

    async def _write(self) -> None:
        try:
            while self._waiting:
                count = min(len(self._waiting), _TOGETHER)
                await self._settled([self._waiting.popleft() for _ in range(count)])
        finally:
            self._writing = None

    async def _settled(self, states: Sequence[_Kept]) -> None:
        keys = [template % s.user_id for s in states for template in (HISTORY, STATES)]
        arguments: list[Any] = [_LIFE_S, _A_USER]
        for state in states:
            arguments += (state.key, state.value)
        try:
            written = await self._client.ask(
                lambda: self._client.redis.evalsha(self._settle.sha, len(keys), *keys, *arguments),
                repeat=True,
            )
        except TracerError as exc:
            log.warning("states_not_kept", extra={"states": len(states), "code": exc.code})
            self._tell("lost", len(states))
            return
        self._tell("written", written)
        self._tell("outrun", len(states) - written)


def _standing(found: Sequence[Any]) -> Standing:
    records, first, kept, total, start, seen, state, history = found
    return Standing(
        np.frombuffer(records, INTERACTION), first, kept, total, start, seen, state, history
    )
