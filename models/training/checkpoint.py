"""What a training writes into its run folder; `models.evaluation.run` names the files."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from models.contract.vocabulary import Vocabulary
from models.evaluation.run import (
    CONFIG,
    LOG,
    PROGRESS,
    RUN,
    VOCABULARY,
    WEIGHTS,
    RunInvalid,
    read_json,
    take_weights,
    write_json,
    write_whole,
)
from models.training.config import TrainingConfig


def network_config(config: TrainingConfig, vocabulary: Vocabulary) -> dict[str, Any]:
    """Return the network's whole configuration: its own options and the sizes of its tables."""
    sizes = {"n_questions": vocabulary.n_questions, "n_skills": vocabulary.n_skills}
    members = [{"network": m.network, "config": dict(m.model)} for m in config.members]
    return {**sizes, **config.model, **({"members": members} if members else {})}


def begin(
    folder: Path, config: TrainingConfig, vocabulary: Vocabulary, data: Mapping[str, Any]
) -> bool:
    """Write what does not change; return whether the folder holds an earlier start to go on from.

    Raises `RunInvalid` where the folder holds another configuration's run, or other data's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run = {
        "network": config.network,
        "config": network_config(config, vocabulary),
        "window": dataclasses.asdict(config.window),
        "data": dict(data),
        "seed": config.seed,
        "vocabulary": vocabulary.fingerprint,
    }
    files = {CONFIG: config.as_dict(), RUN: run}
    for name, content in files.items():
        path = folder / name
        plain = json.loads(json.dumps(content))  # tuples are lists there
        if path.is_file() and read_json(path) != plain:
            raise RunInvalid(
                f"{path} is of another configuration or other data than this training; "
                f"remove {folder}, or give the training another name"
            )
    vocabulary.save(folder / VOCABULARY)
    for name, content in files.items():
        write_json(folder / name, content)
    return (folder / PROGRESS).is_file()


def save_weights(folder: Path, network: torch.nn.Module) -> None:
    """Write the best weights."""
    state = {k: v.detach().contiguous() for k, v in network.state_dict().items()}
    write_whole(folder / WEIGHTS, save(state))


def warm_start(network: torch.nn.Module, run: Path) -> None:
    """Take the weights of another run; raise `RunInvalid` where they do not fit."""
    path = run / WEIGHTS
    if not path.is_file():
        raise RunInvalid(f"warm_start: {path} is not there; train that run first")
    try:
        take_weights(network, path)
    except RunInvalid as exc:
        raise RunInvalid(f"warm_start: {exc}") from exc


def save_progress(folder: Path, state: Mapping[str, Any]) -> None:
    """Write everything a killed run needs to go on; whole or not at all."""
    path = folder / PROGRESS
    torch.save(dict(state), path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)


def load_progress(folder: Path) -> dict[str, Any]:
    """Read what `save_progress` wrote; raise `RunInvalid` where the file is damaged."""
    path = folder / PROGRESS
    try:
        return torch.load(path, weights_only=True)  # type: ignore[no-any-return]
    except Exception as exc:  # torch's reader of damaged bytes raises whatever they lead it to
        raise RunInvalid(f"{path} is damaged: {exc}; remove {folder} to train anew") from exc


def log_epoch(folder: Path, record: Mapping[str, Any]) -> None:
    """Add one line to the log, in place of any line of the same or a later epoch."""
    path = folder / LOG
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    kept = [line for line in lines if json.loads(line)["epoch"] < record["epoch"]]
    write_whole(path, "\n".join([*kept, json.dumps(record, allow_nan=False)]).encode() + b"\n")
