"""Queries of many users, in columns: what `Query` is of one.

Letters: B queries, K skills of a question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from models.contract.interaction import PAD, UNKNOWN, UNKNOWN_MS, Query
from models.contract.window import MISSING_S


@dataclass(frozen=True, slots=True)
class Queries:
    """What is known before the answers, in a model's integers."""

    question: NDArray[np.int64]  # (B,)
    skills: NDArray[np.int64]  # (B, K) PAD behind the last skill
    asked_ms: NDArray[np.int64]  # (B,)
    difficulty: NDArray[np.float32]  # (B, 2)

    def __len__(self) -> int:
        return len(self.question)

    @classmethod
    def of(cls, queries: Sequence[Query]) -> Self:
        """Put queries into columns."""
        return cls(
            question=np.array([q.question for q in queries], np.int64),
            skills=_skills_of(queries),
            asked_ms=np.array([q.asked_ms for q in queries], np.int64),
            difficulty=np.array([q.difficulty for q in queries], np.float32),
        )

    def inputs(self, before_ms: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Return the place of each query, `INPUTS` but for mask and counts -> (B, ...).

        `before_ms` (B,) is when each user was asked before, or `UNKNOWN_MS`.
        """
        return {
            "question": self.question,
            "skills": self.skills,
            "response": np.full(len(self), UNKNOWN),
            "lag_s": lag_between(before_ms, self.asked_ms),
            "elapsed_s": np.full(len(self), MISSING_S, np.float32),
        }


def lag_between(before_ms: NDArray[np.int64], asked_ms: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return `lags_s` of pairs, (B,)."""
    known = (before_ms != UNKNOWN_MS) & (asked_ms != UNKNOWN_MS)
    lag = np.where(known, np.maximum(asked_ms - before_ms, 0) / 1000, MISSING_S)
    return lag.astype(np.float32)


def _skills_of(queries: Sequence[Query]) -> NDArray[np.int64]:
    """Return (B, K) skills, padded with PAD."""
    width = max((len(q.skills) for q in queries), default=1)
    if width == 1:
        return np.array([q.skills for q in queries], np.int64).reshape(-1, 1)
    return np.array([q.skills + (PAD,) * (width - len(q.skills)) for q in queries], np.int64)
