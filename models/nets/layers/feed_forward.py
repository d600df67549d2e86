"""Two maps with a ReLU between, plain or as a residual branch under Fixup.

Letters: D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FeedForward(nn.Module):
    """Two linear maps with a ReLU between."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.rise = nn.Linear(width, hidden)
        self.fall = nn.Linear(hidden, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return self.fall(self.drop(F.relu(self.rise(x))))  # type: ignore[no-any-return]


class FixupBranch(nn.Module):
    """A residual branch for `initialisation.fixup`: a scalar before each map, one factor after.

    Zhang et al. 2019, rule 3. The scalars stand in for the shift and the scale of a norm.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.rise = nn.Linear(width, hidden, bias=False)
        self.fall = nn.Linear(hidden, width, bias=False)
        self.shift = nn.Parameter(torch.zeros(4))
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D), the input added."""
        before_rise, before_relu, before_fall, after = self.shift
        y = F.relu(self.rise(x + before_rise) + before_relu)
        return x + self.scale * self.fall(y + before_fall) + after  # type: ignore[no-any-return]
