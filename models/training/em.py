"""The fitter of networks with chances in place of gradients: EM from several random starts."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from models.datasets.encoded import EncodedUser
from models.evaluation.predictions import predict
from models.evaluation.run import PROGRESS
from models.nets.bkt import BKT, SkillParameters
from models.training import checkpoint
from models.training.baum_welch import Bounds, Chances, Floats, Sequences, expect, maximise
from models.training.config import ConfigInvalid, TrainingConfig
from models.training.loop import EpochRecord, Watch, auc_from_second


def fit(
    network: BKT,
    config: TrainingConfig,
    folder: Path,
    train: Sequence[EncodedUser],
    validation: Sequence[EncodedUser],
    watch: Watch | None = None,
) -> Iterator[EpochRecord]:
    """Run EM, yield a record after each round, and leave the best chances in `folder`.

    A round moves every start once, and keeps for each skill the start that makes its answers most
    likely. The record's loss is the mean negative log likelihood of an answer on one skill. Goes on
    from `folder`'s newest round where there is one, and ends as a run that was not stopped. Stops
    after `fit.patience` rounds without a better validation AUC, or when a round gains less than
    `fit.tolerance`. Raises `ConfigInvalid` where windows are longer than the network reads.
    """
    settings, options = config.fit, network.config
    if config.window.length > options.length:
        raise ConfigInvalid(
            f"window.length = {config.window.length}: at most model.length, {options.length}"
        )
    bounds = Bounds(options.max_guess, options.max_slip, options.forgets)
    alone = Sequences.of(train, options.n_skills)
    sequences = alone.pooled()
    starts = [
        bounds.draw(np.random.default_rng([config.seed, start]), sequences.skills)
        for start in range(settings.restarts)
    ]
    loss, gain, best, best_epoch, done = math.inf, math.inf, -math.inf, 0, 0
    if (folder / PROGRESS).is_file():
        state = checkpoint.load_progress(folder)
        starts = [Chances(*start.numpy()) for start in state["starts"]]
        loss, gain, best, best_epoch, done = (
            state[k] for k in ("loss", "gain", "best", "best_epoch", "epoch")
        )
    steps = [expect(start, sequences)[0] for start in starts]
    for epoch in range(done + 1, settings.epochs + 1):
        if gain < settings.tolerance or (best_epoch and epoch - best_epoch > settings.patience):
            return
        started = time.monotonic()
        likelihoods = np.empty((len(starts), sequences.skills))
        for i, expected in enumerate(steps):
            starts[i] = maximise(expected, starts[i], bounds)
            steps[i], likelihoods[i] = expect(starts[i], sequences)
            if watch:
                watch(i + 1, len(starts), loss)
        gain = loss
        loss = _loss(likelihoods.max(axis=0), sequences.answers, alone.answers)
        gain -= loss
        network.take(_likeliest(starts, likelihoods))
        reached = auc_from_second(predict(network, validation, config.window), validation)
        is_best = reached > best
        if is_best:
            best, best_epoch = reached, epoch
            checkpoint.save_weights(folder, network)
        record = EpochRecord(epoch, loss, reached, is_best, time.monotonic() - started)
        checkpoint.log_epoch(folder, asdict(record))
        checkpoint.save_progress(
            folder,
            {
                "starts": torch.from_numpy(np.stack([np.stack(start) for start in starts])),
                "loss": loss,
                "gain": gain,
                "best": best,
                "best_epoch": best_epoch,
                "epoch": epoch,
            },
        )
        yield record


def _likeliest(starts: Sequence[Chances], likelihoods: Floats) -> SkillParameters:
    """Choose for each skill the chances of its best start; `likelihoods` is (starts, S)."""
    chosen = likelihoods.argmax(axis=0)
    skill = np.arange(len(chosen))
    return SkillParameters(
        *(torch.from_numpy(np.stack(chance)[chosen, skill]) for chance in zip(*starts, strict=True))
    )


def _loss(likelihood: Floats, answers: Floats, weight: Floats) -> float:
    """Return the mean negative log likelihood of an answer, skills weighted by their own answers.

    All (S,). UNSEEN's `answers` are everybody's; weighted by its own, they are not counted twice.
    """
    mean = np.divide(-likelihood, answers, out=np.zeros_like(answers), where=answers > 0)
    return float(np.average(mean, weights=weight))
