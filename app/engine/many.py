"""Many questions to many users whose states are kept, in one run and in columns.

Letters: U users, B queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.engine.asked import AskedMany
from app.engine.kept import KeptScorer
from app.engine.scorer import KNOWLEDGE_STATE, P_CORRECT


class ManyScore(NamedTuple):
    """What a model says of all queries, and the states after all answers."""

    p_correct: NDArray[np.float32]  # (B,)
    knowledge_state: NDArray[np.float32] | None  # (B, known skills); None where it gives none
    state: NDArray[Any]  # (U, ...)


class ManyScorer:
    """A scorer of kept states, for many at a time."""

    def __init__(self, kept: KeptScorer) -> None:
        self._kept = kept

    def __call__(self, pieces: Sequence[AskedMany]) -> list[ManyScore | Exception]:
        """Score each piece in runs of its own; at the place of one that fails is why.

        A failure is no news here: whoever has asked asks again for each user alone.
        """
        found: list[ManyScore | Exception] = []
        for asked in pieces:
            try:
                found.append(self.scored(asked))
            except Exception as exc:  # of any kind: ONNX Runtime has its own
                found.append(exc)
        return found

    def scored(self, asked: AskedMany) -> ManyScore:
        """Score one piece; raise as `KeptScorer.together` does."""
        outputs, state = self._kept.together(asked)
        knowledge = outputs.get(KNOWLEDGE_STATE)
        # Column 0 is the skill UNSEEN, then the known ones.
        vector = None if knowledge is None else knowledge[:, 1:]
        return ManyScore(outputs[P_CORRECT], vector, state)
