"""Parts that several networks share.

Letters: B batch, L places, K skills of a question, D model width, H heads.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.contract.counts import N_COUNTS
from models.contract.interaction import PAD, PAD_RESPONSE

TimeForm = Literal["none", "categorical", "continuous"]
AskedBy = Literal["both", "questions", "skills"]
Norm = Literal["layer", "t_fixup", "none"]

N_RESPONSES = PAD_RESPONSE + 1
LONGEST_S = 7 * 86_400.0  # a week: a longer pause tells no more


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


def asked_tables(
    by: AskedBy, *, n_questions: int, n_skills: int, width: int
) -> tuple[nn.Embedding | None, SkillSet | None]:
    """Return the table of questions and that of skills, None for the one that `by` leaves out.

    Raises `ValueError` where `by` is none of its words.
    """
    if by not in get_args(AskedBy):
        raise ValueError(f"inputs = {by!r}: must be one of {', '.join(get_args(AskedBy))}")
    question = None if by == "skills" else nn.Embedding(n_questions, width)
    skills = None if by == "questions" else SkillSet(n_skills, width)
    return question, skills


def asked(batch: Inputs, question: nn.Embedding | None, skills: SkillSet | None) -> Tensor:
    """Return (B, L, D): what is asked at each place, by the tables that there are."""
    if question is None:
        assert skills is not None, "asked_tables leaves one out, never both"
        return skills(batch.skills)  # type: ignore[no-any-return]
    x = question(batch.question)
    return x if skills is None else x + skills(batch.skills)  # type: ignore[no-any-return]


class TimeEmbedding(nn.Module):
    """Seconds -> a vector; a missing time (below zero) has a token of its own.

    categorical: whole seconds to ten, then bounds a quarter apart on a log scale, to a week.
    continuous: a learned direction times log(1 + seconds), as SAINT+ multiplies seconds.
    none: no parameters, and nothing is added.
    """

    def __init__(self, form: TimeForm, width: int) -> None:
        super().__init__()
        self.form = form
        if form == "categorical":
            bounds = [float(s) for s in range(1, 11)]
            while bounds[-1] < LONGEST_S:
                bounds.append(min(bounds[-1] * 1.25, LONGEST_S))
            self.bounds: Tensor
            self.register_buffer("bounds", torch.tensor(bounds), persistent=False)
            self.table = nn.Embedding(len(bounds) + 2, width)
        elif form == "continuous":
            self.direction = nn.Linear(1, width)
            self.missing = nn.Parameter(torch.zeros(width))

    def forward(self, seconds: Tensor) -> Tensor | float:
        """(B, L) -> (B, L, D), or 0 where the form is "none"."""
        if self.form == "none":
            return 0.0
        if self.form == "categorical":
            # Counting the bounds passed is torch.bucketize in operators that every exporter keeps.
            passed = (seconds[..., None] >= self.bounds).to(torch.int64).sum(dim=-1)
            return self.table(torch.where(seconds < 0, 0, passed + 1))  # type: ignore[no-any-return]
        scaled = torch.log1p(seconds.clamp(0.0, LONGEST_S))[..., None]
        return torch.where((seconds < 0)[..., None], self.missing, self.direction(scaled))


class Counts(nn.Module):
    """Counts of right and wrong answers -> logarithms of both and of their ratio, for each pair.

    The ratio is the log-odds of a smoothed share: running accuracy, overall, of the skills and of
    the question, and the question's difficulty. As PFA (Pavlik et al. 2009) and DAS3H (Choffin et
    al. 2019) count.
    """

    SIZE = N_COUNTS // 2 * 3

    def __init__(self) -> None:
        super().__init__()
        # Training users are many and of all kinds: a few of them say little of a question.
        self.smoothing: Tensor
        self.register_buffer("smoothing", torch.tensor([1.0, 1.0, 1.0, 4.0]), persistent=False)

    def forward(self, counts: Tensor) -> Tensor:
        """(..., N_COUNTS) -> (..., SIZE)."""
        right, wrong = counts[..., 0::2], counts[..., 1::2]  # (..., 4) each
        ratio = torch.log((right + self.smoothing) / (wrong + self.smoothing))
        return torch.cat([0.5 * torch.log1p(right), 0.5 * torch.log1p(wrong), ratio], dim=-1)


class Forgetting(nn.Module):
    """A state fades with the pause before the question, each unit at a learned rate of its own.

    By the logarithm of the pause: a day costs little more than an hour (Wixted and Ebbesen 1991, a
    power law). A pause that is not known costs nothing.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.full((width,), -3.0))  # softplus: 0.05 at the start

    def forward(self, state: Tensor, lag_s: Tensor) -> Tensor:
        """(..., D) and seconds (...) -> (..., D)."""
        hours = lag_s.clamp(0.0, LONGEST_S)[..., None] / 3600.0
        return state * torch.exp(-F.softplus(self.rate) * torch.log1p(hours))


