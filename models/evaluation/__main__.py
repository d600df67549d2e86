"""Measure a trained run, or an exported artifact, on users it was not trained on.

    python -m models.evaluation runs/dkt-assist2017
    python -m models.evaluation artifacts/last_query/1 --users 40
    python -m models.evaluation --protocol assist2009 --model dkt [--folds 0 1] [--threads 1]
    python -m models.evaluation --table docs/benchmarks.md

Prints AUC, accuracy, log loss and ECE with 95 % intervals, in all and by history length, and writes
them as JSON. Of a run, the whole test split is measured after a calibration was fitted on the
validation split and kept in the run's folder; ECE and reliability stand there without it too. Of
an artifact it is the ONNX graph that is measured, window by window, as served.

With a protocol and a model it is a cell of the benchmark that is run: each fold is trained, or gone
on with where it was killed, and measured, and the table is written anew.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress

from models.commands import at_least, file_to_write
from models.contract.calibration import Calibration
from models.contract.vocabulary import Vocabulary
from models.datasets.dataset import Dataset
from models.datasets.encoded import EncodedUser, encode
from models.datasets.known import KNOWN
from models.evaluation import benchmark
from models.evaluation.calibration import (
    CALIBRATION,
    apply_to_users,
    as_dict,
    drawn_rows,
    fit_users,
)
from models.evaluation.predictions import Row
from models.evaluation.report import as_text, ece_and_bins, report
from models.evaluation.run import METRICS, write_json
from models.evaluation.subject import Found, Subject, open_subject


def main(arguments: list[str] | None = None) -> int:
    """Evaluate by the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m models.evaluation",
        description="Measure a run or an artifact on users it was not trained on.",
    )
    parser.add_argument("folder", type=Path, nargs="?", help="run folder, or artifact folder")
    parser.add_argument("--split", choices=("test", "validation"), default="test")
    parser.add_argument(
        "--users", type=at_least(1), help="only the first so many users of the split"
    )
    parser.add_argument("--data", help="folder of the known data sets, if not where it was")
    parser.add_argument(
        "--out", type=file_to_write, help="JSON file (default: metrics.json in a run)"
    )
    parser.add_argument("--rounds", type=at_least(1), default=200, help="bootstrap rounds")
    parser.add_argument(
        "--calibration-rows",
        type=at_least(1),
        default=50_000,
        help="validation answers to fit on, where each costs a window of its own",
    )
    parser.add_argument("--threads", type=at_least(1), help="torch's threads")
    benchmark.add_arguments(parser)
    given = parser.parse_args(arguments)
    if given.folder is None and not benchmark.is_asked(given):
        parser.error("name a folder, or --protocol and --model, or --table")
    if given.folder is not None and (stray := benchmark.steered_by(given)):
        parser.error(f"{stray} is of a protocol's cell, not of a folder: name one or the other")
    if given.threads:
        torch.set_num_threads(given.threads)
    try:
        if benchmark.is_asked(given):
            benchmark.run(given, Console(stderr=True))
            return 0
        content = evaluate(
            given.folder,
            given.split,
            given.users,
            given.data,
            given.rounds,
            Console(stderr=True),
            calibration_rows=given.calibration_rows,
        )
        out = given.out
        if out is None and given.users is None and given.split == "test":
            out = given.folder / METRICS if content["subject"] == "network" else None
        if out is not None:
            write_json(out, content)
    except (ValueError, OSError) as exc:
        print(f"evaluation: {exc}", file=sys.stderr)
        return 1
    print(as_text(content))
    if out is not None:
        print(f"written to {out}")
    else:
        print(
            json.dumps(
                {
                    "auc": content["all"]["auc"]["value"],
                    "answers": content["all"]["answers"],
                    "users": content["users"],
                }
            )
        )
    return 0


def evaluate(
    folder: Path,
    split: str,
    users: int | None,
    data: str | None,
    rounds: int,
    console: Console,
    *,
    calibration_rows: int = 50_000,
) -> dict[str, Any]:
    """Return the report of the run or artifact in `folder`.

    The whole test split of a run is measured with a calibration fitted anew; any other part of it
    with the one that its folder has.
    """
    subject = open_subject(folder)
    if data is not None and (source := subject.data["source"]["set"]) not in KNOWN:
        raise ValueError(f"--data {data}: says where the known sets lie; {folder} is of {source}")
    parts = subject.split(data)
    started = time.monotonic()
    calibration = subject.run.calibration if subject.run else Calibration()
    if subject.run and users is None and split == "test" and parts.validation.users:
        calibration = _fitted(subject, parts.validation, calibration_rows, console)
        write_json(folder / CALIBRATION, as_dict(calibration))
    chosen = parts.test if split == "test" else parts.validation
    encoded = _encoded(chosen, subject.vocabulary, users, split)
    found = _predicted(subject, encoded, f"{folder}: {split} split", console)
    calibrated = apply_to_users(calibration, encoded, found, subject.window)
    content = report(encoded, calibrated, rounds=rounds)
    if not calibration.is_identity:
        measured = _before_and_after(calibration, encoded, found, calibrated)
        content["calibration"] = as_dict(measured)
    return {
        "subject": "network" if subject.run else "graph",
        "data": subject.data["source"]["set"],
        "split": split,
        "users": len(encoded),
        "seconds": round(time.monotonic() - started, 1),
        **content,
    }


def _fitted(subject: Subject, validation: Dataset, rows: int, console: Console) -> Calibration:
    """Fit on every validation answer, or on about `rows` where each costs a window."""
    encoded = _encoded(validation, subject.vocabulary, None, "validation")
    drawn = None if subject.is_causal else drawn_rows(encoded, rows, subject.seed)
    found = _predicted(subject, encoded, "calibrating on the validation split", console, drawn)
    assert subject.run is not None
    fitted_on = {"split": "validation", "weights": subject.run.weights}
    return fit_users(encoded, found, subject.window, fitted_on=fitted_on)


def _before_and_after(
    calibration: Calibration, users: Sequence[EncodedUser], before: Found, after: Found
) -> Calibration:
    """Return a calibration with what it changed on these users."""
    (ece_before, bins_before), (ece_after, bins_after) = (
        ece_and_bins(users, found) for found in (before, after)
    )
    return dataclasses.replace(
        calibration,
        ece={"before": ece_before, "after": ece_after},
        reliability={"before": bins_before, "after": bins_after},
    )


def _encoded(
    data: Dataset, vocabulary: Vocabulary, users: int | None, split: str
) -> list[EncodedUser]:
    encoded = encode(data, vocabulary)[:users]
    if not encoded:
        raise ValueError(f"the {split} split has no users")
    return encoded


def _predicted(
    subject: Subject,
    encoded: Sequence[EncodedUser],
    what: str,
    console: Console,
    rows: Sequence[Row] | None = None,
) -> Found:
    """Predict, showing progress."""
    total = sum(len(u) for u in encoded) if rows is None else len(rows)
    console.print(f"{what}: {total:,} answers of {len(encoded):,} users")
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("answers", total=total)

        def advance(done: int) -> None:
            progress.advance(task, done)

        return subject.predict(encoded, rows=rows, progress=advance)


if __name__ == "__main__":
    raise SystemExit(main())
