"""What a sequence graph must show before it may serve."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from app.engine.scorer import KNOWLEDGE_STATE, P_CORRECT, OnnxScorer
from models.contract.artifact import GOLDEN, MANIFEST, Graph, Manifest, Port
from models.contract.counts import counts_of
from models.contract.interaction import FIRST, RIGHT, UNKNOWN, UNSEEN, WRONG
from models.contract.window import INPUTS, MISSING_S, Window, collate

SHAPES = ((1, 1), (1, 2), (2, 3), (3, 7))
"""Windows and longest length of each batch in the sweep: no size is met twice in one place."""

LOOSEST = 1e-5
"""Largest difference on a probability that a manifest may allow itself."""

_NUMPY_NAMES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}

Arrays = Mapping[str, NDArray[Any]]


class ProofFailed(Exception):
    """A file of the artifact is not what it must be."""

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(f"{file}: {reason}")


def check_ports(graph: Graph, session: onnxruntime.InferenceSession, n_skills: int) -> None:
    """Raise unless contract, manifest and file agree on names, dtypes and axes.

    Every axis that the contract names by a word must be dynamic in the file.
    """
    inputs = contract_ports()
    outputs = {
        P_CORRECT: _port(P_CORRECT, "float32", "batch"),
        # A column for every known skill and, first, one for the skill UNSEEN.
        KNOWLEDGE_STATE: _port(KNOWLEDGE_STATE, "float32", "batch", n_skills + 1),
    }
    if P_CORRECT not in [port.name for port in graph.outputs]:
        raise ProofFailed(MANIFEST, f"{graph.file} has no output {P_CORRECT}")
    check_graph(graph, session, inputs, outputs)


def check_graph(
    graph: Graph,
    session: onnxruntime.InferenceSession,
    inputs: Mapping[str, Port],
    outputs: Mapping[str, Port],
) -> None:
    """Raise unless a file has just the manifest's ports, each of them one of these."""
    for ports, known, nodes in (
        (graph.inputs, inputs, session.get_inputs()),
        (graph.outputs, outputs, session.get_outputs()),
    ):
        for port in ports:
            if port != known.get(port.name):
                raise ProofFailed(
                    MANIFEST,
                    f"{port} of {graph.file} is none of {', '.join(map(str, known.values()))}",
                )
        _check_declared(graph.file, {port.name: port for port in ports}, nodes)


def sweep(scorer: OnnxScorer, manifest: Manifest) -> None:
    """Raise unless windows of every shape run, and answer in a batch as they do alone.

    A graph may declare an axis dynamic that was frozen when it was exported.
    """
    file, tolerance = manifest.graphs["sequence"].file, tolerance_of(manifest)
    for rows, length in SHAPES:
        if length > manifest.window.length:
            continue
        windows = [_window(max(1, length - 2 * row), row + 1, manifest) for row in range(rows)]
        together = _run(scorer, collate(windows, scorer.side), file)
        for name, array in together.items():
            if array.shape[:1] != (rows,):
                raise ProofFailed(file, f"{name} has shape {array.shape} for {rows} windows")
        for row, window in enumerate(windows if rows > 1 else ()):
            alone = _run(scorer, collate([window], scorer.side), file)
            here = {name: array[row : row + 1] for name, array in together.items()}
            compare(here, alone, tolerance, file, f"window {row} of {rows}, batched and alone")


def compare_golden(scorer: OnnxScorer, manifest: Manifest, path: Path) -> None:
    """Raise unless the graph gives, on this machine, what the network gave at the export."""
    graph, tolerance = manifest.graphs["sequence"], tolerance_of(manifest)
    cases = golden_cases(path)
    if not cases:
        raise ProofFailed(GOLDEN, "it holds no window")
    for number, case in cases.items():
        for port in (*graph.inputs, *graph.outputs):
            if port.name not in case:
                raise ProofFailed(GOLDEN, f"case {number} has no {port.name}")
            array = case[port.name]
            # Some graphs take the whole process down when they are given a batch of nothing.
            if array.dtype.name != port.dtype or not array.size:
                raise ProofFailed(
                    GOLDEN,
                    f"{port.name} of case {number} is {array.dtype} {array.shape}, "
                    f"the manifest says {port.dtype} {port.axes}",
                )
        found = _run(scorer, case, graph.file)
        expected = {port.name: case[port.name] for port in graph.outputs}
        compare(found, expected, tolerance, graph.file, f"golden case {number}")


