"""What is minimised. Shapes: B batch, L places, S skills."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from models.contract.interaction import PAD


def answer_loss(logit: Tensor, right: Tensor, scored: Tensor) -> Tensor:
    """Return the mean binary cross entropy over the scored places; `right` holds 0 or 1."""
    loss = F.binary_cross_entropy_with_logits(logit, right, reduction="none")
    return (loss * scored).sum() / scored.sum().clamp(min=1)


def reconstruction(knowledge: Tensor, skills: Tensor, right: Tensor, mask: Tensor) -> Tensor:
    """Return DKT+'s r: the state after an answer must agree with that answer (Yeung 2018, eq. 9).

    `knowledge` (B, L, S) are logits before each place: the state after place t stands at t + 1.
    """
    after = knowledge[:, 1:]  # (B, L-1, S)
    column = (skills[:, :-1] - 1).clamp(min=0)  # (B, L-1, K)
    logit = after.gather(-1, column)
    real = (skills[:, :-1] != PAD) & mask[:, 1:, None]
    truth = right[:, :-1, None].expand_as(logit)
    return answer_loss(logit, truth, real.to(logit.dtype))


def waviness(knowledge: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return DKT+'s w1 and w2 squared: how far the state moves in a step (eq. 10 and 11).

    Both are means over skills and over the true steps, padding left out.
    """
    state = torch.sigmoid(knowledge)
    moved = (state[:, 1:] - state[:, :-1]) * mask[:, 1:, None]  # (B, L-1, S)
    steps = (mask[:, 1:].sum() * state.shape[-1]).clamp(min=1)
    return moved.abs().sum() / steps, moved.square().sum() / steps
