"""Whether a server answers. Who asks one that is known to be gone is told so at once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import Context
from typing import Any

from app.store.failures import BREAKS, gone, refuses_writes, why

log = logging.getLogger(__name__)

Probe = Callable[[], Awaitable[object]]

_FIRST_LOOK_S = 0.25  # so long may a server take to show that it was one call that failed
_LOOK_S = 1.0
_PAUSES_S = 0.05, 0.4  # between two looks, at first and in the end


class Health:
    """What is known of one server. A failed call is a doubt; a look that fails makes it sure."""

    def __init__(
        self, probe: Probe, hang_up: Probe, changed: Callable[[], None] = lambda: None
    ) -> None:
        """`probe` returns where the server answers; `hang_up` closes what connections there are.

        `changed` hears when the server goes and comes back.
        """
        self._probe = probe
        self._hang_up = hang_up
        self._changed = changed
        self._reason: str | None = None  # why it is known to be gone
        self._watching: asyncio.Task[None] | None = None
        self._is_closed = False
        self._looked = asyncio.Event()
        self._looked.set()
        self._under_way: set[asyncio.Task[Any]] = set()

    @property
    def is_up(self) -> bool:
        """Nothing is known against it."""
        return self._reason is None

    async def check(self) -> None:
        """Return where the server may be asked; raise `StoreUnavailable` where it is gone.

        While a doubt is being cleared up, who asks waits for what comes of it.
        """
        if not self._looked.is_set():
            await self._looked.wait()
        if self._reason is not None:
            self.doubt()  # should nobody be looking any more
            raise gone(self._reason)

    def call(self) -> _Call:
        """Give up what stands in the `with`, by a `ConnectionError`, once the server is gone."""
        return _Call(self._under_way)

    def doubt(self) -> None:
        """Look whether the server is there, and if not, until it is."""
        if self._watching is None and not self._is_closed:
            self._looked.clear()
            # Apart from the request that found it: it is for all who come.
            self._watching = asyncio.create_task(
                self._watch(), name="store-health", context=Context()
            )

    async def aclose(self) -> None:
        """Look no more."""
        self._is_closed = True
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching

    async def _watch(self) -> None:
        pause_s, longest_pause_s = _PAUSES_S
        longest_s, lost_s = _FIRST_LOOK_S, 0.0
        try:
            while (reason := await self._look(longest_s)) is not None:
                if self.is_up:
                    lost_s = time.monotonic()
                    await self._lost(reason)
                self._reason = reason
                await asyncio.sleep(pause_s)
                pause_s, longest_s = min(2 * pause_s, longest_pause_s), _LOOK_S
            if not self.is_up:
                self._reason = None
                log.warning("store_back", extra={"after_s": round(time.monotonic() - lost_s, 3)})
                self._changed()
        finally:
            self._watching = None
            self._looked.set()

    async def _look(self, longest_s: float) -> str | None:
        """Return why the server does not answer; None where it does."""
        try:
            async with asyncio.timeout(longest_s):
                try:
                    await self._probe()
                except BREAKS:  # perhaps the connection of the look before, cut with the others
                    await self._probe()
        except Exception as exc:  # whatever it is, there is no answer
            # But for one that cannot save: it refuses this as it does writes, and answers reads.
            return None if refuses_writes(exc) else why(exc)
        return None

    async def _lost(self, reason: str) -> None:
        """Give up what is under way, and every connection: it may lead to where nobody is."""
        log.error("store_lost", extra={"why": reason})
        self._reason = reason
        self._looked.set()
        under_way = [*self._under_way]
        self._under_way.clear()
        for task in under_way:
            task.cancel()
        self._changed()
        with suppress(Exception):  # whatever a broken connection says in the end
            await self._hang_up()


class _Call:
    """Something sent to a server, for as long as the `with` lasts."""

    __slots__ = ("_task", "_under_way")

    def __init__(self, under_way: set[asyncio.Task[Any]]) -> None:
        self._under_way = under_way

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._under_way.add(task)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is asyncio.CancelledError and self._task not in self._under_way:
            self._task.uncancel()
            raise ConnectionError("given up") from None
        self._under_way.discard(self._task)
