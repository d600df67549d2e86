"""How good predictions were: each that was served beside the answer that came later.

A forecast is noted when a prediction for a stored user goes out, and nobody waits for that. The
store compares it with the answer when that is recorded; here figures are made of what came of it.
"""

from __future__ import annotations

import asyncio
import math
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.engine.model import ServedModel
from app.errors import TracerError
from app.records import known_key
from app.store.outcomes import FORECAST, Forecasts, Outcomes
from app.store.states import Standing, Standings
from app.telemetry import Metrics
from models.contract import metrics as formulas
from models.contract.inputs import (
    INPUT_NAMES,
    Inputs,
    lag_bucket,
    lag_buckets,
    length_bucket,
    length_buckets,
)
from models.contract.interaction import UNKNOWN_MS, UNSEEN, Query
from models.contract.queries import Queries, lag_between
from models.contract.window import MISSING_S

_FORECAST = struct.Struct("<QQfIBBxx")

_IN_MANIFEST = {"auc": "auc", "log_loss": "log_loss", "calibration_error": "ece"}

FIGURES = tuple(_IN_MANIFEST)
"""Those that a manifest tells of the test split, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """How good a model's newest predictions were; NaN where the answers do not say."""

    answers: int
    total: int  # that there ever were
    since_s: int | None  # Unix time of the first of these answers
    until_s: int | None
    auc: float
    log_loss: float
    calibration_error: float
    correct_ratio: float
    predicted_mean: float
    reliability: Sequence[tuple[float, float, int]]  # of bins: mean p, share right, answers
    drift: Mapping[str, float] | None  # by input; None where the artifact says nothing of them


class Quality:
    """Notes forecasts, and tells what became of them."""

    def __init__(self, forecasts: Forecasts, share: float, metrics: Metrics) -> None:
        """`share` is of the users; nothing is noted of the others."""
        self._forecasts = forecasts
        self._share = share
        self._metrics = metrics
        self._gauges = {  # by the fields of `Figures` that they show
            "answers": metrics.quality_answers,
            "auc": metrics.quality_auc,
            "log_loss": metrics.quality_log_loss,
            "calibration_error": metrics.quality_calibration_error,
            "correct_ratio": metrics.quality_correct_ratio,
            "predicted_mean": metrics.quality_predicted_mean,
        }
        self._figures: dict[str, Figures] = {}  # the newest of each, by `state_key`
        self._told: dict[str, ServedModel] = {}  # whose figures stand in the metrics

    @property
    def share(self) -> float:
        """Of the users, whose predictions are compared with their answers."""
        return self._share

    @property
    def within_s(self) -> int:
        """For how long a prediction waits for its answer."""
        return self._forecasts.within_s

    @property
    def most(self) -> int:
        """How many answers figures stand on."""
        return self._forecasts.most

    # -- forecasts in --------------------------------------------------------------------------

    def note(
        self,
        model: ServedModel,
        user_id: str,
        question_id: str,
        query: Query,
        standing: Standing,
        p_correct: float,
    ) -> None:
        """Note what has been said of one question."""
        if not self._is_among(user_id):
            return
        lag_s, interactions = MISSING_S, standing.interactions
        if query.asked_ms != UNKNOWN_MS and len(interactions):
            before_ms = int(interactions["asked_ms"][-1])
            if before_ms != UNKNOWN_MS:
                lag_s = max(query.asked_ms - before_ms, 0) / 1000
        model_key = known_key(model.state_key)
        forecast = _FORECAST.pack(
            known_key(question_id),
            model_key,
            p_correct,
            query.skills[0],
            lag_bucket(lag_s),
            length_bucket(standing.kept),
        )
        self._forecasts.note(user_id, model_key, forecast)

    def note_all(
        self,
        model: ServedModel,
        user_ids: Sequence[str],
        question_ids: Sequence[str],
        queries: Queries,
        rows: NDArray[np.int64],
        standings: Standings,
        p_correct: NDArray[np.floating],
        served: Sequence[int],
    ) -> None:
        """Note what has been said of many; `rows` say whose each is, in `user_ids` and `standings`.

        Only those `served` count, by their places in the other columns.
        """
        newest_ms = np.full(len(standings.table), UNKNOWN_MS)
        has_any = standings.rows > 0
        ends = np.cumsum(standings.rows)[has_any]
        newest_ms[has_any] = standings.interactions["asked_ms"][ends - 1]
        places = np.array(served)
        places = places[np.argsort(rows[places], kind="stable")]  # one user's after the other's
        of = rows[places]
        model_key = known_key(model.state_key)
        forecasts = np.zeros(len(places), FORECAST)
        forecasts["question_key"] = _keys_of(question_ids, queries, model)[places]
        forecasts["model_key"] = model_key
        forecasts["p_correct"] = p_correct[places]
        forecasts["skill"] = queries.skills[places, 0]
        forecasts["lag"] = lag_buckets(lag_between(newest_ms[of], queries.asked_ms[places]))
        forecasts["length"] = length_buckets(standings.table["kept"][of])
        firsts = np.flatnonzero(np.diff(of, prepend=-1))
        bounds = (np.append(firsts, len(of)) * FORECAST.itemsize).tolist()
        content = forecasts.tobytes()
        self._forecasts.note_all(
            model_key,
            [
                (user_ids[row], content[first:end])
                for row, first, end in zip(of[firsts].tolist(), bounds, bounds[1:], strict=False)
                if self._is_among(user_ids[row])
            ],
        )

    def _is_among(self, user_id: str) -> bool:
        """Say whether forecasts of a user are noted: the same ones every time, on every server."""
        if self._share in (0, 1):
            return bool(self._share)
        return zlib.crc32(f"quality/{user_id}".encode()) < self._share * 2**32

    # -- figures out ---------------------------------------------------------------------------

    async def figures(self, model: ServedModel) -> Figures:
        """Return how good a model's newest predictions were."""
        outcomes = await self._forecasts.outcomes(known_key(model.state_key))
        found = self._figures.get(model.state_key)
        if found is None or found.total != outcomes.total:
            # Sorting thousands of numbers takes longer than others should wait.
            found = await asyncio.to_thread(figures_of, outcomes, model.manifest.inputs)
            self._figures[model.state_key] = found
        return found

    async def tell(self, models: Iterable[ServedModel]) -> None:
        """Put the figures of models into the metrics; without the store the old ones stay."""
        answer = {model.state_key: model for model in models}
        for state_key in self._told.keys() - answer.keys():
            self._forget(self._told.pop(state_key))
            self._figures.pop(state_key, None)
        for state_key, model in answer.items():
            with suppress(TracerError):
                self._show(model, await self.figures(model))
                self._told[state_key] = model

    def _show(self, model: ServedModel, figures: Figures) -> None:
        of, metrics = (model.name, model.version), self._metrics
        for name, gauge in self._gauges.items():
            gauge.labels(*of).set(getattr(figures, name))
        for figure, value in expected_of(model).items():
            metrics.quality_expected.labels(*of, figure).set(value)
        for name, value in (figures.drift or {}).items():
            metrics.input_drift.labels(*of, name).set(value)

    def _forget(self, model: ServedModel) -> None:
        of, metrics = (model.name, model.version), self._metrics
        for gauge in self._gauges.values():
            gauge.remove(*of)
        for figure in FIGURES:
            metrics.quality_expected.remove(*of, figure)
        for name in INPUT_NAMES:
            metrics.input_drift.remove(*of, name)


