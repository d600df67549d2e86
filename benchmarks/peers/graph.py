"""The shipped graph in ONNX Runtime: what every peer but the torch one runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnxruntime

from benchmarks.peers.windows import Windows


class Graph:
    """One artifact, opened: histories and questions in, probabilities out."""

    def __init__(self, folder: Path) -> None:
        self._windows = Windows(folder)
        options = onnxruntime.SessionOptions()
        # As ktserve has it: a recurrence gains nothing from more threads in one run, and one that
        # spins takes the core that HTTP needs.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            str(self._windows.graph), options, providers=["CPUExecutionProvider"]
        )

    def predict(
        self, histories: Sequence[bytes | None], question_ids: Sequence[str]
    ) -> list[float]:
        """Return p_correct of each question, asked after the history beside it, in one run."""
        inputs = self._windows.inputs(histories, question_ids)
        read = {node.name: inputs[node.name] for node in self._session.get_inputs()}
        (p_correct,) = self._session.run(["p_correct"], read)
        found: list[float] = p_correct.tolist()
        return found
