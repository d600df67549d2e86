"""What follows kept states: the answers that they have not seen and the queries, of many users.

The same places as `window_of` gives at the end of a window, without a window for each user. Where
there is no state they are the whole window.
Letters: B users, N interactions of all of them, P places after the states, K skills of a question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.contract.counts import Counted, counts_at, counts_of
from models.contract.interaction import PAD, UNKNOWN_MS, Query
from models.contract.masks import key_padding
from models.contract.queries import Queries
from models.contract.window import MISSING_S, PADDING, History, Side, lags_s


@dataclass(frozen=True, slots=True)
class Following:
    """Answered places, user by user and oldest first, and a query for each user."""

    answered: dict[str, NDArray[Any]]  # `INPUTS` but for mask -> (P, ...)
    new: NDArray[np.int64]  # (B,) how many of the places are each user's
    queries: dict[str, NDArray[Any]]  # the same inputs -> (B, ...)
    seen: NDArray[np.int64]  # (B,) answers of the window that the state stands for

    def __len__(self) -> int:
        return len(self.new)


def following(
    history: History,
    queries: Sequence[Query],
    *,
    rows: NDArray[np.int64],
    before_window: NDArray[np.int64],
    before_new: NDArray[np.int64],
    seen: NDArray[np.int64],
    with_counts: bool,
) -> Following:
    """Encode what comes after each user's state.

    `history` holds the interactions of all users, one after the other, `rows` (B,) of each. Of
    these, the first `before_window` (B,) are before the user's window and the first `before_new`
    (B,) before the places that the state has not seen; the state stands for `seen` (B,) answers.
    Without `with_counts` there are none, and a user's rows may begin anywhere up to one before the
    first new place: that one gives it its lag.
    """
    ends = np.cumsum(rows)
    offsets = ends - rows
    place = np.arange(len(history)) - np.repeat(offsets, rows)  # of each row among its user's
    is_new = place >= np.repeat(before_new, rows)
    lag = lags_s(history.asked_ms)
    lag[offsets[rows > 0]] = MISSING_S  # before a user's first row is another user's last
    columns = Queries.of(queries)
    last_ms = np.full(len(queries), UNKNOWN_MS)
    last_ms[rows > 0] = history.asked_ms[ends[rows > 0] - 1]
    answered: dict[str, NDArray[Any]] = {
        "question": history.question[is_new],
        "skills": history.skills[is_new],
        "response": history.response[is_new],
        "lag_s": lag[is_new],
        "elapsed_s": history.elapsed_s[is_new],
    }
    asked = columns.inputs(last_ms)
    if with_counts:
        in_window = place >= np.repeat(before_window, rows)
        user = np.repeat(np.arange(len(queries)), rows)
        counts = counts_of(
            np.append(history.question[in_window], columns.question),
            _stacked(history.skills[in_window], columns.skills),
            np.append(history.response[in_window], asked["response"]),
            np.concatenate([history.difficulty[in_window], columns.difficulty]),
            user=np.append(user[in_window], np.arange(len(queries))),
        )
        answered["counts"] = counts[: in_window.sum()][is_new[in_window]]
        asked["counts"] = counts[in_window.sum() :]
    return Following(answered, rows - before_new, asked, seen)


def following_on(
    pasts: Sequence[Counted],
    history: History,
    queries: Sequence[Query],
    *,
    rows: NDArray[np.int64],
    before_new: NDArray[np.int64],
) -> tuple[Following, list[Counted]]:
    """Encode what comes after each user's state, with counts, where the past was read before.

    `pasts` hold the answers of each user's window that the state stands for; `history` need hold
    none of them but one that gives the first new place its lag. Otherwise as `following`. Returns
    with it the pasts with the new answers.
    """
    seen = np.array([len(past.question) for past in pasts])
    after = following(
        history,
        queries,
        rows=rows,
        before_window=before_new * 0,
        before_new=before_new,
        seen=seen,
        with_counts=False,
    )
    new, answered, asked = after.new, after.answered, after.queries
    ends = np.cumsum(new)
    grown = [
        past if begin == end else _grown(past, answered, slice(begin, end))
        for past, begin, end in zip(pasts, (ends - new).tolist(), ends.tolist(), strict=True)
    ]
    base = np.cumsum(seen + new) - (seen + new)  # of each user among all rows
    user = np.repeat(np.arange(len(queries)), new)
    counted = seen[user] + np.arange(len(user)) - np.repeat(ends - new, new)
    counts = counts_at(
        _one_after_the_other(grown),
        np.concatenate([base[user], base]),
        np.concatenate([base[user] + counted, base + seen + new]),
        np.concatenate([answered["question"], asked["question"]]),
        _stacked(answered["skills"], asked["skills"]),
        np.concatenate([_difficulty_of_new(history, rows, before_new), _difficulty_of(queries)]),
    )
    answered["counts"], asked["counts"] = counts[: len(user)], counts[len(user) :]
    return after, grown


def _grown(past: Counted, answered: dict[str, NDArray[Any]], new: slice) -> Counted:
    return Counted(
        question=np.concatenate([past.question, answered["question"][new]]),
        skills=_stacked(past.skills, answered["skills"][new]),
        response=np.concatenate([past.response, answered["response"][new]]),
    )


def _one_after_the_other(pasts: Sequence[Counted]) -> Counted:
    widths = {past.skills.shape[1] for past in pasts}
    skills = [past.skills for past in pasts]
    if len(widths) > 1:
        none = np.zeros((0, max(widths)), np.int64)
        skills = [_stacked(s, none) for s in skills]
    return Counted(
        question=np.concatenate([past.question for past in pasts]),
        skills=np.concatenate(skills),
        response=np.concatenate([past.response for past in pasts]),
    )


def _difficulty_of_new(
    history: History, rows: NDArray[np.int64], before_new: NDArray[np.int64]
) -> NDArray[np.float32]:
    place = np.arange(len(history)) - np.repeat(np.cumsum(rows) - rows, rows)
    return history.difficulty[place >= np.repeat(before_new, rows)]


def _difficulty_of(queries: Sequence[Query]) -> NDArray[np.float32]:
    return np.array([q.difficulty for q in queries], np.float32)


def padded(after: Following, side: Side) -> dict[str, NDArray[Any]]:
    """Return the windows (B, L) of users whose states have seen nothing, as `collate` would."""
    lengths = after.new + 1
    longest = int(lengths.max())
    mask = key_padding(lengths, longest, side)
    is_query = np.zeros_like(mask)
    last = lengths - 1 if side == "right" else np.full(len(lengths), longest - 1)
    is_query[np.arange(len(lengths)), last] = True
    is_answered = mask & ~is_query
    batch: dict[str, NDArray[Any]] = {}
    for name, queries in after.queries.items():
        answered = after.answered[name]
        axes = [max(pair) for pair in zip(answered.shape[1:], queries.shape[1:], strict=True)]
        array = np.full((*mask.shape, *axes), PADDING[name], queries.dtype)
        for where, values in ((is_answered, answered), (is_query, queries)):
            if axes:
                array[where, : values.shape[1]] = (
                    values  # the widest sets of skills may be either's
                )
            else:
                array[where] = values
        batch[name] = array
    batch["mask"] = mask
    return batch


def _stacked(above: NDArray[np.int64], below: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return both, one upon the other, padded to the wider one."""
    width = max(above.shape[1], below.shape[1])
    both = np.full((len(above) + len(below), width), PAD, np.int64)
    both[: len(above), : above.shape[1]] = above
    both[len(above) :, : below.shape[1]] = below
    return both
