"""SAINT: questions in an encoder, answers in a decoder, both causal.

Choi et al., "Towards an Appropriate Query, Key, and Value Computation for Knowledge Tracing", 2020
(arXiv 2002.07033). The answer before stands in the decoder one place to the right, behind a start
token, so that place t of the decoder reads the answers before t and the encoder the questions to t.
Letters: B batch, L places, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.contract.interaction import N_RESPONSES
from models.contract.masks import causal
from models.nets.initialisation import initialise, t_fixup
from models.nets.layers.asked import AskedBy, asked, asked_tables
from models.nets.layers.attention import CausalAttention
from models.nets.layers.counts import CountEmbedding
from models.nets.layers.feed_forward import FeedForward
from models.nets.layers.norm import Norm, norm_of
from models.nets.layers.places import Inputs, Places, align_right, at_last, shifted
from models.nets.layers.times import TimeEmbedding, TimeForm


@dataclass(frozen=True, kw_only=True)
class SaintConfig:
    """Sizes and options."""

    n_questions: int  # tables count PAD and UNSEEN
    n_skills: int
    inputs: AskedBy = "both"  # the encoder's, beside positions; the paper's are both
    counts: bool = False  # what came before, counted: in the encoder; not in the paper
    length: int = 200  # positions that have an embedding
    width: int = 96
    heads: int = 4
    layers: int = 2  # of the encoder, and of the decoder
    hidden: int = 192  # of the feed-forward layers
    dropout: float = 0.1
    recency: bool = False  # a learned price of distance in every attention; not in the paper
    norm: Norm = "layer"  # t_fixup: no LayerNorm, and weights that need neither it nor a warm-up


class Saint(nn.Module):
    """Encoder of questions, decoder of answers.

    `elapsed` and `lag` are SAINT+'s: how the time of the answer before, and the pause before the
    question, enter the decoder.
    """

    is_causal = True
    fitted_by = "gradient"

    def __init__(
        self, config: SaintConfig, *, elapsed: TimeForm = "none", lag: TimeForm = "none"
    ) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.question, self.skills = asked_tables(
            config.inputs, n_questions=config.n_questions, n_skills=config.n_skills, width=width
        )
        self.counts = CountEmbedding(config.counts, width)
        self.position = nn.Embedding(config.length, width)  # one table for both streams
        self.response = nn.Embedding(N_RESPONSES, width)
        self.start = nn.Parameter(torch.zeros(width))
        self.elapsed = TimeEmbedding(elapsed, width)
        self.lag = TimeEmbedding(lag, width)
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.layers))
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.layers))
        self.norm_encoder = norm_of(config.norm, width)
        self.norm_decoder = norm_of(config.norm, width)
        self.drop = nn.Dropout(config.dropout)
        self.read_out = nn.Linear(width, 1)
        initialise(self, norm=config.norm)
        nn.init.normal_(self.start, std=width**-0.5)
        nn.init.normal_(self.read_out.weight, std=0.02)  # begin near no opinion
        if config.norm == "t_fixup":
            asked_by = (self.question, self.skills, self.counts, self.position)
            heard = (self.response, self.start, self.elapsed, self.lag)
            t_fixup(
                encoder=list(self.encoder),
                decoder=list(self.decoder),
                embeddings=(*asked_by, *heard),
            )
        self.counts.begin_silent()

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the logit that the last question is answered right, (B,)."""
        batch = align_right(Inputs(*inputs))
        return self._answer(*(at_last(x, batch.mask) for x in self._decode(batch)))

    def every_place(self, *inputs: Tensor) -> Places:
        """Return the logits at every place, each from the answers before it alone."""
        return Places(self._answer(*self._decode(Inputs(*inputs))))

    def _answer(self, x: Tensor, features: Tensor) -> Tensor:
        """(..., D), (..., features) -> (...)."""
        return self.read_out(x).squeeze(-1) + self.counts.logit(features)  # type: ignore[no-any-return]

    def _decode(self, batch: Inputs) -> tuple[Tensor, Tensor]:
        """Return what the decoder says, (B, L, D), and the count features.

        Padding stands to the right of all it could harm: causal is enough.
        """
        place = torch.arange(batch.question.shape[1], device=batch.question.device)
        mask = causal(place)  # (L, L)
        position = self.position(place)  # (L, D)
        features = self.counts.read(batch.counts)
        x = asked(batch, self.question, self.skills) + self.counts(features)
        x = self.drop(x + position)
        for layer in self.encoder:
            x = layer(x, mask, place)
        memory = self.norm_encoder(x)
        answered = self.response(batch.response) + self.elapsed(batch.elapsed_s)
        x = self.drop(shifted(answered, self.start) + self.lag(batch.lag_s) + position)
        for layer in self.decoder:
            x = layer(x, memory, mask, place)
        return self.norm_decoder(x), features


def _attention(config: SaintConfig) -> CausalAttention:
    return CausalAttention(config.width, config.heads, config.dropout, recency=config.recency)


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each normalised before it is added."""

    def __init__(self, config: SaintConfig) -> None:
        super().__init__()
        self.norm_self = norm_of(config.norm, config.width)
        self.attend_self = _attention(config)
        self.norm_feed_forward = norm_of(config.norm, config.width)
        self.feed_forward = FeedForward(config.width, config.hidden, config.dropout)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor, place: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        y = self.norm_self(x)
        x = x + self.drop(self.attend_self(y, y, mask, place))
        return x + self.drop(self.feed_forward(self.norm_feed_forward(x)))  # type: ignore[no-any-return]


class DecoderLayer(nn.Module):
    """Self-attention over answers, attention to the encoded questions, feed-forward."""

    def __init__(self, config: SaintConfig) -> None:
        super().__init__()
        self.norm_self = norm_of(config.norm, config.width)
        self.attend_self = _attention(config)
        self.norm_cross = norm_of(config.norm, config.width)
        self.attend_cross = _attention(config)
        self.norm_feed_forward = norm_of(config.norm, config.width)
        self.feed_forward = FeedForward(config.width, config.hidden, config.dropout)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor, place: Tensor) -> Tensor:
        """(B, L, D) and the encoder's (B, L, D) -> (B, L, D)."""
        y = self.norm_self(x)
        x = x + self.drop(self.attend_self(y, y, mask, place))
        x = x + self.drop(self.attend_cross(self.norm_cross(x), memory, mask, place))
        return x + self.drop(self.feed_forward(self.norm_feed_forward(x)))  # type: ignore[no-any-return]
