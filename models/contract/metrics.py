"""How good probabilities are: functions of arrays, for those who train and those who serve.

`right` holds 0 or 1, `p` the predicted chance of 1; both (N,).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.contract.logit import LEAST_P

Floats = NDArray[np.floating[Any]]

ECE_BINS = 15


def auc(right: NDArray[Any], p: Floats, weight: NDArray[Any] | None = None) -> float:
    """Return the area under the ROC curve, ties counted half; NaN where only one class is there.

    Equal to the chance that a right answer was given a higher p than a wrong one (Mann-Whitney).
    """
    order = np.argsort(p, kind="stable")
    return auc_in_order(np.asarray(right, bool)[order], np.asarray(p)[order], order, weight)


def accuracy(right: NDArray[Any], p: Floats, weight: NDArray[Any] | None = None) -> float:
    """Return the share of answers on whose side of 0.5 the prediction stood."""
    return float(np.average((p >= 0.5) == np.asarray(right, bool), weights=weight))


def log_loss(right: NDArray[Any], p: Floats, weight: NDArray[Any] | None = None) -> float:
    """Return the mean negative log likelihood, in nats; p is held within `LEAST_P` of 0 and 1."""
    p = np.clip(np.asarray(p, np.float64), LEAST_P, 1 - LEAST_P)
    loss = -np.where(np.asarray(right, bool), np.log(p), np.log1p(-p))
    return float(np.average(loss, weights=weight))


def ece(right: NDArray[Any], p: Floats, weight: NDArray[Any] | None = None) -> float:
    """Return the expected calibration error over 15 bins of equal width (Naeini et al. 2015)."""
    weight = np.ones(len(p)) if weight is None else np.asarray(weight, np.float64)
    place = np.minimum((np.asarray(p, np.float64) * ECE_BINS).astype(int), ECE_BINS - 1)
    gap = np.bincount(place, weight * (np.asarray(right, np.float64) - p), ECE_BINS)
    return float(np.abs(gap).sum() / weight.sum())


def reliability(
    right: NDArray[Any], p: Floats, bins: int = ECE_BINS
) -> Sequence[tuple[float, float, int]]:
    """Return for each bin that holds answers: mean p, share answered right, answers."""
    place = np.minimum((np.asarray(p, np.float64) * bins).astype(int), bins - 1)
    return [
        (float(p[place == b].mean()), float(np.mean(right[place == b])), int((place == b).sum()))
        for b in range(bins)
        if (place == b).any()
    ]


def auc_in_order(
    right: NDArray[np.bool_],
    p: Floats,
    order: NDArray[np.int64] | None,
    weight: NDArray[Any] | None,
) -> float:
    """Return the AUC of rows sorted by p; `weight` is still in the order before `order`."""
    if weight is None:
        weight = np.ones(len(p))
    elif order is not None:
        weight = weight[order]
    positive, negative = weight * right, weight * ~right
    total = positive.sum() * negative.sum()
    if total == 0:
        return float("nan")
    # Rows of equal p are one group: half of the pairs within it count.
    first = np.flatnonzero(np.r_[True, np.diff(p) != 0]) if len(p) else np.zeros(0, int)
    positive = np.add.reduceat(positive, first)
    negative = np.add.reduceat(negative, first)
    below = np.cumsum(negative) - negative
    return float((positive * (below + negative / 2)).sum() / total)
