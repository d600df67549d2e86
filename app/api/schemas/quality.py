"""How good predictions were."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field

from app import quality, service
from app.engine.model import ServedModel


class ReliabilityBin(BaseModel):
    """Predictions that lie near each other."""

    predicted: float = Field(description="Their mean.")
    correct: float = Field(description="Share of their answers that were right.")
    answers: int


class VersionQuality(BaseModel):
    """How good the newest predictions of one version were."""

    @staticmethod
    def content_of(model: ServedModel, figures: quality.Figures) -> dict[str, Any]:
        """Return the JSON content; a figure that the answers do not give is null."""
        bins = figures.reliability
        return {
            "version": model.version,
            "answers": figures.answers,
            "total": figures.total,
            "since_s": figures.since_s,
            "until_s": figures.until_s,
            "auc": figures.auc,
            "log_loss": figures.log_loss,
            "calibration_error": figures.calibration_error,
            "correct_ratio": figures.correct_ratio,
            "predicted_mean": figures.predicted_mean,
            "reliability": [{"predicted": p, "correct": c, "answers": n} for p, c, n in bins],
            "expected": quality.expected_of(model),
            "drift": figures.drift,
        }

    version: str
    answers: int = Field(description="Predictions that the figures stand on, each with its answer.")
    total: int = Field(description="Predictions that were ever joined with their answers.")
    since_s: int | None = Field(description="Unix time of the first of these answers.")
    until_s: int | None = Field(description="Unix time of the last one.")
    auc: float | None = Field(description="null without both right and wrong answers.")
    log_loss: float | None = Field(description="In nats.")
    calibration_error: float | None = Field(description="Expected, over 15 bins of equal width.")
    correct_ratio: float | None = Field(description="Share of right answers.")
    predicted_mean: float | None
    reliability: list[ReliabilityBin] = Field(description="The bins that hold predictions.")
    expected: Mapping[str, float] = Field(
        description="The same figures on the test split, as the artifact says."
    )
    drift: Mapping[str, float] | None = Field(
        description="Population stability index beside the training split, by input: skill, lag, "
        "history, correct; null where the artifact does not say what that was like."
    )


class Quality(BaseModel):
    """How good the predictions of a model were, beside the answers that came."""

    @staticmethod
    def content_of(judged: list[service.Judged], how: quality.Quality) -> dict[str, Any]:
        """Return the JSON content."""
        served, *candidates = [VersionQuality.content_of(*one) for one in judged]
        return {
            "share": how.share,
            "within_s": how.within_s,
            "max_answers": how.most,
            "current": served,
            "candidate": candidates[0] if candidates else None,
        }

    share: float = Field(description="Of the users, whose predictions are compared.")
    within_s: int = Field(description="Longest time from a prediction to its answer.")
    max_answers: int = Field(description="Figures stand on so many of the newest answers, at most.")
    current: VersionQuality
    candidate: VersionQuality | None
