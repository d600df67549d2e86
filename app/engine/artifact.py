"""Open an artifact folder: nothing comes out of here that was not checked and run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnxruntime

from app.engine.kept import KeptScorer
from app.engine.kept_proof import check_kept_ports, compare_kept
from app.engine.pace import Pace, measured
from app.engine.proof import ProofFailed, check_ports, compare_golden, sweep, warm
from app.engine.providers import Provider, open_session
from app.engine.recall_proof import check_recall_ports, compare_recall
from app.engine.recalling import RecallScorer
from app.engine.scorer import KNOWLEDGE_STATE, OnnxScorer
from app.errors import ArtifactInvalid, ProviderUnavailable
from models.contract.artifact import (
    CARD,
    GOLDEN,
    MANIFEST,
    START,
    VOCABULARY,
    Graph,
    Manifest,
)
from models.contract.interaction import INTERACTION
from models.contract.vocabulary import Vocabulary

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Artifact:
    """A proved model."""

    manifest: Manifest
    vocabulary: Vocabulary
    card: str  # Markdown
    scorer: OnnxScorer
    kept: KeptScorer | RecallScorer | None  # goes on from what is kept of a user
    pace: Pace

    @property
    def state_key(self) -> str:
        """Names the model, its version and its very files: no other model can read its states."""
        files = "".join(f"{k}={v};" for k, v in sorted(self.manifest.files.items()))
        digest = hashlib.sha256(files.encode()).hexdigest()[:16]
        return f"{self.manifest.name}/{self.manifest.version}/{digest}"

    @property
    def has_knowledge_state(self) -> bool:
        """The model says something of every skill, not only of the asked question."""
        return any(p.name == KNOWLEDGE_STATE for p in self.manifest.graphs["sequence"].outputs)


def open_artifact(folder: Path, provider: Provider, threads: int) -> Artifact:
    """Open `<model>/<version>`, check every byte and every axis, run it, and only then return it.

    Raises `ArtifactInvalid`, naming folder, file and reason, and `ProviderUnavailable`. Takes as
    long as reading the files and some dozens of runs.
    """
    try:
        manifest = _manifest(folder)
        vocabulary = _vocabulary(folder, manifest)
        card = _read(CARD, lambda: (folder / CARD).read_text(encoding="utf-8"))
        graph = manifest.graphs["sequence"]
        session = _session(folder, graph, provider, threads)
        check_ports(graph, session, manifest.n_skills)
        side: Any = manifest.window.side
        scorer = OnnxScorer(session, graph, side, vocabulary)
        sweep(scorer, manifest)
        compare_golden(scorer, manifest, folder / GOLDEN)
        warm(scorer, manifest)
        kept = _kept_scorer(folder, manifest, vocabulary, provider, threads)
        if isinstance(kept, RecallScorer):
            compare_recall(kept, manifest, folder / GOLDEN)
        elif kept is not None:
            compare_kept(kept, manifest, folder / GOLDEN)
        pace = _paced(scorer, kept, manifest, provider)
    except ProofFailed as exc:
        raise ArtifactInvalid(f"{folder} cannot be served: {exc}") from exc
    except (MemoryError, RecursionError) as exc:  # what a file asks for may be too much
        raise ArtifactInvalid(f"{folder} cannot be served: {type(exc).__name__}: {exc}") from exc
    return Artifact(manifest, vocabulary, card, scorer, kept, pace)


def _manifest(folder: Path) -> Manifest:
    manifest = _read(MANIFEST, lambda: Manifest.load(folder))
    _read(MANIFEST, lambda: manifest.check_files(folder))
    named, stands = (manifest.name, manifest.version), (folder.parent.name, folder.name)
    if named != stands:
        raise ProofFailed(MANIFEST, f"it names {'/'.join(named)}, the folder {'/'.join(stands)}")
    return manifest


def _vocabulary(folder: Path, manifest: Manifest) -> Vocabulary:
    vocabulary = _read(VOCABULARY, lambda: _with_tables(Vocabulary.load(folder / VOCABULARY)))
    if vocabulary.fingerprint != manifest.vocabulary:
        raise ProofFailed(
            VOCABULARY,
            f"its fingerprint is {vocabulary.fingerprint}, the manifest's {manifest.vocabulary}",
        )
    sizes = len(vocabulary.question_ids), len(vocabulary.skill_ids)
    if sizes != (manifest.n_questions, manifest.n_skills):
        raise ProofFailed(
            VOCABULARY,
            f"it has {sizes[0]} questions and {sizes[1]} skills, the manifest says "
            f"{manifest.n_questions} and {manifest.n_skills}",
        )
    return vocabulary


def _with_tables(vocabulary: Vocabulary) -> Vocabulary:
    """Make the look-up tables here, not in the first request; they are made at first use."""
    vocabulary.query("", ("",))
    vocabulary.read(np.ones(1, INTERACTION))  # one that names a skill
    _ = vocabulary.fingerprint
    return vocabulary


def _session(
    folder: Path, graph: Graph, provider: Provider, threads: int
) -> onnxruntime.InferenceSession:
    try:
        return open_session(folder / graph.file, provider, threads)
    except ProviderUnavailable:
        raise
    except Exception as exc:  # ONNX Runtime's errors share no other base
        raise ProofFailed(graph.file, f"ONNX Runtime cannot open it: {exc}") from exc


def _kept_scorer(
    folder: Path, manifest: Manifest, vocabulary: Vocabulary, provider: Provider, threads: int
) -> KeptScorer | RecallScorer | None:
    """Open the graphs around a state or around rows; None where there are not both of a pair."""
    graphs = manifest.graphs
    for pair in (("step", "ask"), ("remember", "recall")):
        if {*pair} <= graphs.keys():
            break
    else:
        return None
    if START not in manifest.files:
        raise ProofFailed(MANIFEST, f"there is a {pair[0]} graph, but no SHA-256 for {START}")
    start = _read(START, lambda: np.load(folder / START, allow_pickle=False))
    names = [*pair, "begin"] if {"remember", "begin"} <= graphs.keys() else pair
    sessions = {name: _session(folder, graphs[name], provider, threads) for name in names}
    if "step" in sessions:
        check_kept_ports(graphs, sessions, start)
        return KeptScorer(sessions["step"], sessions["ask"], graphs, start, vocabulary)
    check_recall_ports(graphs, sessions, start)
    return RecallScorer(sessions, graphs, start, vocabulary)


def _paced(
    scorer: OnnxScorer,
    kept: KeptScorer | RecallScorer | None,
    manifest: Manifest,
    provider: Provider,
) -> Pace:
    try:
        return measured(scorer, kept, manifest.window.length, provider)
    except Exception as exc:  # ONNX Runtime's errors share no other base
        raise ProofFailed(MANIFEST, f"its graphs do not run on stored answers: {exc}") from exc


def _read(file: str, read: Callable[[], T]) -> T:
    """Return what `read` gives; whatever a file holds in place of what is due is its own fault."""
    try:
        return read()
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as exc:
        raise ProofFailed(file, f"{type(exc).__name__}: {exc}") from exc
