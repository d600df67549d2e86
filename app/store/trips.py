"""Calls that come while one is under way go together in the next."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

from app.errors import Overloaded, StoreUnavailable

Ask = TypeVar("Ask")
Answer = TypeVar("Answer")


class Trips(Generic[Ask, Answer]):
    """One trip at a time, of all who wait; who comes when none is under way leaves at once."""

    def __init__(
        self,
        send: Callable[[Sequence[Ask]], Awaitable[Sequence[Answer | Exception]]],
        *,
        most: int,
        max_waiting: int,
    ) -> None:
        """`send` answers asks in order; it is given up to `most`. Where it raises, all get that."""
        self._send = send
        self._most = most
        self._max_waiting = max_waiting
        self._waiting: deque[tuple[Ask, asyncio.Future[Answer]]] = deque()
        self._trip: asyncio.Task[None] | None = None

    async def __call__(self, ask: Ask) -> Answer:
        """Return the answer to `ask`, or raise it; `Overloaded` at once where too many wait."""
        if len(self._waiting) >= self._max_waiting:
            raise Overloaded(f"{self._max_waiting} callers are waiting for the store already")
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((ask, answer))
        if self._trip is None:
            # Apart from the request that it begins with: it is of others as well.
            self._trip = asyncio.create_task(self._run(), context=Context())
        return await answer

    async def _run(self) -> None:
        try:
            while self._waiting:
                count = min(len(self._waiting), self._most)
                together = [self._waiting.popleft() for _ in range(count)]
                together = [(ask, answer) for ask, answer in together if not answer.done()]
                if together:
                    await self._travel(together)
        finally:
            self._trip = None

    async def _travel(self, together: list[tuple[Ask, asyncio.Future[Answer]]]) -> None:
        try:
            found = await self._send([ask for ask, _ in together])
        except StoreUnavailable as exc:
            # A store that hangs takes its time to be found out: those who wait for the next trip
            # would only wait as long once more.
            together += self._waiting
            self._waiting.clear()
            found = [exc] * len(together)
        except Exception as exc:  # whoever waits is told of it
            found = [exc] * len(together)
        for (_, answer), one in zip(together, found, strict=True):
            if answer.done():  # its caller has left
                continue
            if isinstance(one, Exception):
                answer.set_exception(one)
            else:
                answer.set_result(one)
