"""A calibration moves probabilities and never the order of equals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.contract.calibration import Calibration, shares
from models.contract.logit import logit_of

KNOTS = (0, 2, 8)
MAPS = st.builds(
    lambda scales, shifts: Calibration(knots=KNOTS, scales=scales, shifts=shifts),
    st.tuples(*[st.floats(0.1, 4.0)] * 3),
    st.tuples(*[st.floats(-3.0, 3.0)] * 3),
)


@given(MAPS, st.integers(0, 5000), st.floats(-8, 8), st.floats(0.01, 5))
def test_among_users_of_equal_history_no_order_changes(calibration, answers, logit, more):
    low, high = calibration.apply(np.array([logit, logit + more]), np.full(2, answers))

    assert low < high


@given(MAPS, st.lists(st.integers(0, 100), min_size=1, max_size=9))
def test_a_matrix_is_calibrated_as_its_columns_are(calibration, answers):
    """A knowledge state goes by the same map as the asked question."""
    logit = np.random.default_rng(0).normal(size=(len(answers), 3))
    whole = calibration.apply(logit, np.array(answers))

    for column in range(3):
        alone = calibration.apply(logit[:, column], np.array(answers))
        np.testing.assert_array_equal(whole[:, column], alone)


@given(st.lists(st.integers(0, 10_000), min_size=1))
def test_shares_sum_to_one_and_meet_at_knots(answers):
    """Between two knots only these two matter; beyond the last, it alone."""
    share = shares(np.array(answers), KNOTS)

    np.testing.assert_allclose(share.sum(axis=1), 1)
    assert ((share > 0).sum(axis=1) <= 2).all()
    np.testing.assert_array_equal(shares(np.array([*KNOTS, 9999]), KNOTS)[[0, 1, 2]], np.eye(3))
    assert shares(np.array([9999]), KNOTS)[0, -1] == 1


def test_without_knots_nothing_is_changed():
    p = np.array([0.0, 0.3, 1.0])

    np.testing.assert_array_equal(Calibration().apply_to_p(p, np.zeros(3, int)), p)


@given(MAPS, st.floats(0.001, 0.999), st.integers(0, 50))
def test_probabilities_and_logits_go_by_one_map(calibration, p, answers):
    n = np.array([answers])
    logit = calibration.apply(np.log([p / (1 - p)]), n)

    assert logit_of(calibration.apply_to_p(np.array([p]), n)) == pytest.approx(
        np.clip(logit, *logit_of(np.array([0.0, 1.0]))), abs=1e-4
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"knots": (0, 3, 3)}, "do not rise"),
        ({"knots": (1, 3, 9)}, "the first 0"),
        ({"scales": (1.0, 1.0, 0.0)}, "above 0"),
        ({"scales": (1.0, 1.0, float("nan"))}, "finite"),
        ({"shifts": (0.0,)}, "1 shifts, 3 knots"),
        ({"knots": (0, 1, True)}, "whole numbers"),
        ({"ece": []}, "ece is no table"),
    ],
)
def test_what_is_no_calibration_is_refused(change, said):
    good = {"knots": KNOTS, "scales": (1.0, 1.0, 1.0), "shifts": (0.0, 0.0, 0.0)}
    with pytest.raises((TypeError, ValueError), match=said):
        Calibration(**{**good, **change})
