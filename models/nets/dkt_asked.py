"""DKT asked with the question: an LSTM reads the answers, a head reads its state and the question.

DKT's own read-out has one row a skill; here the asked question is embedded as the answered ones
are, with its skills, its difficulty, what the user has done before and the pause since, and a small
network compares it with the state. The form of qDKT (Sonkar et al. 2020, arXiv 2005.12442) with the
count features of PFA and DAS3H, which bring more than anything else on small logs.
Letters: B batch, L places, D width, H hidden.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.contract.interaction import N_RESPONSES, RIGHT, WRONG
from models.nets.initialisation import initialise
from models.nets.layers.asked import asked
from models.nets.layers.counts import CountEmbedding, Counts
from models.nets.layers.places import Inputs, Places, align_right, at_last
from models.nets.layers.recurrence import Recurrence
from models.nets.layers.skills import SkillSet, set_mean
from models.nets.layers.times import TimeEmbedding, TimeForm


@dataclass(frozen=True, kw_only=True)
class DKTAskedConfig:
    """Sizes and options."""

    n_questions: int  # tables count PAD and UNSEEN
    n_skills: int
    width: int = 96  # of the embeddings
    hidden: int = 128  # of the recurrence and the head
    layers: int = 1
    dropout: float = 0.4
    embedding_dropout: float = 0.1
    question: bool = True  # an embedding for every question, beside its skills and difficulty
    counts: bool = True
    lag: TimeForm = "none"
    elapsed: TimeForm = "none"


class DKTAsked(nn.Module):
    """Interactions in; the chance of the asked question out."""

    is_causal = True
    fitted_by = "gradient"

    def __init__(self, config: DKTAskedConfig) -> None:
        super().__init__()
        self.config = config
        width, hidden = config.width, config.hidden
        self.skills = SkillSet(config.n_skills, width)
        self.answered = nn.Embedding(config.n_skills * N_RESPONSES, width)
        self.question = nn.Embedding(config.n_questions, width) if config.question else None
        self.lag = TimeEmbedding(config.lag, width)
        self.elapsed = TimeEmbedding(config.elapsed, width)
        self.counts = CountEmbedding(config.counts, width)
        self.of_answer = nn.Linear(2 * Counts.SIZE, width) if config.counts else None
        self.recurrence = Recurrence(
            width, hidden, config.layers, config.dropout if config.layers > 1 else 0.0
        )
        self.rise = nn.Linear(hidden + width, 2 * hidden)
        self.fall = nn.Linear(2 * hidden, hidden)
        self.read_out = nn.Linear(hidden, 1)
        self.drop = nn.Dropout(config.dropout)
        self.drop_embedding = nn.Dropout(config.embedding_dropout)
        initialise(self)
        if self.question is not None:
            nn.init.normal_(self.question.weight, std=0.1)  # a question begins as its skills
        self.counts.begin_silent()

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the logit that the last question is answered right, (B,)."""
        batch = align_right(Inputs(*inputs))
        return self._answer(*(at_last(x, batch.mask) for x in self._read(batch)))

    def every_place(self, *inputs: Tensor) -> Places:
        """Return the logits at every place, each from the answers before it alone."""
        return Places(self._answer(*self._read(Inputs(*inputs))))

    def _read(self, batch: Inputs) -> tuple[Tensor, Tensor, Tensor]:
        """Return what an answer is told from at each place: state, question, count features."""
        features = self.counts.read(batch.counts)
        return self._states(batch, features), self._asked(batch, features), features

    def start_state(self) -> Tensor:
        """Return the state before any answer, (2, layers, hidden)."""
        return self.recurrence.start

    def step(self, state: Tensor, *inputs: Tensor) -> Tensor:
        """Return the state (B, 2, layers, hidden) after the answers of one place, all real."""
        batch = Inputs(*inputs)
        heard = self._heard(batch, self.counts.read(batch.counts))
        return self.recurrence.step(heard.squeeze(1), state)

    def ask(self, state: Tensor, *inputs: Tensor) -> tuple[Tensor]:
        """Return the logit (B,) of one place, the query, from the state before it."""
        query = Inputs(*inputs)
        features = self.counts.read(query.counts)
        state = state[:, None, 0, -1]  # (B, 1, hidden)
        return (self._answer(state, self._asked(query, features), features).squeeze(1),)

    def _asked(self, batch: Inputs, features: Tensor) -> Tensor:
        """Return (B, L, D): what is known of each question before its answer."""
        x = asked(batch, self.question, self.skills)
        return x.add(self.lag(batch.lag_s)).add(self.counts(features))

    def _states(self, batch: Inputs, features: Tensor) -> Tensor:
        """Return (B, L, hidden): the state before each place, the learned start first."""
        return self.recurrence.states_before(self.drop_embedding(self._heard(batch, features)))

    def _heard(self, batch: Inputs, features: Tensor) -> Tensor:
        """Return (B, L, D): what the recurrence reads of each answer."""
        joint = batch.skills * N_RESPONSES + batch.response[..., None]
        x = set_mean(self.answered(joint), batch.skills)
        if self.question is not None:
            x = x + self.question(batch.question)
        x = x + self.lag(batch.lag_s) + self.elapsed(batch.elapsed_s)
        if self.of_answer is not None:
            # Right on a hard question and wrong on an easy one tell most: signed by the answer.
            right, wrong = batch.response == RIGHT, batch.response == WRONG
            sign = (right.to(features.dtype) - wrong.to(features.dtype))[..., None]
            x = x + self.of_answer(torch.cat([features, sign * features], dim=-1))
        return x  # type: ignore[no-any-return]

    def _answer(self, state: Tensor, query: Tensor, features: Tensor) -> Tensor:
        """(..., hidden), (..., D), (..., features) -> (...)."""
        x = F.relu(self.rise(torch.cat([self.drop(state), query], dim=-1)))
        x = F.relu(self.fall(self.drop(x)))
        return self.read_out(self.drop(x)).squeeze(-1) + self.counts.logit(features)  # type: ignore[no-any-return]
