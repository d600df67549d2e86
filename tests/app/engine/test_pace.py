"""How many share a run is what was measured, of this model and this machine."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from app.engine.artifact import open_artifact
from app.engine.kept import KeptScore
from app.engine.pace import Pace, measured, within, worth_sharing
from app.engine.scorer import WindowScore
from tests.app.conftest import SHIPPED

SCORE = WindowScore(0.5, None, None)


@pytest.mark.parametrize(
    ("times", "items"),
    [
        ({1: 1.0, 8: 8.0, 16: 16.0}, 1),  # company brings nothing
        ({1: 1.0, 8: 8.1, 16: 17.0}, 1),
        ({1: 1.0, 8: 4.0, 16: 7.8}, 8),  # eight bring half, more bring next to nothing
        ({1: 1.0, 8: 1.1, 16: 1.6}, 16),  # sixteen are hardly dearer than one
    ],
)
def test_a_run_is_as_long_as_length_pays(times, items):
    """The shortest that is within a twentieth of the best."""
    assert worth_sharing(times) == items


@pytest.mark.parametrize(
    ("times", "items"),
    [({1: 0.5, 16: 2.0}, 16), ({1: 0.5, 16: 17.0}, 2), ({1: 2.1, 16: 3.0}, 0), ({1: 2, 16: 2}, 1)],
)
def test_the_loop_is_held_up_no_longer_than_its_budget(times, items):
    """Nor at all by what takes longer alone."""
    assert min(within(times, 2.0), 16) == items


class Clocked:
    """Takes as long as it is told: so much a run, so much an item."""

    def __init__(self, a_run: float, an_item: float) -> None:
        self.a_run, self.an_item = a_run, an_item
        self.now, self.runs = 0.0, Counter()

    def __call__(self, asked):
        self.now += self.a_run + self.an_item * len(asked)
        self.runs[len(asked)] += 1
        return [KeptScore(SCORE, None, None) for _ in asked]


@pytest.mark.parametrize(
    ("a_run", "an_item", "windows"), [(0.0, 1.0, 1), (2.0, 1.0, 16), (0.5, 1.0, 8), (10.0, 0.1, 16)]
)
def test_a_model_is_measured_by_what_it_takes(a_run, an_item, windows):
    """Each size a few times, by the clock; never more places than its windows have."""
    scorer = Clocked(a_run, an_item)

    pace = measured(scorer, None, 30, clock=lambda: scorer.now)

    assert pace == Pace(30 * windows, 0, 0)
    assert set(scorer.runs) == {1, 8, 16}


@pytest.mark.parametrize("model", sorted(SHIPPED))
def test_every_shipped_model_is_measured_when_it_is_opened(model):
    """And answers whoever has one new answer in the event loop.

    That is measured once more, in this thread's own time: what else runs here takes none of it.
    """
    artifact = open_artifact(SHIPPED[model], "cpu", 1)
    length = artifact.manifest.window.length
    pace = measured(artifact.scorer, artifact.kept, length, clock=time.thread_time)

    assert pace.next_items > 0
    assert artifact.pace.window_places in (100, 800, 1600)
    assert artifact.pace.first_places in (100, 800, 1600)
