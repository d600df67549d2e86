"""Metrics against scikit-learn and by their own laws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from models.evaluation.metrics import accuracy, auc, bootstrap, ece, log_loss, reliability

ROWS = st.lists(
    st.tuples(st.booleans(), st.integers(1, 19).map(lambda n: n / 20)), min_size=4, max_size=60
)


@settings(deadline=None)
@given(ROWS)
def test_auc_accuracy_and_log_loss_are_scikit_learn_s(rows):
    right, p = (np.array(x) for x in zip(*rows, strict=True))

    if right.all() or not right.any():
        assert np.isnan(auc(right, p))
    else:
        assert auc(right, p) == pytest.approx(reference.roc_auc_score(right, p))
    assert accuracy(right, p) == pytest.approx(reference.accuracy_score(right, p >= 0.5))
    assert log_loss(right, p) == pytest.approx(reference.log_loss(right, p, labels=[False, True]))


@settings(deadline=None)
@given(ROWS, st.integers(0, 99))
def test_a_weight_is_so_many_copies(rows, seed):
    right, p = (np.array(x) for x in zip(*rows, strict=True))
    weight = np.random.default_rng(seed).integers(0, 4, len(p))
    if weight.sum() == 0:
        return

    for metric in (auc, accuracy, log_loss, ece):
        copies = metric(np.repeat(right, weight), np.repeat(p, weight), None)
        assert metric(right, p, weight) == pytest.approx(copies, nan_ok=True)


def test_calibrated_predictions_have_no_calibration_error():
    rng = np.random.default_rng(0)
    p = rng.random(200_000)
    right = rng.random(200_000) < p

    assert ece(right, p) < 0.01
    assert ece(right, np.clip(p + 0.2, 0, 1)) > 0.1
    assert all(abs(mean - share) < 0.02 for mean, share, _ in reliability(right, p))


def test_the_interval_widens_when_users_differ():
    """Answers of one user are not independent: drawing users shows it."""
    rng = np.random.default_rng(1)
    user = np.repeat(np.arange(20), 200)
    p = rng.random(4000)
    alike = rng.random(4000) < p
    split = np.where(user < 10, p > 0.5, p < 0.5)  # half of the users answer the other way

    low, high = bootstrap(auc, alike, p, user, rounds=100, seed=0)
    low_split, high_split = bootstrap(auc, split, p, user, rounds=100, seed=0)

    assert low < auc(alike, p) < high
    assert high_split - low_split > 5 * (high - low)
