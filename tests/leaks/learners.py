"""Learners made to tempt: their logs hold the answer where a network must not see it.

Each log is a frame in the form of anybody's table. Answers are fair coins unless it says otherwise,
so whatever a network gets above AUC 0.5 comes from the log's own trap.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch

from models.contract.artifact import WindowRule
from models.datasets.dataset import Dataset
from models.datasets.encoded import EncodedUser, encode
from models.datasets.table import dataset_of
from models.evaluation.metrics import auc
from models.evaluation.predictions import predict
from models.nets import build
from models.training import checkpoint
from models.training.config import TrainingConfig
from models.training.fitters import fit

TRAINED, SCORED = 100, 200  # users
RULE = WindowRule(length=60, cut=30)
OPTIONS: dict[str, dict[str, Any]] = {
    "bkt": {"forgets": True, "max_guess": 0.4, "max_slip": 0.3},
    "dkt": {"hidden": 24, "question": True, "dropout": 0.0},
    "dkt_asked": {"width": 24, "hidden": 24, "dropout": 0.0, "embedding_dropout": 0.0},
    "last_query": {"width": 24, "hidden": 24, "residual": "last", "dropout": 0.0},
    "saint": {"width": 24, "hidden": 24, "heads": 2, "layers": 1, "dropout": 0.0},
    "saint_plus": {"width": 24, "hidden": 24, "heads": 2, "layers": 1, "dropout": 0.0},
    "sakt": {"width": 24, "hidden": 24, "heads": 2, "inputs": "both", "dropout": 0.0},
}


def log(**columns: Any) -> pl.DataFrame:
    """Return a log of columns (users, answers), users and their order named."""
    users, answers = np.shape(columns["correct"])
    return pl.DataFrame(
        {
            "user_id": np.repeat([f"u{n}" for n in range(users)], answers),
            "order": np.tile(np.arange(answers), users),
            **{name: np.asarray(values).ravel() for name, values in columns.items()},
        }
    )


def coins(rng: np.random.Generator, answers: int = 40) -> np.ndarray:
    """Return fair answers (users, answers)."""
    return rng.integers(0, 2, (TRAINED + SCORED, answers))


class Trained(NamedTuple):
    """A network and users of the same log that it has not met."""

    network: torch.nn.Module
    scored: list[EncodedUser]

    def auc(self, *, in_blocks: bool = True) -> float:
        """Return the AUC over every answer from the second on.

        In blocks, a causal network answers through `every_place`; else each row has a window of
        its own and goes through `forward`.
        """
        every = [(u, r) for u, user in enumerate(self.scored) for r in range(len(user))]
        found = predict(self.network, self.scored, RULE, rows=None if in_blocks else every)
        right = np.concatenate([u.history.response[1:] for u in self.scored])
        return auc(right, np.concatenate([p[1:] for p in found]))


def train_on(frame: pl.DataFrame, network: str, *, epochs: int = 6, **options: Any) -> Trained:
    """Train on the first `TRAINED` users of a log by its fitter, and hold the others back."""
    data = dataset_of(frame.cast(pl.String), Path("log"), {})
    return train_on_dataset(data, network, epochs=epochs, **options)


def train_on_dataset(data: Dataset, network: str, *, epochs: int = 6, **options: Any) -> Trained:
    """As `train_on`, of a log that was read already."""
    train = data.select(data.users[:TRAINED])
    vocabulary = train.vocabulary()
    model: Mapping[str, Any] = {**OPTIONS[network], **options}
    config = TrainingConfig.of(
        {
            "name": "leak",
            "network": network,
            "data": {"set": "log"},
            "window": {"length": RULE.length, "cut": RULE.cut},
            "model": model,
            "fit": {
                "epochs": epochs,
                "patience": epochs,
                "lr": 0.02,
                "stretch": RULE.length,
                "windows": 4000,
                "validation_rows": 200,
                "untimed": 0.0,
                "restarts": 2,
            },
        }
    )
    torch.manual_seed(0)
    built = build(network, checkpoint.network_config(config, vocabulary))
    users = encode(train, vocabulary)
    with tempfile.TemporaryDirectory() as folder:
        for _ in fit(built, config, Path(folder), users, users[:5]):
            pass
    return Trained(built.eval(), encode(data.select(data.users[TRAINED:]), vocabulary))


def chance_bound(answers: int, *, users: int = SCORED, alike: int = 1) -> float:
    """Return how far from 0.5 the AUC of fair answers can be, but for 1 log in 15,000.

    Let q be the share of right answers, F the rank of a prediction in 0..1. To first order
    AUC - 1/2 = sum of (y - q) (F - 1/2) / (n q (1 - q)). Where no prediction knows its own answer,
    the terms are martingale differences, whatever it knows of earlier ones, and their variance is
    at most q (1 - q) / 12 each: together 1 / (12 n q (1 - q)), the variance of Mann and Whitney,
    here with q = 1/2. `alike` answers that are one coin multiply it, by Cauchy and Schwarz.
    Pairs of answers of one user are not independent, since one may be in the other's history; they
    are 1 / users of all pairs, and move the mean by at most half of that.
    """
    return 4 * math.sqrt(alike / (3 * answers)) + 0.5 / users
