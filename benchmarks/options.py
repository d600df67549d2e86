"""Which options of a session pay: the graphs that are served, opened in other ways.

    make options       # or: python -m benchmarks.options --rounds 5 --picture docs/batch-size.png

Every graph of the newest artifacts is opened as the server opens it and, beside that, with one
thing changed: two threads in a run, threads that spin, the arena, memory patterns, fewer
optimisations, weights in eight bits. Each is run by one caller and by as many as there are cores,
in turns, on random inputs of the shapes named; the figures are ratios to the graph as served, of
windows (or questions) a second. The second part is the whole-window graphs as served, by batch size
and length, and how many the service lets share a run. Writes bench-results/options.json.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from app.engine.artifact import Artifact, open_artifact
from app.engine.cores import usable_cores
from app.engine.providers import session_options
from app.engine.versions import newest_versions
from benchmarks.report import machine, middle
from benchmarks.server import ROOT
from models.commands import at_least, picture_to_write
from models.contract.artifact import Graph

SEQUENCE, ROWS = 200, 199
"""Places of a whole window; rows that are kept before a question."""

SHAPES: Mapping[str, tuple[Mapping[str, int], ...]] = {
    "sequence": ({"batch": 1, "sequence": SEQUENCE}, {"batch": 8, "sequence": SEQUENCE}),
    "step": ({"batch": 1}, {"batch": 32}),
    "ask": ({"batch": 1}, {"batch": 32}),
    "remember": ({"batch": 1, "new": 1, "places": ROWS},),
    "begin": ({"batch": 1, "new": ROWS},),
    "recall": ({"batch": 1, "questions": 1, "places": ROWS},),
}
"""What a run is of, by graph: as it comes in service, alone and in company."""

SIZES = (1, 2, 4, 8, 16, 32, 64)
LENGTHS = (50, 200)

_SILENT_BELOW_ERROR = 3

Session = onnxruntime.InferenceSession
Inputs = dict[str, NDArray[Any]]


def as_served(path: Path) -> Session:
    """Open a graph with the options of the service."""
    return _session(path, session_options("cpu", 1))


def _two_threads(path: Path) -> Session:
    return _session(path, session_options("cpu", 2))


def _two_that_spin(path: Path) -> Session:
    options = session_options("cpu", 2)
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    return _session(path, options)


def _with_arena(path: Path) -> Session:
    options = session_options("cpu", 1)
    options.enable_cpu_mem_arena = True
    return _session(path, options)


def _with_patterns(path: Path) -> Session:
    options = session_options("cpu", 1)
    options.enable_cpu_mem_arena = options.enable_mem_pattern = True
    return _session(path, options)


def _hardly_optimised(path: Path) -> Session:
    options = session_options("cpu", 1)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    return _session(path, options)


def _in_eight_bits(path: Path) -> Session:
    from onnxruntime.quantization import QuantType, quantize_dynamic  # it brings onnx along

    with tempfile.TemporaryDirectory(prefix="ktserve-options-") as folder:
        quantised = Path(folder) / path.name
        # Not every kind of node: it makes of an Attention one that no runtime knows.
        kinds = ["MatMul", "Gemm", "LSTM"]
        quantize_dynamic(path, quantised, weight_type=QuantType.QInt8, op_types_to_quantize=kinds)
        return _session(quantised, session_options("cpu", 1))


WAYS: Mapping[str, Callable[[Path], Session]] = {
    "as served": as_served,
    "two threads in a run": _two_threads,
    "two that spin": _two_that_spin,
    "arena": _with_arena,
    "arena, patterns": _with_patterns,
    "basic optimisations": _hardly_optimised,
    "eight bits": _in_eight_bits,
}


def main(arguments: list[str] | None = None) -> int:
    """Measure by the command line; return the exit status."""
    given = _parser().parse_args(arguments)
    onnxruntime.set_default_logger_severity(_SILENT_BELOW_ERROR)
    logging.disable(logging.WARNING)  # the quantiser's advice
    console = Console(width=None if sys.stdout.isatty() else 140)
    folders = [f for f in newest_versions(ROOT / "artifacts") if f.parent.name in given.models]
    artifacts = {folder: open_artifact(folder, "cpu", 1) for folder in folders}
    found = {
        "machine": machine(),
        "rounds": given.rounds,
        "options": options(artifacts, given.rounds, given.seconds, console),
        "sizes": sizes(artifacts, given.rounds, given.seconds, console),
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for table in _tables(found):
        console.print(table)
    if given.picture is not None:
        picture(found["sizes"]).savefig(given.picture, dpi=110)
    console.print(f"written to {given.out}")
    return 0


# -- options -------------------------------------------------------------------------------------


def options(
    artifacts: Mapping[Path, Artifact], rounds: int, seconds: float, console: Console
) -> list[dict[str, Any]]:
    """Return a row a graph and shape: ratios to the graph as served, by way, alone and in full."""
    rows = []
    cases = [
        (folder, name, graph, shape)
        for folder, artifact in artifacts.items()
        for name, graph in artifact.manifest.graphs.items()
        for shape in SHAPES[name]
    ]
    opened: dict[tuple[Path, str], dict[str, Session]] = {}
    with Progress(console=console, transient=True) as progress:
        for folder, name, graph, shape in progress.track(cases, description="options"):
            if (folder, name) not in opened:
                opened[folder, name] = {w: o(folder / graph.file) for w, o in WAYS.items()}
            inputs = _inputs(graph, shape)
            rates: dict[str, dict[str, list[float]]] = {"one caller": {}, "a caller a core": {}}
            for _ in range(rounds):
                for way, session in opened[folder, name].items():
                    for told, callers in zip(rates.values(), (1, usable_cores()), strict=True):
                        rate = _rate(session, inputs, callers, seconds) * shape["batch"]
                        told.setdefault(way, []).append(rate)
            rows.append(
                {
                    "model": folder.parent.name,
                    "graph": name,
                    "shape": dict(shape),
                    **{
                        callers: {
                            "a_second": middle(told["as served"], 1),
                            "ratios": {
                                way: _ratio(rate, told["as served"])
                                for way, rate in told.items()
                                if way != "as served"
                            },
                        }
                        for callers, told in rates.items()
                    },
                }
            )
    return rows


# -- sizes ---------------------------------------------------------------------------------------


def sizes(
    artifacts: Mapping[Path, Artifact], rounds: int, seconds: float, console: Console
) -> list[dict[str, Any]]:
    """Return a row a model and length: windows a second by batch size, a caller a core."""
    rows = []
    cases = [(f, a, n) for f, a in artifacts.items() for n in LENGTHS]
    with Progress(console=console, transient=True) as progress:
        for folder, artifact, length in progress.track(cases, description="sizes"):
            graph, session = artifact.manifest.graphs["sequence"], artifact.scorer.session
            inputs = {n: _inputs(graph, {"batch": n, "sequence": length}) for n in SIZES}
            rates: dict[int, list[float]] = {size: [] for size in SIZES}
            for _ in range(rounds):
                for size in SIZES:
                    rate = _rate(session, inputs[size], usable_cores(), seconds)
                    rates[size].append(size * rate)
            rows.append(
                {
                    "model": folder.parent.name,
                    "length": length,
                    "most_in_a_run": max(1, artifact.pace.window_places // length),
                    "a_second": {size: middle(rate, 1) for size, rate in rates.items()},
                }
            )
    return rows


def picture(rows: list[dict[str, Any]]) -> Figure:
    """Return the figure: windows a second against the windows of a run, by model and length."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, len(LENGTHS))
    for axes, length in zip(np.atleast_1d(panels), LENGTHS, strict=True):
        for row in (r for r in rows if r["length"] == length):
            middles = [row["a_second"][size][0] for size in SIZES]
            (line,) = axes.plot(SIZES, middles, marker=".", label=row["model"])
            most, colour = row["most_in_a_run"], line.get_color()
            height = np.interp(most, SIZES, middles)
            axes.plot(most, height, "o", fillstyle="none", ms=11, c=colour)
        axes.set_xscale("log", base=2)
        axes.set_xticks(SIZES, [str(size) for size in SIZES])
        axes.set_yscale("log")
        axes.set_title(f"windows of {length} places")
        axes.set_xlabel("windows in a run")
        axes.grid(alpha=0.3, which="both")
    panels[0].set_ylabel("windows a second, a run a core")
    panels[0].legend(fontsize="small")
    return figure


