"""A question put to a user, with what the model needs of the user's past; and many, in columns.

Letters: U users, N interactions of all of them, B queries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from app.engine.memory import Memory
from models.contract.counts import Counted
from models.contract.following import Following, following, following_on
from models.contract.interaction import Query
from models.contract.queries import Queries
from models.contract.vocabulary import Vocabulary
from models.contract.window import History


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A query and the past it stands on. Numbers count from the user's very first interaction."""

    interactions: NDArray[np.void]  # INTERACTION, the newest
    first: int  # number of the first one
    start: int  # of the first in the window of the query
    seen: int  # number after the last one that the state stands for; `start` without one
    state: bytes  # empty before any answer
    query: Query
    sets: Mapping[int, Sequence[int]] = field(default_factory=dict)  # see `Vocabulary.read`
    memory: Memory | None = None  # of all that the state stands for

    def __len__(self) -> int:
        """Return the places that are left to run, the query's counted."""
        return self.first + len(self.interactions) - self.seen + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedMany:
    """Queries, and once a user the past that they stand on; see `Asked`."""

    interactions: NDArray[np.void]  # (N,) INTERACTION, user by user
    rows: NDArray[np.int64]  # (U,) how many of them are each user's
    first: NDArray[np.int64]  # (U,)
    start: NDArray[np.int64]  # (U,)
    seen: NDArray[np.int64]  # (U,)
    has_state: NDArray[np.bool_]  # (U,) False before any answer
    states: NDArray[np.uint8]  # bytes of those who have one, one after the other or in rows
    queries: Queries  # B
    of_user: NDArray[np.int64]  # (B,) whose each query is
    sets: Mapping[int, Sequence[int]] = field(default_factory=dict)  # see `Vocabulary.read`

    @property
    def new(self) -> NDArray[np.int64]:
        """(U,) interactions that each state has not seen."""
        return self.first + self.rows - self.seen

    @property
    def work(self) -> int:
        """What it costs, in rows to be read: those there are, as often as states are moved on."""
        return len(self.interactions) * max(1, int(self.new.max(initial=0)))

    def __len__(self) -> int:
        """Return the places that are left to run, the queries' counted."""
        return int(self.new.sum()) + len(self.queries)


def together(asked: Sequence[Asked]) -> AskedMany:
    """Put the asks of as many users into columns."""
    first, start, seen = _numbers(asked)
    return AskedMany(
        interactions=_joined([one.interactions for one in asked]),
        rows=np.array([len(one.interactions) for one in asked]),
        first=first,
        start=start,
        seen=seen,
        has_state=np.array([bool(one.state) for one in asked]),
        states=np.frombuffer(b"".join(one.state for one in asked), np.uint8),
        queries=Queries.of([one.query for one in asked]),
        of_user=np.arange(len(asked)),
        sets=_sets(asked),
    )


def encoded(asked: Sequence[Asked], vocabulary: Vocabulary, *, with_counts: bool) -> Following:
    """Turn all of them into a model's integers at once."""
    return _encoded(asked, _read(asked, vocabulary), with_counts=with_counts)


def encoded_and_read(
    asked: Sequence[Asked], vocabulary: Vocabulary
) -> tuple[Following, list[Counted]]:
    """Turn all of them into a model's integers, with counts, and tell what was counted.

    Either all have a memory or none has.
    """
    history = _read(asked, vocabulary)
    rows = np.array([len(one.interactions) for one in asked])
    if asked[0].memory is not None:
        before_new = np.array([one.seen - one.first for one in asked])
        pasts = [one.memory.past for one in asked if one.memory and one.memory.past]
        queries = [one.query for one in asked]
        return following_on(pasts, history, queries, rows=rows, before_new=before_new)
    ends = np.cumsum(rows).tolist()
    windows = [
        slice(end - len(one.interactions) + max(one.start - one.first, 0), end)
        for one, end in zip(asked, ends, strict=True)
    ]
    pasts = [
        Counted(
            history.question[window].copy(),  # the whole of all users is not to be held
            history.skills[window].copy(),
            history.response[window].copy(),
        )
        for window in windows
    ]
    return _encoded(asked, history, with_counts=True), pasts


def _encoded(asked: Sequence[Asked], history: History, *, with_counts: bool) -> Following:
    first, start, seen = _numbers(asked)
    return following(
        history,
        [one.query for one in asked],
        rows=np.array([len(one.interactions) for one in asked]),
        before_window=np.maximum(start - first, 0),
        before_new=seen - first,
        seen=seen - start,
        with_counts=with_counts,
    )


def _read(asked: Sequence[Asked], vocabulary: Vocabulary) -> History:
    return vocabulary.read(_joined([one.interactions for one in asked]), sets=_sets(asked))


def _numbers(asked: Sequence[Asked]) -> tuple[NDArray[np.int64], ...]:
    """Return the columns `first`, `start` and `seen`."""
    return (
        np.array([one.first for one in asked]),
        np.array([one.start for one in asked]),
        np.array([one.seen for one in asked]),
    )


def _sets(asked: Sequence[Asked]) -> dict[int, Sequence[int]]:
    sets: dict[int, Sequence[int]] = {}
    for one in asked:
        sets.update(one.sets)
    return sets


def _joined(arrays: Sequence[NDArray[np.void]]) -> NDArray[np.void]:
    """Return records one after the other; `np.concatenate` would promote every field first."""
    return np.frombuffer(b"".join(a.data for a in arrays), arrays[0].dtype)