def warm(scorer: OnnxScorer, manifest: Manifest) -> None:
    """Run the longest window there can be, so that no request is the first to do so."""
    window = _window(manifest.window.length, 1, manifest)
    _run(scorer, collate([window], scorer.side), manifest.graphs["sequence"].file)


def contract_ports() -> dict[str, Port]:
    """Return what a sequence graph may read, by name."""
    return {name: _port(name, np.dtype(d).name, *axes) for name, (d, axes) in INPUTS.items()}


def _port(name: str, dtype: str, *axes: str | int) -> Port:
    return Port(name=name, dtype=dtype, axes=axes)


def _check_declared(file: str, ports: Mapping[str, Port], nodes: list[Any]) -> None:
    """Raise unless a file has these inputs, or outputs, and no others."""
    found = {node.name: node for node in nodes}
    if found.keys() != ports.keys():
        raise ProofFailed(file, f"it has {sorted(found)}, the manifest names {sorted(ports)}")
    for name, port in ports.items():
        dtype, axes = _NUMPY_NAMES.get(found[name].type, found[name].type), found[name].shape
        if dtype != port.dtype:
            raise ProofFailed(file, f"{name} is {dtype}, the manifest says {port.dtype}")
        if len(axes) != len(port.axes):
            raise ProofFailed(file, f"{name} has axes {axes}, the manifest says {port.axes}")
        for have, want in zip(axes, port.axes, strict=True):
            if isinstance(want, str) and isinstance(have, int):
                raise ProofFailed(file, f"axis {want} of {name} is frozen to {have}")
            if isinstance(want, int) and have != want:
                raise ProofFailed(file, f"{name} has axes {axes}, the manifest says {port.axes}")


def _window(length: int, n_skills: int, manifest: Manifest) -> Window:
    """Return a window of known and unseen ids, with `n_skills` skills at its places."""
    place = np.arange(length)
    skill = place[:, None] + np.arange(n_skills)[None, :]
    response = np.where(place % 3 == 0, WRONG, RIGHT)
    response[-1] = UNKNOWN
    elapsed_s = (place % 60).astype(np.float32)
    elapsed_s[-1] = MISSING_S
    question = UNSEEN + place % (manifest.n_questions + FIRST - UNSEEN)
    skills = UNSEEN + skill % (manifest.n_skills + FIRST - UNSEEN)
    difficulty = np.stack([question % 50, question % 7], axis=1).astype(np.float32)
    return Window(
        question=question,
        skills=skills,
        response=response,
        lag_s=np.where(place == 0, MISSING_S, place % 900).astype(np.float32),
        elapsed_s=elapsed_s,
        counts=counts_of(question, skills, response, difficulty),
    )


def golden_cases(path: Path) -> dict[str, dict[str, NDArray[Any]]]:
    """Return the arrays `<case>.<name>` of a file by case and name."""
    cases: dict[str, dict[str, NDArray[Any]]] = {}
    try:
        for key, array in _arrays(path):
            case, _, name = key.partition(".")
            cases.setdefault(case, {})[name] = array
    except Exception as exc:  # numpy's, zipfile's and zlib's errors share no other base
        raise ProofFailed(GOLDEN, f"it cannot be read: {exc}") from exc
    return cases


def _arrays(path: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    with np.load(path, allow_pickle=False) as file:
        yield from file.items()


def _run(scorer: OnnxScorer, batch: Arrays, file: str) -> dict[str, NDArray[Any]]:
    try:
        return scorer.run(batch)
    except Exception as exc:  # ONNX Runtime's errors share no other base
        shape = next(iter(batch.values())).shape
        raise ProofFailed(file, f"it does not run on windows {shape}: {exc}") from exc


def compare(found: Arrays, expected: Arrays, tolerance: float, file: str, where: str) -> None:
    """Raise unless what was found is what was expected."""
    for name, values in expected.items():
        if found[name].shape != values.shape:
            raise ProofFailed(
                file, f"{name} has shape {found[name].shape}, not {values.shape} ({where})"
            )
        gap = float(np.abs(found[name] - values).max())
        if not gap <= tolerance:  # NaN is not either
            raise ProofFailed(file, f"{name} is {gap:.1e} off, allowed {tolerance} ({where})")


def tolerance_of(manifest: Manifest) -> float:
    """Return the largest difference that the manifest allows itself; raise where that is none."""
    tolerance = manifest.parity.get("tolerance")
    if not isinstance(tolerance, float) or not 0 < tolerance <= LOOSEST:
        raise ProofFailed(MANIFEST, f"parity tolerance {tolerance!r} is not in (0, {LOOSEST}]")
    return tolerance
