"""One file for the weights of all graphs of an artifact: each large tensor once.

The graphs of a model are views of one network, so that most of their bytes are the same tables.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import onnx
from onnx.external_data_helper import set_external_data

_LARGE = 1024  # bytes; smaller ones stay where they are
_ALIGNED = 64  # bytes, where each begins: what ONNX Runtime maps may be read by wide instructions


def share_weights(graphs: Iterable[Path], weights: Path) -> None:
    """Move the large tensors of graph files into `weights`, beside them."""
    places: dict[bytes, tuple[int, int]] = {}  # digest -> offset, length
    with weights.open("xb") as file:
        for path in graphs:
            model = onnx.load(str(path))
            for tensor in model.graph.initializer:
                content = tensor.raw_data
                if len(content) < _LARGE:
                    continue
                digest = hashlib.sha256(content).digest()
                if digest not in places:
                    file.write(bytes(-file.tell() % _ALIGNED))
                    places[digest] = (file.tell(), len(content))
                    file.write(content)
                offset, length = places[digest]
                set_external_data(tensor, weights.name, offset, length)
                tensor.ClearField("raw_data")
            path.write_bytes(model.SerializeToString())
