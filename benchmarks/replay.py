"""Real students over HTTP: before each answer ask, after it report; then say how good it was.

    make replay DATA=log.csv FOLDS=folds.csv FOLD=1 USERS=40 MODEL=last_query
    python -m benchmarks.replay --data log.csv [--url http://...]

Without --url a server of its own is started on an empty store and stopped. With --url the users are
written under names that no one else has, and deleted at the end. The last line is one JSON object:
auc over the answers from each user's second on (those that `python -m models.evaluation` scores),
answers, users, and the median and 99th percentile of the time of a /predict.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx
import numpy as np
from rich.console import Console
from rich.progress import Progress

from app.records import KeptAnswer, answers_of
from benchmarks.server import ServerFailed, own_server
from models.datasets.dataset import Dataset, DatasetError
from models.datasets.known import DATA_FILE, KNOWN, open_dataset
from models.datasets.split import read_folds
from models.evaluation.metrics import auc


class ReplayFailed(RuntimeError):
    """The service did not answer as it should."""


@dataclass
class Outcome:
    """What one student's replay brought, answer by answer."""

    right: list[bool] = field(default_factory=list)
    p_correct: list[float] = field(default_factory=list)
    spent_s: list[float] = field(default_factory=list)


def main(arguments: list[str] | None = None) -> int:
    """Replay; return the exit code."""
    given = _parser().parse_args(arguments)
    console = Console(stderr=True)
    try:
        data = _chosen(given.data, given.folds, given.fold, given.users)
        with ExitStack() as stack:
            url = given.url
            if url is None:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ktserve-replay-"))
                url = stack.enter_context(own_server(Path(folder))).url
            console.print(f"{len(data):,} answers of {len(data.users):,} users to {url}")
            outcomes = asyncio.run(_replay(data, url, given, console))
    except (DatasetError, ReplayFailed, ServerFailed, httpx.HTTPError) as exc:
        print(f"replay: {exc or type(exc).__name__}", file=sys.stderr)
        return 1
    print(json.dumps(summary(outcomes)))
    return 0


def summary(outcomes: list[Outcome]) -> dict[str, Any]:
    """Return the figures of a replay; the first answer of each student is asked but not scored."""
    right = np.array([r for o in outcomes for r in o.right[1:]], float)
    p = np.array([p for o in outcomes for p in o.p_correct[1:]])
    spent_ms = np.array([s for o in outcomes for s in o.spent_s]) * 1000
    return {
        "auc": round(auc(right, p), 6) if 0 < right.sum() < len(right) else None,
        "answers": len(right),
        "users": len(outcomes),
        "p50_ms": round(float(np.percentile(spent_ms, 50)), 3),
        "p99_ms": round(float(np.percentile(spent_ms, 99)), 3),
    }


async def _replay(
    data: Dataset, url: str, given: argparse.Namespace, console: Console
) -> list[Outcome]:
    prefix = f"replay-{uuid4().hex[:12]}-"
    at_once = asyncio.Semaphore(given.at_once)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("answers", total=len(data))
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:

            async def student(number: int) -> Outcome:
                async with at_once:
                    path = f"/users/{quote(prefix + data.users[number], safe='')}"
                    try:
                        return await _student(
                            client, data, number, prefix, given, lambda: progress.advance(task)
                        )
                    finally:
                        await client.delete(path)

            tasks: list[asyncio.Task[Outcome]] = []
            try:
                async with asyncio.TaskGroup() as group:
                    tasks += [group.create_task(student(n)) for n in range(len(data.users))]
            except* (ReplayFailed, httpx.HTTPError) as failed:
                raise failed.exceptions[0]  # noqa: B904 - the first stopped all others
    return [t.result() for t in tasks]


async def _student(
    client: httpx.AsyncClient,
    data: Dataset,
    number: int,
    prefix: str,
    given: argparse.Namespace,
    advance: Any,
) -> Outcome:
    user_id = prefix + data.users[number]
    path = f"/users/{quote(user_id, safe='')}/interactions"
    answers = answers_of(data.history(number), data.texts)
    visible = data.visible[data.offsets[number] : data.offsets[number + 1]].tolist()
    outcome, recorded = Outcome(), 0
    for answer, seen in zip(answers, visible, strict=True):
        # The answers of a bundle are reported when all of it was asked.
        while recorded < seen:
            upto = min(seen, recorded + 1000)
            reports = [_report(a, f"{i}") for i, a in enumerate(answers[recorded:upto], recorded)]
            await _post(client, path, {"interactions": reports})
            recorded = upto
        ask: dict[str, Any] = {"user_id": user_id, **_asked(answer)}
        if given.model:
            ask["model"] = given.model
        if not given.knowledge_state:
            ask["knowledge_state"] = False
        began_s = perf_counter()
        found = await _post(client, "/predict", ask)
        outcome.spent_s.append(perf_counter() - began_s)
        outcome.p_correct.append(found["p_correct"])
        outcome.right.append(answer.correct)
        advance()
    return outcome


def _asked(answer: KeptAnswer) -> dict[str, Any]:
    """Return what is known before the answer."""
    known = {
        "question_id": answer.question_id,
        "skill_ids": answer.skill_ids,
        "asked_ms": answer.asked_ms,
    }
    return {k: v for k, v in known.items() if v is not None}


def _report(answer: KeptAnswer, event_id: str) -> dict[str, Any]:
    after = {"correct": answer.correct, "event_id": event_id}
    if answer.elapsed_ms is not None:
        after["elapsed_ms"] = answer.elapsed_ms
    return _asked(answer) | after


async def _post(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = await client.post(path, json=body)
    if answer.status_code != 200:
        raise ReplayFailed(f"{path.split('/')[1]} answered {answer.status_code}: {answer.text}")
    content: dict[str, Any] = answer.json()
    return content


def _chosen(path: Path, folds: Path | None, fold: int | None, users: int | None) -> Dataset:
    """Return the students to replay: of a fold, the first so many, in the order of the file."""
    if path.name == DATA_FILE and path.parent.name in KNOWN:
        data = open_dataset(path.parent.name, path.parent.parent)  # its traps are known
    else:
        data = open_dataset(str(path), path.parent)
    chosen = list(data.users)
    if (folds is None) != (fold is None):
        raise DatasetError("FOLDS and FOLD go together: the file, and the number of a fold in it")
    if folds is not None:
        of = read_folds(folds)
        chosen = [u for u in chosen if of.get(u) == fold]
    chosen = chosen[:users]
    if not chosen:
        raise DatasetError(f"no user of {path} is in fold {fold}")
    return data.select(chosen)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.replay",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help="CSV or Parquet log of answers")
    parser.add_argument("--folds", type=Path, help="CSV of user_id,fold")
    parser.add_argument("--fold", type=int, help="replay only this fold's users")
    parser.add_argument("--users", type=int, help="replay only the first so many")
    parser.add_argument("--model", help="the model to ask; the service's default otherwise")
    parser.add_argument("--url", help="a running service; otherwise one is started")
    parser.add_argument("--at-once", type=int, default=4, help="students at a time (4)")
    parser.add_argument(
        "--knowledge-state", action="store_true", help="ask for the whole vector each time"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
