"""A batch as every network reads it, and moves among its places.

Letters: B batch, L places, K skills of a question, S skills, D width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from models.contract.counts import N_COUNTS


class Inputs(NamedTuple):
    """One batch as every network reads it, in the order of `models.contract.window.INPUTS`."""

    question: Tensor  # (B, L)
    skills: Tensor  # (B, L, K)
    response: Tensor  # (B, L)
    lag_s: Tensor  # (B, L)
    elapsed_s: Tensor  # (B, L)
    mask: Tensor  # (B, L)
    counts: Tensor  # (B, L, N_COUNTS)


class Places(NamedTuple):
    """What a causal network says at every place of right-padded windows."""

    logit: Tensor  # (B, L) that the question of this place is answered right
    knowledge_logit: Tensor | None = None  # (B, L, S) for every skill, where the network has it


def align_right(inputs: Inputs) -> Inputs:
    """Move padding, wherever it stands, to the right end, so that place 0 is the first real one.

    From here on left and right padding are the same batch, which makes them the same number.
    """
    first = inputs.mask.to(torch.int64).argmax(dim=1, keepdim=True)  # (B, 1)
    places = inputs.mask.shape[1]
    source = torch.arange(places, device=first.device)[None, :] + first  # (B, L)
    source = torch.where(source < places, source, source - places)  # round the end
    skills = source[:, :, None].expand(-1, -1, inputs.skills.shape[2])
    return Inputs(
        question=inputs.question.gather(1, source),
        skills=inputs.skills.gather(1, skills),
        response=inputs.response.gather(1, source),
        lag_s=inputs.lag_s.gather(1, source),
        elapsed_s=inputs.elapsed_s.gather(1, source),
        mask=inputs.mask.gather(1, source),
        counts=inputs.counts.gather(1, source[:, :, None].expand(-1, -1, N_COUNTS)),
    )


def at_last(x: Tensor, mask: Tensor) -> Tensor:
    """Return (B, D): the row of `x` (B, L, D) at the last real place of right-padded windows.

    A row that is all padding gives its first place: it must not take its whole batch down.
    """
    last = (mask.to(torch.int64).sum(dim=1) - 1).clamp(min=0)  # (B,)
    return x.gather(1, last[:, None, None].expand(-1, 1, x.shape[2])).squeeze(1)


def shifted(x: Tensor, start: Tensor) -> Tensor:
    """Return `x` (B, L, D) moved one place to the right, with `start` (D,) in the first place."""
    return torch.cat([start.expand(x.shape[0], 1, -1), x[:, :-1]], dim=1)
