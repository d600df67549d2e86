"""Calibration: what is done to a logit so that of all answers given 0.8, eight in ten are right.

logit' = scale(n) * logit + shift(n), n the answers that the window shows before the query. Scale
and shift are linear in log(1 + n) between knots and constant beyond the last: an affine map per
amount of evidence, the idea of Platt (1999) with the bias-prone newcomers told from the well known.
The map rises in the logit, since scales are above 0: among equal n, no order changes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from models.contract.logit import logit_of, p_of


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Scales and shifts at knots; without knots, nothing is changed.

    Raises `ValueError` or `TypeError` unless knots rise from 0 and scales are above 0.
    """

    knots: tuple[int, ...] = ()  # answers shown; none, or two or more
    scales: tuple[float, ...] = ()  # at each knot
    shifts: tuple[float, ...] = ()  # at each knot, logits
    fitted_on: Mapping[str, Any] = field(default_factory=dict)  # split, answers, users, weights
    ece: Mapping[str, Any] = field(default_factory=dict)  # "before", "after" -> by history length
    reliability: Mapping[str, Any] = field(default_factory=dict)  # the same, bins of each

    def __post_init__(self) -> None:
        if any(type(k) is not int for k in self.knots):
            raise TypeError(f"calibration knots {self.knots} are not all whole numbers")
        for name in ("scales", "shifts"):
            values = getattr(self, name)
            if not all(isinstance(v, float) and math.isfinite(v) for v in values):
                raise TypeError(f"calibration {name} {values} are not all finite numbers")
            if len(values) != len(self.knots):
                raise ValueError(f"calibration has {len(values)} {name}, {len(self.knots)} knots")
        if self.knots and (len(self.knots) < 2 or self.knots[0] != 0):
            raise ValueError(f"calibration knots {self.knots}: needed two or more, the first 0")
        if (np.diff(self.knots) <= 0).any():
            raise ValueError(f"calibration knots {self.knots} do not rise")
        if not all(s > 0 for s in self.scales):
            raise ValueError(f"calibration scales {self.scales} are not all above 0")
        for name in ("fitted_on", "ece", "reliability"):
            if not isinstance(getattr(self, name), Mapping):
                raise TypeError(f"calibration {name} is no table")

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Self:
        """Make one of plain values, as JSON gives them; raises as the class does."""
        plain: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in content.items()
        }
        return cls(**plain)

    @property
    def is_identity(self) -> bool:
        """Nothing was fitted, nothing is changed."""
        return not self.knots

    def apply(self, logit: NDArray[Any], answers: NDArray[Any]) -> NDArray[np.float64]:
        """Return calibrated logits: (B,) or (B, S) with answers shown (B,) -> the same shape."""
        logit = np.asarray(logit, np.float64)
        if self.is_identity:
            return logit
        share = shares(answers, self.knots)
        scale, shift = share @ np.array(self.scales), share @ np.array(self.shifts)
        if logit.ndim == 2:
            scale, shift = scale[:, None], shift[:, None]
        calibrated: NDArray[np.float64] = scale * logit + shift
        return calibrated

    def apply_to_p(self, p: NDArray[Any], answers: NDArray[Any]) -> NDArray[np.float64]:
        """Return calibrated probabilities of probabilities; shapes as `apply`, NaN stays NaN."""
        if self.is_identity:
            return np.asarray(p, np.float64)
        return p_of(self.apply(logit_of(p), answers))


def shares(answers: NDArray[Any], knots: tuple[int, ...]) -> NDArray[np.float64]:
    """Return (B, knots): how much of each knot a row takes; every row sums to 1.

    The hat functions of linear interpolation over log(1 + answers).
    """
    where = np.log1p(np.asarray(answers, np.float64))
    at = np.log1p(np.asarray(knots, np.float64))
    return np.stack([np.interp(where, at, one) for one in np.eye(len(knots))], axis=-1)
