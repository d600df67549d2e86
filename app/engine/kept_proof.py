"""What a step graph and an ask graph must show before they may serve: the network's answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from app.engine.kept import ANSWERS, NEXT_STATE, STATE, Kept, KeptScorer
from app.engine.proof import (
    ProofFailed,
    check_declared,
    compare,
    contract_ports,
    golden_cases,
    tolerance_of,
)
from app.engine.scorer import KNOWLEDGE_STATE, P_CORRECT
from models.contract.artifact import MANIFEST, START, Graph, Manifest, Port
from models.contract.window import Window


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
        for ports, known in ((graph.inputs, inputs), (graph.outputs, outputs)):
            for port in ports:
                if port != known.get(port.name):
                    raise ProofFailed(
                        MANIFEST,
                        f"{port} of {graph.file} is none of {', '.join(map(str, known.values()))}",
                    )
        for ports, nodes in (
            (graph.inputs, session.get_inputs()),
            (graph.outputs, session.get_outputs()),
        ):
            check_declared(graph.file, {port.name: port for port in ports}, nodes)
    if not np.isfinite(start).all():
        raise ProofFailed(START, "it is not finite")


def compare_kept(scorer: KeptScorer, manifest: Manifest, path: Path) -> None:
    """Raise unless states folded over the golden windows answer as the network did.

    Each is folded in two parts, side by side with the others of its case: as it will be served.
    """
    file, tolerance = manifest.graphs["ask"].file, tolerance_of(manifest)
    for number, case in golden_cases(path).items():
        windows = [_window_of(case, row) for row in range(len(case["mask"]))]
        halves = [(len(w) - 1) // 2 for w in windows]
        try:
            # Asked with the answer after the first half, which no state sees.
            first = scorer(
                [Kept(None, 0, _head(w, half + 1)) for w, half in zip(windows, halves, strict=True)]
            )
            found = scorer(
                [
                    Kept(before.state, half, window.tail(len(window) - half))
                    for window, half, before in zip(windows, halves, first, strict=True)
                ]
            )
        except Exception as exc:  # ONNX Runtime's errors share no other base
            raise ProofFailed(file, f"it does not run on golden case {number}: {exc}") from exc
        scores = [one.score for one in found]
        outputs: dict[str, NDArray[Any]] = {P_CORRECT: np.array([s.p_correct for s in scores])}
        if scores[0].knowledge_state is not None:
            outputs[KNOWLEDGE_STATE] = np.stack([np.r_[s.prior, s.knowledge_state] for s in scores])
        expected = {name: case[name] for name in outputs}
        compare(outputs, expected, tolerance, file, f"golden case {number}, from a kept state")


def _window_of(case: Mapping[str, NDArray[Any]], row: int) -> Window:
    """Return one row of a collated batch without its padding."""
    real = case["mask"][row]
    return Window(**{f.name: case[f.name][row][real] for f in fields(Window)})


def _head(window: Window, n: int) -> Window:
    return Window(**{f.name: getattr(window, f.name)[:n] for f in fields(Window)})
