"""Attention, with or without a price of distance.

Letters: B batch, Q queries, L places, D width, H heads.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Recency(nn.Module):
    """A learned price of distance: each head takes it off its scores for every place in between.

    The decay of AKT (Ghosh et al. 2020, its largest single gain on these data) in the form of ALiBi
    (Press et al. 2022), with slopes that are learned. Heads start from sharp to almost none.
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.log_slope = nn.Parameter(torch.linspace(math.log(2.0), math.log(0.005), heads))

    def forward(self, mask: Tensor, place: Tensor) -> Tensor:
        """Mask (L, L), places (L,) -> what is added to the scores, (1, H, L, L)."""
        distance = (place[:, None] - place[None, :]).to(self.log_slope.dtype)
        price = -self.log_slope.exp()[:, None, None] * distance
        return price.masked_fill(~mask, float("-inf"))[None]


class Attention(nn.Module):
    """Multi-head attention with a mask that is True where a key may be seen, or an added bias."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} cannot be shared by {heads} heads")
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, query: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        """(B, Q, D), (B, L, D), mask to (B, H, Q, L) by broadcasting -> (B, Q, D)."""
        seen = F.scaled_dot_product_attention(
            self.split(self.query(query)),
            self.split(self.key(memory)),
            self.split(self.value(memory)),
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.merge(seen)

    def split(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, H, L, D/H)."""
        return x.view(*x.shape[:-1], self.heads, -1).transpose(1, 2)

    def merge(self, x: Tensor) -> Tensor:
        """(B, H, L, D/H) -> (B, L, D), through the output projection."""
        return self.out(x.transpose(1, 2).flatten(-2))  # type: ignore[no-any-return]


class CausalAttention(nn.Module):
    """Attention to no later place; with `recency`, near places are cheaper than far ones."""

    def __init__(self, width: int, heads: int, dropout: float, *, recency: bool) -> None:
        super().__init__()
        self.attention = Attention(width, heads, dropout)
        self.recency = Recency(heads) if recency else None

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor, place: Tensor) -> Tensor:
        """(B, L, D), (B, L, D), (L, L), (L,) -> (B, L, D)."""
        if self.recency is not None:
            return self.attention(x, memory, self.recency(mask, place))  # type: ignore[no-any-return]
        return self.attention(x, memory, mask[None, None])  # type: ignore[no-any-return]
