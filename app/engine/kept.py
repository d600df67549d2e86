"""A kept state, the answers after it, and a question in; a probability and the next state out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from app.engine.scorer import WindowScore, run_graph, scores_of
from models.contract.artifact import Graph
from models.contract.window import Window, collate

STATE, NEXT_STATE, ANSWERS = "state", "next_state", "answers"


@dataclass(frozen=True, slots=True)
class Kept:
    """What is left of a window once a state stands for its oldest answers."""

    state: NDArray[Any] | None  # as `start`; None before any answer
    seen: int  # answers that it stands for
    window: Window  # the answers after them, and the query

    def __len__(self) -> int:
        return len(self.window)


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
    ) -> None:
        """`start` is the state before any answer, without a batch axis."""
        self.step, self.ask, self.start = step, ask, start
        self._step_reads, self._ask_reads = (
            [port.name for port in graphs[name].inputs] for name in ("step", "ask")
        )
        self._outputs = [port.name for port in graphs["ask"].outputs]

    @property
    def reads_counts(self) -> bool:
        """A place cannot be read without the places before it in the window."""
        return "counts" in {*self._step_reads, *self._ask_reads}

    def state_of(self, content: bytes) -> NDArray[Any] | None:
        """Return the state in `content`, as `bytes` of a `KeptScore.state`; None for no bytes.

        Raises `ValueError` where they are not as many as a state has.
        """
        if not content:
            return None
        return np.frombuffer(content, self.start.dtype).reshape(self.start.shape)

    def __call__(self, kept: Sequence[Kept]) -> list[KeptScore]:
        """Fold in what each state has not seen, all side by side, and ask; the order is kept.

        Raises `ScoringFailed` where a number that comes out is not finite, and ONNX Runtime's own
        errors.
        """
        batch = collate([one.window for one in kept])
        new = np.array([len(one) - 1 for one in kept])
        state = np.stack([self.start if one.state is None else one.state for one in kept])
        for place in range(int(new.max())):
            rows = np.flatnonzero(new > place)  # most have one new answer, some have many
            inputs = self._at(batch, rows, np.full(len(rows), place), self._step_reads)
            inputs[STATE] = state[rows]
            state[rows] = run_graph(self.step, [NEXT_STATE], inputs)[NEXT_STATE]
        inputs = self._at(batch, np.arange(len(kept)), new, self._ask_reads)
        inputs[STATE] = state
        if ANSWERS in self._ask_reads:
            inputs[ANSWERS] = np.array([one.seen for one in kept]) + new
        outputs = run_graph(self.ask, self._outputs, inputs)
        return list(map(KeptScore, scores_of(outputs), state))

    @staticmethod
    def _at(
        batch: Mapping[str, NDArray[Any]],
        rows: NDArray[np.int64],
        places: NDArray[np.int64],
        names: Sequence[str],
    ) -> dict[str, NDArray[Any]]:
        """Return one place of each row."""
        return {name: batch[name][rows, places] for name in names if name in batch}
