"""Many callers at a time: requests a second beside those of the empty route.

    python -m benchmarks.load --rounds 5 --seconds 4

Server and callers are on one machine and share its cores. Each case takes short turns with the
empty route, so that the machine's neighbours disturb both alike; compare ratios. Beside the rates
stands the processor's time that a server takes for an answer. Writes bench-results/load.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from psutil import Process
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from app.engine.artifact import open_artifact
from app.engine.versions import newest_versions
from app.keys import SCOPES, made
from benchmarks.generator import TURN_S, Load, closed_loop, each_once, in_turns, post
from benchmarks.lengths import drawn
from benchmarks.report import machine, middle
from benchmarks.server import ROOT, empty_server, own_server
from models.contract.vocabulary import Vocabulary

USERS = 64
MIXED = "mixed"
"""Of as many lengths as there are users, drawn as real students' are."""


@dataclass(frozen=True)
class Case:
    """One kind of request."""

    name: str
    url: str
    requests: list[bytes]


class Side(NamedTuple):
    """A case, and the process that answers it."""

    case: Case
    process: Process


class Measured(NamedTuple):
    """A stretch of load, and the processor's time that the server took for an answer of it."""

    load: Load
    server_us: float


class Turned(NamedTuple):
    """What a case brought in a round, and the empty route in turns with it."""

    load: Measured
    floor: Measured


def main(arguments: list[str] | None = None) -> int:
    """Measure, print a table, write the figures."""
    given = _parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 120)
    found = measure(given, console)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    console.print(_table(found))
    console.print(f"written to {given.out}")
    return 0


