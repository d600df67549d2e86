"""Many questions to many users whose states are kept, in one run and in columns.

Letters: U users, N interactions of all of them, B queries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.engine.kept import KeptScorer
from app.engine.scorer import KNOWLEDGE_STATE, P_CORRECT
from models.contract.asking import counts_asked
from models.contract.following import following
from models.contract.interaction import UNKNOWN_MS, UNSEEN, Query
from models.contract.queries import Queries

_NOBODYS = Query(question=UNSEEN, skills=(UNSEEN,))


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedMany:
    """Queries, and once a user the past that they stand on; see `Asked`."""

    interactions: NDArray[np.void]  # (N,) INTERACTION, user by user
    rows: NDArray[np.int64]  # (U,) how many of them are each user's
    first: NDArray[np.int64]  # (U,)
    start: NDArray[np.int64]  # (U,)
    seen: NDArray[np.int64]  # (U,)
    has_state: NDArray[np.bool_]  # (U,) False before any answer
    states: NDArray[np.uint8]  # (S, bytes) of the users who have one
    queries: Queries  # B
    of_user: NDArray[np.int64]  # (B,) whose each query is
    sets: Mapping[int, Sequence[int]] = field(default_factory=dict)  # see `Vocabulary.read`

    @property
    def new(self) -> NDArray[np.int64]:
        """(U,) interactions that each state has not seen."""
        return self.first + self.rows - self.seen

    @property
    def work(self) -> int:
        """What it costs, in rows to be read: those there are, as often as states are moved on."""
        return len(self.interactions) * max(1, int(self.new.max(initial=0)))

    def __len__(self) -> int:
        """Return the places that are left to run, the queries' counted."""
        return int(self.new.sum()) + len(self.queries)


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
        """Fold in what each state has not seen, and ask; the order is kept.

        Raises `ScoringFailed` where a number that comes out is not finite, and ONNX Runtime's own
        errors.
        """
        kept, of_user = self._kept, asked.of_user
        state = np.empty((len(asked.rows), *kept.start.shape), kept.start.dtype)
        states = np.ascontiguousarray(asked.states).view(kept.start.dtype)
        state[asked.has_state] = states.reshape(-1, *kept.start.shape)
        state[~asked.has_state] = kept.start
        new = asked.new
        if new.any():
            self._fold(asked, state, np.flatnonzero(new))
        ends = np.cumsum(asked.rows)
        last_ms = np.full(len(asked.rows), UNKNOWN_MS)
        some = asked.rows > 0
        last_ms[some] = asked.interactions["asked_ms"][ends[some] - 1]
        inputs = asked.queries.inputs(last_ms[of_user])
        if kept.reads_counts:
            inputs["counts"] = self._counts(asked, ends)
        is_each = len(of_user) == len(state) and bool((of_user == np.arange(len(state))).all())
        outputs = kept.answers(
            state if is_each else state[of_user],
            inputs,
            (asked.first + asked.rows - asked.start)[of_user],
        )
        knowledge = outputs.get(KNOWLEDGE_STATE)
        # Column 0 is the skill UNSEEN, then the known ones.
        vector = None if knowledge is None else knowledge[:, 1:]
        return ManyScore(outputs[P_CORRECT], vector, state)

    def _fold(self, asked: AskedMany, state: NDArray[Any], who: NDArray[np.int64]) -> None:
        """Move the states of the users `who` on by their new answers."""
        is_behind = np.zeros(len(asked.rows), np.bool_)
        is_behind[who] = True
        kept = self._kept
        after = following(
            kept.vocabulary.read(
                asked.interactions[np.repeat(is_behind, asked.rows)], sets=asked.sets
            ),
            [_NOBODYS] * len(who),
            rows=asked.rows[who],
            before_window=np.maximum(asked.start - asked.first, 0)[who],
            before_new=(asked.seen - asked.first)[who],
            seen=(asked.seen - asked.start)[who],
            with_counts=kept.reads_counts,
        )
        state[who] = kept.fold(state[who], after)

    def _counts(self, asked: AskedMany, ends: NDArray[np.int64]) -> NDArray[np.float32]:
        user = np.repeat(np.arange(len(asked.rows)), asked.rows)
        place = np.arange(len(user)) - np.repeat(ends - asked.rows, asked.rows)
        in_window = place >= np.repeat(asked.start - asked.first, asked.rows)
        interactions = asked.interactions
        if not in_window.all():
            interactions, user = interactions[in_window], user[in_window]
        window = self._kept.vocabulary.read(interactions, sets=asked.sets)
        return counts_asked(window, user, asked.queries, asked.of_user)
