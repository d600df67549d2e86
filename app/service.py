"""The use cases of the service: record, predict, tell the knowledge state, give back, forget.

A tracer speaks outside ids above and a model's integers below. It knows no HTTP and no bytes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.asks import DECIMALS, Ask, ModelRef, Prediction, ref_of, selected, unseen_of
from app.bulk import Bulk
from app.candidates import Candidate, Comparisons
from app.engine.engine import Engine
from app.engine.memory import Memories
from app.engine.model import Scored, ServedModel
from app.errors import (
    AnswerLate,
    ArtifactInvalid,
    ModelUnknown,
    RequestInvalid,
    StoreNotDurable,
    TracerError,
)
from app.pasts import Past, Pasts
from app.quality import Figures, Quality
from app.records import Answer, KeptAnswer, answers_of, records_of
from app.settings import Settings
from app.store.histories import (
    FREELY,
    Amendment,
    Everything,
    Histories,
    Recorded,
    Terms,
    Version,
)
from app.store.states import States
from app.telemetry import Metrics
from models.contract.interaction import (
    FIRST,
    NO_KEY,
    UNKNOWN_MS,
    UNSEEN,
    Query,
)

log = logging.getLogger(__name__)

_KEYS_TOGETHER = 1000  # a store that is asked for more holds up everybody else

_NO_KEYS = np.empty(0, np.uint64)
_UNRECORDED = "store: predictions are answered, and nothing is recorded"

NOBODYS = Query(question=UNSEEN, skills=(UNSEEN,))
"""A question that no model knows."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A run of kept interactions, oldest first; `first` is the number of the first one."""

    answers: list[KeptAnswer]
    first: int
    next: int | None
    history_length: int
    version: Version


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """One kept interaction as it is after an amendment."""

    number: int
    answer: KeptAnswer
    version: Version


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """All that is kept of a user, and the texts behind its keys."""

    everything: Everything
    texts: Mapping[int, str]

    def answers(self, first: int, last: int) -> list[KeptAnswer]:
        """Return those from one place to before another, in outside ids."""
        return answers_of(self.everything.interactions[first:last], self.texts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """Whether requests may come, and the parts that decide it."""

    reasons: list[str]  # why not; empty when ready
    warnings: list[str]  # what may be lost, or is not recorded
    draining: bool
    models: list[ModelRef]
    provider: Mapping[str, Any]
    store: Mapping[str, Any]

    @property
    def is_ready(self) -> bool:
        """Nothing speaks against it."""
        return not self.reasons


class Judged(NamedTuple):
    """A version of a model, and how good its newest predictions were."""

    model: ServedModel
    figures: Figures


class Tracer:
    """Everything the service does for a caller.

    Methods raise `ModelUnknown`, `Overloaded`, `ScoringFailed` and the store's errors.
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
        self._histories = histories
        self._candidates = candidates or {}
        self._comparisons = Comparisons()
        models = [*engine.models.values(), *(c.model for c in self._candidates.values())]
        self._pasts = Pasts(models, histories, states, metrics, memories)
        self._quality = quality
        self._metrics = metrics
        self._kept = settings.history_max_items
        self._late_rule = settings.late_answers
        self._must_be_durable = settings.require_durable
        self._warnings: list[str] = []
        self._refusal: str | None = None  # why the store takes no writes
        self._draining = False
        self._default = _required(engine, settings.default_model, "KT_DEFAULT_MODEL")
        self._knowledge = _required(engine, settings.knowledge_model, "KT_KNOWLEDGE_MODEL")
        if not self._knowledge.has_knowledge_state:
            raise ArtifactInvalid(
                f"KT_KNOWLEDGE_MODEL={settings.knowledge_model!r} has no knowledge state; "
                "name a model whose graph gives one"
            )
        self._bulk = Bulk(self._pasts, self._knowledge, quality, metrics)

    # -- answers in ----------------------------------------------------------------------------

    async def record(
        self, user_id: str, answers: Sequence[Answer], terms: Terms = FREELY
    ) -> Recorded:
        """Keep answers, all or none; one whose event id is there already is left out.

        Raises `HistoryChanged`, `IdempotencyKeyReused` or `AnswerLate`, where none was kept.
        """
        records = records_of(answers)
        try:
            with self._metrics.stage("store_write"), self._metrics.watched():
                done = await self._histories.append(
                    user_id, records.interactions, records.texts, terms
                )
        except AnswerLate as exc:
            self._metrics.late.labels(self._late_rule).inc(exc.late)
            raise
        if done.is_repeated:
            self._metrics.repeated.inc()
            return done
        self._metrics.recorded.inc(done.recorded)
        self._metrics.duplicates.inc(done.duplicates)
        if done.late:
            self._metrics.late.labels(self._late_rule).inc(done.late)
        return done

    async def amend(
        self, user_id: str, number: int, amendment: Amendment, terms: Terms = FREELY
    ) -> Correction:
        """Change one kept interaction; nothing made of what it said before is used any more.

        Raises `InteractionUnknown`, `HistoryChanged` or `IdempotencyKeyReused`.
        """
        with self._metrics.stage("store_write"), self._metrics.watched():
            done = await self._histories.amend(user_id, number, amendment, terms)
            texts = await self._texts_of(done.interactions)
        (self._metrics.repeated if done.is_repeated else self._metrics.amended).inc()
        [answer] = answers_of(done.interactions, texts)
        return Correction(number=number, answer=answer, version=done.version)

    async def listing(self, user_id: str, start: int, limit: int) -> Listing:
        """Return up to `limit` kept interactions from number `start` on; none for a new user."""
        with self._metrics.stage("store_read"), self._metrics.watched():
            page = await self._histories.page(user_id, start, limit)
            texts = await self._texts_of(page.interactions)
        return Listing(
            answers=answers_of(page.interactions, texts),
            first=page.first,
            next=page.next,
            history_length=page.length,
            version=page.version,
        )

    async def export(self, user_id: str) -> Export:
        """Return all that the store keeps of a user."""
        with self._metrics.stage("store_read"), self._metrics.watched():
            everything = await self._histories.everything(user_id)
            forecast = everything.forecasts["question_key"]
            texts = await self._texts_of(everything.interactions, forecast)
        return Export(everything=everything, texts=texts)

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
        found = await self._predict(ask, model, await self._past(ask, self._needed(ask, model)))
        candidate = self._candidates.get(model.name)
        if candidate is not None and candidate.model is not model and candidate.is_compared:
            comparison = self._compared(ask, candidate.model, found["p_correct"])
            if not self._comparisons.begin(comparison):
                self._metrics.candidate_asked.labels(model.name, "dropped").inc()
        return found

    async def predict_all(self, asks: Sequence[Ask]) -> list[Prediction | Exception]:
        """Return a prediction or an error for each ask, in order.

        Asks of one user share one read of the store and one run of the knowledge model; those that
        go on from kept states share most of the rest, too.
        """
        found: dict[int, Prediction | Exception] = {}
        models: dict[int, ServedModel] = {}
        for place, ask in enumerate(asks):
            try:
                models[place] = self._model(ask)
            except ModelUnknown as exc:  # it is told at its own place
                found[place] = exc
        singly = {p for p, model in models.items() if not self._bulk.takes(asks[p], model)}
        # Whoever has to be read for one of these shares that reading among all.
        users = {asks[p].user_id for p in singly if asks[p].history is None}
        together = [p for p in models if p not in singly and asks[p].user_id not in users]
        singly = models.keys() - set(together)
        outcomes, others = await asyncio.gather(
            self._bulk.predict([(asks[p], models[p]) for p in together]),
            self._predict_singly({p: (asks[p], models[p]) for p in sorted(singly)}),
        )
        found |= others
        again = {}
        for place, outcome in zip(together, outcomes, strict=True):
            if isinstance(outcome, Past):
                again[place] = self._predict_from(asks[place], models[place], outcome)
            else:
                found[place] = outcome
        found |= await _each(again)
        return [found[place] for place in range(len(asks))]

    async def knowledge_state(self, user_id: str) -> KnowledgeState:
        """Return every skill's probability; a user never seen gets the network's start state."""
        model, vocabulary = self._knowledge, self._knowledge.vocabulary
        while True:
            past = await self._pasts.of_user(user_id, [model])
            standing = past.standings[model.state_key]
            with self._metrics.stage("store_read"), self._metrics.watched():
                stored = await self._histories.read(user_id, self._kept)
            if stored.version.name == standing.history:
                break
            # Corrected or forgotten in between: answers and vector would not belong together.
        interactions = stored.interactions[: standing.total - stored.dropped]
        vector = _vector_of(await self._knowledge_of(past))
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

    async def judged(self, name: str) -> list[Judged]:
        """Return how good the predictions of a model were, then those of its candidate."""
        found = [self._engine.model(name)]
        if (candidate := self._candidates.get(name)) is not None:
            found.append(candidate.model)
        with self._metrics.stage("store_read"), self._metrics.watched():
            return [Judged(model, await self._quality.figures(model)) for model in found]

    async def tell_quality(self) -> None:
        """Put into the metrics how good predictions were, as far as the store says."""
        await self._quality.tell([*self.models, *(c.model for c in self._candidates.values())])

    @property
    def quality(self) -> Quality:
        """What is compared with answers, and how."""
        return self._quality

    def drain(self) -> None:
        """Say from now on that the service is not ready; requests are answered still."""
        self._draining = True

    def stuck_s(self) -> float:
        """Return the age of the oldest run that has not come back; 0 for none."""
        stuck_s = self._engine.stuck_s()
        self._metrics.stuck.set(stuck_s)
        return stuck_s

    async def start(self) -> None:
        """Ask the store for the first time; raise `StoreNotDurable` where it must be and is not."""
        await self.readiness()
        if self._must_be_durable and self._warnings:
            raise StoreNotDurable("; ".join(self._warnings))

    async def readiness(self) -> Readiness:
        """Ask the store, and say whether requests may come."""
        reasons = ["draining"] if self._draining else []
        answers = True
        try:
            with self._metrics.watched():
                durability = await self._histories.ping()
        except TracerError as exc:
            reasons.append(f"store: {exc}")
            answers = False
        store = {**self._histories.describe(), "answers": answers}
        self._metrics.servers_gone.set(store.get("servers_gone", int(not answers)))
        if answers:
            store |= {
                "persistence": durability.persistence,
                "eviction": durability.eviction,
                "takes_writes": durability.refusal is None,
            }
            self._warn(durability.warnings)
            self._refuses(durability.refusal)
        if self._must_be_durable:
            reasons += [f"store: {warning}" for warning in self._warnings]
        is_read_only = answers and self._refusal is not None
        self._metrics.store_refuses_writes.set(is_read_only)
        unrecorded = [f"{_UNRECORDED}: {self._refusal}"] if is_read_only else []
        self._metrics.ready.set(not reasons)
        provider = self._engine.provider
        return Readiness(
            reasons=reasons,
            warnings=[*self._warnings, *unrecorded],
            draining=self._draining,
            models=[ref_of(m) for m in self.models],
            provider={
                "requested": provider.requested,
                "effective": provider.effective,
                "fallback_reason": provider.fallback_reason,
            },
            store=store,
        )

    # -- inside --------------------------------------------------------------------------------

    def _warn(self, warnings: list[str]) -> None:
        """Say what may be lost, where that is new."""
        if warnings != self._warnings:
            level = logging.WARNING if warnings else logging.INFO
            log.log(level, "store_durability", extra={"warnings": warnings})
        self._warnings = warnings
        self._metrics.store_warnings.set(len(warnings))

    def _refuses(self, refusal: str | None) -> None:
        """Say whether answers can be recorded, where that is new."""
        if refusal is not None and refusal != self._refusal:
            log.warning("store_takes_no_writes", extra={"why": refusal})
        if refusal is None and self._refusal is not None:
            log.info("store_takes_writes")
        self._refusal = refusal

    async def _texts_of(
        self, interactions: NDArray[np.void], others: NDArray[np.uint64] = _NO_KEYS
    ) -> dict[int, str]:
        """Return what stands behind the keys of interactions, and others."""
        of_answers = np.union1d(interactions["question_key"], interactions["skills_key"])
        keys = np.union1d(of_answers, others)
        wanted = keys[keys != NO_KEY].tolist()
        texts: dict[int, str] = {}
        for first in range(0, len(wanted), _KEYS_TOGETHER):
            texts |= await self._histories.texts(wanted[first : first + _KEYS_TOGETHER])
        return texts

    def _model(self, ask: Ask) -> ServedModel:
        model = self._default if ask.model is None else self._engine.model(ask.model)
        candidate = self._candidates.get(model.name)
        if candidate is None or not candidate.answers(ask.user_id):
            return model
        self._metrics.candidate_asked.labels(model.name, "answered").inc()
        return candidate.model

    async def _compared(self, ask: Ask, candidate: ServedModel, p_correct: float) -> None:
        """Ask a candidate what has been answered, and note how far it is from that."""
        try:
            past = await self._past(ask, [candidate])
            query = _query_of(ask, candidate)
            scored = await self._pasts.score(candidate, query, past)
        except Exception as exc:  # a candidate may be anything; nobody waits for it
            log.warning(
                "candidate_failed",
                extra={"model": candidate.name, "version": candidate.version},
                exc_info=exc,
            )
            self._metrics.candidate_asked.labels(candidate.name, "failed").inc()
            return
        self._note(candidate, ask, query, past, scored)
        difference = abs(scored.p_correct - p_correct)
        self._metrics.candidate_difference.labels(candidate.name).observe(difference)
        self._metrics.candidate_asked.labels(candidate.name, "compared").inc()

    def _needed(self, ask: Ask, model: ServedModel) -> list[ServedModel]:
        if ask.knowledge_state is False or model is self._knowledge:
            return [model]
        return [model, self._knowledge]

    async def _past(self, ask: Ask, models: Sequence[ServedModel]) -> Past:
        if ask.history is not None:
            return self._pasts.given(ask.history, models)
        if ask.user_id is None:
            raise RequestInvalid("user_id is missing; give it, or a history of its own")
        return await self._pasts.of_user(ask.user_id, models)

    async def _predict_singly(
        self, asks: Mapping[int, tuple[Ask, ServedModel]]
    ) -> dict[int, Prediction | Exception]:
        """Answer each ask by a run of its own; what is read of a user is read once for all."""
        needed: dict[str, dict[str, ServedModel]] = {}
        for ask, model in asks.values():
            if ask.history is None and ask.user_id is not None:
                models = self._needed(ask, model)
                needed.setdefault(ask.user_id, {}).update({m.state_key: m for m in models})
        reads: dict[str, asyncio.Task[Past]] = {}

        async def one(ask: Ask, model: ServedModel) -> Prediction:
            if ask.history is not None or ask.user_id is None:
                past = await self._past(ask, self._needed(ask, model))
                return await self._predict(ask, model, past)
            if ask.user_id not in reads:
                read = self._pasts.of_user(ask.user_id, [*needed[ask.user_id].values()])
                reads[ask.user_id] = asyncio.create_task(read)
            return await self._predict_from(ask, model, await reads[ask.user_id])

        return await _each({place: one(*ask) for place, ask in asks.items()})

    async def _predict_from(self, ask: Ask, model: ServedModel, past: Past) -> Prediction:
        """Answer an ask that shares its past with others."""
        await self._caught_up(model, past)
        return await self._predict(ask, model, past)

    async def _predict(self, ask: Ask, model: ServedModel, past: Past) -> Prediction:
        vocabulary, query = model.vocabulary, _query_of(ask, model)
        wanted = ask.knowledge_state is not False
        if wanted and model is not self._knowledge:
            scored, knowing = await asyncio.gather(
                self._pasts.score(model, query, past), self._knowledge_of(past)
            )
        else:
            scored = knowing = await self._pasts.score(model, query, past)
        unseen = unseen_of(ask, query.question, vocabulary)
        state = None
        if wanted:
            state, unknown = selected(
                _vector_of(knowing), ask.knowledge_state, self._knowledge.vocabulary
            )
            unseen += [u for u in unknown if u not in unseen]
        standing = past.standings[model.state_key]
        self._note(model, ask, query, past, scored)
        is_empty = standing.kept == 0
        self._metrics.predictions.labels(model.name, "true" if is_empty else "false").inc()
        self._metrics.history_length.observe(standing.kept)
        for unknown_id in unseen:
            self._metrics.unseen.labels(unknown_id.kind).inc()
        return Prediction(
            p_correct=round(float(scored.p_correct), DECIMALS),
            knowledge_state=state,
            model=ref_of(model),
            history_length=standing.kept,
            truncated=standing.start > 0,
            cold_start=is_empty,
            unseen=unseen,
        )

    def _note(self, model: ServedModel, ask: Ask, query: Query, past: Past, scored: Scored) -> None:
        """Note what a model says of a stored user, to be compared with the answer."""
        if past.user_id is not None:
            standing, p_correct = past.standings[model.state_key], scored.p_correct
            self._quality.note(model, past.user_id, ask.question_id, query, standing, p_correct)

    async def _knowledge_of(self, past: Past) -> Scored:
        """Run the knowledge model once a past, however many asks share it."""
        if past.knowledge is None:
            # The vector speaks of the state before any question.
            past.knowledge = asyncio.create_task(self._pasts.score(self._knowledge, NOBODYS, past))
        return await past.knowledge

    async def _caught_up(self, model: ServedModel, past: Past) -> None:
        """Let all answers be seen once, before several asks go on from there."""
        is_read = not model.holds_memory or model.state_key in past.memories
        if not model.keeps_state or (past.standings[model.state_key].new == 0 and is_read):
            return
        if model is self._knowledge:
            await self._knowledge_of(past)
            return
        if model.state_key not in past.catching_up:
            past.catching_up[model.state_key] = asyncio.create_task(
                self._pasts.score(model, NOBODYS, past, is_shared=True)
            )
        await past.catching_up[model.state_key]


def _query_of(ask: Ask, model: ServedModel) -> Query:
    asked_ms = UNKNOWN_MS if ask.asked_ms is None else ask.asked_ms
    return model.vocabulary.query(ask.question_id, ask.skill_ids, asked_ms)


async def _each(
    asks: Mapping[int, Coroutine[Any, Any, Prediction]],
) -> dict[int, Prediction | Exception]:
    """Return what comes of each; only what nobody can answer for is raised."""
    done = await asyncio.gather(*asks.values(), return_exceptions=True)
    for result in done:
        if isinstance(result, BaseException) and not isinstance(result, Exception):
            raise result
    return dict(zip(asks, done, strict=True))  # type: ignore[arg-type]


def _required(engine: Engine, name: str, setting: str) -> ServedModel:
    try:
        return engine.model(name)
    except ModelUnknown as exc:
        raise ArtifactInvalid(f"{setting}={name!r}: {exc}") from exc


def _vector_of(scored: Scored) -> NDArray[np.float32]:
    assert scored.knowledge_state is not None, "the knowledge model was asked for it at the start"
    return scored.knowledge_state
