"""Knowledge states: the chance of a right answer now, for every skill."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.asks import ModelRef, ref_of
from app.engine.model import Scored, ServedModel
from app.pasts import Past, Pasts
from app.settings import Settings
from app.store.histories import Histories, Version
from app.telemetry import Metrics
from models.contract.interaction import FIRST, NOBODYS, UNKNOWN_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class KnowledgeState:
    """The chance of a right answer now, for every skill of the knowledge model."""

    skill_ids: Sequence[str]
    names: Sequence[str | None]
    probabilities: NDArray[np.float32]
    answers: list[int]  # kept interactions that touched the skill
    as_of: int | None  # asked_ms of the newest interaction
    model: ModelRef
    history_length: int
    truncated: bool
    cold_start: bool
    version: Version


class Knowledge:
    """The knowledge model, whose vector is every knowledge state, whichever model predicts.

    Methods raise `Overloaded`, `ScoringFailed` and the store's errors.
    """

    def __init__(
        self,
        model: ServedModel,
        histories: Histories,
        pasts: Pasts,
        settings: Settings,
        metrics: Metrics,
    ) -> None:
        """`model` has a knowledge state."""
        self.model = model
        self._histories = histories
        self._pasts = pasts
        self._metrics = metrics
        self._kept = settings.history_max_items

    async def of_user(self, user_id: str) -> KnowledgeState:
        """Return every skill's probability; a user never seen gets the network's start state."""
        model, vocabulary = self.model, self.model.vocabulary
        while True:
            past = await self._pasts.of_user(user_id, [model])
            standing = past.standings[model.state_key]
            with self._metrics.stage("store_read"), self._metrics.watched():
                stored = await self._histories.read(user_id, self._kept)
            if stored.version.name == standing.history:
                break
            # Corrected or forgotten in between: answers and vector would not belong together.
        interactions = stored.interactions[: standing.total - stored.dropped]
        vector = vector_of(await self.of_past(past))
        history = await self._pasts.read(interactions, model)
        touched = np.bincount(history.skills.ravel(), minlength=vocabulary.n_skills)
        newest = interactions["asked_ms"][-1:].tolist()
        return KnowledgeState(
            skill_ids=vocabulary.skill_ids,
            names=[vocabulary.skill_names.get(s) for s in vocabulary.skill_ids],
            probabilities=vector,
            answers=touched[FIRST:].tolist(),
            as_of=newest[0] if newest and newest[0] != UNKNOWN_MS else None,
            model=ref_of(model),
            history_length=standing.kept,
            truncated=standing.start > 0,
            cold_start=standing.kept == 0,
            version=Version(standing.history, standing.total),
        )

    async def of_past(self, past: Past) -> Scored:
        """Run the model once a past, however many asks share it."""
        if past.knowledge is None:
            # The vector speaks of the state before any question.
            past.knowledge = asyncio.create_task(self._pasts.score(self.model, NOBODYS, past))
        return await past.knowledge


def vector_of(scored: Scored) -> NDArray[np.float32]:
    """Return a probability for every skill, as the knowledge model gives them."""
    assert scored.knowledge_state is not None, "the knowledge model was asked for it at the start"
    return scored.knowledge_state
