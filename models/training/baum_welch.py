"""Baum-Welch for two-state learners: the chances of every skill that make the answers most likely.

Rabiner, "A tutorial on hidden Markov models", 1989, with the states "not known" and "known". All
sequences go forward side by side, in float64.
Letters: Q sequences (one user's answers on one skill), N answers in all, S skills.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from models.contract.interaction import PAD, RIGHT, UNSEEN
from models.datasets.encoded import EncodedUser

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

RAREST = 1e-3
"""No chance is nearer to a bound: logits stay finite, and no answer is held to be impossible."""


class Chances(NamedTuple):
    """Five chances of every skill, each (S,), in the order of the knowledge state's columns."""

    prior: Floats
    learn: Floats
    forget: Floats
    guess: Floats
    slip: Floats


class Bounds(NamedTuple):
    """What the chances may be: at most `guess` and `slip`; `forgets` or never."""

    guess: float
    slip: float
    forgets: bool

    def hold(self, chances: Chances) -> Chances:
        """Move every chance to the nearest allowed one.

        Each enters the expected likelihood by a concave term of its own, so that the nearest
        allowed value is the best allowed one: the likelihood cannot fall by it.
        """
        low, high = RAREST, 1 - RAREST
        return Chances(
            prior=chances.prior.clip(low, high),
            learn=chances.learn.clip(low, high),
            forget=chances.forget.clip(low, high) if self.forgets else 0 * chances.forget,
            guess=chances.guess.clip(low * self.guess, high * self.guess),
            slip=chances.slip.clip(low * self.slip, high * self.slip),
        )

    def draw(self, rng: np.random.Generator, skills: int) -> Chances:
        """Return a random start for every skill."""
        return self.hold(
            Chances(
                prior=rng.uniform(0.1, 0.9, skills),
                learn=rng.uniform(0.01, 0.4, skills),
                forget=rng.uniform(0.01, 0.2, skills),
                guess=rng.uniform(0.1, 0.9, skills) * self.guess,
                slip=rng.uniform(0.1, 0.9, skills) * self.slip,
            )
        )


class Sequences(NamedTuple):
    """Answers by skill and user, in the order of time; the longest sequence first."""

    skill: Integers  # (Q,) column of each
    start: Integers  # (Q,) where in `right` each begins
    length: Integers  # (Q,) not rising
    right: NDArray[np.bool_]  # (N,)
    skills: int

    @property
    def answers(self) -> Floats:
        """Return how many answers each skill has, (S,)."""
        return self.by_skill(self.length.astype(np.float64))

    def by_skill(self, amount: Floats) -> Floats:
        """Sum what each sequence has, (Q,), over the sequences of each skill, (S,)."""
        return np.bincount(self.skill, amount, self.skills).astype(np.float64)

    @classmethod
    def of(cls, users: Sequence[EncodedUser], n_skills: int) -> Self:
        """Take every answer once for each skill of its set; `n_skills` counts PAD and UNSEEN."""
        parts: list[tuple[Integers, ...]] = [(np.zeros(0, np.int64),) * 3]
        for number, user in enumerate(users):
            row, place = np.nonzero(user.history.skills != PAD)  # in the order of time
            skill = user.history.skills[row, place]
            parts.append((skill - 1, np.full(len(row), number), user.history.response[row]))
        column, user_number, response = (
            np.concatenate([p[i] for p in parts]) for i in range(len(parts[0]))
        )
        order = np.lexsort((user_number, column))  # stable: time is kept
        column, user_number, right = column[order], user_number[order], response[order] == RIGHT
        border = np.r_[True, (np.diff(column) != 0) | (np.diff(user_number) != 0)]
        start = np.flatnonzero(border[: len(column)])
        length = np.diff(np.r_[start, len(column)])
        longest = np.argsort(-length, kind="stable")
        return cls(column[start][longest], start[longest], length[longest], right, n_skills - 1)

    def pooled(self) -> Self:
        """Add every sequence to UNSEEN's: a skill never met is as the skills met were, together."""
        column = UNSEEN - 1
        again = self.skill != column
        skill = np.r_[self.skill, np.full(again.sum(), column)]
        start, length = np.r_[self.start, self.start[again]], np.r_[self.length, self.length[again]]
        longest = np.argsort(-length, kind="stable")
        return self._replace(skill=skill[longest], start=start[longest], length=length[longest])


