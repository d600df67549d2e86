"""A model as the service sees it: what it is, and probabilities for windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.engine.artifact import Artifact
from app.engine.batcher import Answered, Batcher
from app.engine.scorer import WindowScore
from models.contract.artifact import Manifest, WindowRule
from models.contract.vocabulary import Vocabulary
from models.contract.window import Window


@dataclass(frozen=True, slots=True)
class Scored:
    """What a model says of one window, and where the time went."""

    p_correct: float
    knowledge_state: NDArray[np.float32] | None  # (known skills,): skill FIRST + i at i
    prior: float | None  # of a skill never seen in training; None without a knowledge state
    queued_s: float
    run_s: float  # of the run, shared with the other windows in it


class ServedModel:
    """A proved artifact behind its batcher."""

    def __init__(self, artifact: Artifact, batcher: Batcher[Window, WindowScore]) -> None:
        self._artifact = artifact
        self._batcher = batcher

    @property
    def manifest(self) -> Manifest:
        """Everything the artifact says of itself."""
        return self._artifact.manifest

    @property
    def name(self) -> str:
        """The name callers give."""
        return self.manifest.name

    @property
    def version(self) -> str:
        """The version served."""
        return self.manifest.version

    @property
    def window(self) -> WindowRule:
        """How this model's windows are cut."""
        return self.manifest.window

    @property
    def vocabulary(self) -> Vocabulary:
        """Outside ids <-> this model's integers."""
        return self._artifact.vocabulary

    @property
    def card(self) -> str:
        """The model card, Markdown."""
        return self._artifact.card

    @property
    def has_knowledge_state(self) -> bool:
        """Answers carry a knowledge state."""
        return self._artifact.has_knowledge_state

    async def score(self, window: Window) -> Scored:
        """Return what the model says of a window cut by `self.window`.

        Raises `Overloaded`, `ScoringFailed` or `NotReady`.
        """
        return _scored(await self._batcher.submit(window))

    async def score_all(self, windows: Sequence[Window]) -> list[Scored | Exception]:
        """Return for each window, in order, what `score` would return or raise."""
        outcomes = await self._batcher.submit_all(windows)
        return [_scored(o) if isinstance(o, Answered) else o for o in outcomes]

    def stuck_s(self) -> float:
        """Return the age of the oldest run that has not come back, 0 for none."""
        return self._batcher.stuck_s()


def _scored(answered: Answered[WindowScore]) -> Scored:
    return Scored(*answered.result, queued_s=answered.queued_s, run_s=answered.run_s)
