"""Candidates: other versions of models, which answer a share of the users or are only compared."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Coroutine
from contextvars import Context
from dataclasses import dataclass
from typing import Any

from app.engine.model import ServedModel

_AT_A_TIME = 16
"""Comparisons under way; more are dropped: nobody waits for one, and none may hold up a caller."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A version that may take the place of the one that is served."""

    model: ServedModel
    share: float  # of users who are answered by it, 0 to 1
    is_compared: bool  # asked beside the one served, whose answer goes out

    def answers(self, user_id: str | None) -> bool:
        """Say whether it is this user's model: the same one every time, on every server."""
        if user_id is None or not self.share:
            return False
        salted = f"{self.model.name}/{user_id}"  # not the same users for every model
        return zlib.crc32(salted.encode()) < self.share * 2**32


class Comparisons:
    """Comparisons under way, apart from the requests that they come from."""

    def __init__(self) -> None:
        self._under_way: set[asyncio.Task[None]] = set()

    def begin(self, comparison: Coroutine[Any, Any, None]) -> bool:
        """Run one in the background; False where too many are under way and it is dropped."""
        if len(self._under_way) >= _AT_A_TIME:
            comparison.close()
            return False
        task = asyncio.create_task(comparison, context=Context())
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return True
