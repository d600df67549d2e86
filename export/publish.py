"""Export a run, prove it, and only then let it appear as an artifact."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from export import parity
from export.card import card
from export.inputs import inputs_of
from export.sharing import share_weights
from export.to_onnx import OPSET, graph_of, ports_of
from models.contract.artifact import (
    CARD,
    GOLDEN,
    MANIFEST,
    START,
    VOCABULARY,
    WEIGHTS,
    Graph,
    Manifest,
    sha256_of,
)
from models.contract.calibration import Calibration
from models.contract.inputs import Inputs
from models.evaluation.run import METRICS, Run, RunInvalid, open_run, read_json
from models.nets.layers.times import LONGEST_S

Say = Callable[[str], object]


_OWN_WAY = "read in a way of the network's own, told in its file"


class ExportFailed(RuntimeError):
    """No graph could be made; the exporter's own words are in the message."""


def publish(folder: Path, out: Path, say: Say = print) -> Manifest:
    """Export the run in `folder` to the artifact folder `out` (`<model>/<version>`).

    Raises `RunInvalid`, `ExportFailed` or `ParityFailed`, and then leaves nothing at `out`.
    """
    if out.exists():
        raise FileExistsError(f"{out} is there already; a version is never written over")
    run = open_run(folder)
    metrics, calibration = _metrics(run)
    with staged(out) as stage:
        graphs: dict[str, Graph] = {}
        for names in (("sequence",), ("step", "ask"), ("remember", "recall", "begin")):
            found = _graphs_of(run, names)
            if not found:
                continue  # this network has none of them
            say(f"exporting {' and '.join(ports.file for ports in found.values())}")
            export_apart(folder, {name: stage / ports.file for name, ports in found.items()})
            graphs |= {n: ports_of(stage / ports.file, ports) for n, ports in found.items()}
        share_weights([stage / graph.file for graph in graphs.values()], stage / WEIGHTS)
        report = {"sequence": _proved(say, run, stage, graphs, "sequence")}
        if "step" in graphs:
            report["state"] = _proved(say, run, stage, graphs, "step", "ask")
            np.save(stage / START, parity.start_state(run))
        if "remember" in graphs:
            begin = ("begin",) if "begin" in graphs else ()
            report["memory"] = _proved(say, run, stage, graphs, "remember", "recall", *begin)
            np.save(stage / START, run.network.start_carry().detach().numpy())
        run.vocabulary.save(stage / VOCABULARY)
        _save_golden(stage / GOLDEN, parity.golden(run))
        inputs = inputs_of(run.data, run.seed, run.vocabulary, say, reads_lag=reads_lag(graphs))
        manifest = _manifest(run, out, graphs, metrics, calibration, inputs, report)
        (stage / CARD).write_text(card(manifest), encoding="utf-8")
        files = {p.name: sha256_of(p) for p in sorted(stage.iterdir()) if p.name != MANIFEST}
        manifest = _with_files(manifest, files)
        manifest.save(stage)
        Manifest.load(stage).check_files(stage)
    return manifest


def reads_lag(graphs: Mapping[str, Graph]) -> bool:
    """Say whether a model reads the time since the answer before."""
    return any(port.name == "lag_s" for port in graphs["sequence"].inputs)


def _graphs_of(run: Run, names: Sequence[str]) -> dict[str, Graph]:
    """Return the ports of those graphs that a network has."""
    found = {}
    for name in names:
        with suppress(ValueError):
            found[name] = graph_of(run, name)[1]
    return found


def export_apart(folder: Path, paths: Mapping[str, Path]) -> None:
    """Export graphs, by name, in a process of their own; see `export.to_onnx` for the reason."""
    named = [f"{name}={path}" for name, path in paths.items()]
    command = [sys.executable, "-m", "export.to_onnx", str(folder), *named]
    done = subprocess.run(  # noqa: S603 - our own words
        command, capture_output=True, text=True, check=False
    )
    if done.returncode or not all(path.is_file() for path in paths.values()):
        raise ExportFailed(f"{' and '.join(paths)} could not be exported:\n{done.stderr[-4000:]}")


