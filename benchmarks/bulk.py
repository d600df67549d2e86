"""Many predictions in one call: predictions a second beside the single route and the bare run.

    make bulk
    python -m benchmarks.bulk --rounds 5 --seconds 2

One server process, 1,000 users with 100 stored answers whose states are kept and current. One
caller sends calls of 1,000 items, one after the other; beside it, in turns within the same run, the
single route answers one caller and 32, and the ask graph alone runs over 1,000 rows in a process
with nothing else to do. Last, a few callers of the single route ask while the bulk caller does.
Server and callers are on one machine and share its cores. Writes bench-results/bulk.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from app.engine.artifact import Artifact, open_artifact
from app.engine.asked import Asked, encoded
from app.engine.versions import newest_versions
from benchmarks.generator import Load, closed_loop, each_once, post, side_by_side
from benchmarks.load import answers_of, store
from benchmarks.report import machine, middle
from benchmarks.server import ROOT, own_server
from models.contract.interaction import INTERACTION

USERS, ANSWERS, ITEMS = 1000, 100, 1000
CANDIDATES = 100  # of one user
FEW = 4  # callers of the single route beside the bulk caller
MODELS = ("dkt", "dkt_asked")


@dataclass(frozen=True)
class Case:
    """Requests of one kind, and how many predictions each of them asks for."""

    name: str
    requests: list[bytes]
    callers: int
    items: int = 1


def main(arguments: list[str] | None = None) -> int:
    """Measure, print a table, write the figures."""
    given = _parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 130)
    found = measure(given, console)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    console.print(*_tables(found), sep="\n")
    console.print(f"written to {given.out}")
    return 0


def measure(given: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Return the rates of every case, round by round, and how they stand to one another."""
    artifacts = {
        f.parent.name: open_artifact(f, "cpu", 1)
        for f in newest_versions(ROOT / "artifacts")
        if f.parent.name in MODELS
    }
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ktserve-bulk-"))
        url = stack.enter_context(own_server(Path(folder), {"KT_LOG_LEVEL": "warning"})).url
        cases = _cases(url, given.users, artifacts)
        few = [
            Case(f"{model}, {FEW} callers", requests_of(url, model, given.users, artifacts), FEW)
            for model in MODELS
        ]
        bare: dict[str, list[float]] = {model: [] for model in MODELS}
        loads: dict[str, list[Load]] = {case.name: [] for case in cases}
        alone: dict[str, list[Load]] = {case.name: [] for case in few}
        beside: dict[str, list[Load]] = {case.name: [] for case in few}
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("bulk", total=given.rounds + 1)
            for round_ in range(given.rounds + 1):
                seconds = given.seconds if round_ else min(0.5, given.seconds)  # the first warms up
                found = {m: _bare_per_second(artifacts[m], seconds / 2) for m in MODELS}
                measured = [closed_loop(url, c.requests, c.callers, seconds) for c in cases]
                still = [closed_loop(url, c.requests, c.callers, seconds) for c in few]
                beaten = [_beside(url, few_of, cases, seconds) for few_of in few]
                progress.advance(task)
                if not round_:
                    continue
                for model, rate in found.items():
                    bare[model].append(rate)
                for into, which, brought in (
                    (loads, cases, measured),
                    (alone, few, still),
                    (beside, few, beaten),
                ):
                    for case, load in zip(which, brought, strict=True):
                        into[case.name].append(load)
    return {
        "what": f"{given.users} users, {ANSWERS} stored answers each, states kept and current; "
        f"calls of {ITEMS} items by one caller",
        "machine": machine(),
        "rounds": given.rounds,
        "seconds_a_round": given.seconds,
        "bare_per_second": {model: middle(rates) for model, rates in bare.items()},
        "rows": [_row(case, loads, bare) for case in cases],
        "beside": [
            {
                "case": case.name,
                **{f"{k}_alone_ms": _percentile(alone[case.name], p) for k, p in _PERCENTILES},
                **{f"{k}_beside_ms": _percentile(beside[case.name], p) for k, p in _PERCENTILES},
            }
            for case in few
        ],
    }


_PERCENTILES = (("p50", 50.0), ("p99", 99.0))


def _percentile(loads: Sequence[Load], percent: float) -> list[float]:
    return middle([load.percentile_ms(percent) for load in loads])


def _row(case: Case, loads: dict[str, list[Load]], bare: dict[str, list[float]]) -> dict[str, Any]:
    model = case.name.partition(",")[0]
    rates = [load.per_second * case.items for load in loads[case.name]]
    single = {
        callers: [load.per_second for load in loads[f"{model}, single, {callers}"]]
        for callers in ("1 caller", "32 callers")
    }
    return {
        "case": case.name,
        "items_a_call": case.items,
        "per_second": middle(rates),
        "over_bare": middle([r / b for r, b in zip(rates, bare[model], strict=True)]),
        "over_one_caller": middle([r / s for r, s in zip(rates, single["1 caller"], strict=True)]),
        "over_32_callers": middle(
            [r / s for r, s in zip(rates, single["32 callers"], strict=True)]
        ),
        "p50_ms": _percentile(loads[case.name], 50),
        "p99_ms": _percentile(loads[case.name], 99),
    }


