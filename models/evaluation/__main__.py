"""Measure a trained run, or an exported artifact, on users it was not trained on.

    python -m models.evaluation runs/dkt-assist2017
    python -m models.evaluation artifacts/last_query/1 --users 40
    python -m models.evaluation --protocol assist2009 --model dkt [--folds 0 1] [--threads 1]
    python -m models.evaluation --table docs/benchmarks.md

Prints AUC, accuracy, log loss and ECE with 95 % intervals, in all and by history length, and writes
them as JSON. Of an artifact it is the ONNX graph that is measured, window by window, as served.

With a protocol and a model it is a cell of the benchmark that is run: each fold is trained, or gone
on with where it was killed, and measured, and the table is written anew.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress

from models.contract.artifact import MANIFEST
from models.datasets.encoded import encode
from models.datasets.split import SplitConfig, open_split
from models.evaluation import benchmark
from models.evaluation.graph import open_graph
from models.evaluation.predictions import predict, predict_rows
from models.evaluation.report import as_text, report
from models.evaluation.run import METRICS, open_run, write_json


def main(arguments: list[str] | None = None) -> int:
    """Evaluate by the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m models.evaluation",
        description="Measure a run or an artifact on users it was not trained on.",
    )
    parser.add_argument("folder", type=Path, nargs="?", help="run folder, or artifact folder")
    parser.add_argument("--split", choices=("test", "validation"), default="test")
    parser.add_argument("--users", type=int, help="only the first so many users of the split")
    parser.add_argument("--data", help="folder of the known data sets, if not where it was")
    parser.add_argument("--out", type=Path, help="JSON file (default: metrics.json in a run)")
    parser.add_argument("--rounds", type=int, default=200, help="bootstrap rounds")
    parser.add_argument("--threads", type=int, help="torch's threads")
    benchmark.add_arguments(parser)
    given = parser.parse_args(arguments)
    if given.folder is None and not benchmark.is_asked(given):
        parser.error("name a folder, or --protocol and --model, or --table")
    if given.threads:
        torch.set_num_threads(given.threads)
    try:
        if benchmark.is_asked(given):
            benchmark.run(given, Console(stderr=True))
            return 0
        content = evaluate(
            given.folder, given.split, given.users, given.data, given.rounds, Console(stderr=True)
        )
    except (ValueError, OSError) as exc:
        print(f"evaluation: {exc}", file=sys.stderr)
        return 1
    print(as_text(content))
    out = given.out
    if out is None and given.users is None and given.split == "test":
        is_run = not (given.folder / MANIFEST).is_file()
        out = given.folder / METRICS if is_run else None
    if out is not None:
        write_json(out, content)
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
    folder: Path, split: str, users: int | None, data: str | None, rounds: int, console: Console
) -> dict[str, Any]:
    """Return the report of the run or artifact in `folder`."""
    is_run = not (folder / MANIFEST).is_file()
    subject: Any = open_run(folder) if is_run else open_graph(folder)
    source = dict(subject.data["source"])
    if data is not None:
        source["folder"] = data
    parts = open_split(SplitConfig.of(source), seed=subject.seed)
    chosen = parts.test if split == "test" else parts.validation
    encoded = encode(chosen, subject.vocabulary)[:users]
    if not encoded:
        raise ValueError(f"the {split} split has no users")
    rows = sum(len(u) for u in encoded)
    console.print(f"{folder}: {rows:,} answers of {len(encoded):,} users ({split})")
    started = time.monotonic()
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("answers", total=rows)

        def advance(done: int) -> None:
            progress.advance(task, done)

        if is_run:
            found = predict(subject.network, encoded, subject.window, progress=advance)
        else:
            found = [np.full(len(u), np.nan) for u in encoded]
            every = [(u, r) for u, user in enumerate(encoded) for r in range(len(user))]
            predict_rows(subject.score, encoded, subject.window, every, found, advance)
    return {
        "subject": "network" if is_run else "graph",
        "data": source["set"],
        "split": split,
        "users": len(encoded),
        "seconds": round(time.monotonic() - started, 1),
        **report(encoded, found, rounds=rounds),
    }


if __name__ == "__main__":
    raise SystemExit(main())
