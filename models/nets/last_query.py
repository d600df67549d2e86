"""LastQuery: the last question is the only attention query; then an LSTM reads the window.

Jeon, "Last Query Transformer RNN for knowledge tracing", 2021 (arXiv 2102.05038). No positional
encoding: attention gathers, the LSTM keeps the order. Attention costs L, not L squared.
With residual "last" nothing that a place enters with depends on the query: what is kept of it is
its embedding, one row, which attention looks at, and the state of the LSTM after the last of them.
Letters: B batch, L places, D width, H heads, P rows of memory, N new places.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.contract.interaction import N_RESPONSES, UNKNOWN
from models.contract.masks import last_query
from models.contract.window import MISSING_S
from models.nets.initialisation import initialise, t_fixup
from models.nets.layers.asked import AskedBy, asked, asked_tables
from models.nets.layers.attention import Attention
from models.nets.layers.counts import CountEmbedding
from models.nets.layers.feed_forward import FeedForward
from models.nets.layers.norm import Norm, norm_of
from models.nets.layers.places import Inputs, Places, align_right, at_last
from models.nets.layers.recurrence import Recurrence
from models.nets.layers.times import TimeEmbedding, TimeForm


@dataclass(frozen=True, kw_only=True)
class LastQueryConfig:
    """Sizes and options."""

    n_questions: int  # tables count PAD and UNSEEN
    n_skills: int
    inputs: AskedBy = "both"
    counts: bool = False  # what came before, counted; the paper has no such features
    width: int = 64
    heads: int = 4
    hidden: int = 128  # of the feed-forward layer
    dropout: float = 0.2
    residual: Literal["broadcast", "last"] = "broadcast"
    lag: TimeForm = "categorical"
    elapsed: TimeForm = "none"
    norm: Norm = "layer"  # t_fixup: no LayerNorm, and weights that need neither it nor a warm-up


class LastQuery(nn.Module):
    """Embed -> one attention query -> added to every place (or the last) -> FFN -> LSTM -> head."""

    fitted_by = "gradient"

    def __init__(self, config: LastQueryConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.question, self.skills = asked_tables(
            config.inputs, n_questions=config.n_questions, n_skills=config.n_skills, width=width
        )
        self.counts = CountEmbedding(config.counts, width)
        self.response = nn.Embedding(N_RESPONSES, width)
        self.lag = TimeEmbedding(config.lag, width)
        self.elapsed = TimeEmbedding(config.elapsed, width)
        self.attention = Attention(width, config.heads, config.dropout)
        self.norm_attention = norm_of(config.norm, width)
        self.feed_forward = FeedForward(width, config.hidden, config.dropout)
        self.norm_feed_forward = norm_of(config.norm, width)
        self.recurrence = Recurrence(width, width)
        self.drop = nn.Dropout(config.dropout)
        self.head = FeedForward(width, width, config.dropout)
        self.read_out = nn.Linear(width, 1)
        initialise(self, norm=config.norm)
        if config.norm == "t_fixup":
            encoder = nn.ModuleList([self.attention, self.feed_forward])
            asked_by = (self.question, self.skills, self.counts, self.lag)
            t_fixup(encoder=[encoder], embeddings=(*asked_by, self.response, self.elapsed))
        self.counts.begin_silent()

    @property
    def is_causal(self) -> bool:
        """With residual "last", one pass answers at every place; "broadcast" mixes the query in."""
        return self.config.residual == "last"

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the logit that the last question is answered right, (B,)."""
        batch = align_right(Inputs(*inputs))
        features = self.counts.read(batch.counts)
        x = self._embed(batch, features)  # (B, L, D)
        last = at_last(x, batch.mask)[:, None]  # (B, 1, D): its place differs from row to row
        mask = last_query(batch.mask)[:, None]  # (B, 1, 1, L), shared by the heads
        seen = self.attention(last, x, mask)  # (B, 1, D)
        if self.config.residual == "last":
            place = torch.arange(x.shape[1], device=x.device)
            end = batch.mask.to(torch.int64).sum(dim=1) - 1
            seen = seen * (place[None, :] == end[:, None]).to(x.dtype)[..., None]
        x = self._mix(x, seen)  # (B, L, D): the one answer goes to every place
        state = at_last(self.recurrence(x), batch.mask)  # (B, D)
        logit = self._answer(state, last.squeeze(1))
        return logit + self.counts.logit(at_last(features, batch.mask))

    def every_place(self, *inputs: Tensor) -> Places:
        """Return the logits at every place; only for residual "last".

        Past places enter with their answers; each place, as a query, with its answer unknown. So
        the LSTM runs once over the answered places, and one further step from the state before it
        answers each query: L targets for the price of one window.
        """
        if not self.is_causal:
            raise ValueError('every place needs residual "last": "broadcast" changes all places')
        batch = Inputs(*inputs)
        features = self.counts.read(batch.counts)
        past = self._embed(batch, features)  # (B, L, D)
        unanswered = batch._replace(
            response=torch.full_like(batch.response, UNKNOWN),
            elapsed_s=torch.full_like(batch.elapsed_s, MISSING_S),
        )
        queries = self._embed(unanswered, features)
        seen = self._attend_each(queries, past)
        h, c = self.recurrence.before_each(self._mix(past, torch.zeros_like(past)))  # (B, L, D)
        flat = self._mix(queries, seen).flatten(0, 1)  # (B*L, D)
        state = torch.stack([h.flatten(0, 1), c.flatten(0, 1)], dim=1)[:, :, None]
        after = self.recurrence.step(flat, state)[:, 0, 0]  # (B*L, D)
        logit = self._answer(after, queries.flatten(0, 1)).view(past.shape[:2])
        return Places(logit + self.counts.logit(features))

    @property
    def remembers(self) -> bool:
        """Past places can be kept: with residual "last", they know nothing of the query."""
        return self.config.residual == "last"

    @property
    def row_width(self) -> int:
        """How many numbers are kept of a place."""
        return self.config.width

    def start_carry(self) -> Tensor:
        """Return the LSTM's state before any answer, (2, 1, D)."""
        return self.recurrence.start

    def remember(
        self, memory: Tensor, kept: Tensor, carry: Tensor, *inputs: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the rows (B, N, D) of new places, and the LSTM's states (B, 2, 1, D) after them.

        `carry` holds the states before them. The inputs are answered places; nothing of the
        `memory` (B, P, D) of earlier ones, nor how many are `kept`, is needed.
        """
        new = Inputs(*inputs)
        rows = self._embed(new, self.counts.read(new.counts))
        return rows, self.recurrence.after(self._mix(rows, torch.zeros_like(rows)), carry)

    def recall(self, memory: Tensor, kept: Tensor, carry: Tensor, *inputs: Tensor) -> Tensor:
        """Return the logits (B, N) of N questions to each row of a batch, asked next.

        `memory` (B, P, D) holds the rows of the `kept` (B,) places before, and anything behind
        them; `carry` (B, 2, 1, D) the states after them.
        """
        queries = Inputs(*inputs)
        features = self.counts.read(queries.counts)
        x = self._embed(queries, features)  # (B, N, D)
        seen = torch.arange(memory.shape[1], device=x.device) < kept[:, None]
        bias = torch.zeros_like(seen, dtype=x.dtype).masked_fill(~seen, float("-inf"))
        mixed = self._mix(x, self.attention.and_own(x, memory, x, bias[:, None, None]))
        state = carry[:, None].expand(-1, x.shape[1], -1, -1, -1).flatten(0, 1)
        after = self.recurrence.step(mixed.flatten(0, 1), state)[:, 0, 0].view(x.shape)
        return self._answer(after, x) + self.counts.logit(features)

    def _embed(self, batch: Inputs, features: Tensor) -> Tensor:
        """Return (B, L, D): the inputs of each place, added."""
        x = asked(batch, self.question, self.skills) + self.response(batch.response)
        x = x + self.counts(features)
        return self.drop(x + self.lag(batch.lag_s) + self.elapsed(batch.elapsed_s))  # type: ignore[no-any-return]

    def _mix(self, x: Tensor, seen: Tensor) -> Tensor:
        x = self.norm_attention(x + self.drop(seen))
        return self.norm_feed_forward(x + self.drop(self.feed_forward(x)))  # type: ignore[no-any-return]

    def _answer(self, state: Tensor, asked: Tensor) -> Tensor:
        # The question is shown to the head once more: the LSTM need not carry it.
        x = state + asked
        return self.read_out(x + self.drop(self.head(x))).squeeze(-1)  # type: ignore[no-any-return]

    def _attend_each(self, asked: Tensor, past: Tensor) -> Tensor:
        """Attend from each place as a query to the answered places before it and to itself."""
        attention = self.attention
        query = attention.split(attention.query(asked))
        key, own_key = (attention.split(attention.key(x)) for x in (past, asked))
        value, own_value = (attention.split(attention.value(x)) for x in (past, asked))
        scale = query.shape[-1] ** -0.5
        score = query @ key.transpose(-1, -2) * scale  # (B, H, L, L)
        own = (query * own_key).sum(dim=-1, keepdim=True) * scale  # (B, H, L, 1)
        place = torch.arange(past.shape[1], device=past.device)
        before = place[:, None] > place[None, :]
        score = torch.cat([score.masked_fill(~before, float("-inf")), own], dim=-1)
        weight = F.dropout(score.softmax(dim=-1), attention.dropout, self.training)
        return attention.merge(weight[..., :-1] @ value + weight[..., -1:] * own_value)