def expected_of(model: ServedModel) -> dict[str, float]:
    """Return what the artifact says of its test split, as far as it does."""
    said = model.manifest.metrics.get("all", {})
    return {
        figure: float(said[name]["value"])
        for figure, name in _IN_MANIFEST.items()
        if isinstance(said.get(name), Mapping) and "value" in said[name]
    }


def figures_of(outcomes: Outcomes, inputs: Inputs) -> Figures:
    """Return how good predictions were; `inputs` are those of the training split."""
    table, answers = outcomes.table, len(outcomes.table)
    right, p = table["right"].astype(bool), table["p_correct"].astype(np.float64)
    times = table["answered_s"]
    none = math.nan
    return Figures(
        answers=answers,
        total=outcomes.total,
        since_s=int(times.min()) if answers else None,
        until_s=int(times.max()) if answers else None,
        auc=formulas.auc(right, p),
        log_loss=formulas.log_loss(right, p) if answers else none,
        calibration_error=formulas.ece(right, p) if answers else none,
        correct_ratio=float(right.mean()) if answers else none,
        predicted_mean=float(p.mean()) if answers else none,
        reliability=formulas.reliability(right, p),
        drift=_drift(table, inputs) if answers and inputs.is_known else None,
    )


def _keys_of(
    question_ids: Sequence[str], queries: Queries, model: ServedModel
) -> NDArray[np.uint64]:
    """Return the keys of questions; those that a model knows need not be taken anew."""
    keys = model.vocabulary.question_keys(queries.question)
    for place in np.flatnonzero(queries.question == UNSEEN).tolist():
        keys[place] = known_key(question_ids[place])
    return keys


def _drift(table: NDArray[np.void], inputs: Inputs) -> dict[str, float]:
    return inputs.drift(table["skill"], table["lag"], table["length"], table["right"])
