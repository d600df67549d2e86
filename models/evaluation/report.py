"""Probabilities and answers -> the report of one evaluation, as plain values and as text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.datasets.encoded import EncodedUser
from models.evaluation.metrics import ECE_BINS, METRICS, bootstrap, ece, reliability

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

ALL, EVERY = "all", "every_answer"
"""Names of the part that is quoted, and of the one that leaves nothing out."""

HEADLINE = "from the second answer on"
"""Published figures leave out each user's first answer; so does ours, and so does `make replay`."""


class Part(NamedTuple):
    """The answers that are measured together."""

    right: NDArray[Any]  # (N,) 0 or 1
    p: NDArray[np.float64]  # (N,)
    user: NDArray[np.int64]  # (N,) numbers from 0
    bins: int  # of its reliability

    def reliability(self) -> list[list[float]]:
        """Return mean p, share answered right and answers of each bin that has any."""
        found = reliability(self.right, self.p, self.bins)
        return [[round(mean, 4), round(share, 4), answers] for mean, share, answers in found]


def report(
    users: Sequence[EncodedUser],
    found: Sequence[NDArray[np.float64]],
    *,
    rounds: int = 200,
    seed: int = 0,
) -> dict[str, Any]:
    """Return every metric with its 95 % interval over users, in all and by history length.

    A metric that a history length has not is left out; raises `ValueError` where all answers
    together have it not.
    """
    parts = _parts(users, found)
    measures = {name: _measures(part, rounds, seed) for name, part in parts.items()}
    for name in (ALL, EVERY):
        if missing := set(METRICS) - set(measures[name]):
            raise ValueError(
                f"{measures[name]['answers']} answers of {measures[name]['users']} users, "
                f"{HEADLINE if name == ALL else 'all there are'}: no {min(missing)} can be had of "
                f"them with an interval of {rounds} rounds"
            )
    bins = {name: part.reliability() for name, part in parts.items() if name != EVERY}
    return {
        "scored": HEADLINE,
        "all": measures.pop(ALL),
        "every_answer": measures.pop(EVERY),
        "by_history_length": measures,
        "reliability": bins.pop(ALL),
        "reliability_by_history_length": bins,
    }


def ece_and_bins(
    users: Sequence[EncodedUser], found: Sequence[NDArray[np.float64]]
) -> tuple[dict[str, float], dict[str, list[list[float]]]]:
    """Return ECE and bins of reliability, of all answers and by history length; no intervals."""
    parts = {name: part for name, part in _parts(users, found).items() if name != EVERY}
    errors = {
        name: round(ece(part.right, part.p), 5) for name, part in parts.items() if len(part.p)
    }
    return errors, {name: part.reliability() for name, part in parts.items()}


def _parts(users: Sequence[EncodedUser], found: Sequence[NDArray[np.float64]]) -> dict[str, Part]:
    right = np.concatenate([u.history.response for u in users])
    p = np.concatenate(list(found))
    length = np.concatenate([u.visible for u in users])
    row = np.concatenate([np.arange(len(u)) for u in users])
    user = np.repeat(np.arange(len(users)), [len(u) for u in users])
    if np.isnan(p).any():
        raise ValueError(f"{int(np.isnan(p).sum())} of {len(p)} answers have no probability")

    def part(chosen: NDArray[np.bool_], bins: int = ECE_BINS) -> Part:
        return Part(right[chosen], p[chosen], user[chosen], bins)

    return {
        ALL: part(row >= 1),
        EVERY: part(row >= 0),
        **{name: part((length >= low) & (length <= high), FEW_BINS) for name, low, high in BUCKETS},
    }


def _measures(part: Part, rounds: int, seed: int) -> dict[str, Any]:
    right, p, user = part.right, part.p, part.user
    measures: dict[str, Any] = {"answers": len(p), "users": len(np.unique(user))}
    if not len(p):
        return measures
    for name, metric in METRICS.items():
        low, high = bootstrap(metric, right, p, user, rounds=rounds, seed=seed)
        found = {"value": metric(right, p, None), "low": low, "high": high}
        if all(map(math.isfinite, found.values())):  # no AUC of answers that are all right
            measures[name] = found
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
    if "calibration" in content:
        before, after = (content["calibration"]["ece"][when] for when in ("before", "after"))
        lines.append(
            "ECE before and after calibration: "
            + ", ".join(f"{name} {before[name]:.4f} -> {after[name]:.4f}" for name in after)
        )
    return "\n".join(lines)
