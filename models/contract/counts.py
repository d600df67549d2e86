"""What came before, counted: the features that a teacher would look at first.

Four pairs of numbers stand at every place, right answers and wrong ones, all known before the
answer: the user's own in this window, overall, to the skills asked and to the question asked; and
those of the training users to the question, which is its difficulty. Networks take logarithms and
ratios of them (`models.nets.layers.counts`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.contract.interaction import FIRST, PAD, RIGHT

N_COUNTS = 8
"""right, wrong: overall; of the skills; of the question; of the question among training users."""

OF_SKILLS, OF_QUESTION = slice(2, 4), slice(4, 8)
"""Which counts would not be known of a question whose skills, or which itself, are UNSEEN."""


def counts_of(
    question: NDArray[np.int64],
    skills: NDArray[np.int64],
    response: NDArray[np.int64],
    difficulty: NDArray[np.float32],
    user: NDArray[np.int64] | None = None,
) -> NDArray[np.float32]:
    """Return (L, `N_COUNTS`): the counts before each of L places, from earlier places alone.

    `question` and `response` are (L,), `skills` (L, K), `difficulty` (L, 2) the training users'
    right and wrong answers. Of several skills it is the mean. Nothing is counted of unseen ids:
    UNSEEN stands for many at once. With `user` (L,) the places are of several users, of each
    oldest first, and each is counted apart.
    """
    length = len(question)
    right = response == RIGHT
    counts = np.zeros((length, N_COUNTS), np.float32)
    counts[:, 0:2] = _before(np.zeros(length, np.int64) if user is None else user, right)
    own_question = question
    if user is not None:
        skills = np.where(
            skills >= FIRST, skills + user[:, None] * (skills.max(initial=0) + 1), PAD
        )
        own_question = question + user * (question.max(initial=0) + 1)
    place, member = np.nonzero(skills >= FIRST)
    # Once each, whatever a caller says twice: the second mention would see the first one's answer.
    pair = np.unique(skills[place, member] * length + place)
    place = pair % max(length, 1)
    of_skill = _before(pair // max(length, 1), right[place])
    known = np.maximum(np.bincount(place, minlength=length), 1)
    for column in range(2):
        total = np.bincount(place, of_skill[:, column], minlength=length)
        counts[:, 2 + column] = total / known
    counts[:, 4:6] = _before(own_question, right) * (question >= FIRST)[:, None]
    counts[:, 6:8] = difficulty
    return counts


@dataclass(frozen=True, slots=True)
class Counted:
    """Answered places of users, one user after the other, of each oldest first; R of them."""

    question: NDArray[np.int64]  # (R,)
    skills: NDArray[np.int64]  # (R, K), PAD behind the last skill
    response: NDArray[np.int64]  # (R,)


def counts_at(
    past: Counted,
    begin: NDArray[np.int64],
    end: NDArray[np.int64],
    question: NDArray[np.int64],
    skills: NDArray[np.int64],
    difficulty: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Return (T, `N_COUNTS`): what `counts_of` would have of T places, from rows of `past`.

    Row `begin` (T,) is the first that a place counts, row `end` (T,) the first that it does not.
    The cost is that of looking at these rows once: for a few places after many.
    """
    counts = np.zeros((len(question), N_COUNTS), np.float32)
    counts[:, 6:8] = difficulty
    target = np.flatnonzero(end > begin)  # `np.add.reduceat` knows no empty stretch
    if not len(target):
        return counts
    sizes = (end - begin)[target]
    edges = np.cumsum(sizes) - sizes
    row = np.arange(sizes.sum()) + np.repeat(begin[target] - edges, sizes)
    right = past.response[row] == RIGHT

    def summed(is_counted: NDArray[np.bool_]) -> NDArray[np.int64]:
        both = np.stack([is_counted & right, is_counted & ~right], axis=1)
        return np.add.reduceat(both, edges, axis=0, dtype=np.int64)

    counts[target, 0:2] = summed(np.ones_like(right))
    asked = question[target]
    counts[target, 4:6] = (
        summed(past.question[row] == np.repeat(asked, sizes)) * ((asked >= FIRST)[:, None])
    )
    of_skills, known = np.zeros((len(target), 2)), np.zeros(len(target))
    exercised = past.skills[row]  # (rows, K)
    for column in range(skills.shape[1]):
        skill = skills[target, column]
        is_new = (skill >= FIRST) & ~(skills[target, :column] == skill[:, None]).any(axis=1)
        if is_new.any():
            has = (exercised == np.repeat(skill, sizes)[:, None]).any(axis=1)
            of_skills += summed(has) * is_new[:, None]
            known += is_new
    counts[target, 2:4] = of_skills / np.maximum(known, 1)[:, None]
    return counts


def _before(group: NDArray[np.int64], right: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return (n, 2): how many earlier rows of a row's own group are right, and how many wrong."""
    order = np.argsort(group, kind="stable")
    sorted_group: NDArray[Any] = group[order]
    both = np.stack([right, ~right], axis=1).astype(np.int64)[order]
    running = np.cumsum(both, axis=0) - both
    is_first = np.r_[True, sorted_group[1:] != sorted_group[:-1]][: len(group)]
    first = np.maximum.accumulate(np.where(is_first, np.arange(len(group)), 0))
    before = np.empty_like(running)
    before[order] = running - running[first]
    return before
