"""DKT: an LSTM reads the answers and says, after each, how well every skill is known.

Piech et al., "Deep Knowledge Tracing", NIPS 2015; trained with the regularisers of DKT+ (Yeung and
Yeung, 2018, `models.training.losses`), since the vector itself is what is served.
Letters: B batch, L places, K skills of a question, S skills (UNSEEN counted, PAD not).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.contract.interaction import N_RESPONSES, PAD
from models.nets.initialisation import initialise
from models.nets.layers.places import Inputs, Places, align_right, at_last
from models.nets.layers.recurrence import Recurrence
from models.nets.layers.skills import set_mean
from models.nets.layers.times import Forgetting, TimeEmbedding, TimeForm


@dataclass(frozen=True, kw_only=True)
class DKTConfig:
    """Sizes and options."""

    n_questions: int  # tables count PAD and UNSEEN
    n_skills: int
    hidden: int = 128
    layers: int = 1
    dropout: float = 0.4  # before the read-out alone, as Piech et al. have it
    question: bool = False  # also read which question it was
    lag: TimeForm = "none"
    elapsed: TimeForm = "none"
    forgetting: bool = False  # what is known fades with the pause before the question


class DKT(nn.Module):
    """Skills and answers in, skills out."""

    is_causal = True
    fitted_by = "gradient"

    def __init__(self, config: DKTConfig) -> None:
        super().__init__()
        self.config = config
        width = config.hidden
        self.interaction = nn.Embedding(config.n_skills * N_RESPONSES, width)
        self.question = nn.Embedding(config.n_questions, width) if config.question else None
        self.lag = TimeEmbedding(config.lag, width)
        self.elapsed = TimeEmbedding(config.elapsed, width)
        self.recurrence = Recurrence(width, width, config.layers)
        self.forgetting = Forgetting(width) if config.forgetting else None
        self.drop = nn.Dropout(config.dropout)
        self.read_out = nn.Linear(width, config.n_skills - 1)
        initialise(self)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the logit that the last question is answered right, (B,)."""
        return self.with_knowledge(*inputs)[0]

    def with_knowledge(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return that logit, (B,), and the knowledge state it was read from, as logits (B, S)."""
        aligned = align_right(Inputs(*inputs))
        state = at_last(self._faded(self._states(aligned), aligned), aligned.mask)  # (B, hidden)
        knowledge = self.read_out(state)  # (B, S)
        skills = at_last(aligned.skills, aligned.mask)  # (B, K)
        return self.pool(knowledge, skills), knowledge

    def every_place(self, *inputs: Tensor) -> Places:
        """Return the logits at every place, each from the answers before it alone."""
        batch = Inputs(*inputs)
        knowledge = self.read_out(self.drop(self._faded(self._states(batch), batch)))  # (B, L, S)
        return Places(self.pool(knowledge, batch.skills), knowledge)

    def start_state(self) -> Tensor:
        """Return the state before any answer, (2, layers, hidden)."""
        return self.recurrence.start

    def step(self, state: Tensor, *inputs: Tensor) -> Tensor:
        """Return the state (B, 2, layers, hidden) after the answers of one place, all real."""
        return self.recurrence.step(self.embed(Inputs(*inputs)).squeeze(1), state)

    def ask(self, state: Tensor, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `with_knowledge` does, from the state before one place, the query."""
        query = Inputs(*inputs)
        knowledge = self.read_out(self._faded(state[:, None, 0, -1], query))  # (B, 1, S)
        return self.pool(knowledge, query.skills).squeeze(1), knowledge.squeeze(1)

    @staticmethod
    def pool(knowledge: Tensor, skills: Tensor) -> Tensor:
        """Return the mean of the logits of a question's skills: (..., S), (..., K) -> (...)."""
        column = (skills - 1).clamp(min=0)  # PAD has no column; set_mean leaves it out
        return set_mean(knowledge.gather(-1, column)[..., None], skills).squeeze(-1)

    def embed(self, batch: Inputs) -> Tensor:
        """Return what the LSTM reads of each interaction, (B, L, D)."""
        joint = batch.skills * N_RESPONSES + batch.response[..., None]
        joint = torch.where(batch.skills == PAD, PAD, joint)
        x: Tensor = set_mean(self.interaction(joint), batch.skills)
        if self.question is not None:
            x = x + self.question(batch.question)
        return x.add(self.lag(batch.lag_s)).add(self.elapsed(batch.elapsed_s))

    def _faded(self, states: Tensor, batch: Inputs) -> Tensor:
        return states if self.forgetting is None else self.forgetting(states, batch.lag_s)

    def _states(self, batch: Inputs) -> Tensor:
        """Return (B, L, hidden): the state before each place, the learned start first."""
        return self.recurrence.states_before(self.embed(batch))
