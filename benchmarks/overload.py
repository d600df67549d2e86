"""More than can be carried: what becomes of those who are let in, and of those who are not.

    make overload
    python -m benchmarks.overload --rounds 5 --seconds 4 --most 16 64 4096

What the service can carry is what a closed loop of 32 callers finds; then requests come at random
times, at 80 % and at 300 % of that, in the same round. Times count from when a request was due, of
refused ones too. The server has a core of its own, store and callers have another: so many callers
as are needed here would take the server's time away, and what is measured would be theirs. Where
there is one core only, all share it. Writes bench-results/overload.json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from app.settings import Settings
from benchmarks.generator import Load, closed_loop, open_loop
from benchmarks.load import Case, cases_of
from benchmarks.report import machine
from benchmarks.server import own_server
from models.commands import at_least

SHARES = (0.8, 3.0)
CALLERS = 32
CONNECTIONS = 512
CASE = "dkt, history 100"


def main(arguments: list[str] | None = None) -> int:
    """Measure, print a table, write the figures."""
    given = _parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 140)
    found = measure(given, console)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    console.print(_table(found))
    console.print(f"written to {given.out}")
    return 0


def measure(given: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Return for each `KT_REQUESTS_MAX_ITEMS` how both loads went, medians over the rounds."""
    rows = []
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("overload", total=given.rounds * len(given.most))
        for most in given.most:
            with _server(most) as case:
                closed_loop(case.url, case.requests, CALLERS, 0.5)  # warm
                rounds = []
                for _ in range(given.rounds):
                    rounds.append(_round(case, given.seconds))
                    progress.advance(task)
            rows.append({"most": most, **_over(rounds)})
    return {
        "what": f"{CASE}; open loop, random arrivals, {CONNECTIONS} connections, one server "
        f"process, {'on a core of its own' if _two_cores() else 'all on one core'}",
        "machine": machine(),
        "rounds": given.rounds,
        "seconds_a_load": given.seconds,
        "rows": rows,
    }


@contextmanager
def _server(most: int) -> Iterator[Case]:
    """Serve on a core of its own, and leave this process and the store the other one."""
    cores = _two_cores()
    before = os.sched_getaffinity(0) if cores else set()
    settings = {"KT_LOG_LEVEL": "warning", "KT_REQUESTS_MAX_ITEMS": str(most)}
    with tempfile.TemporaryDirectory(prefix="ktserve-overload-") as folder:
        try:
            if cores:
                os.sched_setaffinity(0, cores[:1])  # what is started now inherits it
            with own_server(Path(folder), settings) as server:
                if cores:
                    for pid in (0, *(p.pid for p in psutil.Process(server.pid).children())):
                        os.sched_setaffinity(pid, cores[1:])
                yield next(case for case in cases_of(server.url, CASE) if case.name == CASE)
        finally:
            if cores:
                os.sched_setaffinity(0, before)


def _two_cores() -> list[int]:
    """Return a core for the server and one for the callers; none where there are not two."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    cores = sorted(os.sched_getaffinity(0))[:2]
    return cores if len(cores) == 2 else []


def _round(case: Case, seconds: float) -> dict[str, Any]:
    """Find out what it can carry, then send a share of that, and another."""
    carried = closed_loop(case.url, case.requests, CALLERS, seconds).per_second
    loads = [
        open_loop(case.url, case.requests, share * carried, seconds, CONNECTIONS)
        for share in SHARES
    ]
    below, above = (_told(load, share * carried) for load, share in zip(loads, SHARES, strict=True))
    return {
        "carried_per_second": carried,
        "below": below,
        "above": above,
        "p99_above_over_below": above["p99_ms"] / below["p99_ms"],
    }


def _told(load: Load, per_second: float) -> dict[str, float | None]:
    """Return what is told of a load."""
    refused = load.refused_s
    came = len(load.spent_s) + load.refused
    return {
        "due_per_second": per_second,
        "answered_per_second": load.per_second,
        "refused": len(refused) / came,
        "p50_ms": load.percentile_ms(50),
        "p99_ms": load.percentile_ms(99),
        **{
            f"refused_p{percent}_ms": float(np.percentile(refused, percent)) * 1000
            if refused
            else None
            for percent in (50, 99)
        },
        "generator_behind_p99_ms": float(np.percentile(load.behind_s, 99)) * 1000,
    }


def _over(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return median, least and most of every figure over the rounds."""
    found: dict[str, Any] = {}
    for key, one in rounds[0].items():
        values = [r[key] for r in rounds]
        if isinstance(one, dict):
            found[key] = _over(values)
            continue
        known = [v for v in values if v is not None]
        found[key] = known and [round(float(f(known)), 3) for f in (np.median, np.min, np.max)]
    return found


def _table(found: dict[str, Any]) -> Table:
    table = Table(
        *("at most", "carried/s", "load", "answered/s", "refused", "p50 ms", "p99 ms"),
        *("refused: p50 ms", "p99 ms", "p99 over that at 80 %", "generator p99 ms"),
        title=escape(f"{found['what']}; {found['machine']}; median [least, most]"),
    )
    for row in found["rows"]:
        for load, share in zip(("below", "above"), SHARES, strict=True):
            told = row[load]
            table.add_row(
                str(row["most"]),
                f"{row['carried_per_second'][0]:,.0f}",
                f"{share:.0%}",
                f"{told['answered_per_second'][0]:,.0f}",
                f"{told['refused'][0]:.1%}",
                *(
                    _shown(told[k])
                    for k in ("p50_ms", "p99_ms", "refused_p50_ms", "refused_p99_ms")
                ),
                _shown(row["p99_above_over_below"]) if load == "above" else "",
                _shown(told["generator_behind_p99_ms"]),
            )
    return table


def _shown(middle: list[float]) -> str:
    return escape(f"{middle[0]:.2f} [{middle[1]:.2f}, {middle[2]:.2f}]") if middle else ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overload", description=__doc__)
    parser.add_argument("--rounds", type=at_least(1), default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each load in a round")
    parser.add_argument(
        "--most",
        type=at_least(1),
        nargs="+",
        default=[Settings().requests_max_items],
        help="values of KT_REQUESTS_MAX_ITEMS, each with a server of its own",
    )
    parser.add_argument("--out", type=Path, default=Path("bench-results/overload.json"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
