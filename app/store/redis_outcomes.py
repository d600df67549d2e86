"""Forecasts and outcomes in Redis; `lua/outcomes.lua` compares the ones with answers.

    kt:p1:{user}    string: forecasts not answered yet, `KEPT_FORECAST`, oldest first
    kt:q1:{model}   string: 16 bytes of header, then a ring of outcomes, `OUTCOME`

The header of a ring is `KTQ1`, how many outcomes it has room for, and how many there ever were.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import Context

import numpy as np
from redis.asyncio import Redis

from app.errors import StoreUnavailable, TracerError
from app.store.crowd import Arguments, CrowdScripts
from app.store.keys import FORECASTS, HISTORY, OUTCOMES, user_key
from app.store.outcomes import FORECAST, OUTCOME, Outcomes
from app.store.redis_client import RedisClient, StoreApart
from app.store.redis_states import Tell

log = logging.getLogger(__name__)

_HEADER = struct.Struct("<4sIQ")
_MARK = b"KTQ1"

_MOST = 10_000
_OF_A_USER = 1024  # forecasts of one user; cut to these when there are twice as many
_TOGETHER = 128  # users in one script, as of states
_WAITING_BYTES = 65_536 * FORECAST.itemsize
_PAUSE_S = 0.25  # between trips: each is a write that the store may have to sync
_RINGS = 16  # models of a process, and some before


class Carried:
    """Forecasts of a user that go along with a recording."""

    def __init__(self, forecasts: bytes, call: Arguments, tell: Tell) -> None:
        """`call` is that of a script that keeps them; `tell` hears what came of it, once."""
        self.forecasts = forecasts
        self.call = call
        self.is_told = False
        self._tell = tell

    def were_kept(self, kept: int | Exception) -> None:
        """Hear how many were; the recording may be on its way still when its caller has left."""
        if self.is_told:
            return
        self.is_told = True
        found = 0 if isinstance(kept, Exception) else kept
        lost = len(self.forecasts) // FORECAST.itemsize - found
        self._tell("kept", found)
        if lost:
            self._tell("lost", lost)


class RedisOutcomes:
    """Forecasts and outcomes behind one client."""

    def __init__(
        self, client: RedisClient, within_s: int, tell: Tell, *, most: int = _MOST
    ) -> None:
        """`tell` hears of forecasts kept and lost, and of outcomes joined and missed."""
        self.within_s = within_s
        self.most = most
        self._client = client
        self._tell = tell
        self._crowd = CrowdScripts(client, HISTORY, FORECASTS)
        self._foresee = client.script("foresee", "outcomes")
        self._put = client.script("put", "outcomes")
        self._rings: dict[bytes, str] = {}  # of models that this process has spoken of
        self._waiting: dict[str, list[bytes]] = {}
        self._waiting_bytes = 0
        self._writing: asyncio.Task[None] | None = None
        self._on_the_way: dict[str, asyncio.Event] = {}
        self._closing = asyncio.Event()

    # -- forecasts in --------------------------------------------------------------------------

    def note(self, user_id: str, model_key: int, forecasts: bytes) -> None:
        """Keep forecasts of one model (`FORECAST`) soon; the oldest are lost of too many."""
        self.note_all(model_key, [(user_id, forecasts)])

    def note_all(self, model_key: int, noted: Sequence[tuple[str, bytes]]) -> None:
        """Keep forecasts of many users, as `note` does those of one."""
        self._know(model_key.to_bytes(8, "little"))
        self._wait(noted)

    @asynccontextmanager
    async def carried(self, user_id: str) -> AsyncIterator[Carried | None]:
        """Give what waits to be kept of a user, if there is any, to be kept by whoever enters.

        What was on its way is there by then. Where the store cannot be reached all of it waits on.
        """
        await self._arrived(user_id)
        forecasts = self._take(user_id)
        if not forecasts:
            yield None
            return
        carried = Carried(forecasts, self._keeping(user_id, forecasts), self._tell)
        try:
            with self._under_way([user_id]):
                yield carried
        except (StoreApart, StoreUnavailable):
            if not carried.is_told:
                self._wait([(user_id, forecasts)], are_older=True)
            raise
        except TracerError as exc:  # a store that takes none
            carried.were_kept(exc)
            raise

    async def forget(self, user_id: str) -> None:
        """Keep nothing that waits of a user."""
        await self._arrived(user_id)
        self._take(user_id)

    async def aclose(self) -> None:
        """Return when what waits has been kept, or cannot be."""
        self._closing.set()
        if self._writing is not None:
            await self._writing

    # -- outcomes ------------------------------------------------------------------------------

    def joining(self, user_id: str, *, is_apart: bool) -> tuple[list[str], Arguments]:
        """Return what `append.lua` wants besides, keys and arguments, to compare forecasts.

        `is_apart` says that rings do not lie where the user does.
        """
        rings = {} if is_apart else self._rings
        keys = [user_key(FORECASTS, user_id), *rings.values()]
        return keys, (self.within_s, self.most, *rings)

    async def joined(self, joined: int, others: Sequence[bytes]) -> None:
        """Count outcomes that are in their rings, and put those there that are not.

        `others` are each the key of the model, then the outcome. Those that cannot be put are
        counted as missed: whoever has recorded an answer is not to blame.
        """
        rings: dict[bytes, list[bytes]] = {}
        for one in others:
            rings.setdefault(one[:8], []).append(one[8:])
        done = await asyncio.gather(*(self._put_into(key, rings[key]) for key in rings))
        missed = sum(len(rings[key]) for key, is_put in zip(rings, done, strict=True) if not is_put)
        self._tell("joined", joined + len(others) - missed)
        if missed:
            self._tell("missed", missed)

    async def outcomes(self, model_key: int) -> Outcomes:
        """Return what became of a model's newest forecasts."""
        ring = _ring(model_key.to_bytes(8, "little"))
        content = await self._client.ask(
            lambda redis: redis.getrange(ring, 0, -1), key=ring, repeat=True
        )
        if not self._is_ring(content):  # where it is another form, the next one begins anew
            return Outcomes(np.empty(0, OUTCOME), 0)
        _, most, total = _HEADER.unpack_from(content)
        table = np.frombuffer(content, OUTCOME, offset=_HEADER.size)
        return Outcomes(np.roll(table, -(total % most)) if total > most else table, total)

    # -- inside --------------------------------------------------------------------------------

    def _keeping(self, user_id: str, forecasts: bytes) -> Arguments:
        """Return the call of a script that keeps forecasts."""
        keys = user_key(HISTORY, user_id), user_key(FORECASTS, user_id)
        return (self._foresee.sha, len(keys), *keys, *self._common, forecasts)

    def _is_ring(self, content: bytes) -> bool:
        is_whole = (len(content) - _HEADER.size) % OUTCOME.itemsize == 0
        return is_whole and content.startswith(_MARK + self.most.to_bytes(4, "little"))

    @property
    def _common(self) -> Arguments:
        return self.within_s, _OF_A_USER

    def _know(self, model_key: bytes) -> None:
        if model_key not in self._rings:
            if len(self._rings) >= _RINGS:
                del self._rings[next(iter(self._rings))]
            self._rings[model_key] = _ring(model_key)

    def _wait(self, noted: Iterable[tuple[str, bytes]], *, are_older: bool = False) -> None:
        """Let forecasts wait to be kept, behind those of the same users unless they are older."""
        for user_id, forecasts in noted:
            if (waiting := self._waiting.get(user_id)) is None:
                self._waiting[user_id] = [forecasts]
            else:
                waiting.insert(0 if are_older else len(waiting), forecasts)
            self._waiting_bytes += len(forecasts)
        while self._waiting_bytes > _WAITING_BYTES:
            self._count("lost", self._take(next(iter(self._waiting))))
        if self._waiting and self._writing is None:
            # Apart from the request that it comes from: it writes the forecasts of others as well.
            self._writing = asyncio.create_task(self._write(), context=Context())

    def _take(self, user_id: str) -> bytes:
        taken = b"".join(self._waiting.pop(user_id, ()))
        self._waiting_bytes -= len(taken)
        return taken

    def _count(self, result: str, forecasts: bytes) -> None:
        if forecasts:
            self._tell(result, len(forecasts) // FORECAST.itemsize)

    async def _write(self) -> None:
        try:
            while self._waiting:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_PAUSE_S):
                        await self._closing.wait()
                users = [*self._waiting]
                for first in range(0, len(users), _TOGETHER):
                    if not await self._sent(users[first : first + _TOGETHER]):
                        break  # nobody is there: all others wait as well
        finally:
            self._writing = None

    async def _sent(self, users: Sequence[str]) -> bool:
        """Keep what waits of users, in one trip; False where all of it waits on for the store.

        Of whom some is on its way already, the rest goes in the next one: while this one waited for
        it, more of others could set out.
        """
        free = [user_id for user_id in users if user_id not in self._on_the_way]
        taken = {user_id: self._take(user_id) for user_id in free}
        found = {user_id: forecasts for user_id, forecasts in taken.items() if forecasts}
        if found:
            with self._under_way([*found]):
                return await self._keep([*found], [*found.values()])
        await self._arrived(users[0])
        return True

    async def _arrived(self, user_id: str) -> None:
        while (arrival := self._on_the_way.get(user_id)) is not None:
            await arrival.wait()

    @contextmanager
    def _under_way(self, users: Sequence[str]) -> Iterator[None]:
        """Let who asks for these users meanwhile wait."""
        arrival = asyncio.Event()
        self._on_the_way |= dict.fromkeys(users, arrival)
        try:
            yield
        finally:
            for user_id in users:
                del self._on_the_way[user_id]
            arrival.set()

    async def _keep(self, users: Sequence[str], forecasts: Sequence[bytes]) -> bool:
        each = [(one,) for one in forecasts]
        kept = lost = 0
        for part, at in await self._crowd.run(self._foresee, users, self._common, each):
            count = sum(len(forecasts[place]) for place in at) // FORECAST.itemsize
            if not isinstance(part, TracerError):
                kept, lost = kept + sum(part), lost + count - sum(part)
            elif isinstance(part, StoreUnavailable) and not self._closing.is_set():
                # until the store is back
                self._wait(((users[p], forecasts[p]) for p in at), are_older=True)
            else:
                log.warning("forecasts_not_kept", extra={"forecasts": count, "code": part.code})
                lost += count
        self._tell("kept", kept)
        if lost:
            self._tell("lost", lost)
        return bool(kept or lost)

    async def _put_into(self, model_key: bytes, outcomes: Sequence[bytes]) -> bool:
        self._know(model_key)
        ring = self._rings[model_key]

        async def put(redis: Redis) -> bool:
            return bool(await redis.evalsha(self._put.sha, 1, ring, self.most, *outcomes))

        try:
            # Not tried again: a ring that has taken them would have them twice.
            return bool(await self._client.ask(put, key=ring, repeat=False))
        except TracerError as exc:
            log.warning("outcomes_missed", extra={"outcomes": len(outcomes), "code": exc.code})
            return False


def _ring(model_key: bytes) -> str:
    return OUTCOMES % model_key.hex()
