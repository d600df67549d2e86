"""Logistic regression over sparse features, in numpy: L-BFGS on the penalised log likelihood.

Letters: N rows, F features that are not zero in a row (the same number in every row), W weights.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.contract.logit import p_of

Floats = NDArray[np.float64]

_MEMORY = 10  # steps from which the curvature is told
_ENOUGH = 1e-4  # share of the promised fall that a step must bring (Armijo)


class Sparse(NamedTuple):
    """A matrix (N, W) with F entries a row; entries of one row at one place add up."""

    place: NDArray[np.int64]  # (N, F) which weight
    value: Floats  # (N, F)

    def logit(self, weights: Floats) -> Floats:
        """(W,) -> (N,)."""
        return (weights[self.place] * self.value).sum(axis=1)  # type: ignore[no-any-return]

    def back(self, slope: Floats, size: int) -> Floats:
        """(N,) -> (W,): the transposed matrix times `slope`."""
        entries = (self.value * slope[:, None]).ravel()
        return np.bincount(self.place.ravel(), entries, minlength=size).astype(np.float64)


def fit(features: Sparse, right: Floats, penalty: Floats, *, rounds: int = 300) -> Floats:
    """Return the weights (W,) that make `right` (N,) likeliest under a Gaussian prior.

    Minimises the summed log loss plus half of `penalty` (W,) times the squared weights, as
    scikit-learn's LogisticRegression does with C = 1 / penalty.
    """
    size = len(penalty)

    def loss(weights: Floats) -> tuple[float, Floats]:
        value, slope = loss_of(features.logit(weights), right)
        value += float(0.5 * (penalty * weights**2).sum())
        return value, features.back(slope, size) + penalty * weights

    squared = Sparse(features.place, features.value**2)
    # The Hessian's diagonal at zero: rare and common features then move at like pace.
    curvature = squared.back(np.full(len(right), 0.25), size) + penalty
    return minimum(loss, np.zeros(size), np.maximum(curvature, 1e-9), rounds=rounds)


def loss_of(logit: Floats, right: Floats) -> tuple[float, Floats]:
    """Return the log loss of logits, summed, and its slope in each of them; (N,) both."""
    return float(np.logaddexp(0.0, logit).sum() - right @ logit), p_of(logit) - right


def minimum(
    loss: Callable[[Floats], tuple[float, Floats]],
    start: Floats,
    curvature: Floats,
    *,
    rounds: int,
    tolerance: float = 1e-9,
) -> Floats:
    """Return where a convex function is least (L-BFGS; Nocedal and Wright 2006, algorithm 7.4).

    `loss` returns value and slope; `curvature` is a first guess of the Hessian's diagonal. Ends
    when a round gains less than `tolerance` of the value.
    """
    at, (value, slope) = start, loss(start)
    past: deque[tuple[Floats, Floats]] = deque(maxlen=_MEMORY)
    for _ in range(rounds):
        step = -_newton(slope, past, curvature)
        fall, size = float(slope @ step), 1.0
        while True:
            there, (new_value, new_slope) = at + size * step, loss(at + size * step)
            if new_value <= value + _ENOUGH * size * fall or size < 1e-8:
                break
            size /= 2
        if (there - at) @ (new_slope - slope) > 0:
            past.append((there - at, new_slope - slope))
        gain, at, value, slope = value - new_value, there, new_value, new_slope
        if gain <= tolerance * max(1.0, abs(value)):
            break
    return at


def _newton(slope: Floats, past: deque[tuple[Floats, Floats]], curvature: Floats) -> Floats:
    """Return the inverse Hessian, as told by past steps and changes of slope, times `slope`."""
    shares = []
    for moved, turned in reversed(past):
        share = (moved @ slope) / (moved @ turned)
        slope = slope - share * turned
        shares.append(share)
    result = slope / curvature
    for (moved, turned), share in zip(past, reversed(shares), strict=True):
        result = result + (share - (turned @ result) / (moved @ turned)) * moved
    return result
