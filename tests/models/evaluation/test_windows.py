"""AUC against window length: the same answers, and no more of the past than a length shows."""

from __future__ import annotations

import numpy as np
import pytest

from models.contract.artifact import WindowRule
from models.contract.interaction import RIGHT
from models.datasets.encoded import encode
from models.datasets.simulator import simulate
from models.evaluation.subject import Subject
from models.evaluation.windows import as_text, by_window, gain, rows_with, windows_picture


@pytest.fixture(scope="module")
def simulated():
    return simulate(users=12, answers=60, questions=5, skills=2, seed=0).dataset


def subject_of(data, score, longest=None) -> Subject:
    """What is asked is a plain function in place of a graph."""
    return Subject(
        name="plain",
        run=None,
        score=score,
        window=WindowRule(length=200),
        vocabulary=data.vocabulary(),
        longest=longest,
        data={"source": {"set": "simulated"}},
        seed=0,
    )


def test_every_length_scores_the_same_answers_through_full_windows(simulated):
    shapes = []

    def share_right(batch):
        shapes.append(batch["mask"].shape)
        assert batch["mask"].all()
        return (batch["response"] == RIGHT).mean(axis=1).astype(np.float32)

    encoded = encode(simulated, simulated.vocabulary())
    found = by_window(subject_of(simulated, share_right), encoded, [5, 20, 40], rounds=5)

    assert sorted({length for _, length in shapes}) == [5, 20, 40]
    assert sum(rows for rows, length in shapes if length == 5) == found["answers"] == 12 * 21
    assert (found["users"], found["history"]) == (12, 39)
    assert all(m["low"] <= m["value"] <= m["high"] for m in found["auc"].values())


def test_a_length_without_positions_is_not_measured_and_said_so(simulated):
    encoded = encode(simulated, simulated.vocabulary())
    subject = subject_of(simulated, lambda b: np.zeros(len(b["mask"]), np.float32), longest=20)
    found = by_window(subject, encoded, [5, 40], every=3, rounds=5)

    assert found["auc"]["40"] is None
    assert found["auc"]["5"]["value"] == 0.5
    assert "no positions" in as_text([found])
    assert "(one in 3)" in as_text([found])
    assert "(one in 3)" in windows_picture([found]).axes[0].get_title()


def test_rows_are_thinned_within_each_user_and_see_enough(simulated):
    encoded = encode(simulated, simulated.vocabulary())

    assert rows_with(50, encoded, users=2, every=4) == [
        (u, r) for u in (0, 1) for r in (50, 54, 58)
    ]
    assert rows_with(60, encoded) == []


def test_histories_too_short_for_any_answer_are_refused(simulated):
    with pytest.raises(ValueError, match="no test user has 99 answers"):
        by_window(subject_of(simulated, None), encode(simulated, simulated.vocabulary()), [50, 100])


def test_a_gain_that_every_user_has_is_known_more_closely_than_an_auc():
    """Users differ much; the same users are drawn for both lengths."""
    rng = np.random.default_rng(0)
    user = np.repeat(np.arange(40), 50)
    right = rng.random(2000) < 0.5
    noise = rng.normal(0, 1, 2000)
    good = np.where(user % 2, 3.0, 0.5) * right + noise
    better = good + 0.3 * right

    found = gain(right, better, good, user, rounds=100)
    assert 0 < found["low"] < found["value"] < found["high"] < 0.1
    assert gain(right, good, good, user, rounds=5) == {"value": 0, "low": 0, "high": 0}
