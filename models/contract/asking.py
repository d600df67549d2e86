"""Many questions put to each of many users, encoded without a window for each.

The same numbers as `following` gives to queries, where a user may have any number of them.
Letters: U users, N interactions in their windows, B queries, K skills of a question.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.contract.counts import N_COUNTS
from models.contract.interaction import FIRST, RIGHT
from models.contract.queries import Queries
from models.contract.window import History


def counts_asked(
    window: History, user: NDArray[np.int64], queries: Queries, of_user: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return (B, `N_COUNTS`): what `counts_of` gives the place of each query.

    `window` holds the interactions in the windows of all users, `user` (N,) tells whose each is,
    and `of_user` (B,) whose each query is. No query counts for another one.
    """
    right = window.response == RIGHT
    n_users = int(max(user.max(initial=-1), of_user.max(initial=-1))) + 1
    counts = np.zeros((len(queries), N_COUNTS), np.float32)
    counts[:, 0:2] = _both(user, right, n_users)[of_user]
    counts[:, 2:4] = _of_skills(window, right, user, queries, of_user, n_users)
    counts[:, 4:6] = _of_question(window, right, user, queries, of_user)
    counts[:, 6:8] = queries.difficulty
    return counts


def _of_skills(
    window: History,
    right: NDArray[np.bool_],
    user: NDArray[np.int64],
    queries: Queries,
    of_user: NDArray[np.int64],
    n_users: int,
) -> NDArray[np.float64]:
    """Return (B, 2): right and wrong answers to the skills of each query, the mean of several."""
    size = 1 + int(max(window.skills.max(initial=0), queries.skills.max(initial=0)))
    place, skill = _members(window.skills)
    table = _both(user[place] * size + skill, right[place], n_users * size)
    query, skill = _members(queries.skills)
    of_skill = table[of_user[query] * size + skill]
    known = np.maximum(np.bincount(query, minlength=len(queries)), 1)
    total = [np.bincount(query, of_skill[:, c], minlength=len(queries)) for c in range(2)]
    return np.stack(total, axis=1) / known[:, None]


def _of_question(
    window: History,
    right: NDArray[np.bool_],
    user: NDArray[np.int64],
    queries: Queries,
    of_user: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Return (B, 2): right and wrong answers to the question of each query."""
    size = 1 + int(max(window.question.max(initial=0), queries.question.max(initial=0)))
    is_asked = np.zeros(size, np.bool_)
    is_asked[queries.question] = True
    is_asked[:FIRST] = False  # UNSEEN stands for many at once
    row = np.flatnonzero(is_asked[window.question])  # few: so the search below is short
    pairs, pair = np.unique(of_user * size + queries.question, return_inverse=True)
    wanted = user[row] * size + window.question[row]
    at = np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)
    is_one = pairs[at] == wanted
    return _both(at[is_one], right[row[is_one]], len(pairs))[pair]


def _members(skills: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return row and skill of every known skill, once a row, from (n, K)."""
    if skills.shape[1] == 1:
        row = np.flatnonzero(skills[:, 0] >= FIRST)
        return row, skills[row, 0]
    row, column = np.nonzero(skills >= FIRST)
    size = int(skills.max(initial=0)) + 1
    pair = np.unique(row * size + skills[row, column])
    return pair // size, pair % size


def _both(group: NDArray[np.int64], right: NDArray[np.bool_], size: int) -> NDArray[np.int64]:
    """Return (size, 2): how many rows of each group are right, and how many wrong."""
    both = np.bincount(2 * group + ~right, minlength=2 * size)
    return both.reshape(size, 2)
