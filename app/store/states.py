"""What the service asks of a store of model states: caches of the histories, never the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class StateRule:
    """Which state of a user is meant, and on which answers it stands."""

    key: str  # of the model, its version and its very files: other weights, another state
    length: int  # of the model's windows; see `models.contract.window.window_start`
    cut: int
    size: int  # bytes of a state
    whole_window: bool  # the records before the state are wanted too


class Known(NamedTuple):
    """What the caller holds of a user already: then the records before it are not wanted."""

    history: bytes  # the name of the history
    start: int  # number of the first interaction that it stands on
    seen: int  # number after the last one


class Standing(NamedTuple):
    """How a user stands: a state, and the interactions after it.

    Numbers count from the user's very first interaction, which is 0.
    """

    interactions: NDArray[np.void]  # INTERACTION, up to the newest; see `StateRule.whole_window`
    first: int  # number of the first one here, at least one before those that are needed
    kept: int  # interactions kept
    total: int  # number after the newest
    start: int  # number of the first interaction that the state stands on
    seen: int  # number after the last one in the state; `start` where there is no state
    state: bytes  # empty where none fits
    history: bytes  # tells this history from another that had the user's name before
    is_known: bool = False  # what the caller holds fits, and takes the place of a state

    @property
    def new(self) -> int:
        """Interactions that the state has not seen."""
        return self.total - self.seen


STANDING = np.dtype(
    [
        ("first", "<i8"),
        ("kept", "<i8"),  # SPOILT where the history is in no form of ours, or UNREACHED
        ("total", "<i8"),
        ("start", "<i8"),
        ("seen", "<i8"),
        ("history", "V4"),
        ("has_state", "<u2"),  # HELD where what the caller holds takes its place
        ("form", "<u2"),  # of the records, as they are stored
    ]
)
"""How a user stands, without the state and the interactions: the numbers of `Standing`."""

SPOILT = -1
"""Of a history that cannot be read."""

UNREACHED = -2
"""Of a history on a server that is gone, where those of others have been read."""

HELD = 2
"""Of a user of whom the caller holds what would be a state."""


@dataclass(frozen=True, slots=True)
class Standings:
    """How many users stand with one model, in columns."""

    table: NDArray[np.void]  # (U,) STANDING
    states: NDArray[np.uint8]  # (S, size) of those who have one
    interactions: NDArray[np.void]  # INTERACTION of all, one user's after the other's

    @property
    def rows(self) -> NDArray[np.int64]:
        """(U,) how many of the interactions are each user's."""
        rows: NDArray[np.int64] = self.table["total"] - self.table["first"]
        return rows

    def each(self) -> list[Standing | None]:
        """Return how each stands; None where the history could not be read."""
        places = zip(
            self.table.tolist(),
            np.cumsum(self.rows).tolist(),
            np.cumsum(self.table["has_state"] == 1).tolist(),
            strict=True,
        )
        return [self._one(row, end, states) for row, end, states in places]

    def one(self, user: int) -> Standing | None:
        """Return how the user of a row stands, as `each` does."""
        end = int(self.rows[: user + 1].sum())
        states = int((self.table["has_state"][: user + 1] == 1).sum())
        return self._one(self.table[user].item(), end, states)

    def _one(self, row: tuple[Any, ...], end: int, states: int) -> Standing | None:
        first, kept, total, start, seen, history, has_state, _ = row
        if kept < 0:
            return None
        interactions = self.interactions[end - (total - first) : end]
        state = self.states[states - 1].tobytes() if has_state == 1 else b""
        is_known = has_state == HELD
        return Standing(interactions, first, kept, total, start, seen, state, history, is_known)


class States(Protocol):
    """States of all users."""

    async def stand(self, user_id: str, rule: StateRule, known: Known | None = None) -> Standing:
        """Return how a user stands, after what is `known` if that fits.

        Raises `StoreUnavailable`, `StoreCorrupt` or `Overloaded`. Callers at the same time share a
        round trip.
        """
        ...

    async def stand_all(self, user_ids: Sequence[str], rule: StateRule) -> Standings:
        """Return how users stand, in a trip of their own; raise as `stand` does.

        It holds up a server as long as they are many: some hundred at a time. In a cluster it
        raises where all servers are gone; those whose own server is are `UNREACHED`.
        """
        ...

    def keep(self, user_id: str, rule: StateRule, standing: Standing, state: bytes) -> None:
        """Keep the state after all interactions of `standing`, soon; it may be lost.

        A state of a history that is there no more, or that knows less than the one kept, is not.
        """
        ...
