"""What the service asks of a store, in the words of the domain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from app.store.durability import Durability

LateRule = Literal["append", "refuse", "insert"]
"""What becomes of an answer whose question was asked before that of one already there."""


class Version(NamedTuple):
    """Names a state of a user's history: no other that the user had or will have is called so."""

    name: bytes  # four bytes that tell this history from every other one of the user's
    total: int  # number after the newest interaction

    def __str__(self) -> str:
        return f"{self.name.hex()}-{self.total}"

    @classmethod
    def parsed(cls, text: str) -> Self | None:
        """Return the version that a text names; None where it names none."""
        name, dash, total = text.partition("-")
        is_one = len(name) == 8 and dash and total.isascii() and total.isdigit()
        try:
            found = cls(bytes.fromhex(name), int(total)) if is_one and len(total) < 16 else None
        except ValueError:
            return None
        return found if found is not None and str(found) == text else None


NO_HISTORY = Version(bytes(4), 0)
"""The version of a user of whom nothing is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """On what terms a history may be changed."""

    meant: Sequence[Version] | Literal["*"] | None = None  # one of these; "*": any that is there
    not_meant: Sequence[Version] | Literal["*"] | None = None  # none of these; "*": none is there
    call_key: str | None = None  # the same call again is answered as before, and does nothing


FREELY = Terms()
"""On no terms."""


class Amendment(NamedTuple):
    """What one interaction should have said; None leaves it, `UNKNOWN_MS` is a time not known."""

    correct: bool | None = None
    asked_ms: int | None = None
    elapsed_ms: int | None = None


class StoredHistory(NamedTuple):
    """The newest interactions of one user."""

    interactions: NDArray[np.void]  # INTERACTION, oldest first
    dropped: int  # older interactions of this user that are not in the array, kept or not
    length: int  # interactions kept
    version: Version

    @property
    def is_empty(self) -> bool:
        """Nothing is kept of this user."""
        return self.length == 0


class Recorded(NamedTuple):
    """What one append did."""

    recorded: int
    duplicates: int  # left out: their event id was already there
    length: int  # interactions kept now
    version: Version
    late: int  # asked before what was there already
    is_repeated: bool  # the call was answered before, and so; nothing was done


class Amended(NamedTuple):
    """What one amendment left."""

    interactions: NDArray[np.void]  # the one interaction, as it is then
    version: Version
    is_repeated: bool  # as of an append


class Page(NamedTuple):
    """A run of kept interactions, oldest first, numbered from the user's very first one."""

    interactions: NDArray[np.void]
    first: int  # number of the first interaction in the page
    next: int | None  # number to go on from; None at the end
    length: int  # interactions kept
    version: Version


class StoredState(NamedTuple):
    """A state that a model has kept of a user."""

    model: str  # key of the rule that it was made by
    history: bytes  # name of the history that it is of
    start: int  # number of the first interaction that it stands on
    seen: int  # number after the last one
    content: bytes


class AnsweredCall(NamedTuple):
    """A call with a key that was answered lately; of key and content there are digests."""

    key: bytes
    content: bytes
    until_s: int  # Unix time from which on it is forgotten
    answer: bytes  # in MessagePack


class Everything(NamedTuple):
    """All that is kept of a user; what lives for ever has None for its time."""

    interactions: NDArray[np.void]
    first: int  # number of the first of them
    version: Version
    history_left_ms: int | None
    states: Sequence[StoredState]
    states_left_ms: int | None
    calls: Sequence[AnsweredCall]
    calls_left_ms: int | None
    forecasts: NDArray[np.void]  # KEPT_FORECAST, those that wait for their answers
    forecasts_left_ms: int | None


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
        self,
        user_id: str,
        interactions: NDArray[np.void],
        texts: Mapping[int, str],
        terms: Terms = FREELY,
    ) -> Recorded:
        """Add interactions atomically, all or none, but for those whose event key is already there.

        `texts` gives the outside id (or skill-set text) behind every key in `interactions`; they
        are kept before the interactions are. Raises `HistoryChanged`, `IdempotencyKeyReused` or
        `AnswerLate`: then nothing was added.
        """
        ...

    async def amend(
        self, user_id: str, number: int, amendment: Amendment, terms: Terms = FREELY
    ) -> Amended:
        """Change one kept interaction where it stands, and name the history anew.

        Raises `InteractionUnknown` where there is none of that number, `HistoryChanged` or
        `IdempotencyKeyReused`: then nothing was changed.
        """
        ...

    async def everything(self, user_id: str) -> Everything:
        """Return all that is kept of a user, as of one moment."""
        ...

    async def texts(self, keys: Iterable[int]) -> dict[int, str]:
        """Return the outside ids behind keys; a key never met is left out."""
        ...

    async def forget(self, user_id: str) -> bool:
        """Delete everything kept of a user; True if there was anything."""
        ...

    async def ping(self) -> Durability:
        """Return when the store answers; say how it keeps what it is given, why it takes none."""
        ...
