"""A run folder: everything from which alone a trained network is rebuilt.

runs/<name>/
    config.json         the training's configuration
    run.json            the network with all its options, the window rule, the data and split
    vocabulary.json     of the training split
    weights.safetensors the best epoch's
    progress.pt         the newest epoch's weights and optimizer; a killed training goes on here
    log.jsonl           one line an epoch
    calibration.json    written by models.evaluation, fitted on the validation split
    metrics.json        written by models.evaluation
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file

from models.contract.artifact import WindowRule, no_number, sha256_of
from models.contract.calibration import Calibration
from models.contract.vocabulary import Vocabulary
from models.evaluation import calibration
from models.nets import build

CONFIG, RUN, VOCABULARY = "config.json", "run.json", "vocabulary.json"
WEIGHTS, PROGRESS, LOG, METRICS = "weights.safetensors", "progress.pt", "log.jsonl", "metrics.json"


class RunInvalid(ValueError):
    """The folder holds no run, or not the run that was asked for."""


class Run(NamedTuple):
    """A trained network and what it was trained on."""

    folder: Path
    kind: str  # its name in `models.nets.NETWORKS`
    config: Mapping[str, Any]  # the network's own, with the sizes of its tables
    window: WindowRule
    vocabulary: Vocabulary
    network: Any  # in eval mode
    data: Mapping[str, Any]  # source and split, with counts of users and answers
    seed: int
    weights: str = ""  # SHA-256 of the file
    calibration: Calibration = Calibration()  # fitted to these very weights, or none


def open_run(folder: Path) -> Run:
    """Rebuild the network of a run from its folder alone, with the best weights.

    Raises `RunInvalid` naming the file that is absent, damaged, or of another network.
    """
    for name in (RUN, VOCABULARY, WEIGHTS):
        if not (folder / name).is_file():
            raise RunInvalid(f"{folder / name} is not there: no trained run in {folder}")
    content = read_json(folder / RUN)
    try:
        network = build(content["network"], content["config"])
        window, data, seed = WindowRule(**content["window"]), content["data"], content["seed"]
    except (KeyError, TypeError, ValueError) as exc:
        raise RunInvalid(f"{folder / RUN} is no run's: {exc}") from exc
    take_weights(network, folder / WEIGHTS)
    try:
        vocabulary = Vocabulary.load(folder / VOCABULARY)
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        raise RunInvalid(f"{folder / VOCABULARY} is no vocabulary: {exc}") from exc
    weights = sha256_of(folder / WEIGHTS)
    return Run(
        folder=folder,
        kind=content["network"],
        config=content["config"],
        window=window,
        vocabulary=vocabulary,
        network=network.eval(),
        data=data,
        seed=seed,
        weights=weights,
        calibration=calibration.load(folder, weights),
    )


def take_weights(network: Any, path: Path) -> None:
    """Read weights into a network; raise `RunInvalid` where they are damaged or of another one."""
    try:
        network.load_state_dict(load_file(path), strict=True)
    except (RuntimeError, SafetensorError) as exc:
        why = " ".join(str(exc).split())
        raise RunInvalid(f"{path} is damaged or of another network: {why}") from exc


def read_json(path: Path) -> Any:
    """Read JSON; raise `RunInvalid` naming the file where it holds none, or NaN."""
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=no_number)
    except ValueError as exc:
        raise RunInvalid(f"{path} is damaged, no JSON: {exc}") from exc


def write_json(path: Path, content: Any) -> None:
    """Write JSON, whole or not at all; raise `ValueError` for NaN, which JSON has no word for."""
    try:
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    except ValueError as exc:
        raise ValueError(f"{path} is not written: {exc}") from exc
    write_whole(path, text.encode() + b"\n")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a kill leaves the old one or the new one, never half of it."""
    beside = path.with_suffix(path.suffix + ".tmp")
    beside.write_bytes(content)
    os.replace(beside, path)
