"""A probability and its log odds, in numpy; networks have torch's own."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

LEAST_P = 1e-7
"""A probability is held this far from 0 and 1 before a logarithm is taken of it."""


def logit_of(p: NDArray[Any] | float) -> NDArray[np.float64]:
    """Return log(p / (1 - p)), p held within `LEAST_P` of 0 and 1."""
    p = np.clip(np.asarray(p, np.float64), LEAST_P, 1 - LEAST_P)
    logit: NDArray[np.float64] = np.log(p) - np.log1p(-p)
    return logit


def p_of(logit: NDArray[Any] | float) -> NDArray[np.float64]:
    """Return the probability of log odds: the sigmoid, in a form that cannot overflow."""
    p: NDArray[np.float64] = 0.5 * (1 + np.tanh(np.asarray(logit, np.float64) / 2))
    return p
