"""Models, and the versions of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from app import rollout
from app.api.schemas.fields import Body, OutsideId
from app.engine.model import ServedModel


class ModelRef(BaseModel):
    """Which artifact an answer comes from."""

    name: str = Field(examples=["dkt_asked"])
    version: str = Field(examples=["1"])


class ModelSummary(BaseModel):
    """One artifact served."""

    @staticmethod
    def content_of(model: ServedModel, default: str, knowledge: str) -> dict[str, Any]:
        """Return the JSON content; `default` and `knowledge` name models with these duties."""
        manifest = model.manifest
        return {
            "name": model.name,
            "version": model.version,
            "network": manifest.network,
            "is_default": model.name == default,
            "is_knowledge_model": model.name == knowledge,
            "window_length": model.window.length,
            "n_questions": manifest.n_questions,
            "n_skills": manifest.n_skills,
            "metrics": manifest.metrics,
        }

    name: str
    version: str
    network: str
    is_default: bool = Field(description="Predicts where a request names no model.")
    is_knowledge_model: bool = Field(description="Gives every knowledge state.")
    window_length: int = Field(description="Answers looked at, and the question itself, at most.")
    n_questions: int
    n_skills: int
    metrics: Mapping[str, Any] = Field(description="On held-out learners.")


class ModelList(BaseModel):
    """Every artifact served."""

    models: list[ModelSummary]


class ModelDetail(BaseModel):
    """One artifact: what it is, and how good."""

    @staticmethod
    def content_of(model: ServedModel) -> dict[str, Any]:
        """Return the JSON content."""
        return {
            "name": model.name,
            "version": model.version,
            "manifest": asdict(model.manifest),
            "card": model.card,
        }

    name: str
    version: str
    manifest: Mapping[str, Any] = Field(description="`manifest.json` of the artifact.")
    card: str = Field(description="The model card, Markdown.")


class Version(Body):
    """A version of a model."""

    version: OutsideId = Field(description="Its folder in the artifact folder.", examples=["4"])


class Offer(Version):
    """A candidate, and what it is for."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": ["share"], "properties": {"share": {"exclusiveMinimum": 0}}},
                {"required": ["compare"], "properties": {"compare": {"const": True}}},
            ]
        }
    )

    share: float = Field(0.0, ge=0, le=1, description="Of the users who are answered by it.")
    compare: bool = Field(False, description="Ask it beside the one served, whose answer goes out.")

    @model_validator(mode="after")
    def _is_for_something(self) -> Offer:
        if not (self.share or self.compare):
            raise PydanticCustomError(
                "offer_of_nothing", "a share above 0 or compare: true is needed"
            )
        return self


class CandidateOf(BaseModel):
    """The candidate of a model."""

    version: str
    share: float
    compare: bool


class Versions(BaseModel):
    """The versions of a model."""

    @staticmethod
    def content_of(lineup: rollout.Lineup) -> dict[str, Any]:
        """Return the JSON content."""
        candidate = lineup.candidate
        return {
            "current": lineup.current,
            "before": lineup.before,
            "candidate": candidate
            and {
                "version": candidate.model.version,
                "share": candidate.share,
                "compare": candidate.is_compared,
            },
            "there": lineup.there,
        }

    current: str = Field(description="Answers.")
    before: str | None = Field(description="Answered before it: what a roll back goes to.")
    candidate: CandidateOf | None
    there: list[str] = Field(description="In the artifact folder, oldest first.")
