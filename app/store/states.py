"""What the service asks of a store of model states: caches of the histories, never the truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

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


class States(Protocol):
    """States of all users."""

    async def stand(self, user_id: str, rule: StateRule, known: Known | None = None) -> Standing:
        """Return how a user stands, after what is `known` if that fits.

        Raises `StoreUnavailable`, `StoreCorrupt` or `Overloaded`. Callers at the same time share a
        round trip.
        """
        ...

    def keep(self, user_id: str, rule: StateRule, standing: Standing, state: bytes) -> None:
        """Keep the state after all interactions of `standing`, soon; it may be lost.

        A state of a history that is there no more, or that knows less than the one kept, is not.
        """
        ...
