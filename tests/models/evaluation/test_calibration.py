"""A fitted calibration undoes what was done to honest probabilities, and no more."""

import numpy as np
import pytest

from models.contract.artifact import WindowRule
from models.contract.calibration import Calibration, shares
from models.datasets.encoded import encode
from models.datasets.simulator import simulate
from models.evaluation.calibration import (
    FIRST_ROWS,
    KNOTS,
    LEAST_SCALE,
    RIDGE,
    answers_shown,
    drawn_rows,
    fit,
)
from models.evaluation.metrics import ece, log_loss


def honest(size, seed=0):
    """Logits, answers right with that very chance, and answers shown."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(0.3, 1.2, size)
    right = rng.random(size) < 1 / (1 + np.exp(-logit))
    return logit, right, np.exp(rng.uniform(0, np.log(600), size)).astype(int)


def test_a_known_distortion_is_undone():
    """Overconfident newcomers, shy veterans: both come back, on users never fitted on."""
    true = Calibration(knots=(0, 512), scales=(2.0, 0.5), shifts=(0.7, -0.4))
    logit, right, shown = honest(60_000)
    distorted = true.apply(logit, shown)
    fitted = fit(distorted, right, shown)
    logit, right, shown = honest(60_000, seed=1)
    distorted = true.apply(logit, shown)
    p = 1 / (1 + np.exp(-distorted))
    after = fitted.apply_to_p(p, shown)

    assert ece(right, p) > 0.04
    assert ece(right, after) < 0.01
    assert np.abs(fitted.apply(distorted, shown) - logit).mean() < 0.05


def test_honest_probabilities_stay():
    fitted = fit(*honest(60_000))

    np.testing.assert_allclose(fitted.scales, 1, atol=0.15)
    np.testing.assert_allclose(fitted.shifts, 0, atol=0.15)


def test_no_other_map_has_less_log_loss():
    """The minimum: a step in any direction is uphill, but for the ridge's small pull."""
    logit, right, shown = honest(20_000)
    fitted = fit(2 * logit + 0.5, right, shown)
    p = 1 / (1 + np.exp(-2 * logit - 0.5))
    least = log_loss(right, fitted.apply_to_p(p, shown))
    rng = np.random.default_rng(2)
    for _ in range(20):
        moved = Calibration(
            knots=fitted.knots,
            scales=tuple((np.array(fitted.scales) + rng.normal(0, 0.05, 6)).tolist()),
            shifts=tuple((np.array(fitted.shifts) + rng.normal(0, 0.05, 6)).tolist()),
        )
        assert log_loss(right, moved.apply_to_p(p, shown)) > least


@pytest.mark.parametrize("factor", [2.0, -1.0])
def test_the_minimum_is_met_to_a_millionth(factor):
    """A step of Newton's method from there moves nothing that may move."""
    logit, right, shown = honest(20_000)
    fitted = fit(factor * logit, right, shown)
    share = shares(shown, fitted.knots)
    features = np.concatenate([share * factor * logit[:, None], share], axis=1)
    at = np.array([*fitted.scales, *fitted.shifts])
    p = 1 / (1 + np.exp(-features @ at))
    slope = features.T @ (p - right) + RIDGE * (at - np.repeat([1.0, 0.0], 6))
    bend = (features * (p * (1 - p))[:, None]).T @ features + RIDGE * np.eye(12)
    free = at != LEAST_SCALE

    assert free.sum() == (12 if factor > 0 else 6)
    assert np.abs(np.linalg.solve(bend[np.ix_(free, free)], slope[free])).max() < 1e-6


def test_knots_that_few_answers_reach_stay_near_identity_and_unreached_ones_are_left_out():
    logit, right, _ = honest(5_000)
    shown = np.where(np.arange(5_000) < 4_997, 0, 32)
    fitted = fit(3 * logit, right, shown)

    assert fitted.knots == KNOTS[:4]
    assert fitted.scales[0] == pytest.approx(1 / 3, abs=0.05)
    np.testing.assert_allclose(fitted.scales[1:3], 1)  # nobody was there
    np.testing.assert_allclose(fitted.scales[3], 1, atol=0.6)


def test_a_network_that_orders_the_wrong_way_is_flattened_not_turned_round():
    logit, right, shown = honest(5_000)
    fitted = fit(-logit, right, shown)

    assert all(s >= LEAST_SCALE for s in fitted.scales)
    assert min(fitted.scales) == LEAST_SCALE


@pytest.mark.parametrize(("length", "cut"), [(8, 1), (8, 4), (40, 20)])
def test_answers_shown_are_counted_in_the_window_itself(length, cut):
    """What evaluation counts is what a graph will count in its mask."""
    data = simulate(users=2, answers=30, questions=5, skills=2).dataset
    user = encode(data, data.vocabulary())[0]
    rule = WindowRule(length=length, cut=cut)

    assert answers_shown(user, rule).tolist() == [len(user.window(r, rule)) - 1 for r in range(30)]


def test_a_thinned_sample_keeps_every_newcomer():
    data = simulate(users=5, answers=40, questions=5, skills=2).dataset
    rows = drawn_rows(encode(data, data.vocabulary()), 100, seed=0)

    assert len(set(rows)) == len(rows) == 100
    assert {(u, r) for u in range(5) for r in range(FIRST_ROWS)} <= set(rows)
