"""Fit a calibration on answers that the network was not trained on; keep it in the run folder.

The log loss is convex in scales and shifts together, so there is one minimum to find.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.contract.artifact import WindowRule
from models.contract.calibration import Calibration, shares
from models.contract.logit import logit_of
from models.contract.window import window_start
from models.datasets.encoded import EncodedUser
from models.evaluation import logistic

CALIBRATION = "calibration.json"

KNOTS = (0, 2, 8, 32, 128, 512)
RIDGE = 4.0  # weighs as much against a change as about 16 answers for it (p (1 - p) is up to 1/4)
LEAST_SCALE = 0.05  # a network that orders answers the wrong way is flattened, never turned round
FIRST_ROWS = 16  # rows of every user that a thinned sample keeps: newcomers are few among all rows

Floats = NDArray[np.floating[Any]]


def fit(
    logit: Floats,
    right: NDArray[Any],
    answers: NDArray[np.int64],
    *,
    fitted_on: Mapping[str, Any] | None = None,
) -> Calibration:
    """Return the calibration of least log loss, with a small ridge towards changing nothing.

    Logits, 0 or 1, and answers shown, each (N,). Knots that no row reaches are left out; those
    that few rows touch stay near scale 1 and shift 0.
    """
    if not len(logit):
        raise ValueError("a calibration cannot be fitted on no answers")
    reached = int(answers.max())
    knots = KNOTS[: max(2, sum(k <= reached for k in KNOTS))]
    share = shares(answers, knots)
    features = np.concatenate([share * np.asarray(logit, np.float64)[:, None], share], axis=1)
    start = np.repeat([1.0, 0.0], len(knots))
    free = np.ones(len(start), bool)
    found = start
    while True:
        found = _least(features, np.asarray(right, np.float64), start, found, free)
        low = free & (np.arange(len(start)) < len(knots)) & (found < LEAST_SCALE)
        if not low.any():
            break
        found, free = np.where(low, LEAST_SCALE, found), free & ~low
    return Calibration(
        knots=knots,
        scales=tuple(found[: len(knots)].tolist()),
        shifts=tuple(found[len(knots) :].tolist()),
        fitted_on=dict(fitted_on or {}),
    )


def fit_users(
    users: Sequence[EncodedUser],
    found: Sequence[NDArray[np.float64]],
    rule: WindowRule,
    *,
    fitted_on: Mapping[str, Any],
) -> Calibration:
    """Fit on predicted probabilities of every row of every user, NaN where a row was left out."""
    p = np.concatenate(list(found))
    known = ~np.isnan(p)
    right = np.concatenate([u.history.response for u in users])[known]
    shown = np.concatenate([answers_shown(u, rule) for u in users])[known]
    counted = {**fitted_on, "users": len(users), "answers": int(known.sum())}
    return fit(logit_of(p[known]), right, shown, fitted_on=counted)


def apply_to_users(
    calibration: Calibration,
    users: Sequence[EncodedUser],
    found: Sequence[NDArray[np.float64]],
    rule: WindowRule,
) -> list[NDArray[np.float64]]:
    """Return each user's calibrated probabilities, NaN where they were."""
    return [
        calibration.apply_to_p(p, answers_shown(user, rule))
        for user, p in zip(users, found, strict=True)
    ]


def answers_shown(user: EncodedUser, rule: WindowRule) -> NDArray[np.int64]:
    """Return for each row how many answers its window shows before the query."""
    starts = [window_start(int(n), rule.length, rule.cut) for n in user.visible]
    return user.visible - np.array(starts, np.int64)


def drawn_rows(users: Sequence[EncodedUser], rows: int, seed: int) -> list[tuple[int, int]]:
    """Return about `rows` rows of all users, the first of each among them.

    For networks whose every row costs a window of its own.
    """
    first = [(u, r) for u, user in enumerate(users) for r in range(min(FIRST_ROWS, len(user)))]
    later = [(u, r) for u, user in enumerate(users) for r in range(FIRST_ROWS, len(user))]
    order = np.random.default_rng(seed).permutation(len(later))[: max(0, rows - len(first))]
    return [*first, *(later[i] for i in order)]


def load(folder: Path, weights: str) -> Calibration:
    """Return the calibration of a run folder; none where it has none, or one of other weights.

    `weights` is the SHA-256 of the run's weights. Raises `ValueError` where the file is not one.
    """
    path = folder / CALIBRATION
    if not path.is_file():
        return Calibration()
    try:
        calibration = Calibration.of(json.loads(path.read_text(encoding="utf-8")))
    except (AttributeError, TypeError, ValueError) as exc:
        raise ValueError(f"{path} is no calibration: {exc}") from exc
    # A run that was trained on since then is another network.
    return calibration if calibration.fitted_on.get("weights") == weights else Calibration()


def as_dict(calibration: Calibration) -> dict[str, Any]:
    """Return plain values; `Calibration.of` reads them back."""
    return dataclasses.asdict(calibration)


def _least(
    features: NDArray[np.float64],
    right: NDArray[np.float64],
    start: NDArray[np.float64],
    found: NDArray[np.float64],
    free: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Return where log loss plus ridge is least, when only the free coefficients move."""
    used, fixed = features[:, free], features[:, ~free] @ found[~free]

    def loss(at: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        value, slope = logistic.loss_of(used @ at + fixed, right)
        change = at - start[free]
        return value + RIDGE / 2 * float(change @ change), used.T @ slope + RIDGE * change

    curvature = 0.25 * (used**2).sum(axis=0) + RIDGE  # of even chances
    least = found.copy()
    # Until no round gains: the usual tolerance ends up to 1e-3 off at a knot that few rows reach.
    least[free] = logistic.minimum(loss, found[free], curvature, rounds=1000, tolerance=0.0)
    return least
