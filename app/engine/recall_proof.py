"""What a remember graph and a recall graph must show before they may serve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from app.engine.proof import (
    ProofFailed,
    check_graph,
    compare,
    contract_ports,
    golden_cases,
    tolerance_of,
)
from app.engine.recalling import CARRY, KEPT, MEMORY, NEXT_CARRY, ROWS, RecallScorer, Stood
from app.engine.scorer import P_CORRECT
from models.contract.artifact import MANIFEST, START, Graph, Manifest, Port
from models.contract.window import INPUTS


def check_recall_ports(
    graphs: Mapping[str, Graph],
    sessions: Mapping[str, onnxruntime.InferenceSession],
    start: NDArray[Any],
) -> None:
    """Raise unless contract, manifest and files agree, and the start is one."""
    width = next((p.axes[-1] for p in graphs["remember"].outputs if p.name == ROWS), None)
    if not isinstance(width, int):
        raise ProofFailed(MANIFEST, f"{graphs['remember'].file} gives no rows of a fixed width")
    carry = Port(name=CARRY, dtype=start.dtype.name, axes=("batch", *start.shape))
    memory = Port(name=MEMORY, dtype="float32", axes=("batch", "places", width))
    kept = Port(name=KEPT, dtype="int64", axes=("batch",))
    rows = Port(name=ROWS, dtype="float32", axes=("batch", "new", width))
    next_carry = Port(name=NEXT_CARRY, dtype=carry.dtype, axes=carry.axes)
    remembered = {ROWS: rows, NEXT_CARRY: next_carry}
    recalled = {
        port.name: replace(port, axes=("batch", "questions", *port.axes[1:]))
        for port in graphs["sequence"].outputs
    }
    for name, session in sessions.items():
        graph, is_recall = graphs[name], name == "recall"
        outputs = recalled if is_recall else remembered
        if {p.name for p in graph.outputs} != outputs.keys():
            raise ProofFailed(
                MANIFEST, f"{graph.file} gives {[p.name for p in graph.outputs]}, not {[*outputs]}"
            )
        places = _places("questions" if is_recall else "new")
        inputs = {MEMORY: memory, KEPT: kept, CARRY: carry, **places}
        check_graph(graph, session, inputs, outputs)
    if not np.isfinite(start).all():
        raise ProofFailed(START, "it is not finite")


def compare_recall(scorer: RecallScorer, manifest: Manifest, path: Path) -> None:
    """Raise unless what is recalled of the golden windows is what the network said of them.

    Each is remembered in two parts; then all of a case are asked side by side, twice each.
    """
    file, tolerance = manifest.graphs["recall"].file, tolerance_of(manifest)
    for number, case in golden_cases(path).items():
        windows = [
            {n: case[n][row][real] for n in INPUTS if n != "mask"}
            for row, real in enumerate(case["mask"])
        ]
        try:
            stood = [_remembered(scorer, window) for window in windows]
            queries = {n: np.stack([w[n][-1] for w in windows]) for n in windows[0]}
            twice = [[row, row] for row in range(len(windows))]
            scores = scorer.recalled(stood, queries, twice)
        except Exception as exc:  # ONNX Runtime's errors share no other base
            raise ProofFailed(file, f"it does not run on golden case {number}: {exc}") from exc
        compare(
            {P_CORRECT: np.array([[s.p_correct for s in row] for row in scores], np.float32)},
            {P_CORRECT: np.repeat(case[P_CORRECT][:, None], 2, axis=1)},
            tolerance,
            file,
            f"golden case {number}, recalled",
        )


def _remembered(scorer: RecallScorer, window: Mapping[str, NDArray[Any]]) -> Stood:
    """Return how a user stands after the answers of a window, remembered in two parts."""
    stood, end = scorer.no_rows(), len(window["question"]) - 1
    for part in (slice(0, end // 2), slice(end // 2, end)):
        if part.start < part.stop:
            (stood,) = scorer.remembered([stood], {n: a[part][None] for n, a in window.items()})
    return stood


def _places(along: str) -> dict[str, Port]:
    """Return the ports of places that stand along an axis of this name."""
    return {
        name: Port(
            name=name,
            dtype=port.dtype,
            axes=tuple(along if a == "sequence" else a for a in port.axes),
        )
        for name, port in contract_ports().items()
        if name != "mask"
    }