def measure(given: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Return the rates of every case, round by round, and their ratios to the empty route's."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ktserve-load-"))
        settings = {"KT_LOG_LEVEL": "warning"}
        key = None
        if not given.without_keys:
            settings["KT_KEYS_FILE"], key = _keys(Path(folder) / "keys.json")
        server = stack.enter_context(own_server(Path(folder), settings))
        floor = stack.enter_context(empty_server())
        empty = Side(empty_case(floor.url), Process(floor.pid))
        process = Process(server.pid)
        sides = [Side(case, process) for case in cases_of(server.url, given.only, key)]
        rounds: dict[str, list[Turned]] = {side.case.name: [] for side in sides}
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("load", total=given.rounds * len(sides))
            for round_ in range(given.rounds + 1):
                for side in sides:
                    seconds = given.seconds if round_ else 0.5  # the first one warms up
                    turned = _turned(side, empty, given.callers, seconds)
                    if round_:
                        rounds[side.case.name].append(turned)
                        progress.advance(task)
    floors = [turned.floor for all_of in rounds.values() for turned in all_of]
    return {
        "what": f"closed loop, {given.callers} callers, one server process",
        "keys": key is not None,
        "machine": machine(),
        "rounds": given.rounds,
        "seconds_a_round": given.seconds,
        "turn_s": TURN_S,
        "rows": [
            _row(empty.case.name, floors, floors),
            *(
                _row(name, [t.load for t in all_of], [t.floor for t in all_of])
                for name, all_of in rounds.items()
            ),
        ],
    }


def _turned(side: Side, empty: Side, callers: int, seconds: float) -> Turned:
    """Return what a case brought in turns with the empty route."""
    both = (side, empty)
    before_s = [_spent_s(one.process) for one in both]
    loads = in_turns(
        [partial(closed_loop, one.case.url, one.case.requests, callers) for one in both], seconds
    )
    spent_s = [_spent_s(one.process) - s for one, s in zip(both, before_s, strict=True)]
    load, floor = (
        Measured(load, spent / len(load.spent_s) * 1e6)
        for load, spent in zip(loads, spent_s, strict=True)
    )
    return Turned(load, floor)


def _row(case: str, measured: Sequence[Measured], floors: Sequence[Measured]) -> dict[str, Any]:
    loads = [one.load for one in measured]
    pairs = list(zip(measured, floors, strict=True))
    return {
        "case": case,
        "per_second": middle([load.per_second for load in loads]),
        "over_empty": middle([one.load.per_second / e.load.per_second for one, e in pairs]),
        "server_us": middle([one.server_us for one in measured]),
        "server_us_over_empty": middle([one.server_us / e.server_us for one, e in pairs]),
        "p50_ms": middle([load.percentile_ms(50) for load in loads]),
        "p99_ms": middle([load.percentile_ms(99) for load in loads]),
    }


def empty_case(url: str) -> Case:
    """Return the floor: the empty route."""
    return Case("empty route", url, [post(url, "/predict", {"user_id": "u", "question_id": "1"})])


def _keys(file: Path) -> tuple[str, str]:
    """Write a file of one key, of a tenant and with a rate limit; return its name and the key."""
    secret, key = made("load", SCOPES, tenant="load", per_second=1e6, burst=10**6)
    file.write_text(json.dumps({"keys": [key.model_dump(mode="json")]}), encoding="utf-8")
    return str(file), secret


def cases_of(url: str, only: str | None, key: str | None = None) -> list[Case]:
    """Store histories and return the requests that stand on them, by a key where there is one."""
    artifacts = {
        f.parent.name: open_artifact(f, "cpu", 1) for f in newest_versions(ROOT / "artifacts")
    }
    ids = artifacts["dkt"].vocabulary.question_ids
    others = ("dkt_asked", "last_query", "saint_plus")
    wanted: list[tuple[str, int | str, bool]] = [
        *(("dkt", n, False) for n in (100, 1728)),
        ("dkt", 100, True),
        *((name, 200, False) for name in others),
        *((name, MIXED, False) for name in ("dkt", *others)),
    ]
    cases = []
    stored: dict[int | str, list[int]] = {}
    for model, n, vector in wanted:
        name = f"{model}, history {n}" + (", vector" if vector else "")
        if only is not None and only not in name:
            continue
        if n not in stored:
            stored[n] = drawn(USERS, seed=0) if n == MIXED else [int(n)] * USERS
            for user, length in enumerate(stored[n]):
                answers = answers_of(artifacts[model].vocabulary, length, seed=length)
                store(url, f"load-{n}-{user}", answers, key)
        requests = [
            post(
                url,
                "/predict",
                {
                    "user_id": f"load-{n}-{user}",
                    "question_id": ids[(7 * user) % len(ids)],
                    "model": model,
                    "knowledge_state": vector,
                },
                key,
            )
            for user in range(USERS)
        ]
        answered = each_once(url, requests)
        for asked, body, length in zip(requests, answered, stored[n], strict=True):
            if json.loads(body)["history_length"] != length:
                raise RuntimeError(f"{asked!r} was answered from another history: {body!r}")
        cases.append(Case(name, url, requests))
    return cases


def answers_of(vocabulary: Vocabulary, n: int, seed: int | tuple[int, ...]) -> list[dict[str, Any]]:
    """Return `n` answers to questions that the model knows, half a minute apart."""
    rng = np.random.default_rng(seed)
    ids = vocabulary.question_ids
    return [
        {
            "question_id": ids[int(rng.integers(len(ids)))],
            "correct": bool(rng.random() < 0.6),
            "asked_ms": 1_600_000_000_000 + 30_000 * i,
            "event_id": str(i),
        }
        for i in range(n)
    ]


def store(url: str, user_id: str, answers: list[dict[str, Any]], key: str | None = None) -> None:
    """Record the answers of a user who has none yet."""
    parts = [answers[first : first + 1000] for first in range(0, len(answers), 1000)]
    path = f"/users/{user_id}/interactions"
    each_once(url, [post(url, path, {"interactions": part}, key) for part in parts])


def _spent_s(process: Process) -> float:
    """Return the processor's time that a server has had: neighbours of the machine take none."""
    times = process.cpu_times()
    return float(times.user + times.system)


def _table(found: dict[str, Any]) -> Table:
    table = Table(
        *("case", "answers/s", "over the empty route", "server's us each", "p50 ms", "p99 ms"),
        title=escape(f"{found['what']}; {found['machine']}; median [least, most]"),
    )
    for row in found["rows"]:
        shown = (row[k] for k in ("per_second", "over_empty", "server_us", "p50_ms", "p99_ms"))
        table.add_row(row["case"], *(escape(f"{m:.2f} [{a:.2f}, {b:.2f}]") for m, a, b in shown))
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each case in a round")
    parser.add_argument("--callers", type=int, default=32)
    parser.add_argument("--without-keys", action="store_true", help="ask a server that has none")
    parser.add_argument("--only", help="cases whose names hold this text, and the floor")
    parser.add_argument("--out", type=Path, default=Path("bench-results/load.json"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
