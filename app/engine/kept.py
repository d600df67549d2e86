"""A kept state, the answers after it, and a question in; a probability and the next state out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from app.engine.asked import Asked, AskedMany, encoded_and_read, together
from app.engine.memory import Memory
from app.engine.scorer import WindowScore, run_graph, scores_of
from models.contract.artifact import Graph
from models.contract.asking import counts_asked
from models.contract.counts import Counted
from models.contract.following import Following, following
from models.contract.interaction import NOBODYS, UNKNOWN_MS
from models.contract.vocabulary import Vocabulary

STATE, NEXT_STATE, ANSWERS = "state", "next_state", "answers"


class KeptScore(NamedTuple):
    """What a model says, and the state after all answers."""

    score: WindowScore
    state: NDArray[Any] | None  # None of a model whose states are not stored
    memory: Memory | None  # None of a model that holds none


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
        self.reads_counts = "counts" in {*self._step_reads, *self._ask_reads}
        """A place cannot be read without the places before it in the window."""
        self._asks_answers = ANSWERS in [port.name for port in graphs["ask"].inputs]
        self._outputs = [port.name for port in graphs["ask"].outputs]

    @property
    def state_bytes(self) -> int:
        """How many bytes a stored state has."""
        return self.start.nbytes

    @property
    def holds_memory(self) -> bool:
        """It is spared reading the window by what is held of it."""
        return self.reads_counts

    def __call__(self, asked: Sequence[Asked]) -> list[KeptScore]:
        """Fold in what each state has not seen, all side by side, and ask; the order is kept.

        Raises `ScoringFailed` where a number that comes out is not finite, and ONNX Runtime's own
        errors.
        """
        if self.holds_memory:
            return in_two(asked, self._from_memory)
        outputs, state = self.together(together(asked))
        return [
            KeptScore(score, after, None)
            for score, after in zip(scores_of(outputs), state, strict=True)
        ]

    def together(self, asked: AskedMany) -> tuple[dict[str, NDArray[Any]], NDArray[Any]]:
        """Return the answers to all queries (B, ...), by output, and the users' states (U, ...).

        Most states have seen all answers: histories are read of the others alone. Raises as a call
        does.
        """
        of_user, state, new = asked.of_user, self._states(asked), asked.new
        if new.any():
            state = state.copy()
            self._fold_in(asked, state, np.flatnonzero(new))
        is_each = len(of_user) == len(state) and bool((of_user == np.arange(len(state))).all())
        outputs = self.answers(
            state if is_each else state[of_user],
            self._queries(asked),
            (asked.first + asked.rows - asked.start)[of_user],
        )
        return outputs, state

    def _states(self, asked: AskedMany) -> NDArray[Any]:
        """Return the states (U, ...) as they are kept; they cannot be written to."""
        states = np.ascontiguousarray(asked.states).view(self.start.dtype)
        states = states.reshape(-1, *self.start.shape)
        if len(states) == len(asked.rows):
            return states
        state = np.empty((len(asked.rows), *self.start.shape), self.start.dtype)
        state[asked.has_state] = states
        state[~asked.has_state] = self.start
        return state

    def _queries(self, asked: AskedMany) -> dict[str, NDArray[Any]]:
        """Return what the ask graph reads of each query, (B, ...)."""
        last_ms = np.full(len(asked.rows), UNKNOWN_MS)
        if "lag_s" in self._ask_reads:
            some = asked.rows > 0
            ends = np.cumsum(asked.rows)[some]
            last_ms[some] = asked.interactions["asked_ms"][ends - 1]
        inputs = asked.queries.inputs(last_ms[asked.of_user])
        if self.reads_counts:
            inputs["counts"] = self._counts(asked)
        return inputs

    def _from_memory(self, asked: Sequence[Asked]) -> list[KeptScore]:
        after, pasts = encoded_and_read(asked, self.vocabulary)
        start = self.start.tobytes()
        content = b"".join(one.state or start for one in asked)
        before = np.frombuffer(content, self.start.dtype).reshape(-1, *self.start.shape)
        outputs, states = self.run(before.copy(), after)
        return [
            KeptScore(score, state, _remembered(one, past, state))
            for one, past, score, state in zip(
                asked, pasts, scores_of(outputs), states, strict=True
            )
        ]

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

    def _fold_in(self, asked: AskedMany, state: NDArray[Any], who: NDArray[np.int64]) -> None:
        """Move the states of the users `who` on by their new answers."""
        is_behind = np.zeros(len(asked.rows), np.bool_)
        is_behind[who] = True
        after = following(
            self.vocabulary.read(
                asked.interactions[np.repeat(is_behind, asked.rows)], sets=asked.sets
            ),
            [NOBODYS] * len(who),
            rows=asked.rows[who],
            before_window=np.maximum(asked.start - asked.first, 0)[who],
            before_new=(asked.seen - asked.first)[who],
            seen=(asked.seen - asked.start)[who],
            with_counts=self.reads_counts,
        )
        state[who] = self.fold(state[who], after)

    def _counts(self, asked: AskedMany) -> NDArray[np.float32]:
        user = np.repeat(np.arange(len(asked.rows)), asked.rows)
        begin = np.cumsum(asked.rows) - asked.rows
        place = np.arange(len(user)) - np.repeat(begin, asked.rows)
        in_window = place >= np.repeat(asked.start - asked.first, asked.rows)
        interactions = asked.interactions
        if not in_window.all():
            interactions, user = interactions[in_window], user[in_window]
        window = self.vocabulary.read(interactions, sets=asked.sets)
        return counts_asked(window, user, asked.queries, asked.of_user)

    def answers(
        self, state: NDArray[Any], queries: Mapping[str, NDArray[Any]], seen: NDArray[np.int64]
    ) -> dict[str, NDArray[Any]]:
        """Return the answers to queries, by output; `seen` (B,) is what each state stands for."""
        inputs = {name: queries[name] for name in self._ask_reads}
        inputs[STATE] = state
        if self._asks_answers:
            inputs[ANSWERS] = seen
        return run_graph(self.ask, self._outputs, inputs)


def in_two(
    asked: Sequence[Asked], score: Callable[[Sequence[Asked]], list[KeptScore]]
) -> list[KeptScore]:
    """Score those with a memory together, then those without; the order is kept."""
    places = {
        has_one: [i for i, one in enumerate(asked) if (one.memory is not None) is has_one]
        for has_one in (True, False)
    }
    scores: dict[int, KeptScore] = {}
    for some in places.values():
        if some:
            scores.update(zip(some, score([asked[i] for i in some]), strict=True))
    return [scores[i] for i in range(len(asked))]


def _remembered(asked: Asked, past: Counted, state: NDArray[Any]) -> Memory:
    """Return what is known after a run; where it learned nothing new, what was known before."""
    total = asked.first + len(asked.interactions)
    if asked.memory is not None and asked.memory.seen == total:
        return asked.memory
    return Memory(start=asked.start, seen=total, past=past, state=state.tobytes())
