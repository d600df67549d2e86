"""The threads that models are run in, shared by all models."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

T = TypeVar("T")


class Workers:
    """A fixed number of threads, and the right to use one: who holds it never waits for a thread.

    A batch is put together only once its thread is free, so that it takes in all that came until
    then. Everything but the work itself happens in the event loop's thread: there is no lock.
    """

    def __init__(self, count: int) -> None:
        """Make room for `count` runs at a time."""
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="model-run")
        self._idle = count
        self._waiting: deque[Callable[[], None]] = deque()

    @property
    def idle(self) -> int:
        """Threads that nobody holds."""
        return self._idle

    def take(self, otherwise: Callable[[], None]) -> bool:
        """Hold a thread if one is idle; if not, `otherwise` is called when one may be.

        First come, first served; who waits already does not wait twice.
        """
        if self._idle:
            self._idle -= 1
            return True
        if otherwise not in self._waiting:
            self._waiting.append(otherwise)
        return False

    def give_back(self) -> None:
        """Let go of a thread held."""
        self._idle += 1
        while self._idle and self._waiting:  # who has nothing left to do takes none
            self._waiting.popleft()()

    def run(self, function: Callable[[], T]) -> Future[T]:
        """Call `function` in the thread held."""
        return self._threads.submit(function)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Take no more work. A call that never comes back is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)
