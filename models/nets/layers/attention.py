"""Attention, with or without a price of distance, over a window or over what is kept of one.

Letters: B batch, Q queries, L places, D width, H heads, P places kept, N new places.
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

    def forward(self, distance: Tensor) -> Tensor:
        """Places in between (..., Q, L) -> what is added to the scores, (..., H, Q, L)."""
        slope = self.log_slope.exp()[:, None, None]
        return -slope * distance.to(slope.dtype).unsqueeze(-3)


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

    def among(self, query: Tensor, memory: Tensor, bias: Tensor) -> Tensor:
        """Attend without keys and values of their own: (N, D), (P, D), (H, N, P) -> (N, D).

        A score is (W_q x) . (W_k y) = (W_k^T W_q x) . y, and values are weighed before they are
        mapped: so one row `y` a place is all that must be kept of it. The bias of the keys adds the
        same to all scores of a query, which softmax takes out again.
        """
        score = self._towards(query) @ memory.T + bias
        return self._from(score.softmax(dim=-1) @ memory)

    def and_own(self, query: Tensor, memory: Tensor, own: Tensor, bias: Tensor) -> Tensor:
        """As `among`, and each query to its `own` (N, D) too, at no distance."""
        towards = self._towards(query)  # (H, N, D)
        score = towards @ memory.T + bias
        weight = torch.cat([score, (towards * own).sum(dim=-1, keepdim=True)], dim=-1).softmax(-1)
        return self._from(weight[..., :-1] @ memory + weight[..., -1:] * own)

    def _towards(self, query: Tensor) -> Tensor:
        """(N, D) -> (H, N, D): what each head looks for, in the space of what it looks at."""
        each = self.query(query).view(query.shape[0], self.heads, -1).transpose(0, 1)
        # (H, N, D/H) @ (H, D/H, D)
        return each @ self._by_head(self.key.weight) * each.shape[-1] ** -0.5  # type: ignore[no-any-return]

    def _from(self, seen: Tensor) -> Tensor:
        """(H, N, D), what each head saw -> (N, D), through value and output projections."""
        value = seen @ self._by_head(self.value.weight).transpose(1, 2)  # (H, N, D/H)
        return self.out(value.transpose(0, 1).flatten(-2) + self.value.bias)  # type: ignore[no-any-return]

    def _by_head(self, weight: Tensor) -> Tensor:
        """(D, D) -> (H, D/H, D)."""
        return weight.view(self.heads, -1, weight.shape[1])

    def merge(self, x: Tensor) -> Tensor:
        """(B, H, L, D/H) -> (B, L, D), through the output projection."""
        return self.out(x.transpose(1, 2).flatten(-2))  # type: ignore[no-any-return]


class CausalAttention(nn.Module):
    """Attention to no later place; with `recency`, near places are cheaper than far ones."""

    def __init__(self, width: int, heads: int, dropout: float, *, recency: bool) -> None:
        super().__init__()
        self.attention = Attention(width, heads, dropout)
        self.recency = Recency(heads) if recency else None

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor, distance: Tensor) -> Tensor:
        """(B, Q, D), (B, L, D), mask and distance (Q, L) or (B, Q, L) -> (B, Q, D)."""
        mask = mask.unsqueeze(-3)  # shared by the heads
        if self.recency is not None:
            mask = self.recency(distance).masked_fill(~mask, float("-inf"))
        # torch's fast attention takes masks of two or four axes
        return self.attention(x, memory, mask[None] if mask.ndim == 3 else mask)  # type: ignore[no-any-return]

    def extend(self, query: Tensor, own: Tensor, kept: Tensor) -> Tensor:
        """Attend from new places (N, D) to what is kept (P, D) and to those of them not later."""
        memory = torch.cat([kept, own])
        place = torch.arange(memory.shape[0], device=own.device)
        distance = place[kept.shape[0] :, None] - place  # (N, P + N)
        bias = self._bias(distance).masked_fill(distance < 0, float("-inf"))
        return self.attention.among(query, memory, bias)

    def recall(self, query: Tensor, own: Tensor, kept: Tensor) -> Tensor:
        """Attend from one next place, asked N ways (N, D), to what is kept and to itself."""
        distance = torch.arange(kept.shape[0], 0, -1, device=kept.device)[None]  # (1, P)
        return self.attention.and_own(query, kept, own, self._bias(distance))

    def _bias(self, distance: Tensor) -> Tensor:
        """(N, P) -> (H, N, P)."""
        if self.recency is not None:
            return self.recency(distance)  # type: ignore[no-any-return]
        return torch.zeros_like(distance, dtype=self.attention.out.weight.dtype)[None]
