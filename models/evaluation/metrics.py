"""How good probabilities are, and how sure that is; `models.contract.metrics` has the formulas.

`right` holds 0 or 1, `p` the predicted chance of 1; both (N,).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.contract.metrics import (
    ECE_BINS,
    Floats,
    accuracy,
    auc,
    auc_in_order,
    ece,
    log_loss,
    reliability,
)

__all__ = [
    "ECE_BINS",
    "METRICS",
    "accuracy",
    "auc",
    "bootstrap",
    "drawn_again",
    "ece",
    "interval",
    "log_loss",
    "reliability",
]

Metric = Callable[[NDArray[Any], Floats, NDArray[Any] | None], float]

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
            values.append(auc_in_order(right, p, None, weight))
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
