"""How good probabilities are: functions of arrays, no state, no files.

`right` holds 0 or 1, `p` the predicted chance of 1; both (N,).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.contract.logit import LEAST_P

Floats = NDArray[np.floating[Any]]
Metric = Callable[[NDArray[Any], Floats, NDArray[Any] | None], float]

ECE_BINS = 15


def auc(right: NDArray[Any], p: Floats, weight: NDArray[Any] | None = None) -> float:
    """Return the area under the ROC curve, ties counted half; NaN where only one class is there.

    Equal to the chance that a right answer was given a higher p than a wrong one (Mann-Whitney).
    """
    order = np.argsort(p, kind="stable")
    return _auc_in_order(np.asarray(right, bool)[order], np.asarray(p)[order], order, weight)


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


METRICS: dict[str, Metric] = {"auc": auc, "accuracy": accuracy, "log_loss": log_loss, "ece": ece}


def bootstrap(
    metric: Metric,
    right: NDArray[Any],
    p: Floats,
    user: NDArray[np.int64],
    *,
    rounds: int,
    seed: int,
) -> tuple[float, float]:
    """Return the 95 % interval of a metric when users, not answers, are drawn again.

    Answers of one user hang together: drawing them apart would make the interval too narrow.
    `user` (N,) numbers the users from 0.
    """
    order = np.argsort(p, kind="stable")  # sorted once: a weighted AUC of sorted rows is O(N)
    right, p, user = np.asarray(right, bool)[order], np.asarray(p)[order], user[order]
    values = []
    for weight in drawn_again(user, rounds=rounds, seed=seed):
        if metric is auc:
            values.append(_auc_in_order(right, p, None, weight))
        else:
            values.append(metric(right, p, weight))
    return interval(values)


def drawn_again(user: NDArray[np.int64], *, rounds: int, seed: int) -> Iterator[Floats]:
    """Yield the weight (N,) of every answer in each round in which as many users are drawn."""
    rng = np.random.default_rng(seed)
    present = np.unique(user)
    for _ in range(rounds):
        drawn = rng.choice(present, len(present))
        yield np.bincount(drawn, minlength=int(user.max(initial=-1)) + 1)[user].astype(np.float64)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the interval that 95 % of the values lie in, NaN left out."""
    if np.isnan(values).all():
        return float("nan"), float("nan")
    low, high = np.nanquantile(values, [0.025, 0.975])
    return float(low), float(high)


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


def _auc_in_order(
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
