"""SAKT: the asked question attends to the answers before it.

Pandey and Karypis, "A Self-Attentive model for Knowledge Tracing", EDM 2019 (arXiv 1907.06837).
Keys and values are the answers with learned positions, moved one place to the right behind a start
token; the query is what is asked, without a position, as the paper has it. So a place sees every
key up to its own, and a user never seen attends to the start token alone.
Letters: B batch, L places, K skills of a question, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.contract.interaction import RIGHT
from models.contract.masks import causal
from models.nets.initialisation import initialise, t_fixup
from models.nets.layers.asked import AskedBy, asked, asked_tables
from models.nets.layers.attention import CausalAttention
from models.nets.layers.feed_forward import FeedForward
from models.nets.layers.norm import Norm, norm_of
from models.nets.layers.places import Inputs, Places, align_right, at_last, shifted
from models.nets.layers.skills import set_mean


@dataclass(frozen=True, kw_only=True)
class SaktConfig:
    """Sizes and options."""

    n_questions: int  # tables count PAD and UNSEEN
    n_skills: int
    inputs: AskedBy = "skills"  # of the queries and of the answers; the paper's are skills
    length: int = 200  # positions that have an embedding
    width: int = 128
    heads: int = 4
    layers: int = 1
    hidden: int = 128  # of the feed-forward layers
    dropout: float = 0.2
    recency: bool = False  # a learned price of distance in every attention; not in the paper
    norm: Norm = "layer"  # t_fixup: no LayerNorm, and weights that need neither it nor a warm-up


class Sakt(nn.Module):
    """Queries of what is asked, keys and values of what was answered."""

    is_causal = True
    fitted_by = "gradient"

    def __init__(self, config: SaktConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.question, self.skills = asked_tables(
            config.inputs, n_questions=config.n_questions, n_skills=config.n_skills, width=width
        )
        # The paper's 2E rows: every question, or skill, answered wrong and answered right.
        answered = 2 * config.n_questions, 2 * config.n_skills
        self.question_answered = None if self.question is None else nn.Embedding(answered[0], width)
        self.skills_answered = None if self.skills is None else nn.Embedding(answered[1], width)
        self.position = nn.Embedding(config.length, width)
        self.start = nn.Parameter(torch.zeros(width))
        self.layers = nn.ModuleList(SaktLayer(config) for _ in range(config.layers))
        self.drop = nn.Dropout(config.dropout)
        self.read_out = nn.Linear(width, 1)
        initialise(self, norm=config.norm)
        nn.init.normal_(self.start, std=width**-0.5)
        if config.norm == "t_fixup":
            asked_by = (self.question, self.skills)
            past = (self.question_answered, self.skills_answered, self.position, self.start)
            t_fixup(encoder=list(self.layers), embeddings=(*asked_by, *past))

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the logit that the last question is answered right, (B,)."""
        batch = align_right(Inputs(*inputs))
        return self.read_out(at_last(self._attend(batch), batch.mask)).squeeze(-1)  # type: ignore[no-any-return]

    def every_place(self, *inputs: Tensor) -> Places:
        """Return the logits at every place, each from the answers before it alone."""
        return Places(self.read_out(self._attend(Inputs(*inputs))).squeeze(-1))

    def _attend(self, batch: Inputs) -> Tensor:
        """Return (B, L, D). Padding stands to the right of all it could harm: causal is enough."""
        place = torch.arange(batch.question.shape[1], device=batch.question.device)
        mask = causal(place)  # (L, L): keys have moved, so the diagonal is the answer before
        distance = place[:, None] - place
        past = self.drop(shifted(self._answered(batch), self.start) + self.position(place))
        x: Tensor = self.drop(asked(batch, self.question, self.skills))
        for layer in self.layers:
            x = layer(x, past, mask, distance)
        return x

    def _answered(self, batch: Inputs) -> Tensor:
        """Return (B, L, D): each question with its answer, by the tables that there are.

        An answer that is unknown or padding has no row of its own: the last real place and all
        behind it move out of every query's sight.
        """
        right = (batch.response == RIGHT).to(torch.int64)
        parts = []
        if self.question_answered is not None:
            parts.append(self.question_answered(2 * batch.question + right))
        if self.skills_answered is not None:
            each = self.skills_answered(2 * batch.skills + right[..., None])  # (B, L, K, D)
            parts.append(set_mean(each, batch.skills))
        return torch.stack(parts).sum(dim=0)


class SaktLayer(nn.Module):
    """Attention to the past and feed-forward, each added to the query and normalised after."""

    def __init__(self, config: SaktConfig) -> None:
        super().__init__()
        self.attend = CausalAttention(
            config.width, config.heads, config.dropout, recency=config.recency
        )
        self.norm_attend = norm_of(config.norm, config.width)
        self.feed_forward = FeedForward(config.width, config.hidden, config.dropout)
        self.norm_feed_forward = norm_of(config.norm, config.width)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, past: Tensor, mask: Tensor, distance: Tensor) -> Tensor:
        """Queries (B, L, D), keys and values (B, L, D) -> (B, L, D)."""
        x = self.norm_attend(x + self.drop(self.attend(x, past, mask, distance)))
        return self.norm_feed_forward(x + self.drop(self.feed_forward(x)))  # type: ignore[no-any-return]
