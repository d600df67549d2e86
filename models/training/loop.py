"""The one training loop, for every network that learns by gradients."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.contract.artifact import WindowRule
from models.datasets.encoded import EncodedUser
from models.evaluation.metrics import auc
from models.evaluation.predictions import predict
from models.evaluation.run import PROGRESS
from models.nets.layers.places import Inputs
from models.training import batches, checkpoint
from models.training.config import FitConfig, TrainingConfig
from models.training.losses import answer_loss, reconstruction, waviness

Watch = Callable[[int, int, float], None]  # step, steps, mean loss so far


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch brought."""

    epoch: int  # from 1
    loss: float
    validation_auc: float
    best: bool  # no epoch before was as good
    seconds: float


def fit(
    network: Any,
    config: TrainingConfig,
    folder: Path,
    train: Sequence[EncodedUser],
    validation: Sequence[EncodedUser],
    watch: Watch | None = None,
) -> Iterator[EpochRecord]:
    """Train, yield a record after each epoch, and leave the best weights in `folder`.

    Goes on from `folder`'s newest epoch where there is one. Everything random in an epoch follows
    from the seed and the epoch's number, so that a run killed and taken up again ends as one that
    was not. Stops after `fit.patience` epochs without a better validation AUC.
    """
    settings = config.fit
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
    )
    rule = None if network.is_causal else config.window
    steps = batches.steps_an_epoch(train, rule, settings)
    step, best, best_epoch, done = 0, -math.inf, 0, 0
    if (folder / PROGRESS).is_file():
        state = checkpoint.load_progress(folder)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        step, best, best_epoch, done = (state[k] for k in ("step", "best", "best_epoch", "epoch"))
    rows = None if network.is_causal else _drawn(validation, settings.validation_rows, config.seed)
    for epoch in range(done + 1, settings.epochs + 1):
        if epoch - best_epoch > settings.patience and best_epoch:
            return
        started = time.monotonic()
        rng = np.random.default_rng([config.seed, epoch])
        torch.manual_seed(int(rng.integers(2**62)))
        losses: list[float] = []
        for batch in _epoch(train, rule, settings, rng):
            for group in optimizer.param_groups:
                group["lr"] = _lr(settings, step, steps * settings.epochs)
            loss = _step(network, batch, settings, optimizer)
            losses.append(loss)
            step += 1
            if watch:
                watch(len(losses), steps, float(np.mean(losses)))
        found = predict(network, validation, judged_by(config.window), rows=rows)
        reached = auc_from_second(found, validation)
        is_best = reached > best
        if is_best:
            best, best_epoch = reached, epoch
            checkpoint.save_weights(folder, network)
        record = EpochRecord(
            epoch, float(np.mean(losses)), reached, is_best, time.monotonic() - started
        )
        checkpoint.log_epoch(folder, asdict(record))
        checkpoint.save_progress(
            folder,
            {
                "network": network.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": step,
                "best": best,
                "best_epoch": best_epoch,
                "epoch": epoch,
            },
        )
        yield record


def judged_by(rule: WindowRule) -> WindowRule:
    """Return how windows are cut to judge an epoch: sliding ones in blocks of half their length.

    Nearly the same number as by the rule itself, for one pass in place of many.
    """
    return replace(rule, cut=max(rule.cut, rule.length // 2))


def _epoch(
    users: Sequence[EncodedUser],
    rule: WindowRule | None,
    settings: FitConfig,
    rng: np.random.Generator,
) -> Iterator[batches.Batch]:
    if rule is None:
        return batches.stretches(users, settings, rng)
    return batches.windows(users, rule, settings, rng)


def _step(
    network: Any, batch: batches.Batch, settings: FitConfig, optimizer: torch.optim.Optimizer
) -> float:
    network.train()
    loss, answers = _losses(network, batch, settings)
    if not math.isfinite(loss.item()):
        raise FloatingPointError(f"the loss became {loss.item()}; try a smaller fit.lr")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(network.parameters(), settings.clip_norm)
    optimizer.step()
    return answers.item()


def _losses(network: Any, batch: batches.Batch, settings: FitConfig) -> tuple[Tensor, Tensor]:
    """Return what is minimised, and the part of it that comes from the answers."""
    if not network.is_causal:
        logit = network(*batch.inputs)
        answers = answer_loss(logit, batch.right, batch.scored)
        return answers + _start_penalty(logit, batch, settings), answers
    places = network.every_place(*batch.inputs)
    answers = answer_loss(places.logit, batch.right, batch.scored)
    loss = answers + _start_penalty(places.logit, batch, settings)
    knowledge = places.knowledge_logit
    if knowledge is not None and knowledge.shape[1] > 1:
        inputs = Inputs(*batch.inputs)
        if settings.reconstruct:
            again = reconstruction(knowledge, inputs.skills, batch.right, inputs.mask)
            loss = loss + settings.reconstruct * again
        if settings.waviness_l1 or settings.waviness_l2:
            l1, l2 = waviness(knowledge, inputs.mask)
            loss = loss + settings.waviness_l1 * l1 + settings.waviness_l2 * l2
    return loss, answers


def _start_penalty(logit: Tensor, batch: batches.Batch, settings: FitConfig) -> Tensor | float:
    """Return what the start state costs: the error on very first answers, once more."""
    if not settings.start:
        return 0.0
    return settings.start * answer_loss(logit, batch.right, batch.starts)


def _lr(settings: FitConfig, step: int, last_step: int) -> float:
    """Rise in a line over the warm-up, then fall along a cosine to a twentieth."""
    warmup = min(settings.warmup_steps, last_step // 4)  # a short training is not all warm-up
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    share = min(1.0, (step - warmup) / max(1, last_step - warmup))
    return settings.lr * (0.05 + 0.95 * (1 + math.cos(math.pi * share)) / 2)


def _drawn(users: Sequence[EncodedUser], rows: int, seed: int) -> list[tuple[int, int]]:
    """Return the rows that judge an epoch: each user's from the second on, thinned by the seed."""
    every = [(u, r) for u, user in enumerate(users) for r in range(1, len(user))]
    chosen = np.random.default_rng(seed).permutation(len(every))[:rows]
    return [every[i] for i in chosen]


def auc_from_second(found: Sequence[Any], users: Sequence[EncodedUser]) -> float:
    """Return the AUC of p found for each user's rows, the first row and NaN left out.

    Raises `ValueError` where there is none: no best epoch could be told by it.
    """
    p = np.concatenate([f[1:] for f in found])
    right = np.concatenate([u.history.response[1:] for u in users])
    known = ~np.isnan(p)
    reached = auc(right[known], p[known])
    if math.isnan(reached):
        raise ValueError(
            f"the validation split has {int(known.sum())} answers behind a first one, all of them "
            "right or all wrong: no epoch can be chosen by them"
        )
    return reached
