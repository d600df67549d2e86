"""On what questions are asked, in a few buckets: what is served can be set beside the training.

Counted by the exporter over the training split and by the server over what it has answered.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from models.contract.interaction import FIRST, UNSEEN

LAGS_S = (10.0, 30.0, 60.0, 300.0, 3600.0, 86_400.0, 604_800.0)
LENGTHS = (1, 5, 20, 50, 100, 200, 500, 1000)
"""Where a bucket ends and the next begins. Lags that are not known have one before all others."""

N_LAGS, N_LENGTHS = len(LAGS_S) + 2, len(LENGTHS) + 1

SKILLS = 20
"""Skills that have a bucket of their own: the most frequent ones. The others share one."""

INPUT_NAMES = ("skill", "history", "correct", "lag")
"""What drift is told of; of lags only where the model reads them."""


def lag_bucket(lag_s: float) -> int:
    """Return the bucket of a lag; `MISSING_S` is one that is not known."""
    return 0 if lag_s < 0 else 1 + bisect_right(LAGS_S, lag_s)


def lag_buckets(lag_s: NDArray[Any]) -> NDArray[np.int64]:
    """Return what `lag_bucket` does, for many."""
    return np.where(lag_s < 0, 0, 1 + np.searchsorted(LAGS_S, lag_s, side="right"))


def length_bucket(length: int) -> int:
    """Return the bucket of a number of answers before a question."""
    return bisect_right(LENGTHS, length)


def length_buckets(length: NDArray[Any]) -> NDArray[np.int64]:
    """Return what `length_bucket` does, for many."""
    return np.searchsorted(LENGTHS, length, side="right")


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """How many answers of the training split fall into each bucket; no answers: not known.

    Raises `ValueError` or `TypeError` where that cannot be.
    """

    answers: int = 0
    right: int = 0
    unseen: int = 0  # of no skill that the model knows
    skills: tuple[tuple[int, int], ...] = ()  # the most frequent skills, and the answers to each
    lags: tuple[int, ...] = ()  # none where the model reads no lag
    lengths: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        numbers = [self.answers, self.right, self.unseen, *self.lags, *self.lengths]
        numbers += [number for pair in self.skills for number in pair]
        if any(type(number) is not int for number in numbers):
            raise TypeError(f"inputs {self} are not all whole numbers")
        if any(len(pair) != 2 for pair in self.skills) or any(number < 0 for number in numbers):
            raise ValueError(f"inputs {self} are no counts")
        if len(self.lags) not in (0, N_LAGS) or len(self.lengths) not in (0, N_LENGTHS):
            raise ValueError(f"inputs {self} are in other buckets than these")

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Self:
        """Make them of plain values, as JSON gives them; raises as the class does."""
        plain: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in content.items()
        }
        if "skills" in plain:
            plain["skills"] = tuple(tuple(pair) for pair in plain["skills"])
        return cls(**plain)

    @classmethod
    def counted(
        cls,
        skill: NDArray[Any],
        lag_s: NDArray[Any],
        length: NDArray[Any],
        right: NDArray[Any],
        *,
        reads_lag: bool,
    ) -> Self:
        """Count answers, all (N,): first skill, lag, answers before, whether it was right."""
        counts = np.bincount(skill, minlength=FIRST)
        frequent = FIRST + np.argsort(-counts[FIRST:], kind="stable")[:SKILLS]
        lags = np.bincount(lag_buckets(lag_s), minlength=N_LAGS)
        return cls(
            answers=len(skill),
            right=int(np.count_nonzero(right)),
            unseen=int(counts[:FIRST].sum()),
            skills=tuple((int(s), int(counts[s])) for s in frequent if counts[s]),
            lags=tuple(lags.tolist()) if reads_lag else (),
            lengths=tuple(np.bincount(length_buckets(length), minlength=N_LENGTHS).tolist()),
        )

    @property
    def is_known(self) -> bool:
        """There is something to compare with."""
        return self.answers > 0

    def drift(
        self,
        skill: NDArray[Any],
        lag: NDArray[Any],
        length: NDArray[Any],
        right: NDArray[Any],
    ) -> dict[str, float]:
        """Return how far answers are from these, by input; lag and length are buckets.

        That is the population stability index: 0 where shares are the same; from 0.1 on a change
        is worth a look, from 0.25 on it is a large one.
        """
        answers, correct = len(right), int(np.count_nonzero(right))
        numbers = [number for number, _ in self.skills]
        named = [count for _, count in self.skills]
        place = np.full(max([*numbers, UNSEEN]) + 2, len(numbers))
        place[numbers] = range(len(numbers))
        place[: UNSEEN + 1] = len(numbers) + 1
        expected = [*named, self.answers - self.unseen - sum(named), self.unseen]
        skills = np.bincount(place[np.minimum(skill, len(place) - 1)], minlength=len(expected))
        counts: list[tuple[Any, Any]] = [
            (expected, skills),
            (self.lengths, _counts_of(length, N_LENGTHS)),
            ([self.right, self.answers - self.right], [correct, answers - correct]),
        ]
        if self.lags:
            counts.append((self.lags, _counts_of(lag, N_LAGS)))
        return {name: stability(*both) for name, both in zip(INPUT_NAMES, counts, strict=False)}


def _counts_of(buckets: NDArray[Any], most: int) -> NDArray[np.int64]:
    """Return how many fall into each of `most` buckets.

    One that is none of these falls into the last: a server of another version may have written it.
    """
    return np.bincount(np.minimum(buckets, most - 1), minlength=most)


def stability(expected: Any, found: Any) -> float:
    """Return the population stability index of two counts over the same buckets.

    Half an answer is added to every bucket, so that an empty one makes no infinity.
    """
    p, q = np.asarray(expected, float) + 0.5, np.asarray(found, float) + 0.5
    p, q = p / p.sum(), q / q.sum()
    return float(((q - p) * np.log(q / p)).sum())
