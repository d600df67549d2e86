"""What it brings to hold what was made of a user: networks that attend, with memories and without.

    make memory        # or: python -m benchmarks.memory --rounds 3

Histories of 199 answers, so windows of 200 places; many callers in a closed loop, who ask one
question each of 64 users. Two servers of the same code, one of which holds nothing
(KT_MEMORY_MAX_BYTES=0): it makes of every window all that it keeps, and forgets it. Beside them in
the same round the bare run of the whole window, in as many threads as there are cores, at the batch
size at which it says most a second. One machine for servers and callers.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from app.engine.artifact import Artifact, open_artifact
from app.engine.cores import usable_cores
from app.engine.versions import newest_versions
from benchmarks.generator import closed_loop, each_once, post
from benchmarks.load import USERS, answers_of, store
from benchmarks.report import machine, middle
from benchmarks.server import ROOT, own_server
from models.contract.window import INPUTS

HISTORY = 199  # and the question: a whole window of 200
BATCHES = (1, 4, 8, 16)


def main(arguments: list[str] | None = None) -> int:
    """Measure by the command line; return the exit status."""
    given = _parser().parse_args(arguments)
    console = Console()
    found = measure(given, console)
    console.print(_table(found))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    console.print(f"written to {given.out}")
    return 0


def measure(given: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Return every figure, by model: answers a second, medians over the rounds."""
    folders = [f for f in newest_versions(ROOT / "artifacts") if f.parent.name in given.models]
    artifacts = [open_artifact(folder, "cpu", 1) for folder in folders]
    with ExitStack() as stack:
        urls = {}
        for what, room in (("held", 256_000_000), ("not held", 0)):
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ktserve-bench-"))
            settings = {"KT_LOG_LEVEL": "warning", "KT_MEMORY_MAX_BYTES": str(room)}
            urls[what] = stack.enter_context(own_server(Path(folder), settings)).url
        requests = {
            (a.manifest.name, what): _asks(url, a) for a in artifacts for what, url in urls.items()
        }
        told: dict[str, dict[str, list[float]]] = {a.manifest.name: {} for a in artifacts}
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("rounds", total=given.rounds * len(artifacts))
            for _ in range(given.rounds):
                for artifact in artifacts:
                    name = artifact.manifest.name
                    rates = told[name]
                    rates.setdefault("bare", []).append(bare(artifact, given.seconds))
                    for what, url in urls.items():
                        asks = requests[name, what]
                        load = closed_loop(url, asks, given.callers, given.seconds)
                        rates.setdefault(what, []).append(load.per_second)
                    progress.advance(task)
    return {
        "what": f"windows of {HISTORY + 1} places, closed loop, {given.callers} callers",
        "machine": machine(),
        "rounds": given.rounds,
        "rows": [
            {
                "model": name,
                **{f"{what}_per_second": middle(rate) for what, rate in rates.items()},
                "not_held_over_bare": _ratio(rates["not held"], rates["bare"]),
                "held_over_not_held": _ratio(rates["held"], rates["not held"]),
            }
            for name, rates in told.items()
        ],
    }


def bare(artifact: Artifact, seconds: float) -> float:
    """Return how many whole windows a second the sequence graph answers, at its best batch size."""
    session, count = artifact.scorer.session, usable_cores()
    each_s = seconds / len(BATCHES)
    with ThreadPoolExecutor(count) as threads:
        return max(
            sum(threads.map(_runs, [session] * count, [batch] * count, [each_s] * count))
            for batch in BATCHES
        )


def _runs(session: onnxruntime.InferenceSession, batch: int, seconds: float) -> float:
    rng = np.random.default_rng(batch)
    inputs = {}
    for port in session.get_inputs():
        dtype, axes = INPUTS[port.name]
        sizes = {"batch": batch, "sequence": HISTORY + 1, "skills": 1}
        shape = [sizes[a] if isinstance(a, str) else a for a in axes]
        inputs[port.name] = rng.integers(1, 3, shape).astype(dtype)
    began, done = time.perf_counter(), 0
    while (spent := time.perf_counter() - began) < seconds:
        session.run(None, inputs)
        done += batch
    return done / spent


def _asks(url: str, artifact: Artifact) -> list[bytes]:
    """Store a history of each user, and return a question to each, tried once."""
    ids, name = artifact.vocabulary.question_ids, artifact.manifest.name
    requests = []
    for user in range(USERS):
        user_id = f"{name}-{user}"
        store(url, user_id, answers_of(artifact.vocabulary, HISTORY, user))
        body = {"user_id": user_id, "question_id": ids[user], "model": name}
        requests.append(post(url, "/predict", {**body, "knowledge_state": False}))
    for answer in each_once(url, requests):
        if json.loads(answer)["history_length"] != HISTORY:
            raise RuntimeError(f"answered from another history: {answer!r}")
    return requests


def _ratio(above: list[float], below: list[float]) -> list[float]:
    return middle([a / b for a, b in zip(above, below, strict=True)])


def _table(found: dict[str, Any]) -> Table:
    table = Table(
        *("model", "bare/s", "not held/s", "over bare", "held/s", "over not held"),
        title=escape(f"{found['what']}; {found['machine']}; median [least, most]"),
    )
    for row in found["rows"]:
        rates = ("bare_per_second", "not held_per_second", "not_held_over_bare")
        shown = (row[k] for k in (*rates, "held_per_second", "held_over_not_held"))
        table.add_row(row["model"], *(escape(f"{m:.2f} [{a:.2f}, {b:.2f}]") for m, a, b in shown))
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each figure in a round")
    parser.add_argument("--callers", type=int, default=32)
    parser.add_argument("--models", nargs="+", default=["last_query", "saint_plus"])
    parser.add_argument("--out", type=Path, default=Path("bench-results/memory.json"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