def _beside(url: str, few: Case, cases: Sequence[Case], seconds: float) -> Load:
    """Return the load of a few callers of the single route, asking beside one of many items."""
    model = few.name.partition(",")[0]
    (bulk,) = (c for c in cases if c.name == f"{model}, {USERS} users")
    groups = [(few.requests, few.callers), (bulk.requests, bulk.callers)]
    return side_by_side(url, groups, seconds)[0]


def _cases(url: str, users: int, artifacts: dict[str, Artifact]) -> list[Case]:
    """Store histories, have their states kept, and return the requests that stand on them."""
    vocabulary = artifacts[MODELS[0]].vocabulary
    for user in range(users):
        store(url, f"bulk-{user}", answers_of(vocabulary, ANSWERS, seed=user))
    cases = []
    for model in MODELS:
        singles = requests_of(url, model, users, artifacts)
        for asked, body in zip(singles, each_once(url, singles), strict=True):
            if json.loads(body)["history_length"] != ANSWERS:
                raise RuntimeError(f"{asked!r} was answered from another history: {body!r}")
        asks = [_ask(model, n % users, n, artifacts) for n in range(ITEMS)]
        few = [_ask(model, n // CANDIDATES, n, artifacts) for n in range(ITEMS)]
        cases += [
            Case(f"{model}, {USERS} users", [_call(url, asks)], 1, ITEMS),
            Case(f"{model}, {ITEMS // CANDIDATES} users", [_call(url, few)], 1, ITEMS),
            Case(f"{model}, single, 1 caller", singles, 1),
            Case(f"{model}, single, 32 callers", singles, 32),
        ]
    for case in cases:
        for body in each_once(url, case.requests[:1]):
            answer = json.loads(body)
            if any(a["history_length"] != ANSWERS for a in answer.get("items", [answer])):
                raise RuntimeError(f"{case.name}: an answer stands on another history")
    return cases


def requests_of(url: str, model: str, users: int, artifacts: dict[str, Artifact]) -> list[bytes]:
    """Return a question to the single route for every user."""
    return [post(url, "/predict", _ask(model, user, user, artifacts)) for user in range(users)]


def _ask(model: str, user: int, number: int, artifacts: dict[str, Artifact]) -> dict[str, Any]:
    ids = artifacts[model].vocabulary.question_ids
    return {
        "user_id": f"bulk-{user}",
        "question_id": ids[(7 * number) % len(ids)],
        "model": model,
        "knowledge_state": False,
    }


def _call(url: str, asks: list[dict[str, Any]]) -> bytes:
    return post(url, "/predict/batch", {"items": asks})


def _bare_per_second(artifact: Artifact, seconds: float) -> float:
    """Return the rows a second of the ask graph, 1,000 at a time, all made beforehand."""
    assert artifact.kept is not None
    nothing = np.empty(0, INTERACTION)
    ids = artifact.vocabulary.question_ids
    asked = [
        Asked(
            interactions=nothing,
            first=0,
            start=0,
            seen=0,
            state=b"",
            query=artifact.vocabulary.query(ids[(7 * n) % len(ids)]),
        )
        for n in range(ITEMS)
    ]
    inputs = {
        **encoded(asked, artifact.vocabulary, with_counts=True).queries,
        "state": np.tile(artifact.kept.start, (ITEMS, *[1] * artifact.kept.start.ndim)),
        "answers": np.full(ITEMS, ANSWERS),
    }
    session: onnxruntime.InferenceSession = artifact.kept.ask
    read = {node.name: inputs[node.name] for node in session.get_inputs()}
    session.run(None, read)
    runs, began = 0, perf_counter()
    while (spent := perf_counter() - began) < seconds:
        session.run(None, read)
        runs += 1
    return runs * ITEMS / spent


def _tables(found: dict[str, Any]) -> tuple[Table, Table]:
    bare = ", ".join(f"{m} {rate[0]:,.0f}" for m, rate in found["bare_per_second"].items())
    rates = Table(
        *("case", "predictions/s", "over bare", "over 1 caller", "over 32", "p50 ms", "p99 ms"),
        title=escape(
            f"{found['what']}; {found['machine']}; median [least, most] of {found['rounds']} "
            f"rounds; the bare ask over {ITEMS} rows: {bare} rows/s"
        ),
    )
    columns = ("over_bare", "over_one_caller", "over_32_callers", "p50_ms", "p99_ms")
    for row in found["rows"]:
        m, a, b = row["per_second"]
        rates.add_row(
            row["case"],
            escape(f"{m:,.0f} [{a:,.0f}, {b:,.0f}]"),
            *(_shown(row[c], 4 if c == "over_bare" else 2) for c in columns),
        )
    beside = Table(
        *("single route", "p50 ms alone", "p99 ms alone", "p50 ms beside", "p99 ms beside"),
        title=f"a few callers of the single route, alone and beside calls of {ITEMS} items",
    )
    for row in found["beside"]:
        beside.add_row(*(v if isinstance(v, str) else _shown(v, 2) for v in row.values()))
    return rates, beside


def _shown(value: Sequence[float], digits: int) -> str:
    m, a, b = value
    return escape(f"{m:.{digits}f} [{a:.{digits}f}, {b:.{digits}f}]")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bulk",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each case in a round")
    parser.add_argument("--users", type=int, default=USERS)
    parser.add_argument("--out", type=Path, default=Path("bench-results/bulk.json"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
