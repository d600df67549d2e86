"""What stands where a LayerNorm may stand."""

from __future__ import annotations

from typing import Literal, get_args

from torch import nn

Norm = Literal["layer", "t_fixup", "none"]


def norm_of(norm: Norm, width: int) -> nn.Module:
    """Return what stands where a LayerNorm may stand; without one, x goes on as it came.

    Raises `ValueError` where `norm` is none of its words.
    """
    if norm not in get_args(Norm):
        raise ValueError(f"norm = {norm!r}: must be one of {', '.join(get_args(Norm))}")
    return nn.LayerNorm(width) if norm == "layer" else nn.Identity()