# -- runs ----------------------------------------------------------------------------------------


def _rate(session: Session, inputs: Inputs, callers: int, seconds: float) -> float:
    """Return runs a second of so many callers at a time."""
    with ThreadPoolExecutor(callers) as threads:
        each = threads.map(_runs, *zip(*[(session, inputs, seconds)] * callers, strict=True))
        return sum(each)


def _runs(session: Session, inputs: Inputs, seconds: float) -> float:
    session.run(None, inputs)
    began, done = time.perf_counter(), 0
    while (spent := time.perf_counter() - began) < seconds:
        session.run(None, inputs)
        done += 1
    return done / spent


def _inputs(graph: Graph, sizes: Mapping[str, int]) -> Inputs:
    """Return small numbers that every port takes, of these sizes; what is kept is all there."""
    rng = np.random.default_rng(0)
    inputs = {}
    for port in graph.inputs:
        shape = [{"skills": 1, **sizes}[a] if isinstance(a, str) else a for a in port.axes]
        inputs[port.name] = rng.integers(1, 3, shape).astype(port.dtype)
    if "kept" in inputs:
        inputs["kept"][:] = sizes["places"]
    return inputs


def _session(path: Path, options: onnxruntime.SessionOptions) -> Session:
    return onnxruntime.InferenceSession(
        str(path), sess_options=options, providers=["CPUExecutionProvider"]
    )


