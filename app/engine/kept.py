"""A kept state, the answers after it, and a question in; a probability and the next state out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from app.engine.asked import Asked, encoded
from app.engine.scorer import WindowScore, run_graph, scores_of
from models.contract.artifact import Graph
from models.contract.following import Following
from models.contract.vocabulary import Vocabulary

STATE, NEXT_STATE, ANSWERS = "state", "next_state", "answers"


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
        self.vocabulary = vocabulary
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

    def __call__(self, asked: Sequence[Asked]) -> list[KeptScore]:
        """Fold in what each state has not seen, all side by side, and ask; the order is kept.

        Raises `ScoringFailed` where a number that comes out is not finite, and ONNX Runtime's own
        errors.
        """
        start = self.start.tobytes()
        content = b"".join(one.state or start for one in asked)
        state = np.frombuffer(content, self.start.dtype).reshape(-1, *self.start.shape).copy()
        after = encoded(asked, self.vocabulary, with_counts=self.reads_counts)
        outputs, state = self.run(state, after)
        return list(map(KeptScore, scores_of(outputs), state))

    def run(
        self, state: NDArray[Any], after: Following
    ) -> tuple[dict[str, NDArray[Any]], NDArray[Any]]:
        """Return the answers to all queries, by output, and the states (B, ...) then.

        `state` is written over. Raises as a call does.
        """
        state = self.fold(state, after)
        return self.answers(state, after.queries, after.seen + after.new), state

    def fold(self, state: NDArray[Any], after: Following) -> NDArray[Any]:
        """Move states (B, ...) on by what they have not seen, all side by side; written over."""
        begin = np.cumsum(after.new) - after.new
        for place in range(int(after.new.max(initial=0))):
            rows = np.flatnonzero(after.new > place)  # most have one new answer, some have many
            at = begin[rows] + place
            inputs = {name: after.answered[name][at] for name in self._step_reads}
            inputs[STATE] = state[rows]
            state[rows] = run_graph(self.step, [NEXT_STATE], inputs)[NEXT_STATE]
        return state

    def answers(
        self, state: NDArray[Any], queries: Mapping[str, NDArray[Any]], seen: NDArray[np.int64]
    ) -> dict[str, NDArray[Any]]:
        """Return the answers to queries, by output; `seen` (B,) is what each state stands for."""
        inputs = {name: queries[name] for name in self._ask_reads}
        inputs[STATE] = state
        if self._asks_answers:
            inputs[ANSWERS] = seen
        return run_graph(self.ask, self._outputs, inputs)
