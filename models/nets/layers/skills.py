"""The skills of a question, pooled as a set.

Letters: K skills of a question, D width.
"""

from __future__ import annotations

from torch import Tensor, nn

from models.contract.interaction import PAD


class SkillSet(nn.Module):
    """Skills of a question, pooled as a set: the mean of their embeddings, in any order."""

    def __init__(self, n_skills: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(n_skills, width, padding_idx=PAD)

    def forward(self, skills: Tensor) -> Tensor:
        """(..., K) -> (..., D)."""
        return set_mean(self.table(skills), skills)


def set_mean(values: Tensor, skills: Tensor) -> Tensor:
    """Return the mean of `values` (..., K, D) over the real members of `skills` (..., K)."""
    real = (skills != PAD).to(values.dtype)[..., None]  # (..., K, 1)
    return (values * real).sum(dim=-2) / real.sum(dim=-2).clamp(min=1.0)
