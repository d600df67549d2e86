"""The use cases of the service: record, predict, tell the knowledge state, give back, forget.

A tracer speaks outside ids above and a model's integers below. It knows no HTTP and no bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.engine.engine import Engine
from app.engine.memory import Memories
from app.engine.model import Scored, ServedModel
from app.errors import (
    ArtifactInvalid,
    ModelUnknown,
    RequestInvalid,
    TracerError,
)
from app.pasts import Past, Pasts
from app.records import Answer, KeptAnswer, answers_of, records_of
from app.settings import Settings
from app.store.histories import Histories, Recorded
from app.store.states import States
from app.telemetry import Metrics
from models.contract.interaction import (
    FIRST,
    NO_KEY,
    UNKNOWN_MS,
    UNSEEN,
    Query,
)
from models.contract.vocabulary import Vocabulary

_DECIMALS = 7  # what a float32 holds

NOBODYS = Query(question=UNSEEN, skills=(UNSEEN,))
"""A question that no model knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A question put to a user, and what the caller wants to know."""

    question_id: str
    user_id: str | None = None  # None only with a history of its own
    model: str | None = None
    asked_ms: int | None = None
    skill_ids: Sequence[str] | None = None
    history: Sequence[Answer] | None = None  # instead of the stored one
    knowledge_state: bool | Sequence[str] = True  # or only these skills


@dataclass(frozen=True, slots=True)
class Unseen:
    """An id of the request that the model does not know."""

    kind: str  # question or skill
    id: str


@dataclass(frozen=True, slots=True)
class ModelRef:
    """Which artifact an answer comes from."""

    name: str
    version: str


class SkillVector(NamedTuple):
    """A probability for every skill, in the order of their ids."""

    skill_ids: tuple[str, ...]
    values: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """How likely the user is to answer right, and what that stands on."""

    p_correct: float
    knowledge_state: SkillVector | dict[str, np.float32] | None  # skill id -> probability
    model: ModelRef
    history_length: int
    truncated: bool  # part of the history did not take part
    cold_start: bool  # there was no history
    unseen: list[Unseen]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A run of kept interactions, oldest first; `first` is the number of the first one."""

    answers: list[KeptAnswer]
    first: int
    next: int | None
    history_length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """Whether requests may come, and the parts that decide it."""

    reasons: list[str]  # why not; empty when ready
    draining: bool
    models: list[ModelRef]
    provider: Mapping[str, Any]
    store: Mapping[str, Any]

    @property
    def is_ready(self) -> bool:
        """Nothing speaks against it."""
        return not self.reasons


