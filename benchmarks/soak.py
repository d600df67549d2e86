"""Hours of requests of random shapes: what stays flat, and what does not.

    make soak                                        # an hour at 60 % of what can be carried
    python -m benchmarks.soak --minutes 5 --picture docs/soak.png

First eight callers ask as fast as they are answered, which is what can be carried. Then requests of
every shape (`benchmarks.shapes`) come at random times at a share of that rate, whatever the answers
do, minute after minute; after each the process's resident memory and descriptors are noted, and
those of its store. In between the service is idle while the next requests are drawn.

Connections to the store are counted apart: there are as many as the largest crowd has needed, up to
a bound, and they stay.

Compared are the second tenth and the last, for in the first one models and heaps find their size:
the times of all their answers, and the medians of what was noted. Writes bench-results/soak.json;
exits with 1 where memory has grown by more than 5 % or descriptors at all, or where an answer was
neither 200 nor 429: the soak ends there, and what it has seen until then is told.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from app.engine.artifact import open_artifact
from app.engine.versions import newest_versions
from benchmarks.generator import AnswerRefused, drawn_loop, open_loop
from benchmarks.report import machine
from benchmarks.server import ROOT, OwnServer, own_server
from benchmarks.shapes import random_shapes
from models.commands import at_least, picture_to_write

CALLERS, CONNECTIONS = 8, 64
MOST_GROWTH = 1.05
MEASURES = ("p50_ms", "p99_ms", "resident_mb", "descriptors", "store_connections", "store_mb")


def main(arguments: list[str] | None = None) -> int:
    """Soak by the command line; return the exit status."""
    given = _parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 120)
    found = soaked(given, console)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    console.print(_table(found))
    if given.picture is not None:
        picture(found["stretches"]).savefig(given.picture, dpi=110)
    console.print(f"written to {given.out}")
    last_over_first = found["last_over_first"]
    has_grown = last_over_first["resident_mb"] > MOST_GROWTH or last_over_first["descriptors"] > 1
    return 1 if has_grown or found["failure"] else 0


def soaked(given: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Return what can be carried, what each stretch was like, and the last over the first."""
    artifacts = [open_artifact(f, "cpu", 1) for f in newest_versions(ROOT / "artifacts")]
    models = [artifact.manifest.name for artifact in artifacts]
    questions = artifacts[0].vocabulary.question_ids
    with (
        tempfile.TemporaryDirectory(prefix="ktserve-soak-") as folder,
        own_server(Path(folder), {"KT_LOG_LEVEL": "warning"}) as server,
    ):
        shapes = random_shapes(server.url, models, questions, seed=0)
        seconds = given.stretch_s
        carried = drawn_loop(server.url, shapes, CALLERS, min(20.0, seconds)).per_second
        rate = given.share * carried
        count = max(2, round(60 * given.minutes / seconds))
        stretches: list[dict[str, Any]] = []
        failure = None
        with Progress(console=console, transient=True) as progress:
            for _ in progress.track(range(count), description="soaking"):
                try:
                    stretches.append(stretch(server, shapes, rate, seconds))
                except (AnswerRefused, TimeoutError) as exc:
                    if not stretches:  # there is nothing to tell of
                        raise
                    failure = str(exc) or "an answer did not come in a minute"
                    break
    tenth = max(1, len(stretches) // 10)
    first, last = (
        _middle(stretches[tenth : 2 * tenth] or stretches[:1]),
        _middle(stretches[-tenth:]),
    )
    return {
        "machine": machine(),
        "minutes": given.minutes,
        "carried_per_second": round(carried, 1),
        "rate_per_second": round(rate, 1),
        "requests": sum(s["requests"] for s in stretches),
        "refused": sum(s["refused"] for s in stretches),
        "failure": failure,
        "first": first,
        "last": last,
        "last_over_first": {name: round(last[name] / first[name], 3) for name in MEASURES},
        "stretches": [{k: v for k, v in s.items() if k != "late_s"} for s in stretches],
    }


def stretch(
    server: OwnServer, shapes: Iterator[bytes], rate: float, seconds: float
) -> dict[str, Any]:
    """Return how a stretch went, and what the processes took at its end."""
    requests = list(itertools.islice(shapes, max(1, round(rate * seconds))))
    load = open_loop(server.url, requests, rate, seconds, CONNECTIONS)
    process = psutil.Process(server.pid)
    _see_off(process)
    store = sum(child.memory_info().rss for child in process.children())
    connections = len(process.net_connections("unix"))  # the embedded store has no port
    return {
        "at_s": round(time.time(), 1),
        "late_s": load.late_s,
        "requests": len(load.late_s),
        "refused": len(load.refused_s),
        **_times_ms(load.late_s),
        "resident_mb": round(process.memory_info().rss / 1e6, 1),
        "descriptors": process.num_fds() - connections,
        "store_connections": connections,
        "store_mb": round(store / 1e6, 1),
    }


def _see_off(process: psutil.Process) -> None:
    """Wait until the service has closed the connections of a stretch, which are not its own."""
    until_s = time.monotonic() + 5
    while time.monotonic() < until_s:
        if all(c.status == psutil.CONN_LISTEN for c in process.net_connections("tcp")):
            return
        time.sleep(0.05)


def _middle(stretches: Sequence[dict[str, Any]]) -> dict[str, float]:
    noted = {name: float(np.median([s[name] for s in stretches])) for name in MEASURES}
    return noted | _times_ms([spent_s for s in stretches for spent_s in s["late_s"]])


def _times_ms(late_s: Sequence[float]) -> dict[str, float]:
    return {f"p{p}_ms": round(float(np.percentile(late_s, p)) * 1000, 3) for p in (50, 99)}


def picture(stretches: Sequence[dict[str, Any]]) -> Figure:
    """Return the figure: each measure against the time."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    minutes = [(s["at_s"] - stretches[0]["at_s"]) / 60 for s in stretches]
    shown = (
        ("p50_ms", "p99_ms"),
        ("resident_mb",),
        ("store_mb",),
        ("descriptors", "store_connections"),
    )
    for axes, names in zip(figure.subplots(2, 2).flat, shown, strict=True):
        for name in names:
            axes.plot(minutes, [s[name] for s in stretches], label=name.replace("_", " "))
        axes.set_ylim(0)
        axes.set_xlabel("minutes")
        axes.legend(fontsize="small")
        axes.grid(alpha=0.3)
    return figure


def _table(found: dict[str, Any]) -> Table:
    title = (
        f"{found['minutes']:g} minutes at {found['rate_per_second']:,.0f} requests a second of "
        f"{found['carried_per_second']:,.0f} that can be carried; {found['machine']}"
    )
    table = Table("what", "second tenth", "last tenth", "the latter over the former", title=title)
    for name in MEASURES:
        first, last = found["first"][name], found["last"][name]
        ratio = f"{found['last_over_first'][name]:.3f}"
        table.add_row(name.replace("_", " "), f"{first:g}", f"{last:g}", ratio)
    table.add_row("requests, refused", f"{found['requests']:,}", f"{found['refused']:,}", "")
    if found["failure"]:
        table.add_row("ended by", found["failure"], "", "")
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--share", type=float, default=0.6, help="of what can be carried")
    parser.add_argument("--stretch-s", type=at_least(1), default=60, help="between two looks")
    parser.add_argument("--picture", type=picture_to_write, help="PNG or SVG file")
    parser.add_argument("--out", type=Path, default=Path("bench-results/soak.json"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
