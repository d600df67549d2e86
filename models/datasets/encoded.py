"""Users' histories in a model's integers, and the windows that training and evaluation use."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from models.contract.artifact import WindowRule
from models.contract.interaction import FIRST, PAD, RIGHT, Query
from models.contract.vocabulary import Vocabulary
from models.contract.window import History, Window, window_of, window_start
from models.datasets.dataset import Dataset


@dataclass(frozen=True)
class EncodedUser:
    """One user's history; `visible[i]` of its rows may be seen by a query for row i."""

    user_id: str
    history: History
    visible: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.history)

    def query(self, row: int) -> Query:
        """Return row `row` as it stood before it was answered."""
        skills = self.history.skills[row]
        return Query(
            question=int(self.history.question[row]),
            skills=tuple(skills[skills != PAD].tolist()),
            asked_ms=int(self.history.asked_ms[row]),
            difficulty=(
                float(self.history.difficulty[row, 0]),
                float(self.history.difficulty[row, 1]),
            ),
        )

    def window(self, row: int, rule: WindowRule) -> Window:
        """Return the window that the server would build when it is asked about row `row`."""
        past = self.history.before(int(self.visible[row]))
        return window_of(past, self.query(row), length=rule.length, cut=rule.cut)

    def stretch(self, start: int, end: int) -> Window:
        """Return the window of rows start..end-1, whose last is the query.

        A causal network answers at every place of it at once; `scored` says for which rows that
        answer is the one a server could have given.
        """
        past = self.history.before(end - 1)
        return window_of(past, self.query(end - 1), length=end - start, cut=1)

    def scored(self, start: int, end: int) -> NDArray[np.bool_]:
        """Return for rows start..end-1 whether all rows before are visible to them.

        Later rows of a bundle are not: in a stretch, they would see their neighbours' answers.
        """
        seen: NDArray[np.bool_] = self.visible[start:end] == np.arange(start, end)
        return seen

    def blocks(self, rule: WindowRule) -> list[tuple[int, int, int]]:
        """Return (start, first, end): rows first..end-1 have their windows start at row `start`."""
        starts = np.array([window_start(n, rule.length, rule.cut) for n in range(len(self))])
        firsts = np.flatnonzero(np.r_[True, np.diff(starts) != 0]).tolist() if len(starts) else []
        ends = [*firsts[1:], len(self)]
        return [(int(starts[f]), int(f), int(e)) for f, e in zip(firsts, ends, strict=True)]


def encode(
    dataset: Dataset, vocabulary: Vocabulary, *, leave_own_out: bool = False
) -> list[EncodedUser]:
    """Read every user of a data set by a model's vocabulary.

    `leave_own_out` is for the users whom the vocabulary was made of: a question's difficulty is
    then counted over the others, as it will be for a user who comes later. Else a network learns
    to read a rare question's own answer out of its difficulty.
    """
    users = []
    for number, user_id in enumerate(dataset.users):
        low, high = dataset.offsets[number], dataset.offsets[number + 1]
        history = vocabulary.read(dataset.history(number))
        if leave_own_out:
            history = replace(history, difficulty=history.difficulty - _own_counts(history))
        users.append(EncodedUser(user_id, history, dataset.visible[low:high]))
    return users


def _own_counts(history: History) -> NDArray[np.float32]:
    """Return (n, 2): the user's own right and wrong answers to the question of each row."""
    size = int(history.question.max(initial=0)) + 1
    right = history.response == RIGHT
    totals = np.stack(
        [np.bincount(history.question[kept], minlength=size) for kept in (right, ~right)], axis=1
    )
    totals[:FIRST] = 0
    own: NDArray[np.float32] = totals[history.question].astype(np.float32)
    return own
