"""All that is kept of a user: given out, or gone."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, Field

from app.api.schemas.answers import NumberedInteraction
from app.api.schemas.fields import HistoryVersion


class ExportedInteraction(NumberedInteraction):
    """One kept interaction, with the key that its event left."""

    event_key: str | None = Field(description="Hash of its event_id, 16 hex digits; null: none.")


class ExportedState(BaseModel):
    """What a model has made of the user's answers, as it is kept."""

    model: str = Field(description="The model, its version and a hash of its files.")
    history: str = Field(description="The first part of the version of the history it is of.")
    start: int = Field(description="Number of the first answer that it stands on.")
    seen: int = Field(description="Number after the last one.")
    bytes: str = Field(description="The state, base64.")


class ExportedCall(BaseModel):
    """A call with an Idempotency-Key that was answered lately."""

    key: str = Field(description="Hash of its key, hex.")
    content: str = Field(description="Hash of what it asked, hex.")
    until_s: int = Field(description="Unix time from which on it is forgotten.")
    bytes: str = Field(description="What it was answered, base64 of MessagePack.")


class ExportedForecast(BaseModel):
    """A prediction that waits for its answer."""

    question_id: str | None = Field(description="null where nobody has answered it yet.")
    question_key: str = Field(description="Hash of the question id, 16 hex digits.")
    model_key: str = Field(description="Hash of the model, its version and its files.")
    noted_s: int = Field(description="Unix time at which it was kept.")
    p_correct: float
    skill: int = Field(description="The question's first skill, in the model's numbers.")
    lag: int = Field(description="Which bucket the time since the last answer fell into.")
    history: int = Field(description="Which bucket the number of answers before fell into.")


class Exported(BaseModel):
    """Everything that the store keeps of a user."""

    user_id: str
    history_version: HistoryVersion
    interactions: list[ExportedInteraction] = Field(
        description="Oldest first; also those that wait to be dropped."
    )
    states: list[ExportedState]
    calls: list[ExportedCall]
    forecasts: list[ExportedForecast] = Field(
        description="Oldest first; those whose time is over are among them until all are gone."
    )
    expires_in_ms: Mapping[str, int | None] = Field(
        description="How long interactions, states, calls and forecasts live on; null: for ever, "
        "or none."
    )


class Deleted(BaseModel):
    """Whether there was anything to delete."""

    deleted: bool
