"""An artifact -> its next version, as it would be exported now: the same graphs, without notes.

    python -m export.republish artifacts/dkt/3 artifacts/dkt/4

For one whose run is gone. What is said of the network is taken over, for the graphs answer as those
of before do, to the bit: that is tried, and where one does not, nothing is published. What the
training split was like is counted, where that can be read.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from export.card import card
from export.inputs import inputs_of
from export.notes import drop_notes
from export.parity import ParityFailed, read_by, session_of
from export.publish import Say, reads_lag, staged
from export.sharing import share_weights
from models.contract.artifact import (
    CARD,
    GOLDEN,
    MANIFEST,
    VOCABULARY,
    WEIGHTS,
    Graph,
    Manifest,
    sha256_of,
)
from models.contract.inputs import Inputs
from models.contract.vocabulary import Vocabulary

_SIZES = (3, 7, 20, 150)
_HIGHEST = 2  # an id of this or less stands in every vocabulary, and so many places in every size


def republish(old: Path, out: Path, say: Say = print) -> Manifest:
    """Publish the artifact in `old` as `out` (`<model>/<version>`).

    What its training split was like is counted anew, where that can be read.
    Raises `ManifestError` or `ParityFailed`, and then leaves nothing at `out`.
    """
    if out.exists():
        raise FileExistsError(f"{out} is there already; a version is never written over")
    manifest = Manifest.load(old)
    manifest.check_files(old)
    graphs = manifest.graphs.values()
    made = {CARD, WEIGHTS, *(graph.file for graph in graphs)}
    with staged(out) as stage:
        for name in manifest.files.keys() - made:
            shutil.copyfile(old / name, stage / name)
        for graph in graphs:
            model = onnx.load(str(old / graph.file))
            drop_notes(model)
            onnx.save(model, str(stage / graph.file))
        share_weights([stage / graph.file for graph in graphs], stage / WEIGHTS)
        for graph in graphs:
            _compare(graph, old, stage, manifest.window.length)
        manifest = dataclasses.replace(
            manifest, name=out.parent.name, version=out.name, inputs=_inputs(old, manifest, say)
        )
        (stage / CARD).write_text(card(manifest), encoding="utf-8")
        files = {p.name: sha256_of(p) for p in sorted(stage.iterdir()) if p.name != MANIFEST}
        manifest = dataclasses.replace(manifest, files=files)
        manifest.save(stage)
        Manifest.load(stage).check_files(stage)
    return manifest


def _inputs(old: Path, manifest: Manifest, say: Say) -> Inputs:
    """Count the training split; where it cannot be read, what was said of it before stands."""
    data, vocabulary = manifest.training, Vocabulary.load(old / VOCABULARY)
    lag = reads_lag(manifest.graphs)
    found = inputs_of(data, data["seed"], vocabulary, say, reads_lag=lag)
    return found if found.is_known else manifest.inputs


def _compare(graph: Graph, old: Path, new: Path, longest: int) -> None:
    """Raise unless two files of a graph give the same bits for the same inputs."""
    before, after = session_of(old / graph.file), session_of(new / graph.file)
    names = [port.name for port in graph.outputs]
    for batch in (*_golden(graph, old), *_drawn(graph, longest)):
        inputs = read_by(before, batch)
        pairs = zip(before.run(names, inputs), after.run(names, inputs), strict=True)
        if any(one.tobytes() != other.tobytes() for one, other in pairs):
            raise ParityFailed(f"{graph.file} does not answer as that of {old} does")


def _golden(graph: Graph, folder: Path) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield those windows kept in an artifact that have all that a graph reads."""
    cases: dict[str, dict[str, NDArray[Any]]] = {}
    with np.load(folder / GOLDEN, allow_pickle=False) as file:
        for key, array in file.items():
            case, _, name = key.partition(".")
            cases.setdefault(case, {})[name] = array
    wanted = {port.name for port in graph.inputs}
    yield from (case for case in cases.values() if wanted <= case.keys())


def _drawn(graph: Graph, longest: int) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield inputs of several sizes within windows of `longest` places, drawn by their ports."""
    rng = np.random.default_rng(4)
    axes = sorted({a for port in graph.inputs for a in port.axes if isinstance(a, str)})
    for size in _SIZES:
        if size + len(axes) + _HIGHEST > longest:
            break
        # No axis as long as another: one that takes another's place would go unseen.
        sizes = {axis: size + place for place, axis in enumerate(axes)}
        batch = {}
        for port in graph.inputs:
            shape = [sizes[a] if isinstance(a, str) else a for a in port.axes]
            if port.dtype.startswith("float"):
                batch[port.name] = rng.exponential(size=shape).astype(port.dtype)
            elif port.dtype == "bool":
                batch[port.name] = np.ones(shape, bool)
            else:
                batch[port.name] = rng.integers(0, _HIGHEST + 1, shape).astype(port.dtype)
        yield batch


def main(arguments: list[str] | None = None) -> int:
    """Publish anew by the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m export.republish",
        description="Publish an artifact's graphs anew, without what the exporter noted in them.",
    )
    parser.add_argument("old", type=Path, help="artifact folder: <model>/<version>")
    parser.add_argument("out", type=Path, help="artifact folder to make")
    given = parser.parse_args(arguments)
    try:
        republish(given.old, given.out, lambda line: sys.stderr.write(line + "\n"))
    except (ValueError, OSError, RuntimeError) as exc:
        sys.stderr.write(f"export.republish: {exc}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
