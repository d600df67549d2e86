"""What is kept of past places, new places, and questions in; probabilities and more to keep out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from app.engine.asked import Asked, encoded, encoded_and_read
from app.engine.kept import KeptScore, in_two
from app.engine.memory import Memory, Rows
from app.engine.scorer import WindowScore, run_graph, scores_of
from models.contract.artifact import Graph
from models.contract.vocabulary import Vocabulary

MEMORY, CARRY, ROWS, NEXT_CARRY = "memory", "carry", "rows", "next_carry"


class RecallScorer:
    """A remember graph and a recall graph. Threads may share it: a run lets go of the interpreter.

    A run is of one user, without padding and without copying what is kept; several questions put to
    one user at a time share it.
    """

    state_bytes = 0
    """Rows are too many to be stored beside a history: they are made again."""

    holds_memory = True

    def __init__(
        self,
        remember: onnxruntime.InferenceSession,
        recall: onnxruntime.InferenceSession,
        graphs: Mapping[str, Graph],
        start: NDArray[Any],
        vocabulary: Vocabulary,
    ) -> None:
        """`start` is the carry before any answer."""
        self.remember, self.recall, self.start = remember, recall, start
        self._vocabulary = vocabulary
        reads = {
            name: [port.name for port in graphs[name].inputs] for name in ("remember", "recall")
        }
        self._kept = {name: {*reads[name]} & {MEMORY, CARRY} for name in reads}
        self._reads = {name: [n for n in reads[name] if n not in (MEMORY, CARRY)] for name in reads}
        self._outputs = [port.name for port in graphs["recall"].outputs]
        ports = {port.name: port for port in graphs["remember"].outputs}
        self.width = int(ports[ROWS].axes[1])

    @property
    def reads_counts(self) -> bool:
        """A place cannot be read without the places before it in the window."""
        return any("counts" in names for names in self._reads.values())

    def __call__(self, asked: Sequence[Asked]) -> list[KeptScore]:
        """Remember what is new of each user, and answer; the order is kept.

        Raises `ScoringFailed` where a number that comes out is not finite, and ONNX Runtime's own
        errors.
        """
        return in_two(asked, self._from_memory)

    def _from_memory(self, asked: Sequence[Asked]) -> list[KeptScore]:
        if self.reads_counts:
            after, pasts = encoded_and_read(asked, self._vocabulary)
        else:
            after, pasts = encoded(asked, self._vocabulary, with_counts=False), None
        found: list[KeptScore | None] = [None] * len(asked)
        begins = (np.cumsum(after.new) - after.new).tolist()
        for places in _of_one_past(asked):
            first = places[0]
            one, begin, new = asked[first], begins[first], int(after.new[first])
            answered = {n: a[begin : begin + new] for n, a in after.answered.items()}
            rows, carry = self.remembered(*self._known(one), answered)
            queries = {n: a[places] for n, a in after.queries.items()}
            scores = self.recalled(rows, carry, queries)
            memory = one.memory
            if memory is None or new:
                memory = Memory(
                    start=one.start,
                    seen=one.first + len(one.interactions),
                    past=None if pasts is None else pasts[first],
                    rows=rows,
                    carry=carry,
                )
            for place, score in zip(places, scores, strict=True):
                found[place] = KeptScore(score, None, memory)
        return [score for score in found if score is not None]

    def no_rows(self) -> Rows:
        """Return what is kept before any answer."""
        return Rows.none(self.width)

    def remembered(
        self, rows: Rows, carry: NDArray[Any], answered: Mapping[str, NDArray[Any]]
    ) -> tuple[Rows, NDArray[Any]]:
        """Return the rows with those of new places, and the carry after them."""
        if not len(answered["question"]):
            return rows, carry
        inputs = self._inputs("remember", rows, carry, answered)
        out = run_graph(self.remember, [ROWS, NEXT_CARRY], inputs)
        return rows.grown(out[ROWS]), out[NEXT_CARRY]

    def recalled(
        self, rows: Rows, carry: NDArray[Any], queries: Mapping[str, NDArray[Any]]
    ) -> list[WindowScore]:
        """Return what is said of each query."""
        inputs = self._inputs("recall", rows, carry, queries)
        return scores_of(run_graph(self.recall, self._outputs, inputs))

    def _known(self, asked: Asked) -> tuple[Rows, NDArray[Any]]:
        memory = asked.memory
        if memory is None or memory.rows is None or memory.carry is None:
            return self.no_rows(), self.start
        return memory.rows, memory.carry

    def _inputs(
        self, graph: str, rows: Rows, carry: NDArray[Any], places: Mapping[str, NDArray[Any]]
    ) -> dict[str, NDArray[Any]]:
        kept = {MEMORY: rows.array, CARRY: carry}
        return {n: kept[n] for n in self._kept[graph]} | {n: places[n] for n in self._reads[graph]}


def _of_one_past(asked: Sequence[Asked]) -> list[list[int]]:
    """Return who stands on the very same past, together: questions put to one user at a time."""
    together: dict[tuple[int, int], list[int]] = {}
    for place, one in enumerate(asked):
        of_whom = -place if one.memory is None else id(one.memory)
        together.setdefault((of_whom, one.first + len(one.interactions)), []).append(place)
    return list(together.values())
