"""The one encoder: history and query -> window -> the arrays a network reads.

Trainer, exporter, evaluator and server call these functions and no others.
Letters: B batch, L window length, K skills of a question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.contract.counts import N_COUNTS, counts_of
from models.contract.interaction import PAD_RESPONSE, UNKNOWN, UNKNOWN_MS, Query
from models.contract.masks import key_padding

Side = Literal["right", "left"]

MISSING_S = -1.0
"""A lag or elapsed time that is not known. Networks give it a token of its own."""

INPUTS: dict[str, tuple[type[np.generic], tuple[str | int, ...]]] = {
    "question": (np.int64, ("batch", "sequence")),
    "skills": (np.int64, ("batch", "sequence", "skills")),
    "response": (np.int64, ("batch", "sequence")),
    "lag_s": (np.float32, ("batch", "sequence")),
    "elapsed_s": (np.float32, ("batch", "sequence")),
    "mask": (np.bool_, ("batch", "sequence")),
    "counts": (np.float32, ("batch", "sequence", N_COUNTS)),
}
"""What every sequence graph reads: name -> dtype and axes, declared once, here."""

PADDING: dict[str, Any] = {
    "question": 0,
    "skills": 0,
    "response": PAD_RESPONSE,
    "lag_s": MISSING_S,
    "elapsed_s": MISSING_S,
    "counts": 0.0,
}


@dataclass(frozen=True, slots=True)
class History:
    """Answered questions of one user in one model's integers, oldest first; n of them."""

    question: NDArray[np.int64]  # (n,)
    skills: NDArray[np.int64]  # (n, K), PAD behind the last skill
    response: NDArray[np.int64]  # (n,) WRONG or RIGHT
    asked_ms: NDArray[np.int64]  # (n,)
    elapsed_s: NDArray[np.float32]  # (n,)
    difficulty: NDArray[np.float32]  # (n, 2) training users' right and wrong answers to it
    dropped: int = 0  # older interactions that are no longer, or were not, read

    def __len__(self) -> int:
        return len(self.question)

    @property
    def total(self) -> int:
        """How many interactions the user has had, those not held here counted."""
        return self.dropped + len(self)

    def before(self, n: int) -> History:
        """Return the history as it stood when only its first `n` rows had happened."""
        return History(
            question=self.question[:n],
            skills=self.skills[:n],
            response=self.response[:n],
            asked_ms=self.asked_ms[:n],
            elapsed_s=self.elapsed_s[:n],
            difficulty=self.difficulty[:n],
            dropped=self.dropped,
        )


@dataclass(frozen=True, slots=True)
class Window:
    """The newest interactions and, last, the query, at their true length L."""

    question: NDArray[np.int64]  # (L,)
    skills: NDArray[np.int64]  # (L, K)
    response: NDArray[np.int64]  # (L,) UNKNOWN in the last place
    lag_s: NDArray[np.float32]  # (L,) from the ask before to this ask
    elapsed_s: NDArray[np.float32]  # (L,) MISSING_S in the last place
    counts: NDArray[np.float32]  # (L, N_COUNTS) from the places before each, see `counts_of`

    def __len__(self) -> int:
        return len(self.question)


def window_start(total: int, length: int, cut: int) -> int:
    """Return which of `total` past interactions is the first in the window of the next query.

    A window has at most `length` places, the query's counted. When it would grow past that, its
    start moves by a multiple of `cut`: with `cut` 1 the window slides, with a larger one it grows
    and is cut in blocks, so that places stay put while it grows and may be cached.
    """
    over = total + 1 - length
    return 0 if over <= 0 else -(-over // cut) * cut


def lags_s(asked_ms: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the seconds from the ask before to each ask, MISSING_S where either is unknown.

    A clock that ran backwards gives 0. The first row has no ask before it.
    """
    lag = np.full(len(asked_ms), MISSING_S, np.float32)
    before, after = asked_ms[:-1], asked_ms[1:]
    known = (before != UNKNOWN_MS) & (after != UNKNOWN_MS)
    lag[1:] = np.where(known, np.maximum(after - before, 0) / 1000, MISSING_S)
    return lag


def window_of(history: History, query: Query, *, length: int, cut: int = 1) -> Window:
    """Encode the newest interactions and, in the last place, the query.

    Nothing that happened after the query was asked can enter: its response reads UNKNOWN and its
    elapsed time MISSING_S. A history of which the store kept only the newest `length` rows gives
    the same window as the whole one.
    """
    start = max(0, window_start(history.total, length, cut) - history.dropped)
    n = len(history) - start
    width = max(history.skills.shape[1], len(query.skills))
    skills = np.zeros((n + 1, width), np.int64)
    skills[:n, : history.skills.shape[1]] = history.skills[start:]
    skills[n, : len(query.skills)] = query.skills
    # One row more than the window holds: the first place's lag begins outside the window.
    first = max(0, start - 1)
    asked_ms = np.append(history.asked_ms[first:], query.asked_ms)
    question = np.append(history.question[start:], query.question)
    response = np.append(history.response[start:], UNKNOWN)
    difficulty = np.empty((n + 1, 2), np.float32)
    difficulty[:n], difficulty[n] = history.difficulty[start:], query.difficulty
    return Window(
        question=question,
        skills=skills,
        response=response,
        lag_s=lags_s(asked_ms)[start - first :],
        elapsed_s=np.append(history.elapsed_s[start:], np.float32(MISSING_S)),
        counts=counts_of(question, skills, response, difficulty),
    )


def collate(windows: Sequence[Window], side: Side = "right") -> dict[str, NDArray[Any]]:
    """Stack windows into the arrays a network reads, keyed and typed by `INPUTS`.

    L is the longest window, K the largest skill set; padding stands on `side`; `mask` is True at
    real places. Raises `ValueError` when there is no window.
    """
    if not windows:
        raise ValueError("no windows to collate")
    lengths = np.array([len(w) for w in windows])
    longest, widest = int(lengths.max()), max(w.skills.shape[1] for w in windows)
    shape = {"batch": len(windows), "sequence": longest, "skills": widest}
    batch: dict[str, NDArray[Any]] = {}
    for name, padding in PADDING.items():
        dtype, axes = INPUTS[name]
        sizes = [shape[a] if isinstance(a, str) else a for a in axes]
        array = np.full(sizes, padding, dtype)
        for row, window in zip(array, windows, strict=True):
            values = getattr(window, name)
            place = slice(None, len(values)) if side == "right" else slice(-len(values), None)
            if values.ndim == 2:
                row[place, : values.shape[1]] = values
            else:
                row[place] = values
        batch[name] = array
    batch["mask"] = key_padding(lengths, longest, side)
    return batch
