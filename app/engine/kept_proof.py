"""What a step graph and an ask graph must show before they may serve: the network's answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from app.engine.kept import ANSWERS, NEXT_STATE, STATE, KeptScorer
from app.engine.proof import (
    ProofFailed,
    check_graph,
    compare,
    contract_ports,
    golden_cases,
    tolerance_of,
)
from models.contract.artifact import MANIFEST, START, Graph, Manifest, Port
from models.contract.following import Following
from models.contract.window import INPUTS


def check_kept_ports(
    graphs: Mapping[str, Graph],
    sessions: Mapping[str, onnxruntime.InferenceSession],
    start: NDArray[Any],
) -> None:
    """Raise unless contract, manifest and files agree, and the start state is one."""
    state = Port(name=STATE, dtype=start.dtype.name, axes=("batch", *start.shape))
    one = {
        name: Port(name=name, dtype=port.dtype, axes=tuple(a for a in port.axes if a != "sequence"))
        for name, port in contract_ports().items()
        if name != "mask"
    }
    answers = Port(name=ANSWERS, dtype="int64", axes=("batch",))
    next_state = Port(name=NEXT_STATE, dtype=state.dtype, axes=state.axes)
    asked = {port.name: port for port in graphs["sequence"].outputs}
    allowed = {
        "step": ({STATE: state, **one}, {NEXT_STATE: next_state}),
        "ask": ({STATE: state, **one, ANSWERS: answers}, asked),
    }
    for name, (inputs, outputs) in allowed.items():
        graph, session = graphs[name], sessions[name]
        if {p.name for p in graph.outputs} != outputs.keys():
            raise ProofFailed(
                MANIFEST, f"{graph.file} gives {[p.name for p in graph.outputs]}, not {[*outputs]}"
            )
        check_graph(graph, session, inputs, outputs)
    if not np.isfinite(start).all():
        raise ProofFailed(START, "it is not finite")


def compare_kept(scorer: KeptScorer, manifest: Manifest, path: Path) -> None:
    """Raise unless states folded over the golden windows answer as the network did.

    Each is folded in two parts, side by side with the others of its case: as it will be served.
    """
    file, tolerance = manifest.graphs["ask"].file, tolerance_of(manifest)
    for number, case in golden_cases(path).items():
        lengths = case["mask"].sum(axis=1)
        halves = (lengths - 1) // 2
        state = np.repeat(scorer.start[None], len(lengths), axis=0)
        try:
            # Asked with the answer after the first half, which no state sees.
            _, state = scorer.run(state, _between(case, halves * 0, halves))
            found, _ = scorer.run(state, _between(case, halves, lengths - 1))
        except Exception as exc:  # ONNX Runtime's errors share no other base
            raise ProofFailed(file, f"it does not run on golden case {number}: {exc}") from exc
        expected = {name: case[name] for name in found}
        compare(found, expected, tolerance, file, f"golden case {number}, from a kept state")


def _between(
    case: Mapping[str, NDArray[Any]], seen: NDArray[np.int64], query: NDArray[np.int64]
) -> Following:
    """Return the places of each window from `seen` on, and as its query the place `query`."""
    rows = {
        name: [array[real] for array, real in zip(case[name], case["mask"], strict=True)]
        for name in INPUTS
        if name != "mask"
    }
    bounds = list(zip(seen, query, strict=True))
    return Following(
        answered={
            name: np.concatenate([r[a:b] for r, (a, b) in zip(arrays, bounds, strict=True)])
            for name, arrays in rows.items()
        },
        new=query - seen,
        queries={
            name: np.stack([r[b] for r, (_, b) in zip(arrays, bounds, strict=True)])
            for name, arrays in rows.items()
        },
        seen=seen,
    )
