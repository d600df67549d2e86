"""Encoded users made of lists, for tests of what reads them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.contract.interaction import UNKNOWN_MS
from models.contract.window import MISSING_S, History
from models.datasets.encoded import EncodedUser


def user_of(
    question: Sequence[int],
    skills: Sequence[Sequence[int]],
    right: Sequence[int],
    visible: Sequence[int] | None = None,
) -> EncodedUser:
    """Return a user who answered these questions; all skill lists are of one length."""
    n = len(question)
    history = History(
        question=np.array(question, np.int64),
        skills=np.array(skills, np.int64).reshape(n, -1 if n else 1),
        response=np.array(right, np.int64),
        asked_ms=np.full(n, UNKNOWN_MS, np.int64),
        elapsed_s=np.full(n, MISSING_S, np.float32),
        difficulty=np.zeros((n, 2), np.float32),
    )
    seen = np.arange(n) if visible is None else np.array(visible)
    return EncodedUser("u", history, seen)
