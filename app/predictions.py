"""Predictions: of one ask or of many, by the model of each, and beside it by its candidate."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from app.asks import DECIMALS, Ask, Prediction, ref_of, selected, unseen_of
from app.bulk import Bulk
from app.candidates import Candidate, Comparisons
from app.engine.engine import Engine
from app.engine.model import Scored, ServedModel
from app.errors import ModelUnknown, RequestInvalid
from app.knowledge import Knowledge, vector_of
from app.pasts import Past, Pasts
from app.quality import Quality
from app.telemetry import Metrics
from models.contract.interaction import NOBODYS, UNKNOWN_MS, Query

log = logging.getLogger(__name__)


class Predictions:
    """Answers asks.

    Methods raise `ModelUnknown`, `Overloaded`, `ScoringFailed` and the store's errors.
    """

    def __init__(
        self,
        engine: Engine,
        default: ServedModel,
        candidates: Mapping[str, Candidate],
        knowledge: Knowledge,
        pasts: Pasts,
        quality: Quality,
        metrics: Metrics,
    ) -> None:
        """`default` is asked where no model is named; candidates are those of models, by name."""
        self._engine = engine
        self._default = default
        self._candidates = candidates
        self._knowledge = knowledge
        self._pasts = pasts
        self._quality = quality
        self._metrics = metrics
        self._comparisons = Comparisons()
        self._bulk = Bulk(pasts, knowledge.model, quality, metrics)

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

    # -- inside --------------------------------------------------------------------------------

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
        if ask.knowledge_state is False or model is self._knowledge.model:
            return [model]
        return [model, self._knowledge.model]

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
        if wanted and model is not self._knowledge.model:
            scored, knowing = await asyncio.gather(
                self._pasts.score(model, query, past), self._knowledge.of_past(past)
            )
        else:
            scored = knowing = await self._pasts.score(model, query, past)
        unseen = unseen_of(ask, query.question, vocabulary)
        state = None
        if wanted:
            state, unknown = selected(
                vector_of(knowing), ask.knowledge_state, self._knowledge.model.vocabulary
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

    async def _caught_up(self, model: ServedModel, past: Past) -> None:
        """Let all answers be seen once, before several asks go on from there."""
        is_read = not model.holds_memory or model.state_key in past.memories
        if not model.keeps_state or (past.standings[model.state_key].new == 0 and is_read):
            return
        if model is self._knowledge.model:
            await self._knowledge.of_past(past)
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
