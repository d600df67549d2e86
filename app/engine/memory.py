"""What a process holds of users, so that a question costs one place and not the window.

A memory is a cache of a cache: it says itself which answers it stands on, the store says whether
these are still the ones, and where it is gone the window is read again.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from models.contract.counts import Counted

_ROOM = 32  # places: a buffer is copied once in so many answers
_AN_ENTRY = 1500  # bytes, about: the objects around the arrays
IDLE_S = 3600.0


class Rows:
    """Rows (P, C) of places, one after the other in one buffer with room behind them.

    What grows out of rows shares their buffer. Two threads may grow the same rows at a time: they
    stand on the same answers, so they write the same.
    """

    __slots__ = ("_buffer", "_count")

    def __init__(self, buffer: NDArray[np.float32], count: int) -> None:
        self._buffer = buffer
        self._count = count

    @classmethod
    def none(cls, width: int) -> Self:
        """Return no rows of this width."""
        return cls(np.empty((0, width), np.float32), 0)

    @property
    def array(self) -> NDArray[np.float32]:
        """The rows, (P, C), without a copy."""
        return self._buffer[: self._count]

    @property
    def nbytes(self) -> int:
        """Bytes of the buffer."""
        return self._buffer.nbytes

    def __len__(self) -> int:
        return self._count

    def grown(self, new: NDArray[np.float32]) -> Rows:
        """Return these rows and, behind them, `new` (N, C)."""
        count = self._count + len(new)
        buffer = self._buffer
        if count > len(buffer):
            buffer = np.empty((count + _ROOM, buffer.shape[1]), np.float32)
            buffer[: self._count] = self.array
        buffer[self._count : count] = new
        return Rows(buffer, count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What one model makes of a user's answers `start` to `seen`, counted from the very first."""

    start: int  # number of the first answer of the window
    seen: int  # number after the last one
    past: Counted | None = None  # the answers themselves, where the model counts them
    state: bytes = b""  # of a model with a step graph
    rows: Rows | None = None  # of a model that remembers places, ...
    carry: NDArray[Any] | None = None  # ... and what the last of them hands on

    @property
    def nbytes(self) -> int:
        """Bytes held, about."""
        past = self.past
        arrays = () if past is None else (past.question, past.skills, past.response)
        rows = 0 if self.rows is None else self.rows.nbytes
        carry = 0 if self.carry is None else self.carry.nbytes
        return _AN_ENTRY + len(self.state) + rows + carry + sum(a.nbytes for a in arrays)


class Held(NamedTuple):
    """A memory, and the history that it is of."""

    history: bytes
    memory: Memory
    nbytes: int
    used_s: float


class Memories:
    """The memories of the users seen last, by user and model, of no more than so many bytes.

    Belongs to the event loop's thread.
    """

    def __init__(
        self,
        max_bytes: int,
        evicted: Callable[[int], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`evicted` hears how many had to go for want of room."""
        self._max_bytes = max_bytes
        self._evicted = evicted
        self._clock = clock
        self._models: set[str] = set()  # by which something may be held
        self._held: OrderedDict[tuple[str, str], Held] = OrderedDict()  # longest unused first
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._held)

    @property
    def hold_nothing(self) -> bool:
        """There is no room for any."""
        return self._max_bytes == 0

    def find(self, user_id: str, model: str) -> Held | None:
        """Return what is held of a user by a model; None where nothing is."""
        key = (user_id, model)
        held = self._held.get(key)
        if held is not None:
            self._held[key] = held._replace(used_s=self._clock())
            self._held.move_to_end(key)
        return held

    def keep(self, user_id: str, model: str, history: bytes, memory: Memory) -> None:
        """Hold a memory of the history with this name, unless one that knows as much is held."""
        key = (user_id, model)
        old = self._held.get(key)
        if old is not None:
            if (
                old.history == history
                and old.memory.start == memory.start
                and old.memory.seen >= memory.seen
            ):
                return
            self._drop(key)
        nbytes = memory.nbytes
        if nbytes <= self._max_bytes:  # or all others would have to go, and then itself
            self._models.add(model)
            self._held[key] = Held(history, memory, nbytes, self._clock())
            self.nbytes += nbytes
            self._make_room()

    def forget(self, user_id: str, model: str | None = None) -> None:
        """Hold nothing of a user any more, or only nothing by this model."""
        for name in self._models if model is None else (model,):
            if (user_id, name) in self._held:
                self._drop((user_id, name))

    def retire(self, model: str) -> None:
        """Hold nothing by a model that is served no more."""
        self._models.discard(model)
        for key in [key for key in self._held if key[1] == model]:
            self._drop(key)

    def _make_room(self) -> None:
        gone = 0
        while self.nbytes > self._max_bytes:
            self._drop(next(iter(self._held)))
            gone += 1
        if gone:
            self._evicted(gone)
        # Nobody asks any more: whoever was forgotten by another server is not held for ever.
        idle_since = self._clock() - IDLE_S
        while self._held and next(iter(self._held.values())).used_s < idle_since:
            self._drop(next(iter(self._held)))

    def _drop(self, key: tuple[str, str]) -> None:
        self.nbytes -= self._held.pop(key).nbytes
