"""The threads that models are run in, shared by all models."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Self, TypeVar

T = TypeVar("T")


class Workers:
    """A fixed number of threads, and the right to use one: who holds it never waits for a thread.

    A batch is put together only once its thread is free, so that it takes in all that came until
    then. Where more wait than one batch can hold there is nothing to be taken in: one such batch
    may lie ready, so that a thread goes on at once and does not wait for the event loop.
    Everything but the work itself happens in the event loop's thread: there is no lock.
    """

    def __init__(self, count: int) -> None:
        """Make room for `count` runs at a time; the threads start with `async with`."""
        self._count = count
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._idle = count
        self._is_one_ready = False
        self._waiting: deque[Callable[[], None]] = deque()

    @property
    def idle(self) -> int:
        """Threads that nobody holds."""
        return self._idle

    def take(self, otherwise: Callable[[], None], *, is_full: bool = False) -> bool:
        """Hold a thread if one is idle; if not, `otherwise` is called when one may be.

        With a batch that is full, hold the next thread to be idle, unless somebody waits for it.
        First come, first served; who waits already does not wait twice.
        """
        if self._idle:
            self._idle -= 1
            return True
        is_alone = all(waiting == otherwise for waiting in self._waiting)
        if is_full and is_alone and not self._is_one_ready:
            self._is_one_ready = True
            return True
        if otherwise not in self._waiting:
            self._waiting.append(otherwise)
        return False

    def give_back(self) -> None:
        """Let go of a thread held; it goes to whoever holds the next one."""
        if self._is_one_ready:
            self._is_one_ready = False
        else:
            self._idle += 1
        while self._idle and self._waiting:  # who has nothing left to do takes none
            self._waiting.popleft()()

    def run(self, function: Callable[[], T]) -> Future[T]:
        """Call `function` in the thread held."""
        future: Future[T] = Future()
        self._work.put(partial(_fulfil, future, function))
        return future

    async def __aenter__(self) -> Self:
        for number in range(self._count):
            # A daemon: the interpreter waits at its end for every other kind of thread (an
            # executor's too), and one run that hangs would keep the process from ending.
            Thread(target=self._serve, name=f"model-run-{number}", daemon=True).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Let the threads end. A call that never comes back is not waited for."""
        for _ in range(self._count):
            self._work.put(None)

    def _serve(self) -> None:
        """Work until told to end, in a thread."""
        while (work := self._work.get()) is not None:
            work()
            del work  # or its items and results would live until the next run


def _fulfil(future: Future[T], function: Callable[[], T]) -> None:
    try:
        result = function()
    except BaseException as exc:  # whoever holds the future is told of it
        future.set_exception(exc)
    else:
        future.set_result(result)
