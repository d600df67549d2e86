"""What is kept of past places, new places, and questions in; probabilities and more to keep out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from app.engine.asked import Asked, encoded, encoded_and_read
from app.engine.kept import KeptScore, in_two
from app.engine.memory import Memory, Rows
from app.engine.scorer import WindowScore, run_graph, scores_of
from models.contract.artifact import Graph
from models.contract.following import Following
from models.contract.vocabulary import Vocabulary

MEMORY, KEPT, CARRY, ROWS, NEXT_CARRY = "memory", "kept", "carry", "rows", "next_carry"

_STACKED_BYTES = 4_000_000
"""Rows of users that are copied beside each other for one run: more would leave the cache."""


class Stood(NamedTuple):
    """How one user stands: rows, and what the last of them hands on."""

    rows: Rows
    carry: NDArray[Any]


class RecallScorer:
    """A remember graph and a recall graph, and one to begin with, if there is.

    Users share a run side by side; several questions put to one user at a time are one row of it.
    Threads may share it: a run lets go of the interpreter.
    """

    state_bytes = 0
    """Rows are too many to be stored beside a history: they are made again."""

    holds_memory = True

    def __init__(
        self,
        sessions: Mapping[str, onnxruntime.InferenceSession],
        graphs: Mapping[str, Graph],
        start: NDArray[Any],
        vocabulary: Vocabulary,
    ) -> None:
        """`start` is the carry before any answer, without a batch axis."""
        self.start = start
        self._sessions = sessions
        self._vocabulary = vocabulary
        reads = {name: {port.name for port in graphs[name].inputs} for name in sessions}
        self._kept = {name: reads[name] & {MEMORY, KEPT, CARRY} for name in reads}
        self._reads = {name: reads[name] - {MEMORY, KEPT, CARRY} for name in reads}
        self._outputs = [port.name for port in graphs["recall"].outputs]
        ports = {port.name: port for port in graphs["remember"].outputs}
        self.width = int(ports[ROWS].axes[-1])

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
        users = _by_past(asked)
        first = [places[0] for places in users]  # who asks more than once is read once
        stood = self._remembered(asked, after, first)
        found: dict[int, KeptScore] = {}
        for places, stand, scores in zip(
            users, stood, self.recalled(stood, after.queries, users), strict=True
        ):
            one = asked[places[0]]
            memory = one.memory
            if memory is None or after.new[places[0]]:
                memory = Memory(
                    start=one.start,
                    seen=one.first + len(one.interactions),
                    past=None if pasts is None else pasts[places[0]],
                    rows=stand.rows,
                    carry=stand.carry,
                )
            for place, score in zip(places, scores, strict=True):
                found[place] = KeptScore(score, None, memory)
        return [found[place] for place in range(len(asked))]

    def _remembered(
        self, asked: Sequence[Asked], after: Following, first: Sequence[int]
    ) -> list[Stood]:
        stood = [self._known(asked[place]) for place in first]
        begin = (np.cumsum(after.new) - after.new)[list(first)]
        new = after.new[list(first)]
        for count in np.unique(new[new > 0]).tolist():
            of_these = np.flatnonzero(new == count).tolist()
            where = begin[of_these][:, None] + np.arange(count)  # (users, count)
            places = {n: a[where] for n, a in after.answered.items()}
            remembered = self.remembered([stood[i] for i in of_these], places)
            for i, stand in zip(of_these, remembered, strict=True):
                stood[i] = stand
        return stood

    def no_rows(self) -> Stood:
        """Return how a user stands before any answer."""
        return Stood(Rows.none(self.width), self.start)

    def remembered(self, stood: Sequence[Stood], places: Mapping[str, NDArray[Any]]) -> list[Stood]:
        """Return how users stand after as many new places (B, N, ...) each."""
        after: dict[int, Stood] = {}
        for some in self._side_by_side([len(s.rows) for s in stood]):
            begins = "begin" in self._sessions and not any(len(stood[i].rows) for i in some)
            inputs = {n: a[some] for n, a in places.items()}
            out = self._run(
                "begin" if begins else "remember",
                [ROWS, NEXT_CARRY],
                [stood[i] for i in some],
                inputs,
            )
            for i, rows, carry in zip(some, out[ROWS], out[NEXT_CARRY], strict=True):
                after[i] = Stood(stood[i].rows.grown(rows), carry.copy())
        return [after[i] for i in range(len(stood))]

    def recalled(
        self,
        stood: Sequence[Stood],
        queries: Mapping[str, NDArray[Any]],
        asked: Sequence[Sequence[int]],
    ) -> list[list[WindowScore]]:
        """Return what is said of each user's queries: the numbers in `asked`, of all `queries`."""
        scores: dict[int, list[WindowScore]] = {}
        for questions in sorted({len(places) for places in asked}):
            of_these = [i for i, places in enumerate(asked) if len(places) == questions]
            for some in self._side_by_side([len(stood[i].rows) for i in of_these]):
                users = [of_these[i] for i in some]
                where = np.array([asked[i] for i in users])  # (users, questions)
                inputs = {n: a[where] for n, a in queries.items()}
                out = self._run("recall", self._outputs, [stood[i] for i in users], inputs)
                flat = scores_of({n: a.reshape(-1, *a.shape[2:]) for n, a in out.items()})
                for row, i in enumerate(users):
                    scores[i] = flat[row * questions : (row + 1) * questions]
        return [scores[i] for i in range(len(asked))]

    def _known(self, asked: Asked) -> Stood:
        memory = asked.memory
        if memory is None or memory.rows is None or memory.carry is None:
            return self.no_rows()
        return Stood(memory.rows, memory.carry)

    def _side_by_side(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Yield who goes into one run: those with the most rows first, padded to them."""
        order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
        at = 0
        while at < len(order):
            a_user = max(lengths[order[at]], 1) * self.width * 4
            count = max(1, _STACKED_BYTES // a_user)
            some = order[at : at + count]
            if not lengths[some[-1]]:  # who has no rows begins, in another graph
                some = [i for i in some if bool(lengths[i]) == bool(lengths[some[0]])]
            yield some
            at += len(some)

    def _run(
        self,
        graph: str,
        outputs: list[str],
        stood: Sequence[Stood],
        places: Mapping[str, NDArray[Any]],
    ) -> dict[str, NDArray[Any]]:
        inputs = {n: places[n] for n in self._reads[graph]}
        if MEMORY in self._kept[graph]:
            inputs[MEMORY] = _stacked([s.rows.array for s in stood])
        if KEPT in self._kept[graph]:
            inputs[KEPT] = np.array([len(s.rows) for s in stood])
        if CARRY in self._kept[graph]:
            inputs[CARRY] = np.stack([s.carry for s in stood])
        return run_graph(self._sessions[graph], outputs, inputs)


def _stacked(rows: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return (B, P, C): one user's rows where they lie, several beside each other."""
    if len(rows) == 1:
        return rows[0][None]
    longest = max(map(len, rows))
    memory = np.empty((len(rows), longest, rows[0].shape[1]), np.float32)
    for place, own in zip(memory, rows, strict=True):
        place[: len(own)] = own
        place[len(own) :] = 0  # a weight of nothing times no number is no number
    return memory


def _by_past(asked: Sequence[Asked]) -> list[list[int]]:
    """Return who stands on the very same past, together: questions put to one user at a time."""
    together: dict[tuple[int, int], list[int]] = {}
    for place, one in enumerate(asked):
        of_whom = -place if one.memory is None else id(one.memory)
        together.setdefault((of_whom, one.first + len(one.interactions)), []).append(place)
    return list(together.values())
