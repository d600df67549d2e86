"""Knowledge states."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from app import knowledge
from app.api.schemas.fields import HistoryVersion
from app.api.schemas.models import ModelRef


class SkillState(BaseModel):
    """One skill of a knowledge state."""

    id: str
    name: str | None = Field(description="null where the training data has no name for it.")
    probability: float = Field(ge=0, le=1, description="Chance of a right answer now.")
    answers: int = Field(description="Kept interactions that touched the skill.")


class KnowledgeState(BaseModel):
    """Every skill of the knowledge model."""

    @staticmethod
    def content_of(state: knowledge.KnowledgeState) -> dict[str, Any]:
        """Return the JSON content."""
        columns = (state.skill_ids, state.names, state.probabilities, state.answers)
        return {
            "skills": [
                {"id": skill_id, "name": name, "probability": p, "answers": answers}
                for skill_id, name, p, answers in zip(*columns, strict=True)
            ],
            "as_of": state.as_of,
            "history_length": state.history_length,
            "truncated": state.truncated,
            "cold_start": state.cold_start,
            "history_version": str(state.version),
            "model": state.model,
        }

    skills: list[SkillState]
    as_of: int | None = Field(
        description="`asked_ms` of the newest interaction; null where there is none or no time."
    )
    history_length: int
    truncated: bool
    cold_start: bool = Field(description="Nothing is kept of this user: this is the prior.")
    history_version: HistoryVersion
    model: ModelRef
