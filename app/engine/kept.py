"""A kept state, the answers after it, and a question in; a probability and the next state out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from app.engine.scorer import WindowScore, run_graph, scores_of
from models.contract.artifact import Graph
from models.contract.following import Following, following
from models.contract.interaction import Query
from models.contract.vocabulary import Vocabulary

STATE, NEXT_STATE, ANSWERS = "state", "next_state", "answers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A user's state and what it has not seen. Numbers count from the very first interaction."""

    interactions: NDArray[np.void]  # INTERACTION, the newest
    first: int  # number of the first one
    start: int  # of the first in the window of the next question
    seen: int  # number after the last one that the state stands for
    state: bytes  # empty before any answer
    query: Query
    sets: Mapping[int, Sequence[int]] = field(default_factory=dict)  # see `Vocabulary.read`

    def __len__(self) -> int:
        return self.first + len(self.interactions) - self.seen + 1


class KeptScore(NamedTuple):
    """What a model says, and the state after all answers."""

    score: WindowScore
    state: NDArray[Any]


class KeptScorer:
    """A step graph and an ask graph. Threads may share it: a run lets go of the interpreter."""

    def __init__(
        self,
        step: onnxruntime.InferenceSession,
        ask: onnxruntime.InferenceSession,
        graphs: Mapping[str, Graph],
        start: NDArray[Any],
        vocabulary: Vocabulary,
    ) -> None:
        """`start` is the state before any answer, without a batch axis."""
        self.step, self.ask, self.start = step, ask, start
        self._vocabulary = vocabulary
        self._step_reads, self._ask_reads = (
            [port.name for port in graphs[name].inputs if port.name not in (STATE, ANSWERS)]
            for name in ("step", "ask")
        )
        self._asks_answers = ANSWERS in [port.name for port in graphs["ask"].inputs]
        self._outputs = [port.name for port in graphs["ask"].outputs]

    @property
    def reads_counts(self) -> bool:
        """A place cannot be read without the places before it in the window."""
        return "counts" in {*self._step_reads, *self._ask_reads}

    def __call__(self, kept: Sequence[Kept]) -> list[KeptScore]:
        """Fold in what each state has not seen, all side by side, and ask; the order is kept.

        Raises `ScoringFailed` where a number that comes out is not finite, and ONNX Runtime's own
        errors.
        """
        states = [np.frombuffer(k.state, self.start.dtype) if k.state else self.start for k in kept]
        state = np.stack([s.reshape(self.start.shape) for s in states])
        outputs, state = self.run(state, self._following(kept))
        return list(map(KeptScore, scores_of(outputs), state))

    def run(
        self, state: NDArray[Any], after: Following
    ) -> tuple[dict[str, NDArray[Any]], NDArray[Any]]:
        """Return the answers to all queries, by output, and the states (B, ...) then.

        `state` is written over. Raises as a call does.
        """
        begin = np.cumsum(after.new) - after.new
        for place in range(int(after.new.max(initial=0))):
            rows = np.flatnonzero(after.new > place)  # most have one new answer, some have many
            at = begin[rows] + place
            inputs = {name: after.answered[name][at] for name in self._step_reads}
            inputs[STATE] = state[rows]
            state[rows] = run_graph(self.step, [NEXT_STATE], inputs)[NEXT_STATE]
        inputs = {name: after.queries[name] for name in self._ask_reads}
        inputs[STATE] = state
        if self._asks_answers:
            inputs[ANSWERS] = after.seen + after.new
        return run_graph(self.ask, self._outputs, inputs), state

    def _following(self, kept: Sequence[Kept]) -> Following:
        """Encode all of them at once."""
        sets: dict[int, Sequence[int]] = {}
        for one in kept:
            sets.update(one.sets)
        first, start, seen = (
            np.array([getattr(k, name) for k in kept]) for name in ("first", "start", "seen")
        )
        return following(
            self._vocabulary.read(_joined([k.interactions for k in kept]), sets=sets),
            [k.query for k in kept],
            rows=np.array([len(k.interactions) for k in kept]),
            before_window=np.maximum(start - first, 0),
            before_new=seen - first,
            seen=seen - start,
            with_counts=self.reads_counts,
        )


def _joined(arrays: Sequence[NDArray[np.void]]) -> NDArray[np.void]:
    """Return records one after the other; `np.concatenate` would promote every field first."""
    return np.frombuffer(b"".join(a.data for a in arrays), arrays[0].dtype)
