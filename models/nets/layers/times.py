"""How pauses and thinking times enter a network.

Letters: B batch, L places, D width.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TimeForm = Literal["none", "categorical", "continuous"]
LONGEST_S = 7 * 86_400.0  # a week: a longer pause tells no more


class TimeEmbedding(nn.Module):
    """Seconds -> a vector; a missing time (below zero) has a token of its own.

    categorical: whole seconds to ten, then bounds a quarter apart on a log scale, to a week.
    continuous: a learned direction times log(1 + seconds), as SAINT+ multiplies seconds.
    none: no parameters, and nothing is added.
    """

    def __init__(self, form: TimeForm, width: int) -> None:
        super().__init__()
        self.form = form
        if form == "categorical":
            bounds = [float(s) for s in range(1, 11)]
            while bounds[-1] < LONGEST_S:
                bounds.append(min(bounds[-1] * 1.25, LONGEST_S))
            self.bounds: Tensor
            self.register_buffer("bounds", torch.tensor(bounds), persistent=False)
            self.table = nn.Embedding(len(bounds) + 2, width)
        elif form == "continuous":
            self.direction = nn.Linear(1, width)
            self.missing = nn.Parameter(torch.zeros(width))

    def forward(self, seconds: Tensor) -> Tensor | float:
        """(B, L) -> (B, L, D), or 0 where the form is "none"."""
        if self.form == "none":
            return 0.0
        if self.form == "categorical":
            # Counting the bounds passed is torch.bucketize in operators that every exporter keeps.
            passed = (seconds[..., None] >= self.bounds).to(torch.int64).sum(dim=-1)
            return self.table(torch.where(seconds < 0, 0, passed + 1))  # type: ignore[no-any-return]
        scaled = torch.log1p(seconds.clamp(0.0, LONGEST_S))[..., None]
        return torch.where((seconds < 0)[..., None], self.missing, self.direction(scaled))


class Forgetting(nn.Module):
    """A state fades with the pause before the question, each unit at a learned rate of its own.

    By the logarithm of the pause: a day costs little more than an hour (Wixted and Ebbesen 1991, a
    power law). A pause that is not known costs nothing.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.full((width,), -3.0))  # softplus: 0.05 at the start

    def forward(self, state: Tensor, lag_s: Tensor) -> Tensor:
        """(..., D) and seconds (...) -> (..., D)."""
        hours = lag_s.clamp(0.0, LONGEST_S)[..., None] / 3600.0
        return state * torch.exp(-F.softplus(self.rate) * torch.log1p(hours))
