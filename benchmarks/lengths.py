"""How long histories are when somebody is asked: drawn from real students'."""

from __future__ import annotations

import numpy as np

DECILES = (2, 141, 209, 274, 355, 442, 542, 667, 826, 1119, 3057)
"""Answers a student of assist2017 has given in the end: least, deciles, most."""


def drawn(count: int, seed: int) -> list[int]:
    """Return the lengths of so many histories, each met at any time of a student's answering."""
    rng = np.random.default_rng(seed)
    ends = np.interp(rng.random(count), np.linspace(0, 1, len(DECILES)), DECILES)
    return [int(n) for n in rng.random(count) * ends]
