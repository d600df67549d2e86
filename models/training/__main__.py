"""Train a network and leave a run folder.

    python -m models.training models/training/configs/assist2017/dkt_plus.toml [--runs runs]
    python -m models.training models/training/configs/assist2009/dkt.toml \
        --name fold-0 --test -1 --validation 0 --train 1 2 3 4

A run that was killed goes on from its newest epoch when the same command is given again.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from models.commands import at_least
from models.datasets.encoded import encode
from models.datasets.known import KNOWN
from models.datasets.split import open_split
from models.evaluation.run import PROGRESS, RunInvalid
from models.training import checkpoint
from models.training.asked_for import network_for
from models.training.config import ConfigInvalid, TrainingConfig
from models.training.fitters import fit


def main(arguments: list[str] | None = None) -> int:
    """Train by the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m models.training", description="Train a network and leave a run folder."
    )
    parser.add_argument("config", type=Path, help="TOML file, as in models/training/configs/")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of run folders")
    parser.add_argument(
        "--threads", type=at_least(1), help="torch's threads, whatever the file says"
    )
    stated = parser.add_argument_group("in place of what the file says")
    stated.add_argument("--name", help="of the run")
    stated.add_argument(
        "--set",
        action="extend",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="as in fit.lr=0.001 or model.norm=t_fixup (TOML; a word needs no quotes)",
    )
    stated.add_argument("--seed", type=int)
    stated.add_argument("--warm-start", metavar="RUN", help="run whose weights are taken first")
    stated.add_argument("--data", metavar="FOLDER", help="where the known data sets lie")
    for part in ("train", "validation", "test"):
        stated.add_argument(f"--{part}", type=int, nargs="+", metavar="FOLD", help=f"{part} folds")
    given = parser.parse_args(arguments)
    try:
        train(_configured(given), given.runs, threads=given.threads)
    except (ValueError, OSError, FloatingPointError) as exc:
        print(f"training: {exc}", file=sys.stderr)
        return 1
    return 0


def _configured(given: argparse.Namespace) -> TrainingConfig:
    """Read the file, and put in what the command line says in place of it."""
    config = TrainingConfig.load(given.config, given.set)
    folds = {part: getattr(given, part) for part in ("train", "validation", "test")}
    changed: dict[str, Any] = {part: tuple(numbers) for part, numbers in folds.items() if numbers}
    if given.data:
        if config.data.set not in KNOWN:
            raise ConfigInvalid(
                f"--data {given.data}: says where the known sets lie ({', '.join(KNOWN)}); "
                f"data.set is {config.data.set!r}"
            )
        changed["folder"] = given.data
    own = {name: getattr(given, name) for name in ("name", "seed", "warm_start")}
    data = dataclasses.replace(config.data, **changed)
    return dataclasses.replace(
        config,
        data=data,
        members=tuple(dataclasses.replace(member, data=data) for member in config.members),
        **{name: value for name, value in own.items() if value is not None},
    )


def train(config: TrainingConfig, runs: Path, *, threads: int | None = None) -> Path:
    """Train by a configuration, showing progress; return the run folder.

    `threads` is not of the configuration: a run may go on with another number of them.
    """
    console = Console(stderr=True)
    if threads or config.fit.threads:
        torch.set_num_threads(threads or config.fit.threads)
    console.print(f"reading {config.data.set}")
    split = open_split(config.data, seed=config.seed)
    vocabulary = split.train.vocabulary()
    if not split.train.users or not split.validation.users:
        raise RunInvalid("the training and the validation split each need a user")
    folder = runs / config.name
    torch.manual_seed(config.seed)
    network = network_for(config, vocabulary)
    if config.warm_start and not (folder / PROGRESS).is_file():
        checkpoint.warm_start(network, runs / config.warm_start)
    # Only now: what was refused leaves no folder behind that would refuse the corrected command.
    goes_on = checkpoint.begin(folder, config, vocabulary, split.description)
    weights = sum(p.numel() for p in network.parameters())
    console.print(
        f"{config.network}: {weights:,} weights; "
        + "; ".join(
            f"{k} {v['answers']:,} answers of {v['users']:,} users"
            for k, v in split.description["splits"].items()
        )
        + ("; going on from the newest epoch" if goes_on else "")
    )
    train_users, validation_users = (
        encode(split.train, vocabulary, leave_own_out=config.fit.leave_own_out),
        encode(split.validation, vocabulary),
    )
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TextColumn("loss {task.fields[loss]:.4f}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("epoch", total=None, loss=float("nan"))

        def watch(step: int, steps: int, loss: float) -> None:
            progress.update(task, completed=step, total=max(step, steps), loss=loss)

        for record in fit(network, config, folder, train_users, validation_users, watch):
            console.print(
                f"epoch {record.epoch:>3}  loss {record.loss:.4f}  "
                f"validation AUC {record.validation_auc:.4f}{' *' if record.best else '  '}  "
                f"{record.seconds:.0f} s"
            )
    console.print(f"the best weights are in {folder}; next: python -m models.evaluation {folder}")
    return folder


if __name__ == "__main__":
    raise SystemExit(main())
