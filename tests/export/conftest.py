"""Tiny networks of every kind, each trained for a moment, measured and exported once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from _pytest.mark.structures import ParameterSet
from rich.console import Console

from export.publish import publish
from models.datasets.encoded import encode
from models.datasets.simulator import simulate
from models.datasets.split import open_split
from models.evaluation.__main__ import main as evaluation
from models.evaluation.lock import alone
from models.nets import build
from models.training import checkpoint
from models.training.config import TrainingConfig
from models.training.fitters import fit

TINY = {
    "bkt": {"forgets": True, "length": 64},  # each doubling of it makes the graph longer
    "dkt": {"hidden": 8, "question": True, "lag": "continuous", "elapsed": "categorical"},
    "dkt_asked": {"width": 8, "hidden": 8, "lag": "categorical"},
    "ensemble": {},
    "last_query": {"width": 8, "heads": 2, "hidden": 8, "lag": "categorical", "residual": "last"},
    "last_query broadcast": {"width": 8, "heads": 2, "hidden": 8, "counts": True},
    "saint": {"width": 8, "heads": 2, "hidden": 8, "length": 40},
    "saint_plus": {
        "width": 8,
        "heads": 2,
        "hidden": 8,
        "length": 40,
        "elapsed": "continuous",
        "counts": True,
    },
    "sakt": {"width": 8, "heads": 2, "hidden": 8, "length": 40, "inputs": "both", "recency": True},
}

ALWAYS = ("dkt",)
"""Exported by each run of the tests; one that keeps rows takes three quarters of a minute."""

MEMBERS = {"ensemble": ("dkt_asked", "saint_plus")}


def make_run(folder: Path, tiny: str) -> Path:
    """Train for one epoch on simulated learners, and measure."""
    network = tiny.partition(" ")[0]
    log = folder / "learners.csv"
    simulate(users=30, answers=30, questions=15, skills=4, seed=2).frame.write_csv(log)
    content = {
        "data": {"set": str(log)},
        "window": {"length": 40, "cut": 20},
        "fit": {"epochs": 1, "lr": 0.01, "windows": 100, "threads": 1, "stretch": 40},
    }
    members = [
        {**content, "name": name, "network": name, "model": TINY[name]}
        for name in MEMBERS.get(network, ())
    ]
    config = TrainingConfig.of(
        {**content, "name": network, "network": network, "model": TINY[tiny], "members": members}
    )
    split = open_split(config.data, seed=config.seed)
    vocabulary = split.train.vocabulary()
    run = folder / network
    checkpoint.begin(run, config, vocabulary, split.description)
    torch.manual_seed(0)
    built = build(network, checkpoint.network_config(config, vocabulary))
    list(fit(built, config, run, encode(split.train, vocabulary), encode(split.test, vocabulary)))
    return run


def params() -> list[ParameterSet]:
    """Return every network; those that are exported by each run of the tests, and the others."""
    return [pytest.param(t, marks=[] if t in ALWAYS else [pytest.mark.slow]) for t in TINY]


@pytest.fixture(scope="session", params=params())
def exported(request, tmp_path_factory) -> tuple[Path, Path]:
    """A run folder and the artifact made of it; whoever needs it first makes it, for all workers.

    Nobody may write into either.
    """
    base, name = tmp_path_factory.getbasetemp(), request.param.replace(" ", "_")
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "exported" / name
    artifact = folder / "artifacts" / name / "1"
    with alone(folder.with_suffix(".lock"), Console()):
        if not artifact.exists():  # it is moved there once it is whole
            folder.mkdir()
            run = make_run(folder, request.param)
            assert evaluation([str(run), "--rounds", "5"]) == 0
            publish(run, artifact, say=lambda _: None)
    return folder / request.param.partition(" ")[0], artifact