def _proved(say: Say, run: Run, stage: Path, graphs: dict[str, Graph], *names: str) -> Any:
    """Compare graphs with the network; return what was run."""
    files = [graphs[n].file for n in names]
    say(f"proving {' and '.join(files)} against the network")
    if names == ("sequence",):
        found = parity.check_sequence(run, stage / files[0], graphs["sequence"])
    elif "step" in names:
        found = parity.check_state(run, stage / files[0], stage / files[1], graphs)
    else:
        found = parity.check_memory(run, stage, {name: graphs[name] for name in names})
    say(f"  {found['cases']} cases, largest difference {found['largest_difference']:.1e}")
    return found


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """Give a folder beside `out` that becomes `out` at the end, or vanishes after an error."""
    out.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        yield stage
        stage.chmod(0o755)
        stage.rename(out)
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        raise


def _metrics(run: Run) -> tuple[Mapping[str, Any], Calibration]:
    """Return what an evaluation said of a run, and its calibration with what that changed."""
    path = run.folder / METRICS
    measure = f"run `python -m models.evaluation {run.folder}` first"
    if not path.is_file():
        raise RunInvalid(f"{path} is not there: an artifact says how good it is; {measure}")
    content = read_json(path)
    kept = ("data", "split", "users", "scored", "all", "by_history_length")
    measured = Calibration.of(content.get("calibration", {}))
    if dataclasses.replace(measured, ece={}, reliability={}) != run.calibration:
        raise RunInvalid(f"{path} was measured with another calibration than the run's; {measure}")
    if absent := [k for k in kept if k not in content]:
        raise RunInvalid(f"{path} says nothing of {', '.join(absent)}; {measure}")
    return {k: content[k] for k in kept}, measured


def _save_golden(path: Path, cases: list[parity.Case]) -> None:
    arrays = {}
    for number, case in enumerate(cases):
        for name, array in {**case.batch, **case.expected}.items():
            arrays[f"{number}.{name}"] = array
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


def _manifest(
    run: Run,
    out: Path,
    graphs: dict[str, Graph],
    metrics: Mapping[str, Any],
    calibration: Calibration,
    inputs: Inputs,
    report: Mapping[str, Any],
) -> Manifest:
    packages = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy")
    return Manifest(
        name=out.parent.name,
        version=out.name,
        network=run.kind,
        config=run.config,
        graphs=graphs,
        window=run.window,
        vocabulary=run.vocabulary.fingerprint,
        n_questions=len(run.vocabulary.question_ids),
        n_skills=len(run.vocabulary.skill_ids),
        features=_features(run, graphs["sequence"]),
        training={**run.data, "seed": run.seed},
        metrics=metrics,
        parity={**report, "tolerance": parity.TOLERANCE},
        calibration=calibration,
        inputs=inputs,
        tools={"opset": str(OPSET), **{p: importlib.metadata.version(p) for p in packages}},
    )


def _features(run: Run, sequence: Graph) -> dict[str, Any]:
    """Say how each input enters, in words: the graph itself does the encoding.

    What is not read is told by the graph, which has no input for it. How the rest is read is told
    by the options that networks share, by a network's own `features`, or left to its file.
    """
    config = run.network.config
    shares = hasattr(config, "inputs") or hasattr(config, "question")
    times = {"missing": -1, "longest_s": LONGEST_S}
    told: dict[str, Any] = {
        "question": "own embedding" if shares else _OWN_WAY,
        "skills": "a set: mean of the members' embeddings" if shares else _OWN_WAY,
        "response": "moves right by one place; the asked question's is UNKNOWN",
        "counts": {
            "form": "logarithms and ratios" if hasattr(config, "counts") else _OWN_WAY,
            "is": "right and wrong answers before each place: overall, to the skills (their mean) "
            "and to the question, in the window; to the question, by training users (difficulty, "
            "in vocabulary.json)",
        },
        "lag_s": {
            "form": _form(config, "lag"),
            "is": "from the ask before to this ask, at its own place",
            **times,
        },
        "elapsed_s": {
            "form": _form(config, "elapsed"),
            "is": "time taken to answer, moves with the response",
            **times,
        },
        **getattr(run.network, "features", {}),
    }
    read = {port.name for port in sequence.inputs}
    return {name: how if name in read else _not_read(how) for name, how in told.items()}


def _form(config: Any, option: str) -> str:
    """Return how a time is embedded; where it is not, whoever reads it has a way of its own."""
    form: str = getattr(config, option, "none")
    return _OWN_WAY if form == "none" else form


def _not_read(how: Any) -> Any:
    return {**how, "form": "not read"} if isinstance(how, dict) else "not read"


def _with_files(manifest: Manifest, files: dict[str, str]) -> Manifest:
    return dataclasses.replace(manifest, files=files)