# -- telling -------------------------------------------------------------------------------------


def _ratio(above: list[float], below: list[float]) -> list[float]:
    return middle([a / b for a, b in zip(above, below, strict=True)])


def _tables(found: dict[str, Any]) -> list[Table]:
    tables = []
    others = [way for way in WAYS if way != "as served"]
    for callers in ("one caller", "a caller a core"):
        table = Table(
            *("model", "graph", "shape", "as served/s", *others),
            title=escape(f"{callers}: ratios to the graph as served; {found['machine']}"),
        )
        for row in found["options"]:
            told = row[callers]
            table.add_row(
                row["model"],
                row["graph"],
                " x ".join(str(size) for size in row["shape"].values()),
                f"{told['a_second'][0]:,.0f}",
                *(f"{told['ratios'][way][0]:.2f}" for way in others),
            )
        tables.append(table)
    table = Table(
        *("model", "places", *(str(size) for size in SIZES), "most in a run"),
        title=escape("whole windows a second, by windows in a run; a run a core"),
    )
    for row in found["sizes"]:
        rates = (f"{row['a_second'][size][0]:,.0f}" for size in SIZES)
        table.add_row(row["model"], str(row["length"]), *rates, str(row["most_in_a_run"]))
    return [*tables, table]


def _parser() -> argparse.ArgumentParser:
    names = [folder.parent.name for folder in newest_versions(ROOT / "artifacts")]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.options", description=__doc__)
    parser.add_argument("--rounds", type=at_least(1), default=5)
    parser.add_argument("--seconds", type=float, default=0.2, help="of each figure in a round")
    parser.add_argument("--models", nargs="+", default=names, choices=names)
    parser.add_argument("--picture", type=picture_to_write, help="PNG or SVG: batch sizes")
    parser.add_argument("--out", type=Path, default=Path("bench-results/options.json"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
