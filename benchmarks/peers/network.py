"""The same model as a torch module, run eagerly.

An artifact holds no torch weights, but its graph has them: they are read out of the ONNX file into
the network that it was exported from. The benchmark measures nothing unless the answers are the
graph's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor

from benchmarks.peers.windows import Windows
from export.calibrated import Calibrated
from models.contract.artifact import START
from models.contract.counts import N_COUNTS
from models.contract.window import INPUTS
from models.nets.dkt import DKT, DKTConfig

_PREFIX = "network."


class Network:
    """One artifact of DKT in eager torch: histories and questions in, probabilities out."""

    def __init__(self, folder: Path) -> None:
        # Requests go side by side in threads of the server: one core each, as in the graph.
        torch.set_num_threads(1)
        self._windows = Windows(folder)
        manifest = self._windows.manifest
        self._network = DKT(DKTConfig(**manifest.config)).eval()
        weights = weights_of(self._windows.graph, np.load(folder / START))
        self._network.load_state_dict(weights, strict=True)
        self._calibrated = Calibrated(manifest.calibration)

    @torch.inference_mode()
    def predict(
        self, histories: Sequence[bytes | None], question_ids: Sequence[str]
    ) -> list[float]:
        """Return p_correct of each question, asked after the history beside it, in one run."""
        arrays = self._windows.inputs(histories, question_ids)
        mask = torch.from_numpy(arrays["mask"])
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        tensors["counts"] = torch.zeros(*mask.shape, N_COUNTS)  # DKT does not read them
        logit = self._network(*(tensors[name] for name in INPUTS))
        found: list[float] = torch.sigmoid(self._calibrated(logit, mask.sum(dim=1) - 1)).tolist()
        return found


def weights_of(graph: Path, start: NDArray[np.float32]) -> dict[str, Tensor]:
    """Return the state dict of a DKT of one layer from its exported graph and its start state."""
    model = onnx.load(graph).graph
    arrays = {i.name: numpy_helper.to_array(i) for i in model.initializer}
    weights = {
        name.removeprefix(_PREFIX): array
        for name, array in arrays.items()
        if name.startswith(_PREFIX)
    }
    (lstm,) = (node for node in model.node if node.op_type == "LSTM")
    # ONNX has both biases in one, its gates in the order in, out, forget, cell.
    biases = arrays[lstm.input[3]].reshape(2, 4, -1)[:, [0, 2, 3, 1]]  # torch's: out comes last
    for name, bias in zip(("bias_ih_l0", "bias_hh_l0"), biases, strict=True):
        weights[f"recurrence.lstm.{name}"] = bias.reshape(-1)
    weights["recurrence.start"] = start
    return {name: torch.tensor(array) for name, array in weights.items()}
