"""How long a run of a model should be: measured on this machine when the model is opened.

In company a window is cheaper, until what the run works on leaves the core's cache; then it is
dearer than alone. Where that is depends on the network, its width and the machine, and on the
places of a run more than on its windows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from app.engine.asked import Asked
from app.engine.kept import KeptScore, KeptScorer
from app.engine.providers import Provider
from app.engine.recalling import RecallScorer
from app.engine.scorer import OnnxScorer
from models.contract.interaction import INTERACTION, RIGHT, UNSEEN, Query

LOOP_S = 0.003
"""The event loop may be kept so long by one run: it answers nobody else meanwhile."""

SIZES: Mapping[Provider, tuple[int, ...]] = {"cpu": (1, 8, 16), "cuda": (1, 8, 64)}
"""Items of the runs that are measured."""

PLACES = 100
"""Of each window that is measured: a common length, and short enough to be measured at a start."""

A_RUN_S = 0.0005
"""What a run costs besides: putting it together, handing it over, waking its callers."""

_TIMES = 3
_GAIN = 0.05
"""A larger run has to save at least this part of an item's cost."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Pace:
    """What one run should hold, at most."""

    window_places: int  # of whole windows
    first_places: int  # of users of whom nothing is kept yet; 0 where nothing ever is
    next_items: int  # users of whom all but one answer is kept, in the event loop; 0: in a thread


def measured(
    scorer: OnnxScorer,
    kept: KeptScorer | RecallScorer | None,
    length: int,
    provider: Provider = "cpu",
    clock: Callable[[], float] = time.perf_counter,
) -> Pace:
    """Measure an opened model whose windows have at most `length` places."""
    places, sizes = min(PLACES, length), SIZES[provider]
    answers = max(1, places - 1)
    windows = _times(scorer, [_asked(answers) for _ in range(sizes[-1])], sizes, clock)
    if kept is None:
        return Pace(places * worth_sharing(windows), 0, 0)
    firsts = _times(kept, [_asked(answers) for _ in range(sizes[-1])], sizes, clock)
    scores = kept([_asked(answers - 1) for _ in range(sizes[-1])])
    nexts = _times(kept, [_next(answers, score) for score in scores], sizes, clock)
    return Pace(
        places * worth_sharing(windows), places * worth_sharing(firsts), within(nexts, LOOP_S)
    )


def worth_sharing(times: Mapping[int, float]) -> int:
    """Return the fewest items after which a run of more gains little.

    `times` is what runs of so many items took, in seconds.
    """
    each = {size: (A_RUN_S + spent) / size for size, spent in times.items()}
    least = min(each.values())
    return min(size for size, cost in each.items() if cost <= least * (1 + _GAIN))


def within(times: Mapping[int, float], budget_s: float) -> int:
    """Return how many items a run may have that shall take no longer; 0 where one is too many."""
    few, many = min(times), max(times)
    an_item = max((times[many] - times[few]) / (many - few), 1e-9)
    return max(0, int(few + (budget_s - times[few]) / an_item))


def _times(
    score: Callable[[Sequence[Asked]], Sequence[Result]],
    asked: Sequence[Asked],
    sizes: Sequence[int],
    clock: Callable[[], float],
) -> dict[int, float]:
    """Return the shortest of a few times that runs of each size took."""
    times: dict[int, float] = {}
    for _ in range(_TIMES):  # in turns, or a busy moment would be one size's alone
        for size in sizes:
            began = clock()
            score(asked[:size])
            spent = clock() - began
            times[size] = min(spent, times.get(size, spent))
    return times


def _asked(answers: int) -> Asked:
    interactions = np.zeros(answers, INTERACTION)
    interactions["question_key"] = np.arange(1, answers + 1)
    interactions["asked_ms"] = 1000 * np.arange(answers)
    interactions["response"] = np.where(np.arange(answers) % 3 > 0, RIGHT, 0)
    query = Query(question=UNSEEN, skills=(UNSEEN,), asked_ms=1000 * answers)
    return Asked(interactions=interactions, first=0, start=0, seen=0, state=b"", query=query)


def _next(answers: int, score: KeptScore) -> Asked:
    """Return the question after one more answer than what is kept has seen."""
    asked, seen = _asked(answers), answers - 1
    state = b"" if score.state is None else score.state.tobytes()
    if score.memory is None:
        return replace(asked, seen=seen, state=state)
    # What is held spares the answers before, but for the one that the lag is counted from.
    last = max(seen - 1, 0)
    return replace(
        asked,
        interactions=asked.interactions[last:],
        first=last,
        seen=seen,
        state=score.memory.state,
        memory=score.memory,
    )
