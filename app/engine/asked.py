"""A question put to a user, with what the model needs of the user's past."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from models.contract.following import Following, following
from models.contract.interaction import Query
from models.contract.vocabulary import Vocabulary


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

    def __len__(self) -> int:
        """Return the places that are left to run, the query's counted."""
        return self.first + len(self.interactions) - self.seen + 1


def encoded(asked: Sequence[Asked], vocabulary: Vocabulary, *, with_counts: bool) -> Following:
    """Turn all of them into a model's integers at once."""
    sets: dict[int, Sequence[int]] = {}
    for one in asked:
        sets.update(one.sets)
    first, start, seen = (
        np.array([getattr(one, name) for one in asked]) for name in ("first", "start", "seen")
    )
    return following(
        vocabulary.read(_joined([one.interactions for one in asked]), sets=sets),
        [one.query for one in asked],
        rows=np.array([len(one.interactions) for one in asked]),
        before_window=np.maximum(start - first, 0),
        before_new=seen - first,
        seen=seen - start,
        with_counts=with_counts,
    )


def _joined(arrays: Sequence[NDArray[np.void]]) -> NDArray[np.void]:
    """Return records one after the other; `np.concatenate` would promote every field first."""
    return np.frombuffer(b"".join(a.data for a in arrays), arrays[0].dtype)
