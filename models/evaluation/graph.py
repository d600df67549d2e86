"""An exported artifact, opened for measuring: its sequence graph in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from models.contract.artifact import VOCABULARY, Manifest, WindowRule
from models.contract.vocabulary import Vocabulary


class ServedGraph(NamedTuple):
    """What an evaluation needs of an artifact."""

    score: Callable[[dict[str, NDArray[Any]]], NDArray[np.float32]]  # collated batch -> (B,)
    window: WindowRule
    vocabulary: Vocabulary
    kind: str  # its network's name in `models.nets.NETWORKS`
    config: Mapping[str, Any]  # the network's own
    data: Mapping[str, Any]
    seed: int


def open_graph(folder: Path) -> ServedGraph:
    """Open an artifact's sequence graph; raise `ManifestError` where the folder is not one."""
    manifest = Manifest.load(folder)
    manifest.check_files(folder)
    graph = manifest.graphs["sequence"]
    session = onnxruntime.InferenceSession(
        str(folder / graph.file), providers=["CPUExecutionProvider"]
    )
    names = [port.name for port in graph.inputs]

    def score(batch: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        return session.run(["p_correct"], {n: batch[n] for n in names})[0]  # type: ignore[no-any-return]

    return ServedGraph(
        score=score,
        window=manifest.window,
        vocabulary=Vocabulary.load(folder / VOCABULARY),
        kind=manifest.network,
        config=manifest.config,
        data=manifest.training,
        seed=int(manifest.training["seed"]),
    )
