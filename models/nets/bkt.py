"""BKT: every skill is known or not; an answer tells which, and with some luck one learns from it.

Corbett and Anderson, "Knowledge tracing: modeling the acquisition of procedural knowledge", 1994.
With L the chance that a skill is known, and its chances T to learn, F to forget, G to guess, S to
slip (F is 0 in the paper):

    p(correct)   = L (1-S) + (1-L) G
    L given right = L (1-S) / (L (1-S) + (1-L) G),   L given wrong = L S / (L S + (1-L) (1-G))
    L after it   = (L given the answer) (1-F) + (1 - L given the answer) T

A question of several skills is right with the mean of their p(correct), and its answer counts for
each of them. Fitted by `models.training.em`, not by gradients.
Letters: B batch, L places, K skills of a question, N touches (L times K), S skills (UNSEEN counted,
PAD not).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.contract.interaction import PAD, RIGHT, WRONG
from models.nets.layers.places import Inputs, Places, align_right, at_last
from models.nets.layers.skills import set_mean

NEVER = -1e9  # the log of a chance that is 0: finite, so that a difference of two is not NaN


@dataclass(frozen=True, kw_only=True)
class BKTConfig:
    """Sizes and options."""

    n_questions: int  # tables count PAD and UNSEEN; questions are not read
    n_skills: int
    length: int = 4096  # places of the longest window
    forgets: bool = False
    # Above these a right answer may lower p(known): the two states change places (Baker et al.
    # 2008, who take the bounds from Corbett and Anderson).
    max_guess: float = 0.3
    max_slip: float = 0.1

    def __post_init__(self) -> None:
        if min(self.max_guess, self.max_slip) <= 0 or self.max_guess + self.max_slip > 1:
            raise ValueError(
                f"max_guess {self.max_guess} and max_slip {self.max_slip} must be above 0 and at "
                "most 1 together: a right answer must speak for knowing"
            )


class SkillParameters(NamedTuple):
    """Five chances of every skill, each (S,); `forget` is 0 where nothing is forgotten."""

    prior: Tensor
    learn: Tensor
    forget: Tensor
    guess: Tensor
    slip: Tensor


class Touches(NamedTuple):
    """Answers by skill, and by time within each skill; PAD's stand first and mean nothing."""

    skill: Tensor  # (B, N)
    right: Tensor  # (B, N)
    order: Tensor  # (B, N) where each stood


def distinct(skills: Tensor) -> Tensor:
    """Return sets of skills (..., K) with PAD at every repeated member."""
    repeats = (skills[..., :, None] == skills[..., None, :]).tril(-1).any(dim=-1)
    return torch.where(repeats, PAD, skills)


def touches_of(skills: Tensor, response: Tensor) -> Touches:
    """Put the answers of each skill side by side: skills (B, L, K), response (B, L)."""
    skill = skills.flatten(1)  # (B, N)
    right = (response == RIGHT)[:, :, None].expand_as(skills).flatten(1)
    place = torch.arange(skill.shape[1], device=skill.device)
    # The place in the key keeps the order of time, and leaves no ties to the sort's own taste.
    order = (skill * skill.shape[1] + place).argsort(dim=1)
    return Touches(skill.gather(1, order), right.gather(1, order), order)


