"""Masks in the one sense of this project: True where something real stands, or may be seen.

A library that wants the opposite is given `~mask` at the call. Shapes: B batch, L places, H heads.
The functions on `place` and `mask` use operators alone, so they take numpy arrays and torch
tensors alike, and an export of them keeps its axes dynamic.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray


def key_padding(
    lengths: NDArray[np.int64], longest: int, side: Literal["right", "left"] = "right"
) -> NDArray[np.bool_]:
    """Return (B, L): True at the real places of rows padded on `side`."""
    place = np.arange(longest)
    if side == "left":
        place = place[::-1]
    return place[None, :] < np.asarray(lengths)[:, None]


def causal(place: Any) -> Any:
    """Return (L, L), shared by all rows: place i may see place j when j is not after i."""
    return place[:, None] >= place[None, :]


def last_query(mask: Any) -> Any:
    """Return (B, 1, L): one query a row, the last real place, which may see every real place."""
    return mask[:, None, :]


def causal_in_rows(mask: Any, place: Any) -> Any:
    """Return (B, L, L): causal, and never a padded place, but for a place itself.

    The diagonal stays open, so that no row of the softmax is empty: an empty one is NaN.
    """
    own = place[:, None] == place[None, :]
    return (causal(place)[None] & mask[:, None, :]) | own[None]


def per_head(mask: NDArray[np.bool_], heads: int) -> NDArray[np.bool_]:
    """Return (B*H, Q, L) from (B, Q, L), batch-major: row b*H + h belongs to window b.

    The head-major order that `np.tile` would give hands windows the masks of others.
    """
    return np.repeat(mask, heads, axis=0)
