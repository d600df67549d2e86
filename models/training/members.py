"""The fitter of an ensemble: each member by its own configuration and fitter, then all together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from models.datasets.encoded import EncodedUser
from models.evaluation.predictions import predict
from models.evaluation.run import LOG, WEIGHTS, take_weights
from models.training import checkpoint
from models.training.config import TrainingConfig
from models.training.loop import EpochRecord, Watch, auc_from_second, judged_by

MEMBERS = "members"


def fit(
    network: Any,
    config: TrainingConfig,
    folder: Path,
    train: Sequence[EncodedUser],
    validation: Sequence[EncodedUser],
    watch: Watch | None = None,
    *,
    fitter: Callable[..., Iterator[EpochRecord]],
) -> Iterator[EpochRecord]:
    """Train what is not trained yet, yield the members' records and then one of them together.

    A member's own progress and weights are in `folder/members/<number>-<network>`; it goes on from
    there. `fitter` trains one member by what it is fitted by. The members' own windows are those
    of their configurations; the ensemble's windows are what it is judged and served by.
    """
    epochs = 0
    for number, (member, its_config) in enumerate(
        zip(network.members, config.members, strict=True)
    ):
        place = folder / MEMBERS / f"{number}-{its_config.network}"
        place.mkdir(parents=True, exist_ok=True)
        # From its own seed alone, whatever was trained before it in this process.
        torch.manual_seed(its_config.seed)
        member.load_state_dict(type(member)(member.config).state_dict())
        yield from fitter(member, its_config, place, train, validation, watch)
        epochs += len((place / LOG).read_text(encoding="utf-8").splitlines())
        take_weights(member, place / WEIGHTS)
    started = time.monotonic()
    reached = auc_from_second(predict(network, validation, judged_by(config.window)), validation)
    checkpoint.save_weights(folder, network)
    record = EpochRecord(epochs + 1, float("nan"), reached, True, time.monotonic() - started)
    checkpoint.log_epoch(folder, {**asdict(record), "loss": None})
    yield record
