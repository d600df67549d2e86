"""A model as the service sees it: what it is, and probabilities for windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.engine.artifact import Artifact
from app.engine.asked import Asked, AskedMany
from app.engine.batcher import Answered, Batcher
from app.engine.kept import KeptScore
from app.engine.many import ManyScore
from app.engine.memory import Memory
from app.engine.scorer import WindowScore
from app.errors import ScoringFailed
from models.contract.artifact import Manifest, WindowRule
from models.contract.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Scored:
    """What a model says of one window, and where the time went."""

    p_correct: float
    knowledge_state: NDArray[np.float32] | None  # (known skills,): skill FIRST + i at i
    prior: float | None  # of a skill never seen in training; None without a knowledge state
    queued_s: float
    run_s: float  # of the run, shared with the other windows in it
    state: NDArray[Any] | None = None  # after all answers, where it may be stored
    memory: Memory | None = None  # of all answers, where one is held
    windows: int = 1  # of the run, all together


class ServedModel:
    """A proved artifact behind its batchers."""

    def __init__(
        self,
        artifact: Artifact,
        windows: Batcher[Asked, WindowScore],
        kept: Batcher[Asked, KeptScore] | None,
        many: Batcher[AskedMany, ManyScore | Exception] | None,
    ) -> None:
        """`kept` is there where the artifact goes on from what is kept, `many` from states."""
        self._artifact = artifact
        self.state_key = artifact.state_key
        """Names the model, its version and its very files: no two that differ share one."""
        self._windows = windows
        self._kept = kept
        self._many = many

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

    @property
    def keeps_state(self) -> bool:
        """It can go on from a state: `follow` does so."""
        return self._artifact.kept is not None

    @property
    def state_bytes(self) -> int:
        """How many bytes a stored state has; 0 where none is stored."""
        return 0 if self._artifact.kept is None else self._artifact.kept.state_bytes

    @property
    def answers_many(self) -> bool:
        """It answers many users' questions in columns: `follow_many` does so."""
        return self._many is not None

    @property
    def holds_memory(self) -> bool:
        """It goes on from a `Memory`, where there is one."""
        return self._artifact.kept is not None and self._artifact.kept.holds_memory

    @property
    def reads_whole_window(self) -> bool:
        """A kept state spares it the runs, not the reading: it counts in the window."""
        return self._artifact.kept is None or self._artifact.kept.reads_counts

    async def score(self, asked: Asked) -> Scored:
        """Return what the model says of a whole window, cut by `self.window`, without a state.

        Raises `Overloaded`, `ScoringFailed` or `NotReady`.
        """
        return _scored(await self._windows.submit(asked))

    async def score_all(self, asked: Sequence[Asked]) -> list[Scored | Exception]:
        """Return for each, in order, what `score` would return or raise."""
        outcomes = await self._windows.submit_all(asked)
        return [_scored(o) if isinstance(o, Answered) else o for o in outcomes]

    async def follow(self, asked: Asked) -> Scored:
        """Return what the model says, and what is kept after all answers.

        Only of a model that `keeps_state`. Raises as `score` does.
        """
        assert self._kept is not None, f"{self.name} keeps no state"
        answered = await self._kept.submit(asked)
        score, state, memory = answered.result
        return Scored(*score, answered.queued_s, answered.run_s, state, memory, answered.windows)

    async def follow_many(self, asked: AskedMany) -> Answered[ManyScore]:
        """Return what `follow` says of each query, and the states after all answers.

        Raises as `score` does; where one of the queries fails, none is answered.
        """
        assert self._many is not None, f"{self.name} keeps no state"
        answered = await self._many.submit(asked)
        if isinstance(answered.result, Exception):
            raise ScoringFailed(
                f"model {self.name!r} could not be run on these {len(asked.queries)} windows"
            ) from answered.result
        return Answered(answered.result, answered.queued_s, answered.run_s, answered.windows)

    def stuck_s(self) -> float:
        """Return the age of the oldest run that has not come back, 0 for none."""
        batchers = (self._windows, self._kept, self._many)
        return max(batcher.stuck_s() for batcher in batchers if batcher is not None)


def _scored(answered: Answered[WindowScore]) -> Scored:
    return Scored(*answered.result, answered.queued_s, answered.run_s, windows=answered.windows)