class Tracer:
    """Everything the service does for a caller.

    Methods raise `ModelUnknown`, `Overloaded`, `ScoringFailed` and the store's errors.
    """

    def __init__(
        self,
        engine: Engine,
        histories: Histories,
        states: States,
        settings: Settings,
        metrics: Metrics,
    ) -> None:
        """Raise `ArtifactInvalid` where the default or the knowledge model cannot be had."""
        self._engine = engine
        self._histories = histories
        memories = Memories(settings.memory_max_bytes, evicted=metrics.memories_evicted.inc)
        self._pasts = Pasts(engine.models.values(), histories, states, metrics, memories)
        self._metrics = metrics
        self._kept = settings.history_max_items
        self._draining = False
        self._default = _required(engine, settings.default_model, "KT_DEFAULT_MODEL")
        self._knowledge = _required(engine, settings.knowledge_model, "KT_KNOWLEDGE_MODEL")
        if not self._knowledge.has_knowledge_state:
            raise ArtifactInvalid(
                f"KT_KNOWLEDGE_MODEL={settings.knowledge_model!r} has no knowledge state; "
                "name a model whose graph gives one"
            )

    # -- answers in ----------------------------------------------------------------------------

    async def record(self, user_id: str, answers: Sequence[Answer]) -> Recorded:
        """Keep answers, all or none; one whose event id is there already is left out."""
        records = records_of(answers)
        with self._metrics.stage("store_write"), self._metrics.watched():
            done = await self._histories.append(user_id, records.interactions, records.texts)
        self._metrics.recorded.inc(done.recorded)
        self._metrics.duplicates.inc(done.duplicates)
        return done

    async def listing(self, user_id: str, start: int, limit: int) -> Listing:
        """Return up to `limit` kept interactions from number `start` on; none for a new user."""
        with self._metrics.stage("store_read"), self._metrics.watched():
            page = await self._histories.page(user_id, start, limit)
            keys = np.union1d(page.interactions["question_key"], page.interactions["skills_key"])
            texts = await self._histories.texts(keys[keys != NO_KEY].tolist()) if len(keys) else {}
        return Listing(
            answers=answers_of(page.interactions, texts),
            first=page.first,
            next=page.next,
            history_length=page.length,
        )

    async def forget(self, user_id: str) -> bool:
        """Delete everything kept of a user; True if there was anything."""
        with self._metrics.stage("store_write"), self._metrics.watched():
            existed = await self._histories.forget(user_id)
        self._pasts.forget(user_id)
        if existed:
            self._metrics.forgotten.inc()
        return existed

    # -- probabilities out ---------------------------------------------------------------------

    async def predict(self, ask: Ask) -> Prediction:
        """Return how likely the user is to answer the question right, asked now."""
        model = self._model(ask)
        return await self._predict(ask, model, await self._past(ask, self._needed(ask, model)))

    async def predict_all(self, asks: Sequence[Ask]) -> list[Prediction | Exception]:
        """Return a prediction or an error for each ask, in order.

        Asks of one user share one read of the store and one run of the knowledge model.
        """
        needed: dict[str, dict[str, ServedModel]] = {}
        for ask in asks:
            if ask.history is None and ask.user_id is not None:
                with suppress(ModelUnknown):  # it is told at its own place
                    models = self._needed(ask, self._model(ask))
                    needed.setdefault(ask.user_id, {}).update({m.name: m for m in models})
        reads: dict[str, asyncio.Task[Past]] = {}

        async def one(ask: Ask) -> Prediction:
            model = self._model(ask)
            if ask.history is not None or ask.user_id is None:
                past = await self._past(ask, self._needed(ask, model))
            else:
                if ask.user_id not in reads:
                    models = [*needed[ask.user_id].values()]
                    reads[ask.user_id] = asyncio.create_task(
                        self._pasts.of_user(ask.user_id, models)
                    )
                past = await reads[ask.user_id]
                await self._caught_up(model, past)
            return await self._predict(ask, model, past)

        done = await asyncio.gather(*map(one, asks), return_exceptions=True)
        for result in done:
            if isinstance(result, BaseException) and not isinstance(result, Exception):
                raise result
        return done  # type: ignore[return-value]

    async def knowledge_state(self, user_id: str) -> KnowledgeState:
        """Return every skill's probability; a user never seen gets the network's start state."""
        model, vocabulary = self._knowledge, self._knowledge.vocabulary
        past, stored = await asyncio.gather(
            self._pasts.of_user(user_id, [model]), self._histories.read(user_id, self._kept)
        )
        vector = _vector_of(await self._knowledge_of(past))
        history = await self._pasts.read(stored, model)
        touched = np.bincount(history.skills.ravel(), minlength=vocabulary.n_skills)
        newest = stored.interactions["asked_ms"][-1:].tolist()
        standing = past.standings[model.name]
        return KnowledgeState(
            skill_ids=vocabulary.skill_ids,
            names=[vocabulary.skill_names.get(s) for s in vocabulary.skill_ids],
            probabilities=vector,
            answers=touched[FIRST:].tolist(),
            as_of=newest[0] if newest and newest[0] != UNKNOWN_MS else None,
            model=_ref(model),
            history_length=standing.kept,
            truncated=standing.start > 0,
            cold_start=standing.kept == 0,
        )

    # -- about the service itself --------------------------------------------------------------

    @property
    def models(self) -> list[ServedModel]:
        """Every model served, by name."""
        return [self._engine.models[name] for name in sorted(self._engine.models)]

    @property
    def default_model(self) -> str:
        """The model of an ask that names none."""
        return self._default.name

    @property
    def knowledge_model(self) -> str:
        """The model whose vector is the knowledge state."""
        return self._knowledge.name

    def model(self, name: str) -> ServedModel:
        """Return a served model by name."""
        return self._engine.model(name)

    def drain(self) -> None:
        """Say from now on that the service is not ready; requests are answered still."""
        self._draining = True

    def stuck_s(self) -> float:
        """Return the age of the oldest run that has not come back; 0 for none."""
        stuck_s = self._engine.stuck_s()
        self._metrics.stuck.set(stuck_s)
        return stuck_s

    async def readiness(self) -> Readiness:
        """Ask the store, and say whether requests may come."""
        reasons = ["draining"] if self._draining else []
        store = {**self._histories.describe(), "answers": True}
        try:
            with self._metrics.watched():
                await self._histories.ping()
        except TracerError as exc:
            reasons.append(f"store: {exc}")
            store["answers"] = False
        self._metrics.ready.set(not reasons)
        provider = self._engine.provider
        return Readiness(
            reasons=reasons,
            draining=self._draining,
            models=[_ref(m) for m in self.models],
            provider={
                "requested": provider.requested,
                "effective": provider.effective,
                "fallback_reason": provider.fallback_reason,
            },
            store=store,
        )

    # -- inside --------------------------------------------------------------------------------

    def _model(self, ask: Ask) -> ServedModel:
        return self._default if ask.model is None else self._engine.model(ask.model)

    def _needed(self, ask: Ask, model: ServedModel) -> list[ServedModel]:
        if ask.knowledge_state is False or model is self._knowledge:
            return [model]
        return [model, self._knowledge]

    async def _past(self, ask: Ask, models: Sequence[ServedModel]) -> Past:
        if ask.history is not None:
            return self._pasts.given(records_of(ask.history), models)
        if ask.user_id is None:
            raise RequestInvalid("user_id is missing; give it, or a history of its own")
        return await self._pasts.of_user(ask.user_id, models)

    async def _predict(self, ask: Ask, model: ServedModel, past: Past) -> Prediction:
        vocabulary = model.vocabulary
        asked_ms = UNKNOWN_MS if ask.asked_ms is None else ask.asked_ms
        query = vocabulary.query(ask.question_id, ask.skill_ids, asked_ms)
        wanted = ask.knowledge_state is not False
        if wanted and model is not self._knowledge:
            scored, knowing = await asyncio.gather(
                self._pasts.score(model, query, past), self._knowledge_of(past)
            )
        else:
            scored = knowing = await self._pasts.score(model, query, past)
        unseen = _unseen_of(ask, query, vocabulary)
        state = None
        if wanted:
            state, unknown = self._selected(knowing, ask.knowledge_state)
            unseen += [u for u in unknown if u not in unseen]
        standing = past.standings[model.name]
        is_empty = standing.kept == 0
        self._metrics.predictions.labels(model.name, "true" if is_empty else "false").inc()
        self._metrics.history_length.observe(standing.kept)
        for unknown_id in unseen:
            self._metrics.unseen.labels(unknown_id.kind).inc()
        return Prediction(
            p_correct=round(float(scored.p_correct), _DECIMALS),
            knowledge_state=state,
            model=_ref(model),
            history_length=standing.kept,
            truncated=standing.start > 0,
            cold_start=is_empty,
            unseen=unseen,
        )

    async def _knowledge_of(self, past: Past) -> Scored:
        """Run the knowledge model once a past, however many asks share it."""
        if past.knowledge is None:
            # The vector speaks of the state before any question.
            past.knowledge = asyncio.create_task(self._pasts.score(self._knowledge, NOBODYS, past))
        return await past.knowledge

    async def _caught_up(self, model: ServedModel, past: Past) -> None:
        """Let all answers be seen once, before several asks go on from there."""
        is_read = not model.holds_memory or model.name in past.memories
        if not model.keeps_state or (past.standings[model.name].new == 0 and is_read):
            return
        if model is self._knowledge:
            await self._knowledge_of(past)
            return
        if model.name not in past.catching_up:
            past.catching_up[model.name] = asyncio.create_task(
                self._pasts.score(model, NOBODYS, past)
            )
        await past.catching_up[model.name]

    def _selected(
        self, scored: Scored, wanted: bool | Sequence[str]
    ) -> tuple[SkillVector | dict[str, np.float32], list[Unseen]]:
        vocabulary = self._knowledge.vocabulary
        values = _vector_of(scored)
        if isinstance(wanted, bool):
            return SkillVector(vocabulary.skill_ids, values), []
        places = {s: vocabulary.skill_of(s) for s in wanted}
        known = {s: values[p - FIRST] for s, p in places.items() if p != UNSEEN}
        return known, [Unseen("skill", s) for s, p in places.items() if p == UNSEEN]


def _required(engine: Engine, name: str, setting: str) -> ServedModel:
    try:
        return engine.model(name)
    except ModelUnknown as exc:
        raise ArtifactInvalid(f"{setting}={name!r}: {exc}") from exc


def _ref(model: ServedModel) -> ModelRef:
    return ModelRef(model.name, model.version)


def _vector_of(scored: Scored) -> NDArray[np.float32]:
    assert scored.knowledge_state is not None, "the knowledge model was asked for it at the start"
    return scored.knowledge_state


def _unseen_of(ask: Ask, query: Query, vocabulary: Vocabulary) -> list[Unseen]:
    unseen = [Unseen("question", ask.question_id)] if query.question == UNSEEN else []
    named = dict.fromkeys(ask.skill_ids or ())
    return unseen + [Unseen("skill", s) for s in named if vocabulary.skill_of(s) == UNSEEN]
