"""The shipped graphs on a GPU: the CPU's numbers, and windows a second by length and batch.

    make bench-gpu                      # needs a CUDA device; ARGS="--rounds 3"
    python -m benchmarks.gpu --device cpu --lengths 50 --batches 1 8     # the same by the CPU

First the golden windows of every artifact are run by the CPU and by the device; more than the
artifact's own tolerance apart and nothing is measured. Then whole windows, in turns: the run of
the service (arrays in, arrays out), the same bound to memory of the device (nothing is copied),
and the network in torch, eager and compiled, whose arrays are on the device too. Its weights are
drawn: they do not change the time. Writes bench-results/gpu.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from app.engine.artifact import Artifact, open_artifact
from app.engine.proof import golden_cases, tolerance_of
from app.engine.versions import newest_versions
from app.errors import ProviderUnavailable
from benchmarks.report import machine, middle
from benchmarks.server import ROOT
from models.commands import at_least, picture_to_write
from models.contract.artifact import GOLDEN
from models.contract.window import INPUTS
from models.nets import build

Inputs = dict[str, NDArray[Any]]
Run = Callable[[], object]

LENGTHS = (50, 200, 400)
BATCHES = (1, 8, 32, 128, 512)
SERVED, BOUND, EAGER, COMPILED = "as served", "bound", "torch eager", "torch compiled"


def main(arguments: list[str] | None = None) -> int:
    """Measure by the command line; return the exit status."""
    given = _parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 140)
    folders = [f for f in newest_versions(ROOT / "artifacts") if f.parent.name in given.models]
    try:
        artifacts = {f: open_artifact(f, given.device, 1) for f in folders}
    except ProviderUnavailable as exc:
        console.print(f"nothing is measured: {exc}", markup=False)
        return 2
    apart = {f.parent.name: furthest(f, a, given.device) for f, a in artifacts.items()}
    rows = measured(given, list(artifacts.values()), console)
    found = {
        "machine": machine(),
        "device": _name(given.device),
        "torch": torch.__version__,
        "furthest_from_the_cpu": apart,
        "rounds": given.rounds,
        "rows": rows,
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    console.print(_table(found))
    if given.picture is not None:
        picture(rows, given.lengths).savefig(given.picture, dpi=110)
    console.print(f"written to {given.out}")
    return 0


def furthest(folder: Path, artifact: Artifact, device: str) -> float:
    """Return the largest difference of a golden window's numbers; raise where it is too large.

    `open_artifact` has compared them with torch's own; here the CPU's graph is beside the device's.
    """
    cpu = open_artifact(folder, "cpu", 1) if device != "cpu" else artifact
    gap = 0.0
    for case in golden_cases(folder / GOLDEN).values():
        here, there = (one.scorer.run(case) for one in (artifact, cpu))
        gap = max(gap, *(float(np.abs(here[n] - there[n]).max()) for n in here))
    if not gap <= 2 * tolerance_of(artifact.manifest):
        raise RuntimeError(f"{artifact.manifest.name}: {gap:.1e} between {device} and the CPU")
    return gap


# -- measuring -----------------------------------------------------------------------------------


def measured(
    given: argparse.Namespace, artifacts: list[Artifact], console: Console
) -> list[dict[str, Any]]:
    """Return a row a model, length and batch: windows a second of each way, over the rounds."""
    rows = []
    cases = [(a, n, b) for a in artifacts for n in given.lengths for b in given.batches]
    with Progress(console=console, transient=True) as progress:
        for artifact, length, batch in progress.track(cases, description="windows"):
            inputs = _inputs(batch, length)
            ways = _ways(artifact, inputs, given.device, is_compiled=not given.eager_alone)
            rates: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(given.rounds):
                for way, run in ways.items():
                    rates[way].append(batch * _rate(run, given.seconds, given.device))
            rows.append(
                {
                    "model": artifact.manifest.name,
                    "length": length,
                    "batch": batch,
                    "a_second": {way: middle(rate, 1) for way, rate in rates.items()},
                    "over_eager": {
                        way: middle([a / b for a, b in zip(rate, rates[EAGER], strict=True)])
                        for way, rate in rates.items()
                    },
                }
            )
    return rows


def _ways(artifact: Artifact, inputs: Inputs, device: str, *, is_compiled: bool) -> dict[str, Run]:
    session = artifact.scorer.session
    fed = {node.name: inputs[node.name] for node in session.get_inputs()}
    ways: dict[str, Run] = {
        SERVED: lambda: session.run(None, fed),
        BOUND: _bound(session, fed, device),
    }
    manifest = artifact.manifest
    network = build(manifest.network, manifest.config).eval().to(device)
    tensors = [torch.from_numpy(inputs[name]).to(device) for name in INPUTS]
    ways[EAGER] = _in_torch(network, tensors)
    if is_compiled:
        ways[COMPILED] = _in_torch(torch.compile(network, dynamic=True), tensors)
    return ways


def _bound(session: onnxruntime.InferenceSession, fed: Inputs, device: str) -> Run:
    """Return a run whose arrays stay where the device has them."""
    binding = session.io_binding()
    for name, array in fed.items():
        binding.bind_ortvalue_input(
            name, onnxruntime.OrtValue.ortvalue_from_numpy(array, device, 0)
        )
    for node in session.get_outputs():
        binding.bind_output(node.name, device)

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return run


def _in_torch(network: Callable[..., Any], tensors: list[torch.Tensor]) -> Run:
    def run() -> Any:
        with torch.inference_mode():
            return network(*tensors)

    return run


def _rate(run: Run, seconds: float, device: str) -> float:
    for _ in range(3):
        run()
    _wait(device)
    began, done = time.perf_counter(), 0
    while (spent := time.perf_counter() - began) < seconds:
        run()
        _wait(device)
        done += 1
    return done / spent


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _inputs(batch: int, length: int) -> Inputs:
    """Return windows of small numbers, all places real."""
    rng = np.random.default_rng(batch)
    sizes: Mapping[str, int] = {"batch": batch, "sequence": length, "skills": 1}
    found = {}
    for name, (dtype, axes) in INPUTS.items():
        shape = [sizes[a] if isinstance(a, str) else a for a in axes]
        found[name] = rng.integers(1, 3, shape).astype(dtype)
    return found


def _name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else "the CPU"


# -- telling -------------------------------------------------------------------------------------


def picture(rows: list[dict[str, Any]], lengths: list[int]) -> Figure:
    """Return the figure: windows a second against the batch, by model, of the longest windows."""
    models = list(dict.fromkeys(row["model"] for row in rows))
    figure = Figure(figsize=(3 * len(models), 3.2), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(models), sharey=True))
    for axes, model in zip(panels, models, strict=True):
        found = [r for r in rows if r["model"] == model and r["length"] == max(lengths)]
        for way in found[0]["a_second"]:
            middles = [row["a_second"][way][0] for row in found]
            axes.plot([row["batch"] for row in found], middles, marker=".", label=way)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_title(model, fontsize="medium")
        axes.set_xlabel("windows in a run")
        axes.grid(alpha=0.3, which="both")
    panels[0].set_ylabel(f"windows of {max(lengths)} places a second")
    panels[0].legend(fontsize="small")
    return figure


def _table(found: dict[str, Any]) -> Table:
    ways = list(found["rows"][0]["a_second"])
    table = Table(
        *("model", "places", "batch", *(f"{way}/s" for way in ways), "served over eager"),
        title=f"whole windows on {found['device']}; {found['machine']}; torch {found['torch']}",
    )
    for row in found["rows"]:
        rates = (f"{row['a_second'][way][0]:,.0f}" for way in ways)
        ratio = f"{row['over_eager'][SERVED][0]:.2f}"
        table.add_row(row["model"], str(row["length"]), str(row["batch"]), *rates, ratio)
    return table


def _parser() -> argparse.ArgumentParser:
    names = [folder.parent.name for folder in newest_versions(ROOT / "artifacts")]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--rounds", type=at_least(1), default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each figure in a round")
    parser.add_argument("--models", nargs="+", default=names, choices=names)
    parser.add_argument("--lengths", type=at_least(1), nargs="+", default=list(LENGTHS))
    parser.add_argument("--batches", type=at_least(1), nargs="+", default=list(BATCHES))
    parser.add_argument("--eager-alone", action="store_true", help="torch uncompiled alone")
    parser.add_argument("--picture", type=picture_to_write, help="PNG or SVG file")
    parser.add_argument("--out", type=Path, default=Path("bench-results/gpu.json"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
