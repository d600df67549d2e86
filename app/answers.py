"""Answers kept of users: recorded, corrected, listed, given out, forgotten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.errors import AnswerLate
from app.pasts import Pasts
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
from app.telemetry import Metrics
from models.contract.interaction import NO_KEY

_KEYS_TOGETHER = 1000  # a store that is asked for more holds up everybody else

_NO_KEYS = np.empty(0, np.uint64)


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


class Answers:
    """What is kept of users; methods raise the store's errors."""

    def __init__(
        self, histories: Histories, pasts: Pasts, settings: Settings, metrics: Metrics
    ) -> None:
        self._histories = histories
        self._pasts = pasts
        self._metrics = metrics
        self._late_rule = settings.late_answers

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
