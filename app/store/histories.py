"""What the service asks of a store, in the words of the domain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class StoredHistory(NamedTuple):
    """The newest interactions of one user."""

    interactions: NDArray[np.void]  # INTERACTION, oldest first
    dropped: int  # older interactions of this user that are not in the array, kept or not
    length: int  # interactions kept

    @property
    def is_empty(self) -> bool:
        """Nothing is kept of this user."""
        return self.length == 0


class Recorded(NamedTuple):
    """What one append did."""

    recorded: int
    duplicates: int  # left out: their event id was already there
    length: int  # interactions kept now


class Page(NamedTuple):
    """A run of kept interactions, oldest first, numbered from the user's very first one."""

    interactions: NDArray[np.void]
    first: int  # number of the first interaction in the page
    next: int | None  # number to go on from; None at the end
    length: int  # interactions kept


class Histories(Protocol):
    """Histories of all users. Every method raises `StoreUnavailable` where the store is gone."""

    def describe(self) -> dict[str, Any]:
        """Return what /readyz tells of this store."""
        ...

    async def read(self, user_id: str, last: int) -> StoredHistory:
        """Return the newest `last` interactions, in one round trip."""
        ...

    async def page(self, user_id: str, start: int, limit: int) -> Page:
        """Return up to `limit` interactions from number `start` on; dropped ones are skipped."""
        ...

    async def append(
        self, user_id: str, interactions: NDArray[np.void], texts: Mapping[int, str]
    ) -> Recorded:
        """Add interactions atomically, all or none, but for those whose event key is already there.

        `texts` gives the outside id (or skill-set text) behind every key in `interactions`; they
        are kept before the interactions are.
        """
        ...

    async def texts(self, keys: Iterable[int]) -> dict[int, str]:
        """Return the outside ids behind keys; a key never met is left out."""
        ...

    async def forget(self, user_id: str) -> bool:
        """Delete everything kept of a user; True if there was anything."""
        ...

    async def ping(self) -> None:
        """Return when the store answers and would take a write."""
        ...
