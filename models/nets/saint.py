"""SAINT: questions in an encoder, answers in a decoder, both causal.

Choi et al., "Towards an Appropriate Query, Key, and Value Computation for Knowledge Tracing", 2020
(arXiv 2002.07033). The answer before stands in the decoder one place to the right, behind a start
token, so that place t of the decoder reads the answers before t and the encoder the questions to t.
What is kept of a place, so that a later one need not replay it, is one row: what each attention
looks at there, namely the encoder's layers, what the encoder says, and the decoder's layers.
Letters: B batch, L places, D width, P rows of memory, N new places, C width of a row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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

Attend = Callable[[CausalAttention, Tensor, Tensor], Tensor]
"""An attention, its queries, and what it looks at in their own places -> what it sees."""


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
    remembers = True
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
        last = (batch.mask.to(torch.int64).sum(dim=1) - 1).clamp(min=0)  # (B,)
        x, features = self._decode(batch, last)
        return self._answer(x.squeeze(1), at_last(features, batch.mask))

    def every_place(self, *inputs: Tensor) -> Places:
        """Return the logits at every place, each from the answers before it alone."""
        return Places(self._answer(*self._decode(Inputs(*inputs))))

    @property
    def row_width(self) -> int:
        """How many numbers are kept of a place."""
        return (2 * self.config.layers + 1) * self.config.width

    def start_carry(self) -> Tensor:
        """Return what stands in the decoder's first place, (D,)."""
        return self.start

    def remember(
        self, memory: Tensor, kept: Tensor, carry: Tensor, *inputs: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the rows (B, N, C) of new places and the last answers (B, D).

        `memory` (B, P, C) holds the rows of the `kept` (B,) places before, and anything behind
        them; `carry` (B, D) the answers to the last of them. The inputs are answered places.
        """
        parts = self._split(memory)

        def attend(attention: CausalAttention, query: Tensor, own: Tensor) -> Tensor:
            return attention.extend(query, own, parts[attention], kept)

        return self._rows(Inputs(*inputs), carry, kept, attend)

    def begin(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `remember` does of places (B, N) before which there is none.

        For many places at once, keys and values of their own are cheaper.
        """
        first = Inputs(*inputs)
        place = torch.arange(first.question.shape[1], device=first.question.device)
        distance = place[:, None] - place

        def attend(attention: CausalAttention, query: Tensor, own: Tensor) -> Tensor:
            return attention(query, own, distance >= 0, distance)  # type: ignore[no-any-return]

        nothing = torch.zeros_like(first.question[:, 0])
        carry = self.start.expand(first.question.shape[0], -1)
        return self._rows(first, carry, nothing, attend)

    def _rows(
        self, new: Inputs, carry: Tensor, kept: Tensor, attend: Attend
    ) -> tuple[Tensor, Tensor]:
        """Return what is kept of the places that come after so many, and the last answers."""
        answered = self._answered(new)
        part = self._parts()
        rows: dict[int, Tensor] = {}

        def noted(attention: CausalAttention, query: Tensor, own: Tensor) -> Tensor:
            rows[part[attention]] = own
            return attend(attention, query, own)

        place = kept[:, None] + torch.arange(answered.shape[1], device=answered.device)
        heard = torch.cat([carry[:, None], answered[:, :-1]], dim=1)
        self._pass(new, heard, self.position(place), noted)
        return torch.cat([rows[number] for number in sorted(rows)], dim=-1), answered[:, -1]

    def recall(self, memory: Tensor, kept: Tensor, carry: Tensor, *inputs: Tensor) -> Tensor:
        """Return the logits (B, N) of N questions to each row of a batch, asked next.

        Memory, `kept` and `carry` as `remember` takes them.
        """
        queries = Inputs(*inputs)
        parts = self._split(memory)

        def attend(attention: CausalAttention, query: Tensor, own: Tensor) -> Tensor:
            return attention.recall(query, own, parts[attention], kept)

        heard = carry[:, None].expand(-1, queries.question.shape[1], -1)
        return self._answer(*self._pass(queries, heard, self.position(kept[:, None]), attend))

    def _answer(self, x: Tensor, features: Tensor) -> Tensor:
        """(..., D), (..., features) -> (...)."""
        return self.read_out(x).squeeze(-1) + self.counts.logit(features)  # type: ignore[no-any-return]

    def _answered(self, batch: Inputs) -> Tensor:
        return self.response(batch.response) + self.elapsed(batch.elapsed_s)  # type: ignore[no-any-return]

    def _decode(self, batch: Inputs, last: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return what the decoder says, (B, L, D), and the count features.

        With `last` (B,) only what it says at that place of each row, (B, 1, D): the last layer asks
        one query. Padding stands to the right of all it could harm: causal is enough.
        """
        place = torch.arange(batch.question.shape[1], device=batch.question.device)
        distance = place[:, None] - place  # (L, L)

        def attend(attention: CausalAttention, query: Tensor, own: Tensor) -> Tensor:
            if last is None or query.shape[1] == own.shape[1]:
                return attention(query, own, causal(place), distance)  # type: ignore[no-any-return]
            before = (last[:, None] - place)[:, None]  # (B, 1, L)
            return attention(query, own, before >= 0, before)  # type: ignore[no-any-return]

        heard = shifted(self._answered(batch), self.start)
        return self._pass(batch, heard, self.position(place), attend, last)

    def _pass(
        self,
        batch: Inputs,
        heard: Tensor,
        position: Tensor,
        attend: Attend,
        last: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Go through encoder and decoder, `attend` giving what an attention sees.

        `heard` is the answer before each place, and `position` broadcasts to its shape.
        """
        features = self.counts.read(batch.counts)
        x = asked(batch, self.question, self.skills) + self.counts(features)
        x = self.drop(x + position)
        for layer in self.encoder:
            x = layer(x, attend)
        memory = self.norm_encoder(x)
        x = self.drop(heard + self.lag(batch.lag_s) + position)
        for number, layer in enumerate(self.decoder, 1):
            x = layer(x, memory, attend, last if number == len(self.decoder) else None)
        return self.norm_decoder(x), features

    def _split(self, memory: Tensor) -> dict[CausalAttention, Tensor]:
        """Part rows (B, P, C) among the attentions that look at them."""
        parts = torch.split(memory, self.config.width, dim=2)
        return {attention: parts[number] for attention, number in self._parts().items()}

    def _parts(self) -> dict[CausalAttention, int]:
        """Return which part of a row each attention looks at: all that cross look at the same."""
        encoder: list[Any] = list(self.encoder)
        decoder: list[Any] = list(self.decoder)
        own = {layer.attend_self: number for number, layer in enumerate(encoder)}
        cross = {layer.attend_cross: len(own) for layer in decoder}
        after = len(own) + 1
        return own | cross | {layer.attend_self: after + n for n, layer in enumerate(decoder)}


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

    def forward(self, x: Tensor, attend: Attend) -> Tensor:
        """(..., D) -> (..., D)."""
        y = self.norm_self(x)
        x = x + self.drop(attend(self.attend_self, y, y))
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

    def forward(
        self, x: Tensor, memory: Tensor, attend: Attend, last: Tensor | None = None
    ) -> Tensor:
        """(..., D) and the encoder's (..., D) -> (..., D), or (B, 1, D) at the places `last`."""
        query = y = self.norm_self(x)
        if last is not None:
            where = last[:, None, None].expand(-1, 1, x.shape[2])
            x, query = x.gather(1, where), y.gather(1, where)
        x = x + self.drop(attend(self.attend_self, query, y))
        x = x + self.drop(attend(self.attend_cross, self.norm_cross(x), memory))
        return x + self.drop(self.feed_forward(self.norm_feed_forward(x)))  # type: ignore[no-any-return]