class Expected(NamedTuple):
    """How often each thing happened, as some chances have it; each (S,)."""

    sequences: Floats
    known_first: Floats  # sequences whose first place found the skill known
    unknown: Floats  # places
    known: Floats  # places
    guessed: Floats  # right although not known
    slipped: Floats  # wrong although known
    could_learn: Floats  # not known, and another place followed
    learned: Floats
    could_forget: Floats  # known, and another place followed
    forgot: Floats


class _Place(NamedTuple):
    """What the pass forward finds at one place of all sequences that reach it; each (active,)."""

    right: NDArray[np.bool_]
    if_known: Floats  # chance of the answer when the skill is known
    if_unknown: Floats
    likelihood: Floats  # of the answer, after those before it
    known: Floats  # chance that the skill is known, this answer counted


def expect(chances: Chances, sequences: Sequences) -> tuple[Expected, Floats]:
    """Return the E step, and the log likelihood of each skill's answers, (S,)."""
    each = Chances(*(chance[sequences.skill] for chance in chances))  # (Q,)
    places = _forward(each, sequences)
    log_likelihood = np.zeros(len(sequences.skill))
    for place in places:
        log_likelihood[: len(place.right)] += np.log(place.likelihood)
    totals = _backward(each, places)
    return Expected(*map(sequences.by_skill, totals)), sequences.by_skill(log_likelihood)


def maximise(expected: Expected, before: Chances, bounds: Bounds) -> Chances:
    """Return the M step: the likeliest chances within bounds; what never occurred stays."""
    shares = Chances(
        prior=_share(expected.known_first, expected.sequences, before.prior),
        learn=_share(expected.learned, expected.could_learn, before.learn),
        forget=_share(expected.forgot, expected.could_forget, before.forget),
        guess=_share(expected.guessed, expected.unknown, before.guess),
        slip=_share(expected.slipped, expected.known, before.slip),
    )
    return bounds.hold(shares)


def _forward(each: Chances, sequences: Sequences) -> list[_Place]:
    places = []
    belief = each.prior
    for t in range(int(sequences.length.max(initial=0))):
        # The longest sequences come first: those that reach place t are a head of all.
        active = int(np.searchsorted(-sequences.length, -t))
        right = sequences.right[sequences.start[:active] + t]
        guess, slip = each.guess[:active], each.slip[:active]
        if_known, if_unknown = np.where(right, 1 - slip, slip), np.where(right, guess, 1 - guess)
        belief = belief[:active]
        likelihood = belief * if_known + (1 - belief) * if_unknown
        known = belief * if_known / likelihood
        places.append(_Place(right, if_known, if_unknown, likelihood, known))
        belief = known * (1 - each.forget[:active]) + (1 - known) * each.learn[:active]
    return places


def _backward(each: Chances, places: Sequence[_Place]) -> Expected:
    """Return the expected counts of every sequence, each (Q,)."""
    n = len(each.prior)
    found = Expected(np.ones(n), *(np.zeros(n) for _ in range(len(Expected._fields) - 1)))
    # How likely the later answers are from each state, over how likely they are at all.
    from_known, from_unknown = np.ones(n), np.ones(n)
    for t in reversed(range(len(places))):
        here = places[t]
        active = len(here.right)
        known, unknown = here.known * from_known[:active], (1 - here.known) * from_unknown[:active]
        found.known[:active] += known
        found.unknown[:active] += unknown
        found.slipped[:active] += known * ~here.right
        found.guessed[:active] += unknown * here.right
        if t == 0:
            found.known_first[:active] += known
            break
        to_known = here.if_known * from_known[:active] / here.likelihood
        to_unknown = here.if_unknown * from_unknown[:active] / here.likelihood
        learn, forget = each.learn[:active], each.forget[:active]
        before = places[t - 1].known[:active]
        found.learned[:active] += (1 - before) * learn * to_known
        found.forgot[:active] += before * forget * to_unknown
        from_known[:active] = (1 - forget) * to_known + forget * to_unknown
        from_unknown[:active] = learn * to_known + (1 - learn) * to_unknown
        found.could_learn[:active] += (1 - before) * from_unknown[:active]
        found.could_forget[:active] += before * from_known[:active]
    return found


def _share(part: Floats, whole: Floats, otherwise: Floats) -> Floats:
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1), otherwise)