class BKT(nn.Module):
    """Skills and answers in, skills out; weights are logits, so that any weights are chances."""

    is_causal = True
    fitted_by = "em"
    features: ClassVar[Mapping[str, str]] = {
        "question": "not read",
        "skills": "a set: mean of the members' p(correct); an answer counts for each of them",
        "response": "updates the belief after its own place",
        "lag_s": "not read",
        "elapsed_s": "not read",
    }

    def __init__(self, config: BKTConfig) -> None:
        super().__init__()
        self.config = config
        skills = config.n_skills - 1
        self.prior = nn.Parameter(torch.zeros(skills))
        self.learn = nn.Parameter(torch.full((skills,), -2.0))
        self.forget = nn.Parameter(torch.full((skills,), -4.0)) if config.forgets else None
        self.guess = nn.Parameter(torch.zeros(skills))  # of guess as a share of max_guess
        self.slip = nn.Parameter(torch.zeros(skills))  # of slip as a share of max_slip

    def parameters_of_skills(self) -> SkillParameters:
        """Return the chances, in the order of the knowledge state's columns."""
        never = torch.zeros_like(self.prior)
        return SkillParameters(
            prior=torch.sigmoid(self.prior),
            learn=torch.sigmoid(self.learn),
            forget=never if self.forget is None else torch.sigmoid(self.forget),
            guess=self.config.max_guess * torch.sigmoid(self.guess),
            slip=self.config.max_slip * torch.sigmoid(self.slip),
        )

    @torch.no_grad()
    def take(self, skills: SkillParameters) -> None:
        """Set the chances; each must lie inside its bounds, not on them: a logit is finite."""
        self.prior.copy_(torch.logit(skills.prior))
        self.learn.copy_(torch.logit(skills.learn))
        self.guess.copy_(torch.logit(skills.guess / self.config.max_guess))
        self.slip.copy_(torch.logit(skills.slip / self.config.max_slip))
        if self.forget is not None:
            self.forget.copy_(torch.logit(skills.forget))
        if not all(torch.isfinite(weight).all() for weight in self.parameters()):
            raise ValueError("a chance of a skill is outside its bounds or on them")

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the logit that the last question is answered right, (B,)."""
        return self.with_knowledge(*inputs)[0]

    def with_knowledge(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return that logit, (B,), and the knowledge state it was read from, as logits (B, S)."""
        batch = align_right(Inputs(*inputs))
        self._check(batch)
        place = torch.arange(batch.mask.shape[1], device=batch.mask.device)
        answered = place < batch.mask.sum(dim=1, keepdim=True) - 1  # the last place is the query
        skills = torch.where(answered[:, :, None], distinct(batch.skills), PAD)
        touches = touches_of(skills, batch.response)
        after = self._beliefs(touches)  # (B, N)
        # The last touch of each skill is its state now; what PAD's column gets is dropped.
        ends = F.pad(touches.skill[:, :-1] != touches.skill[:, 1:], (0, 1), value=True)
        start = F.pad(self.prior, (1, 0)).expand(after.shape[0], -1)  # (B, S+1)
        state = start.scatter(1, torch.where(ends, touches.skill, PAD), after)[:, 1:]
        knowledge = self._correct_logit(state)  # (B, S)
        return self.pool(knowledge, at_last(batch.skills, batch.mask)), knowledge

    def every_place(self, *inputs: Tensor) -> Places:
        """Return the logits at every place, each from the answers before it alone.

        Without the knowledge states: they would be (B, L, S), and EM does not learn from them.
        """
        batch = Inputs(*inputs)
        self._check(batch)
        skills = torch.where(batch.mask[:, :, None], distinct(batch.skills), PAD)  # (B, L, K)
        touches = touches_of(skills, batch.response)
        after = self._beliefs(touches)  # (B, N)
        prior = self.prior[(touches.skill - 1).clamp(min=0)]
        first = F.pad(touches.skill[:, 1:] != touches.skill[:, :-1], (1, 0), value=True)
        before = torch.where(first, prior, F.pad(after[:, :-1], (1, 0)))
        before = torch.empty_like(before).scatter(1, touches.order, before)  # back in time's order
        column = (skills - 1).clamp(min=0)  # (B, L, K)
        p = torch.sigmoid(self._correct_logit(before.view(skills.shape), column))
        return Places(torch.logit(set_mean(p[..., None], skills).squeeze(-1), eps=1e-7))

    def start_state(self) -> Tensor:
        """Return the state before any answer, (S,): log-odds that each skill is known.

        In float64: steps round one after another, and log-odds that went far up and came back
        would be 1e-5 off in float32 after a few hundred answers.
        """
        return self.prior.double()

    def step(self, state: Tensor, *inputs: Tensor) -> Tensor:
        """Return the state (B, S) after the answers of one place, all real."""
        batch = Inputs(*inputs)
        column = torch.arange(1, self.config.n_skills, device=state.device)
        touched = (batch.skills.squeeze(1)[:, :, None] == column).any(dim=1)  # (B, S)
        known, unknown = (chance.double() for chance in self._evidence())
        stay, learn, forget, keep = (chance.double() for chance in self._transitions())
        speaks = known - unknown  # (WRONG+RIGHT, S)
        told = state + torch.where(batch.response == RIGHT, speaks[RIGHT], speaks[WRONG])
        after = torch.logaddexp(told + keep, learn) - torch.logaddexp(told + forget, stay)
        return torch.where(touched, after, state)

    def ask(self, state: Tensor, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `with_knowledge` does, from the state before one place, the query."""
        knowledge = self._correct_logit(state.to(self.prior.dtype))
        return self.pool(knowledge, Inputs(*inputs).skills.squeeze(1)), knowledge

    @staticmethod
    def pool(knowledge: Tensor, skills: Tensor) -> Tensor:
        """Return the logit of the mean chance of a set: logits (B, S), skills (B, K) -> (B,)."""
        skills = distinct(skills)
        p = torch.sigmoid(knowledge.gather(1, (skills - 1).clamp(min=0)))
        return torch.logit(set_mean(p[..., None], skills).squeeze(-1), eps=1e-7)

    def _check(self, batch: Inputs) -> None:
        """Refuse windows whose first answers would be left out; a graph has its manifest's rule."""
        if not torch.compiler.is_exporting() and batch.mask.shape[1] > self.config.length:
            raise ValueError(
                f"a window of {batch.mask.shape[1]} places; model.length is {self.config.length}"
            )

    def _correct_logit(self, state: Tensor, column: Tensor | None = None) -> Tensor:
        """Log-odds of knowing -> logit of answering right; `column` says of which skill each is."""
        skills = self.parameters_of_skills()
        guess, slip = skills.guess, skills.slip
        if column is not None:
            guess, slip = guess[column], slip[column]
        known = torch.sigmoid(state)
        p = known * (1 - slip) + (1 - known) * guess
        return torch.log(p) - torch.log1p(-p)

    def _evidence(self) -> tuple[Tensor, Tensor]:
        """Log chances of an answer when the skill is known, and when not; both (WRONG+RIGHT, S)."""
        skills = self.parameters_of_skills()
        known = torch.stack([torch.log(skills.slip), torch.log1p(-skills.slip)])
        unknown = torch.stack([torch.log1p(-skills.guess), torch.log(skills.guess)])
        return known, unknown

    def _transitions(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Log chances to stay unknowing, to learn, to forget and to keep; each (S,)."""
        stay, learn = F.logsigmoid(-self.learn), F.logsigmoid(self.learn)
        if self.forget is None:
            return stay, learn, torch.full_like(learn, NEVER), torch.zeros_like(learn)
        return stay, learn, F.logsigmoid(self.forget), F.logsigmoid(-self.forget)

    def _beliefs(self, touches: Touches) -> Tensor:
        """Return the log-odds (B, N) that the skill of each touch is known after it.

        An answer is a 2x2 matrix on the weights of knowing and not knowing; their product over all
        touches so far of the same skill is taken by doubling, as a graph has no loop over places.
        Everything is in logarithms: a hundred right answers in a row are beyond any float.
        """
        column = (touches.skill - 1).clamp(min=0)  # (B, N)
        known, unknown = (
            torch.where(touches.right, chance[RIGHT][column], chance[WRONG][column])
            for chance in self._evidence()
        )
        stay, learn, forget, keep = (chance[column] for chance in self._transitions())
        # to and from: u unknowing, k knowing
        uu, uk, ku, kk = unknown + stay, known + forget, unknown + learn, known + keep
        place = torch.arange(column.shape[1], device=column.device)
        for power in range(math.ceil(math.log2(self.config.length))):
            source = place - 2**power
            earlier = source.clamp(min=0)
            same = (source >= 0) & (touches.skill.index_select(1, earlier) == touches.skill)
            uu0, uk0, ku0, kk0 = (m.index_select(1, earlier) for m in (uu, uk, ku, kk))
            product = (
                torch.logaddexp(uu + uu0, uk + ku0),
                torch.logaddexp(uu + uk0, uk + kk0),
                torch.logaddexp(ku + uu0, kk + ku0),
                torch.logaddexp(ku + uk0, kk + kk0),
            )
            # Only ratios count: without this, logarithms grow and lose their last digits.
            largest = functools.reduce(torch.maximum, product)
            uu, uk, ku, kk = (
                torch.where(same, after - largest, before)
                for after, before in zip(product, (uu, uk, ku, kk), strict=True)
            )
        odds = self.prior[column]  # log-odds; the common factor of both weights cancels
        return torch.logaddexp(ku, kk + odds) - torch.logaddexp(uu, uk + odds)
