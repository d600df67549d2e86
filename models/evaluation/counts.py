"""How often a user was right and wrong before each answer: the past that simple models read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.contract.interaction import PAD
from models.datasets.encoded import EncodedUser


class Rows(NamedTuple):
    """Every answer of many users, one after another; N answers, K skills of a question."""

    lengths: tuple[int, ...]  # by user
    user: NDArray[np.int64]  # (N,) from 0
    row: NDArray[np.int64]  # (N,) of its user, from 0
    visible: NDArray[np.int64]  # (N,) how many earlier rows of its user it may see
    question: NDArray[np.int64]  # (N,)
    skills: NDArray[np.int64]  # (N, K), PAD behind the last
    right: NDArray[np.float64]  # (N,) 0 or 1

    @classmethod
    def of(cls, users: Sequence[EncodedUser]) -> Rows:
        """Put the users' rows one after another."""
        widest = max((u.history.skills.shape[1] for u in users), default=1)
        lengths = tuple(len(u) for u in users)
        skills = np.full((sum(lengths), widest), PAD)
        for user, end in zip(users, np.cumsum(lengths).tolist(), strict=True):
            skills[end - len(user) : end, : user.history.skills.shape[1]] = user.history.skills
        return cls(
            lengths=lengths,
            user=np.repeat(np.arange(len(users)), lengths),
            row=np.concatenate([np.arange(n) for n in lengths]),
            visible=np.concatenate([u.visible for u in users]),
            question=np.concatenate([u.history.question for u in users]),
            skills=skills,
            right=np.concatenate([u.history.response for u in users]).astype(np.float64),
        )

    def apart(self, values: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        """Return (N,) values as one array a user."""
        return np.split(values, np.cumsum(self.lengths)[:-1])


def counts_before(rows: Rows, what: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
    """Return how often the user had been right, and wrong, on `what` before each row.

    `what` (N, K) numbers things from 0, such as skills; both results have its shape. A row counts
    what is visible to it alone, so a bundle's answers are not counted within the bundle.
    """
    longest = int(rows.row.max(initial=0)) + 1
    # One number that sorts by user, then thing, then row: its ranks are the counts.
    thing = rows.user[:, None] * (int(what.max(initial=0)) + 1) + what
    happened = (thing * longest + rows.row[:, None]).ravel()
    order = np.argsort(happened, kind="stable")
    happened = happened[order]
    right = np.repeat(rows.right.astype(np.int64), what.shape[1])[order]
    rights = np.concatenate([[0], np.cumsum(right)])
    begin = np.searchsorted(happened, thing * longest)
    end = np.searchsorted(happened, thing * longest + rows.visible[:, None])
    n_right = rights[end] - rights[begin]
    return n_right, end - begin - n_right