class CountEmbedding(nn.Module):
    """Counts -> a vector for an embedding to add, and a logit for a read-out to add.

    Where it is off: no parameters, and nothing is added.
    """

    def __init__(self, is_on: bool, width: int) -> None:
        super().__init__()
        self.is_on = is_on
        if is_on:
            self.features = Counts()
            self.project = nn.Linear(Counts.SIZE, width)
            self.direct = nn.Linear(Counts.SIZE, 1)

    def forward(self, counts: Tensor) -> Tensor | float:
        """(..., N_COUNTS) -> (..., D), or 0."""
        return self.project(self.features(counts)) if self.is_on else 0.0

    def logit(self, counts: Tensor) -> Tensor | float:
        """(..., N_COUNTS) -> (...), or 0: what a logistic regression on counts would say."""
        return self.direct(self.features(counts)).squeeze(-1) if self.is_on else 0.0

    def begin_silent(self) -> None:
        """Let the logit start at nothing: call it when all weights have been drawn."""
        if self.is_on:
            nn.init.zeros_(self.direct.weight)


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


def norm_of(norm: Norm, width: int) -> nn.Module:
    """Return what stands where a LayerNorm may stand; without one, x goes on as it came.

    Raises `ValueError` where `norm` is none of its words.
    """
    if norm not in get_args(Norm):
        raise ValueError(f"norm = {norm!r}: must be one of {', '.join(get_args(Norm))}")
    return nn.LayerNorm(width) if norm == "layer" else nn.Identity()


class FeedForward(nn.Module):
    """Two linear maps with a ReLU between."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.rise = nn.Linear(width, hidden)
        self.fall = nn.Linear(hidden, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return self.fall(self.drop(F.relu(self.rise(x))))  # type: ignore[no-any-return]


class FixupBranch(nn.Module):
    """A residual branch for `initialisation.fixup`: a scalar before each map, one factor after.

    Zhang et al. 2019, rule 3. The scalars stand in for the shift and the scale of a norm.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.rise = nn.Linear(width, hidden, bias=False)
        self.fall = nn.Linear(hidden, width, bias=False)
        self.shift = nn.Parameter(torch.zeros(4))
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D), the input added."""
        before_rise, before_relu, before_fall, after = self.shift
        y = F.relu(self.rise(x + before_rise) + before_relu)
        return x + self.scale * self.fall(y + before_fall) + after  # type: ignore[no-any-return]


class Recurrence(nn.Module):
    """An LSTM whose start state is learned: what is believed of a learner never seen."""

    def __init__(self, width: int, hidden: int, layers: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, hidden, layers, batch_first=True, dropout=dropout)
        self.start = nn.Parameter(torch.zeros(2, layers, hidden))  # h, c

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, hidden): the state after each place."""
        start = self.start[:, :, None].expand(-1, -1, x.shape[0], -1).contiguous()
        return self.lstm(x, (start[0], start[1]))[0]  # type: ignore[no-any-return]

    def before_each(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, L, D) -> h and c before each place, (B, L, hidden) each; of one layer.

        Torch's own LSTM is fast but tells only h. With h known at every place, all gates are one
        product, and what is left to do place by place for c is a single multiplication and sum.
        """
        h = shifted(self.forward(x), self.start[0, -1])
        w_input, w_hidden, b_input, b_hidden = self.lstm.all_weights[0]
        gates = F.linear(x, w_input, b_input) + F.linear(h, w_hidden, b_hidden)
        enter, forget, new, _ = gates.chunk(4, dim=-1)  # torch's order of gates
        added = (torch.sigmoid(enter) * torch.tanh(new)).unbind(dim=1)
        kept = torch.sigmoid(forget).unbind(dim=1)
        cells = [self.start[1, -1].expand_as(h[:, 0])]
        for place in range(x.shape[1] - 1):
            cells.append(torch.addcmul(added[place], kept[place], cells[-1]))
        return h, torch.stack(cells, dim=1)

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        """One place for every row: (B, D) and (B, 2, layers, hidden) -> the next state.

        The formula of torch.nn.LSTM written out: a graph of it has no loop over places.
        """
        h_next, c_next = [], []
        for layer in range(self.lstm.num_layers):
            h, c = state[:, 0, layer], state[:, 1, layer]
            h, c = self._cell(layer, x, h, c)
            h_next.append(h)
            c_next.append(c)
            x = h
        return torch.stack([torch.stack(h_next, dim=1), torch.stack(c_next, dim=1)], dim=1)

    def _cell(self, layer: int, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        w_input, w_hidden, b_input, b_hidden = self.lstm.all_weights[layer]
        gates = F.linear(x, w_input, b_input) + F.linear(h, w_hidden, b_hidden)
        enter, forget, new, leave = gates.chunk(4, dim=-1)  # torch's order of gates
        c = torch.sigmoid(forget) * c + torch.sigmoid(enter) * torch.tanh(new)
        return torch.sigmoid(leave) * torch.tanh(c), c
