"""One time for all requests: who has not been answered in it is told so, and costs nothing more."""

from __future__ import annotations

import asyncio
from typing import Any

Task = asyncio.Task[Any]

_GRAIN_S = 0.01  # of the timer: deadlines that are nearer to each other pass together


class Deadlines:
    """Cancels requests that take too long, by one timer: one for each would cost them all more."""

    def __init__(self, after_s: float) -> None:
        self.after_s = after_s
        self._until_s: dict[Task, float] = {}  # oldest first, so soonest first
        self._passed: set[Task] = set()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, task: Task) -> None:
        """Let the time of a request begin."""
        loop = task.get_loop()
        self._until_s[task] = loop.time() + self.after_s
        if self._timer is None:
            self._timer = loop.call_later(self.after_s, self._look, loop)

    def end(self, task: Task) -> bool:
        """Say whether it was the deadline that ended a request, which is over now."""
        self._until_s.pop(task, None)
        if task not in self._passed:
            return False
        self._passed.remove(task)
        return True

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now_s = loop.time()
        late = [task for task, until_s in self._until_s.items() if until_s <= now_s]
        for task in late:
            del self._until_s[task]
            self._passed.add(task)
            task.cancel()
        soonest_s = next(iter(self._until_s.values()), None)
        self._timer = None
        if soonest_s is not None:
            self._timer = loop.call_later(max(_GRAIN_S, soonest_s - now_s), self._look, loop)
