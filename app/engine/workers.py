"""The threads that models are run in, shared by all models."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

T = TypeVar("T")


class Workers:
    """A fixed number of threads, and the right to use one: who holds it never waits for a thread.

    A batch is put together only once its thread is free, so that it takes in all that came until
    then.
    """

    def __init__(self, count: int) -> None:
        """Make room for `count` runs at a time."""
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="model-run")
        self._free = asyncio.Semaphore(count)
        self._idle = count

    @property
    def idle(self) -> int:
        """Threads that nobody holds."""
        return self._idle

    async def take(self) -> None:
        """Wait for a thread and hold it; first come, first served."""
        await self._free.acquire()
        self._idle -= 1

    def give_back(self) -> None:
        """Let go of a thread held."""
        self._idle += 1
        self._free.release()

    async def run(self, function: Callable[[], T]) -> T:
        """Call `function` in a thread and return what it returns."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Take no more work. A call that never comes back is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)
