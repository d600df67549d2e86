"""Encoded users -> the batches of one epoch, the same for the same seed and epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.contract.artifact import WindowRule
from models.contract.counts import OF_QUESTION, OF_SKILLS
from models.contract.interaction import FIRST, UNSEEN
from models.contract.window import MISSING_S, Window, collate
from models.datasets.encoded import EncodedUser
from models.evaluation.predictions import Item, groups, tensors
from models.training.config import FitConfig

_LEAST_STEPS = 32  # an epoch
_LEAST_PLACES = 512  # a step


class Batch(NamedTuple):
    """Inputs of a network, the truth, and where it counts."""

    inputs: list[Tensor]
    right: Tensor  # (B, L) for stretches, (B,) for windows; float
    scored: Tensor  # same shape, 1.0 where the loss counts
    starts: Tensor  # same shape, 1.0 at a user's very first answer


def stretches(
    users: Sequence[EncodedUser], fit: FitConfig, rng: np.random.Generator
) -> Iterator[Batch]:
    """Yield every row of every user once, in stretches cut at a new random place each epoch."""
    pieces: list[tuple[int, int, int]] = []
    for u, user in enumerate(users):
        n = len(user)
        # A first piece of random length moves all later borders; short users stay whole.
        first = int(rng.integers(1, fit.stretch + 1)) if n > fit.stretch else n
        borders = [0, *range(first, n, fit.stretch), n] if n else [0]
        pieces += [(u, a, b) for a, b in pairwise(borders) if b > a]
    lengths = [b - a for _, a, b in pieces]
    for group in _batched(pieces, lengths, step_places(sum(lengths), fit), rng):
        windows = [users[u].stretch(a, b) for u, a, b in group]
        longest = max(len(w) for w in windows)
        right = np.zeros((len(group), longest), np.float32)
        scored = np.zeros((len(group), longest), np.float32)
        starts = np.zeros((len(group), longest), np.float32)
        for i, (u, a, b) in enumerate(group):
            right[i, : b - a] = users[u].history.response[a:b]
            scored[i, : b - a] = users[u].scored(a, b)
            starts[i, 0] = a == 0
        yield _batch(windows, right, scored, starts, fit, rng)


def windows(
    users: Sequence[EncodedUser], rule: WindowRule, fit: FitConfig, rng: np.random.Generator
) -> Iterator[Batch]:
    """Yield `fit.windows` rows drawn from all users' rows, a window of its own for each."""
    rows = [(u, r) for u, user in enumerate(users) for r in range(len(user))]
    drawn = rng.permutation(len(rows))[: fit.windows]
    chosen = [rows[i] for i in drawn]
    lengths = [min(int(users[u].visible[r]) + 1, rule.length) for u, r in chosen]
    for group in _batched(chosen, lengths, step_places(sum(lengths), fit), rng):
        built = [users[u].window(r, rule) for u, r in group]
        right = np.array([users[u].history.response[r] for u, r in group], np.float32)
        starts = np.array([r == 0 for _, r in group], np.float32)
        yield _batch(built, right, np.ones_like(right), starts, fit, rng)


def steps_an_epoch(users: Sequence[EncodedUser], rule: WindowRule | None, fit: FitConfig) -> int:
    """Return about how many batches an epoch has; `rule` is None for stretches."""
    rows = sum(len(u) for u in users)
    if rule is None:
        return max(1, round(rows / step_places(rows, fit) * 1.2))
    places = min(rows, fit.windows) * rule.length
    return max(1, -(-places // step_places(places, fit)))


def step_places(places: int, fit: FitConfig) -> int:
    """Return how many padded places one step takes of an epoch of so many.

    `fit.batch_places`, but fewer where a small log would be over in a handful of steps: nothing is
    learned in those.
    """
    return min(fit.batch_places, max(_LEAST_PLACES, places // _LEAST_STEPS))


def _batch(
    built: Sequence[Window],
    right: NDArray[np.float32],
    scored: NDArray[np.float32],
    starts: NDArray[np.float32],
    fit: FitConfig,
    rng: np.random.Generator,
) -> Batch:
    batch = collate(built)
    rows, places = batch["mask"].shape
    # What is never missing in training would be untrained when a caller leaves it out.
    hidden = np.less(rng.random((rows, places)), fit.unseen)
    batch["question"] = np.where(hidden & (batch["question"] >= FIRST), UNSEEN, batch["question"])
    batch["counts"][hidden, OF_QUESTION] = 0
    unnamed = np.less(rng.random((rows, places, 1)), fit.unseen)
    batch["skills"] = np.where(unnamed & (batch["skills"] >= FIRST), UNSEEN, batch["skills"])
    batch["counts"][unnamed[:, :, 0], OF_SKILLS] = 0
    untimed = np.less(rng.random((rows, 1)), fit.untimed)
    for name in ("lag_s", "elapsed_s"):
        batch[name] = np.where(untimed, np.float32(MISSING_S), batch[name])
    return Batch(tensors(batch), *map(torch.from_numpy, (right, scored, starts)))


def _batched(
    items: Sequence[Item], lengths: Sequence[int], places: int, rng: np.random.Generator
) -> Iterator[list[Item]]:
    """Cut items of like length into batches of at most `places` padded places, in random order."""
    order = sorted(range(len(items)), key=lambda i: (lengths[i], rng.random()))
    batches = list(groups(order, lambda i: lengths[i], places))
    for g in rng.permutation(len(batches)):
        yield [items[i] for i in batches[g]]
