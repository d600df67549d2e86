"""Attention, with or without a price of distance, over a window or over what is kept of one.

Letters: B batch, Q queries, L places, D width, H heads, P rows of memory, N new places.
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
        """Attend without keys and values of their own: (B, N, D), (B, P, D), (B, N, H, P).

        A score is (W_q x) . (W_k y) = (W_k^T W_q x) . y, and values are weighed before they are
        mapped: so one row `y` a place is all that must be kept of it. The bias of the keys adds the
        same to all scores of a query, which softmax takes out again. Returns (B, N, D).
        """
        towards = self._towards(query)  # (B, N, H, D)
        score = self._by_place(towards, memory.transpose(1, 2)) + bias
        return self._from(self._by_place(score.softmax(dim=-1), memory))

    def and_own(self, query: Tensor, memory: Tensor, own: Tensor, bias: Tensor) -> Tensor:
        """As `among`, and each query to its `own` (B, N, D) too, at no distance."""
        towards = self._towards(query)
        score = self._by_place(towards, memory.transpose(1, 2)) + bias
        own = own[:, :, None]  # (B, N, 1, D)
        weight = torch.cat([score, (towards * own).sum(dim=-1, keepdim=True)], dim=-1).softmax(-1)
        return self._from(self._by_place(weight[..., :-1], memory) + weight[..., -1:] * own)

    def _towards(self, query: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, H, D): what each head looks for, in the space of what it looks at."""
        each = self.query(query).view(
            -1, self.heads, query.shape[-1] // self.heads
        )  # (B*N, H, D/H)
        towards = each.transpose(0, 1) @ self._by_head(self.key.weight)  # (H, B*N, D)
        towards = towards.transpose(0, 1) * each.shape[-1] ** -0.5
        return towards.view(*query.shape[:2], self.heads, -1)  # type: ignore[no-any-return]

    def _from(self, seen: Tensor) -> Tensor:
        """(B, N, H, D), what each head saw -> (B, N, D), through value and output projections."""
        each = seen.flatten(0, 1).transpose(0, 1)  # (H, B*N, D)
        value = each @ self._by_head(self.value.weight).transpose(1, 2)  # (H, B*N, D/H)
        value = value.transpose(0, 1).reshape(*seen.shape[:2], -1)
        return self.out(value + self.value.bias)  # type: ignore[no-any-return]

    def _by_place(self, x: Tensor, y: Tensor) -> Tensor:
        """(B, N, H, I) @ (B, I, J) -> (B, N, H, J), one product a row of the batch."""
        return (x.flatten(1, 2) @ y).unflatten(1, x.shape[1:3])  # type: ignore[no-untyped-call, no-any-return]

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

    def extend(self, query: Tensor, own: Tensor, memory: Tensor, kept: Tensor) -> Tensor:
        """Attend from new places to the rows before them and to those of them that are not later.

        (B, N, D), of them what is looked at (B, N, D), memory (B, P, D) of which `kept` (B,) rows
        are real -> (B, N, D).
        """
        old = torch.arange(memory.shape[1], device=own.device)
        new = torch.arange(own.shape[1], device=own.device)
        to_old = kept[:, None, None] + new[:, None] - old  # (B, N, P)
        to_new = (new[:, None] - new).expand(kept.shape[0], -1, -1)  # (B, N, N)
        seen = torch.cat([(old < kept[:, None, None]).expand_as(to_old), to_new >= 0], dim=-1)
        bias = self._bias(torch.cat([to_old, to_new], dim=-1), seen)
        return self.attention.among(query, torch.cat([memory, own], dim=1), bias)

    def recall(self, query: Tensor, own: Tensor, memory: Tensor, kept: Tensor) -> Tensor:
        """Attend from the place after the `kept` (B,) rows, asked in N ways, each also to itself.

        (B, N, D), of them what is looked at (B, N, D), memory (B, P, D) -> (B, N, D).
        """
        old = torch.arange(memory.shape[1], device=own.device)
        bias = self._bias((kept[:, None] - old)[:, None], (old < kept[:, None])[:, None])
        return self.attention.and_own(query, memory, own, bias)

    def _bias(self, distance: Tensor, seen: Tensor) -> Tensor:
        """(B, N, P) -> (B, N, H, P)."""
        if self.recency is None:
            price = torch.zeros_like(distance, dtype=self.attention.out.weight.dtype)[:, :, None]
        else:
            slope = self.recency.log_slope.exp()[:, None]
            price = -slope * distance[:, :, None].to(slope.dtype)
        return price.masked_fill(~seen[:, :, None], float("-inf"))
