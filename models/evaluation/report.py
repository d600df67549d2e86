"""Probabilities and answers -> the report of one evaluation, as plain values and as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.datasets.encoded import EncodedUser
from models.evaluation.metrics import ECE_BINS, METRICS, bootstrap, reliability

BUCKETS: tuple[tuple[str, int, int], ...] = (
    ("0", 0, 0),
    ("1-4", 1, 4),
    ("5-19", 5, 19),
    ("20-99", 20, 99),
    ("100+", 100, 2**62),
)
"""History lengths: name, shortest, longest."""

FEW_BINS = 10
"""Bins of reliability for one history length, where answers are fewer."""

HEADLINE = "from the second answer on"
"""Published figures leave out each user's first answer; so does ours, and so does `make replay`."""


def report(
    users: Sequence[EncodedUser],
    found: Sequence[NDArray[np.float64]],
    *,
    rounds: int = 200,
    seed: int = 0,
) -> dict[str, Any]:
    """Return every metric with its 95 % interval over users, in all and by history length."""
    right = np.concatenate([u.history.response for u in users])
    p = np.concatenate(list(found))
    length = np.concatenate([u.visible for u in users])
    row = np.concatenate([np.arange(len(u)) for u in users])
    user = np.repeat(np.arange(len(users)), [len(u) for u in users])
    if np.isnan(p).any():
        raise ValueError(f"{int(np.isnan(p).sum())} of {len(p)} answers have no probability")

    def part(chosen: NDArray[np.bool_]) -> dict[str, Any]:
        return _measures(right[chosen], p[chosen], user[chosen], rounds, seed)

    def bins(chosen: NDArray[np.bool_], number: int = ECE_BINS) -> list[list[float]]:
        found = reliability(right[chosen], p[chosen], number)
        return [[round(mean, 4), round(share, 4), answers] for mean, share, answers in found]

    buckets = {name: (length >= low) & (length <= high) for name, low, high in BUCKETS}
    return {
        "scored": HEADLINE,
        "all": part(row >= 1),
        "every_answer": part(row >= 0),
        "by_history_length": {name: part(chosen) for name, chosen in buckets.items()},
        "reliability": bins(row >= 1),
        "reliability_by_history_length": {
            name: bins(chosen, FEW_BINS) for name, chosen in buckets.items()
        },
    }


def ece_of(content: dict[str, Any]) -> dict[str, float]:
    """Return the ECE of all answers and of each history length that has any, of a report."""
    parts = {"all": content["all"], **content["by_history_length"]}
    return {name: round(part["ece"]["value"], 5) for name, part in parts.items() if "ece" in part}


def _measures(
    right: NDArray[Any], p: NDArray[np.float64], user: NDArray[np.int64], rounds: int, seed: int
) -> dict[str, Any]:
    measures: dict[str, Any] = {"answers": len(p), "users": len(np.unique(user))}
    if not len(p):
        return measures
    for name, metric in METRICS.items():
        low, high = bootstrap(metric, right, p, user, rounds=rounds, seed=seed)
        measures[name] = {"value": metric(right, p, None), "low": low, "high": high}
    return measures


def as_text(content: dict[str, Any]) -> str:
    """Return the report as a table: a line for all answers, and one a history length."""
    head = f"{'history':<10}{'answers':>9}{'users':>7}" + "".join(f"{m:>26}" for m in METRICS)
    lines = [head]
    parts = [("all *", content["all"]), *content["by_history_length"].items()]
    for name, part in parts:
        line = f"{name:<10}{part['answers']:>9,}{part['users']:>7,}"
        for metric in METRICS:
            if metric in part:
                m = part[metric]
                line += f"{m['value']:>10.4f} [{m['low']:.4f}, {m['high']:.4f}]".rjust(26)
        lines.append(line)
    lines.append(f"* {content['scored']}; [95 % interval, users drawn again]")
    if "uncalibrated" in content:
        before, after = ece_of(content["uncalibrated"]), ece_of(content)
        lines.append(
            "ECE before and after calibration: "
            + ", ".join(f"{name} {before[name]:.4f} -> {after[name]:.4f}" for name in after)
        )
    return "\n".join(lines)
