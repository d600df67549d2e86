"""What a remember graph and a recall graph must show before they may serve."""

from __future__ import annotations

from collections.abc import Mapping
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
from app.engine.recalling import CARRY, MEMORY, NEXT_CARRY, ROWS, RecallScorer
from app.engine.scorer import P_CORRECT
from models.contract.artifact import MANIFEST, START, Graph, Manifest, Port
from models.contract.window import INPUTS

_CANDIDATES = 2


def check_recall_ports(
    graphs: Mapping[str, Graph],
    sessions: Mapping[str, onnxruntime.InferenceSession],
    start: NDArray[Any],
) -> None:
    """Raise unless contract, manifest and files agree, and the start is one."""
    width = next((p.axes[-1] for p in graphs["remember"].outputs if p.name == ROWS), None)
    if not isinstance(width, int):
        raise ProofFailed(MANIFEST, f"{graphs['remember'].file} gives no rows of a fixed width")
    carry = Port(name=CARRY, dtype=start.dtype.name, axes=start.shape)
    memory = Port(name=MEMORY, dtype="float32", axes=("places", width))
    rows = Port(name=ROWS, dtype="float32", axes=("new", width))
    next_carry = Port(name=NEXT_CARRY, dtype=carry.dtype, axes=carry.axes)
    outputs = {
        "remember": {ROWS: rows, NEXT_CARRY: next_carry},
        "recall": {port.name: port for port in graphs["sequence"].outputs},
    }
    for name, along in (("remember", "new"), ("recall", "batch")):
        graph, session = graphs[name], sessions[name]
        if {p.name for p in graph.outputs} != outputs[name].keys():
            raise ProofFailed(
                MANIFEST,
                f"{graph.file} gives {[p.name for p in graph.outputs]}, not {[*outputs[name]]}",
            )
        check_graph(graph, session, {MEMORY: memory, CARRY: carry, **_places(along)}, outputs[name])
    if not np.isfinite(start).all():
        raise ProofFailed(START, "it is not finite")


def compare_recall(scorer: RecallScorer, manifest: Manifest, path: Path) -> None:
    """Raise unless what is recalled of the golden windows is what the network said of them.

    Each is remembered in two parts, and its query asked twice over.
    """
    file, tolerance = manifest.graphs["recall"].file, tolerance_of(manifest)
    for number, case in golden_cases(path).items():
        for row, real in enumerate(case["mask"]):
            window = {n: case[n][row][real] for n in INPUTS if n != "mask"}
            query = len(window["question"]) - 1
            kept = scorer.no_rows(), scorer.start
            try:
                for part in (slice(0, query // 2), slice(query // 2, query)):
                    kept = scorer.remembered(*kept, {n: a[part] for n, a in window.items()})
                queries = {n: np.repeat(a[query:], _CANDIDATES, axis=0) for n, a in window.items()}
                found = scorer.recalled(*kept, queries)
            except Exception as exc:  # ONNX Runtime's errors share no other base
                raise ProofFailed(file, f"it does not run on golden case {number}: {exc}") from exc
            compare(
                {P_CORRECT: np.array([score.p_correct for score in found], np.float32)},
                {P_CORRECT: np.repeat(case[P_CORRECT][row], _CANDIDATES)},
                tolerance,
                file,
                f"golden case {number}, row {row}, recalled",
            )


def _places(along: str) -> dict[str, Port]:
    """Return the ports of places that have one axis of this name."""
    return {
        name: Port(
            name=name,
            dtype=port.dtype,
            axes=(along, *(a for a in port.axes if a not in ("batch", "sequence"))),
        )
        for name, port in contract_ports().items()
        if name != "mask"
    }
