"""How an epoch is cut into steps."""

from __future__ import annotations

import numpy as np
import pytest

from models.datasets.encoded import encode
from models.datasets.simulator import simulate
from models.training.batches import step_places, steps_an_epoch, stretches
from models.training.config import FitConfig


@pytest.mark.parametrize(("places", "expected"), [(100, 512), (64_000, 2000), (10**7, 8192)])
def test_a_small_log_still_makes_many_steps(places, expected):
    """What is configured is the most; a large log is cut just so."""
    assert step_places(places, FitConfig()) == expected


def test_every_answer_is_in_an_epoch_once():
    """Whatever the cuts; and the number of steps is about what was said."""
    data = simulate(users=30, answers=90, questions=10, skills=3, seed=0).dataset
    users = encode(data, data.vocabulary())
    fit = FitConfig(stretch=40)
    batches = list(stretches(users, fit, np.random.default_rng(0)))

    assert sum(int(batch.scored.sum()) for batch in batches) == len(data)
    assert 0.5 < len(batches) / steps_an_epoch(users, None, fit) < 2
