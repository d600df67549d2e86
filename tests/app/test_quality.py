"""Figures are what others would make of the same pairs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from app.quality import figures_of
from app.store.outcomes import OUTCOME, Outcomes
from models.contract.inputs import Inputs

PAIRS = st.lists(
    st.tuples(st.integers(1, 99).map(lambda n: np.float32(n / 100)), st.booleans()),
    min_size=1,
    max_size=80,
)


def outcomes(pairs) -> Outcomes:
    table = np.zeros(len(pairs), OUTCOME)
    table["p_correct"] = [p for p, _ in pairs]
    table["right"] = [right for _, right in pairs]
    table["answered_s"] = range(100, 100 + len(pairs))
    return Outcomes(table, 7 + len(pairs))


@given(PAIRS)
def test_figures_are_those_of_scikit_learn(pairs):
    """On the same pairs, with ties; what they do not say is NaN."""
    found = figures_of(outcomes(pairs), Inputs())
    p, right = np.array([p for p, _ in pairs]), np.array([right for _, right in pairs])

    assert (found.answers, found.total) == (len(pairs), 7 + len(pairs))
    assert (found.since_s, found.until_s) == (100, 99 + len(pairs))
    assert found.correct_ratio == pytest.approx(right.mean())
    assert found.predicted_mean == pytest.approx(p.mean())
    assert found.log_loss == pytest.approx(log_loss(right, p, labels=[False, True]))
    if len(set(right)) == 2:
        assert found.auc == pytest.approx(roc_auc_score(right, p))
    else:
        assert math.isnan(found.auc)
    assert sum(answers for _, _, answers in found.reliability) == len(pairs)
    gaps = [answers * abs(mean - share) for mean, share, answers in found.reliability]
    assert found.calibration_error == pytest.approx(sum(gaps) / len(pairs))


def test_without_answers_there_are_no_figures():
    """And no error."""
    found = figures_of(outcomes([]), Inputs(answers=10, right=5, lengths=(10,) + (0,) * 8))

    assert found.answers == 0
    assert math.isnan(found.auc)
    assert math.isnan(found.log_loss)
    assert (found.since_s, found.drift, found.reliability) == (None, None, [])
