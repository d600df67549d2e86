"""How counts of right and wrong answers enter a network.

Letters: D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.contract.counts import N_COUNTS


class Counts(nn.Module):
    """Counts of right and wrong answers -> logarithms of both and of their ratio, for each pair.

    The ratio is the log-odds of a smoothed share: running accuracy, overall, of the skills and of
    the question, and the question's difficulty. As PFA (Pavlik et al. 2009) and DAS3H (Choffin et
    al. 2019) count.
    """

    SIZE = N_COUNTS // 2 * 3

    def __init__(self) -> None:
        super().__init__()
        # Training users are many and of all kinds: a few of them say little of a question.
        self.smoothing: Tensor
        self.register_buffer("smoothing", torch.tensor([1.0, 1.0, 1.0, 4.0]), persistent=False)

    def forward(self, counts: Tensor) -> Tensor:
        """(..., N_COUNTS) -> (..., SIZE)."""
        right, wrong = counts[..., 0::2], counts[..., 1::2]  # (..., 4) each
        ratio = torch.log((right + self.smoothing) / (wrong + self.smoothing))
        return torch.cat([0.5 * torch.log1p(right), 0.5 * torch.log1p(wrong), ratio], dim=-1)


class CountEmbedding(nn.Module):
    """Counts -> a vector for an embedding to add, and a logit for a read-out to add.

    Both are of the same features: `read` counts once a pass. Where it is off: no parameters, and
    nothing is added.
    """

    def __init__(self, is_on: bool, width: int) -> None:
        super().__init__()
        self.is_on = is_on
        if is_on:
            self.features = Counts()
            self.project = nn.Linear(Counts.SIZE, width)
            self.direct = nn.Linear(Counts.SIZE, 1)

    def read(self, counts: Tensor) -> Tensor:
        """(..., N_COUNTS) -> (..., SIZE), or the counts themselves where nobody asks."""
        return self.features(counts) if self.is_on else counts

    def forward(self, features: Tensor) -> Tensor | float:
        """What was read -> (..., D), or 0."""
        return self.project(features) if self.is_on else 0.0

    def logit(self, features: Tensor) -> Tensor | float:
        """What was read -> (...), or 0: what a logistic regression on counts would say."""
        return self.direct(features).squeeze(-1) if self.is_on else 0.0

    def begin_silent(self) -> None:
        """Let the logit start at nothing: call it when all weights have been drawn."""
        if self.is_on:
            nn.init.zeros_(self.direct.weight)
