"""The use cases of the service, as they are with the models of one moment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from app.answers import Answers
from app.candidates import Candidate
from app.condition import Condition
from app.engine.engine import Engine
from app.engine.memory import Memories
from app.engine.model import ServedModel
from app.errors import ArtifactInvalid, ModelUnknown
from app.knowledge import Knowledge
from app.pasts import Pasts
from app.predictions import Predictions
from app.quality import Figures, Quality
from app.settings import Settings
from app.store.histories import Histories
from app.store.states import States
from app.telemetry import Metrics


class Judged(NamedTuple):
    """A version of a model, and how good its newest predictions were."""

    model: ServedModel
    figures: Figures


class Tracer:
    """Everything the service does for a caller, by what it is about.

    It speaks outside ids above and a model's integers below, and knows no HTTP and no bytes.
    """

    def __init__(
        self,
        engine: Engine,
        histories: Histories,
        states: States,
        memories: Memories,
        quality: Quality,
        settings: Settings,
        metrics: Metrics,
        candidates: Mapping[str, Candidate] | None = None,
    ) -> None:
        """Raise `ArtifactInvalid` where the default or the knowledge model cannot be had.

        `candidates` are those of models, by their names.
        """
        self._engine = engine
        self._candidates = candidates or {}
        self._metrics = metrics
        self._default = _required(engine, settings.default_model, "KT_DEFAULT_MODEL")
        knowing = _required(engine, settings.knowledge_model, "KT_KNOWLEDGE_MODEL")
        if not knowing.has_knowledge_state:
            raise ArtifactInvalid(
                f"KT_KNOWLEDGE_MODEL={settings.knowledge_model!r} has no knowledge state; "
                "name a model whose graph gives one"
            )
        models = [*engine.models.values(), *(c.model for c in self._candidates.values())]
        pasts = Pasts(models, histories, states, metrics, memories)
        self.quality = quality
        self.models = [engine.models[name] for name in sorted(engine.models)]
        self.answers = Answers(histories, pasts, settings, metrics)
        self.knowledge = Knowledge(knowing, histories, pasts, settings, metrics)
        self.predictions = Predictions(
            engine, self._default, self._candidates, self.knowledge, pasts, quality, metrics
        )
        self.condition = Condition(engine, self.models, histories, settings, metrics)

    @property
    def default_model(self) -> str:
        """The model of an ask that names none."""
        return self._default.name

    @property
    def knowledge_model(self) -> str:
        """The model whose vector is the knowledge state."""
        return self.knowledge.model.name

    def model(self, name: str) -> ServedModel:
        """Return a served model by name."""
        return self._engine.model(name)

    async def judged(self, name: str) -> list[Judged]:
        """Return how good the predictions of a model were, then those of its candidate."""
        found = [self._engine.model(name)]
        if (candidate := self._candidates.get(name)) is not None:
            found.append(candidate.model)
        with self._metrics.stage("store_read"), self._metrics.watched():
            return [Judged(model, await self.quality.figures(model)) for model in found]

    async def tell_quality(self) -> None:
        """Put into the metrics how good predictions were, as far as the store says."""
        await self.quality.tell([*self.models, *(c.model for c in self._candidates.values())])


def _required(engine: Engine, name: str, setting: str) -> ServedModel:
    try:
        return engine.model(name)
    except ModelUnknown as exc:
        raise ArtifactInvalid(f"{setting}={name!r}: {exc}") from exc
