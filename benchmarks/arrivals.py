"""Callers who come when they like: the time of an answer against the load.

    make arrivals
    python -m benchmarks.arrivals --rounds 3 --seconds 4 --picture docs/latency-by-load.png

Requests come at random at a fixed mean rate, whatever the answers do; the time of one counts from
when it was due (open loop, no coordinated omission). The rates are shares of what the empty route
answers 32 callers who wait for their answers, measured first in the same run. Server and callers
are on one machine and share its cores. Writes bench-results/arrivals.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from benchmarks.generator import Load, closed_loop, open_loop
from benchmarks.load import cases_of, empty_case
from benchmarks.report import machine
from benchmarks.server import empty_server, own_server
from models.commands import at_least, picture_to_write

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
CONNECTIONS = 256


def main(arguments: list[str] | None = None) -> int:
    """Measure, print a table, write the figures and the picture."""
    given = _parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 120)
    found = measure(given, console)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if given.picture is not None:
        picture(found).savefig(given.picture, dpi=110)
    console.print(_table(found))
    console.print(f"written to {given.out}")
    return 0


def measure(given: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Return the times of every case at every rate, medians over the rounds."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ktserve-arrivals-"))
        url = stack.enter_context(own_server(Path(folder), {"KT_LOG_LEVEL": "warning"})).url
        cases = [empty_case(stack.enter_context(empty_server()).url), *cases_of(url, given.only)]
        for case in cases:  # warm
            closed_loop(case.url, case.requests, 32, 0.5)
        most = closed_loop(cases[0].url, cases[0].requests, 32, given.seconds).per_second
        loads: dict[tuple[str, float], list[Load]] = {}
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("arrivals", total=given.rounds * len(cases) * len(SHARES))
            for _ in range(given.rounds):
                for share in SHARES:
                    for case in cases:
                        load = open_loop(
                            case.url, case.requests, share * most, given.seconds, CONNECTIONS
                        )
                        loads.setdefault((case.name, share), []).append(load)
                        progress.advance(task)
    return {
        "what": f"open loop, random arrivals, {CONNECTIONS} connections, one server process",
        "machine": machine(),
        "rounds": given.rounds,
        "seconds_a_round": given.seconds,
        "empty_route_per_second": round(most),
        "rows": [
            {
                "case": name,
                "share": share,
                "per_second": round(share * most),
                "refused": sum(load.refused for load in rounds),
                **{
                    f"p{percent}_ms": round(
                        float(np.median([load.percentile_ms(percent) for load in rounds])), 3
                    )
                    for percent in (50, 90, 99)
                },
            }
            for (name, share), rounds in loads.items()
        ],
    }


def picture(found: dict[str, Any]) -> Figure:
    """Return the figure: median and 99th percentile against the rate, a colour a case."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for number, name in enumerate(dict.fromkeys(row["case"] for row in found["rows"])):
        rows = [row for row in found["rows"] if row["case"] == name]
        rates = [row["per_second"] for row in rows]
        for field, style in (("p50_ms", "-"), ("p99_ms", "--")):
            axes.plot(
                rates,
                [row[field] for row in rows],
                style,
                color=f"C{number}",
                marker="o",
                markersize=4,
                label=f"{name}, {'median' if style == '-' else '99 %'}",
            )
    axes.set_yscale("log")
    axes.set_xlabel("requests a second, at random times")
    axes.set_ylabel("ms from when a request was due")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def _table(found: dict[str, Any]) -> Table:
    table = Table(
        *("case", "of the empty route's rate", "requests/s", "p50 ms", "p90 ms", "p99 ms"),
        title=escape(f"{found['what']}; {found['machine']}"),
    )
    for row in found["rows"]:
        numbers = (f"{row[k]:.2f}" for k in ("p50_ms", "p90_ms", "p99_ms"))
        table.add_row(row["case"], f"{row['share']:.0%}", str(row["per_second"]), *numbers)
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.arrivals", description=__doc__)
    parser.add_argument("--rounds", type=at_least(1), default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each rate in a round")
    parser.add_argument("--only", default="history 100", help="cases whose names hold this text")
    parser.add_argument("--picture", type=picture_to_write, help="PNG or SVG file")
    parser.add_argument("--out", type=Path, default=Path("bench-results/arrivals.json"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
