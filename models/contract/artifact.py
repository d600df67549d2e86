"""The folder a server can serve, and the manifest that says what is in it.

artifacts/<model>/<version>/
    manifest.json     everything below, with the SHA-256 of every other file
    sequence.onnx     windows -> p_correct (and knowledge_state)
    step.onnx         a state and one interaction -> the next state; only where a model has one
    ask.onnx          a state and a query -> p_correct (and knowledge_state); beside step.onnx
    remember.onnx     what is kept of a user, and new places -> what to keep of them; where it pays
    recall.onnx       what is kept of a user, and queries -> p_correct; beside remember.onnx
    begin.onnx        a user's first places -> what to keep of them; where that is cheaper
    weights.bin       the large tensors of all graphs, each once
    start.npy         the state before any answer, beside step.onnx or remember.onnx
    vocabulary.json   outside ids <-> integers
    golden.npz        windows with the probabilities the network gave them when it was exported
    card.md           the model card, for people
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Self, get_origin, get_type_hints

from models.contract.calibration import Calibration
from models.contract.inputs import Inputs

FORMAT = 1
MANIFEST, SEQUENCE, STEP, ASK = "manifest.json", "sequence.onnx", "step.onnx", "ask.onnx"
REMEMBER, RECALL, BEGIN = "remember.onnx", "recall.onnx", "begin.onnx"
WEIGHTS = "weights.bin"
VOCABULARY, GOLDEN, CARD = "vocabulary.json", "golden.npz", "card.md"
START = "start.npy"


class ManifestError(ValueError):
    """The folder is not an artifact we understand; the message says what is wrong with it."""


@dataclass(frozen=True, kw_only=True)
class Port:
    """One input or output of a graph."""

    name: str
    dtype: str  # numpy's name
    axes: tuple[str | int, ...]  # a word for a dynamic axis, a number for a fixed one


@dataclass(frozen=True, kw_only=True)
class Graph:
    """One ONNX file."""

    file: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


@dataclass(frozen=True, kw_only=True)
class WindowRule:
    """How windows are cut for this model; see `window_start`."""

    length: int  # places, the query's counted
    cut: int = 1
    side: str = "right"  # where padding stands


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What `manifest.json` holds."""

    name: str
    version: str
    network: str  # its name in the registry of networks
    config: Mapping[str, Any]  # the network's own configuration
    graphs: Mapping[str, Graph]  # "sequence"; "step", "ask"; "remember", "recall", "begin"
    window: WindowRule
    vocabulary: str  # fingerprint
    n_questions: int  # PAD and UNSEEN not counted
    n_skills: int  # PAD and UNSEEN not counted
    features: Mapping[str, Any]  # how each input is shifted, capped and encoded
    training: Mapping[str, Any]  # data set, split, seed, answers, users
    metrics: Mapping[str, Any]  # on the test split, with intervals
    parity: Mapping[str, Any]  # cases run and the largest difference from the trained network
    tools: Mapping[str, str]  # versions, and the opset
    calibration: Calibration = field(default_factory=Calibration)  # the graphs have it inside
    inputs: Inputs = field(default_factory=Inputs)  # of the training split
    files: Mapping[str, str] = field(default_factory=dict)  # file -> SHA-256
    format: int = FORMAT

    def save(self, folder: Path) -> None:
        """Write `manifest.json`; raise `ValueError` for NaN, which JSON has no word for."""
        text = json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False, allow_nan=False)
        (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read `manifest.json`; raise `ManifestError` where a part is absent or mistyped."""
        path = folder / MANIFEST
        try:
            content = json.loads(path.read_text(encoding="utf-8"), parse_constant=no_number)
        except FileNotFoundError:
            raise ManifestError(f"{path} is not there: no artifact") from None
        except ValueError as exc:
            raise ManifestError(f"{path} is not JSON: {exc}") from exc
        if not isinstance(content, dict):
            raise ManifestError(f"{path} holds no JSON object")
        if content.get("format") != FORMAT:
            raise ManifestError(f"{path}: format {content.get('format')!r}, this reads {FORMAT}")
        try:
            content["graphs"] = {k: _graph(g) for k, g in content["graphs"].items()}
            content["window"] = WindowRule(**content["window"])
            # An artifact from before there were any says nothing of them.
            content["calibration"] = Calibration.of(content.get("calibration", {}))
            content["inputs"] = Inputs.of(content.get("inputs", {}))
            manifest = cls(**content)
            _check_types(manifest)
            _check_types(manifest.window)
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise ManifestError(f"{path}: {exc}") from exc
        if "sequence" not in manifest.graphs:
            raise ManifestError(f"{path}: no graph named 'sequence'")
        if not (manifest.name and manifest.version):
            raise ManifestError(f"{path}: name and version must not be empty")
        rule = manifest.window
        if rule.length < 1 or rule.cut < 1 or rule.side not in ("left", "right"):
            raise ManifestError(f"{path}: no windows can be cut by {rule}")
        return manifest

    def check_files(self, folder: Path) -> None:
        """Raise `ManifestError` unless every file named is there, to the byte."""
        for name, expected in self.files.items():
            path = folder / name
            if path.parent != folder or not path.is_file():
                raise ManifestError(f"{path} is named in the manifest but is not there")
            if (found := sha256_of(path)) != expected:
                raise ManifestError(f"{path} has SHA-256 {found}, the manifest says {expected}")
        for needed in (VOCABULARY, GOLDEN, *(g.file for g in self.graphs.values())):
            if needed not in self.files:
                raise ManifestError(f"{folder / MANIFEST} gives no SHA-256 for {needed}")


def no_number(word: str) -> NoReturn:
    """Refuse NaN and Infinity, which Python's reader takes and JSON has not."""
    raise ValueError(f"{word} stands in it")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _graph(content: Mapping[str, Any]) -> Graph:
    graph = Graph(
        file=content["file"],
        inputs=tuple(Port(**{**p, "axes": tuple(p["axes"])}) for p in content["inputs"]),
        outputs=tuple(Port(**{**p, "axes": tuple(p["axes"])}) for p in content["outputs"]),
    )
    _check_types(graph)
    for port in (*graph.inputs, *graph.outputs):
        _check_types(port)
    return graph


def _check_types(part: Manifest | WindowRule | Graph | Port) -> None:
    """Raise `TypeError` unless every field is of the type it is declared with."""
    for name, declared in get_type_hints(type(part)).items():
        kind, value = get_origin(declared) or declared, getattr(part, name)
        if not isinstance(value, kind):
            raise TypeError(f"{name} is of type {type(value).__name__}, not {kind.__name__}")
