"""Windows in, probabilities out: synchronous, of one model, without waiting for anybody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from app.engine.asked import Asked, encoded
from app.errors import ScoringFailed
from models.contract.artifact import Graph
from models.contract.following import padded
from models.contract.vocabulary import Vocabulary
from models.contract.window import Side

P_CORRECT, KNOWLEDGE_STATE = "p_correct", "knowledge_state"


class WindowScore(NamedTuple):
    """What a model says of one window, as probabilities."""

    p_correct: float
    knowledge_state: NDArray[np.float32] | None  # (known skills,): skill FIRST + i at i
    prior: float | None  # a skill never seen in training; None without a knowledge state


class OnnxScorer:
    """One sequence graph. Threads may share it: a run lets go of the interpreter."""

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        graph: Graph,
        side: Side,
        vocabulary: Vocabulary,
    ) -> None:
        self.session = session
        self._vocabulary = vocabulary
        self._inputs = [port.name for port in graph.inputs]
        self._outputs = [port.name for port in graph.outputs]
        self.side = side

    @property
    def reads_counts(self) -> bool:
        """Counts must be made for it."""
        return "counts" in self._inputs

    def __call__(self, asked: Sequence[Asked]) -> list[WindowScore]:
        """Score whole windows in one run, padded to the longest of them; the order is kept.

        Raises `ScoringFailed` where a number that comes out is not finite, and ONNX Runtime's own
        errors.
        """
        after = encoded(asked, self._vocabulary, with_counts=self.reads_counts)
        return scores_of(self.run(padded(after, self.side)))

    def run(self, batch: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run one collated batch and return its outputs by name; raises as a call does."""
        return run_graph(self.session, self._outputs, {name: batch[name] for name in self._inputs})


def scores_of(outputs: Mapping[str, NDArray[Any]]) -> list[WindowScore]:
    """Return the outputs of a batch row by row."""
    p_correct = outputs[P_CORRECT].tolist()
    knowledge = outputs.get(KNOWLEDGE_STATE)
    if knowledge is None:
        return [WindowScore(p, None, None) for p in p_correct]
    prior = knowledge[:, 0].tolist()  # column 0 is the skill UNSEEN, then the known ones
    return [
        WindowScore(p, row[1:], unseen)
        for p, row, unseen in zip(p_correct, knowledge, prior, strict=True)
    ]


def run_graph(
    session: onnxruntime.InferenceSession, outputs: list[str], inputs: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """Run a graph and return its outputs by name.

    Raises `ScoringFailed` where a number that comes out is not finite, and ONNX Runtime's own
    errors.
    """
    found = session.run(outputs, inputs)
    for name, array in zip(outputs, found, strict=True):
        if not np.isfinite(array).all():
            raise ScoringFailed(f"{name} is not finite in a run of {len(array)} windows")
    return dict(zip(outputs, found, strict=True))
