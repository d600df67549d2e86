"""Questions put to users, and what is answered."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Required

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator, with_config
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from app.api.schemas.answers import AnswerFields, Interaction
from app.api.schemas.fields import (
    MAX_HISTORY,
    MAX_ITEMS,
    Body,
    Ms,
    OutsideId,
    SkillIds,
    Whole,
)
from app.api.schemas.models import ModelRef
from app.api.schemas.problems import Problem
from app.asks import Ask
from app.records import given_records


def _branch(value: Any) -> str | None:
    return "~flag" if isinstance(value, bool) else "~list" if isinstance(value, list) else None


KnowledgeStateWanted = Annotated[
    Annotated[bool, Tag("~flag")]
    | Annotated[list[OutsideId], Field(max_length=MAX_HISTORY), Tag("~list")],
    Discriminator(
        _branch,
        custom_error_type="knowledge_state_type",
        custom_error_message="true, false or a list of skill ids is expected",
    ),
]


class PredictionRequest(Body):
    """A question put to a user."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": ["user_id"], "properties": {"user_id": {"type": "string"}}},
                {"required": ["history"], "properties": {"history": {"type": "array"}}},
            ]
        }
    )

    user_id: OutsideId | None = Field(
        None,
        description="Whose stored history to stand on; not needed with an inline `history`.",
        examples=["u1"],
    )
    question_id: OutsideId = Field(description="The question to be asked.", examples=["q17"])
    model: OutsideId | None = Field(
        None,
        description="The model that predicts; see GET /models for the default.",
        examples=["dkt_asked"],
    )
    asked_ms: Annotated[Ms | None, Whole] = Field(
        None,
        description="When it will be asked, on the clock of the history; left out: not known.",
        examples=[1_700_000_060_000],
    )
    skill_ids: SkillIds | None = Field(
        None,
        description="The skills it will exercise; left out: the skills the model knows it by.",
        examples=[["fractions"]],
    )
    history: list[Interaction] | None = Field(
        None,
        max_length=MAX_HISTORY,
        description="Stand on these answers, oldest first, instead of the stored ones. "
        "Nothing is read and nothing is kept.",
    )
    knowledge_state: KnowledgeStateWanted = Field(
        True, description="false leaves it out; a list of skill ids limits it to these."
    )

    @model_validator(mode="after")
    def _stands_on_something(self) -> PredictionRequest:
        if self.user_id is None and self.history is None:
            raise PydanticCustomError(
                "user_id_needed", "user_id is needed where no history is given"
            )
        return self

    def to_ask(self) -> Ask:
        """Return the ask meant."""
        fields: Any = self.model_dump(exclude_unset=True)
        return ask_of(fields)


@with_config(Body.model_config)
class AskFields(TypedDict, total=False):
    """A `PredictionRequest`, as a dict.

    Whatever is valid here, and stands on something, is valid there and means the same; it takes a
    third of the time.
    """

    user_id: OutsideId | None
    question_id: Required[OutsideId]
    model: OutsideId | None
    asked_ms: Ms | None
    skill_ids: SkillIds | None
    history: Annotated[list[AnswerFields], Field(max_length=MAX_HISTORY)] | None
    knowledge_state: KnowledgeStateWanted


def stands_on_something(fields: AskFields) -> bool:
    """Say whether there is a history to stand on, or a user who may have one."""
    return fields.get("user_id") is not None or fields.get("history") is not None


def ask_of(fields: AskFields) -> Ask:
    """Return the ask meant."""
    history = fields.pop("history", None)
    ask = Ask(**fields)  # type: ignore[arg-type]  # it has none any more
    return ask if history is None else ask._replace(history=given_records(history))


class BatchRequest(Body):
    """Up to 1,000 questions put to any users."""

    # Items are validated one by one, so that a bad one stands as an error at its own place.
    items: list[Any] = Field(min_length=1, max_length=MAX_ITEMS)


class Unseen(BaseModel):
    """An id that the model has never seen."""

    kind: Literal["question", "skill"]
    id: str


class Prediction(BaseModel):
    """How likely the user is to answer right, and what that stands on."""

    p_correct: float = Field(ge=0, le=1, description="Chance of a right answer.", examples=[0.731])
    knowledge_state: dict[str, float] | None = Field(
        description="Skill id to the chance of a right answer now, from the knowledge model, "
        "whichever model predicts; null when not wanted."
    )
    model: ModelRef
    history_length: int = Field(description="Interactions kept of this user, or given inline.")
    truncated: bool = Field(
        description="Part of the history took no part: it is longer than the model's window, "
        "or the store has dropped its oldest answers."
    )
    cold_start: bool = Field(description="There was no history: the answer is the model's prior.")
    unseen: list[Unseen] = Field(description="Ids of the request that the model does not know.")


class BatchAnswer(BaseModel):
    """One prediction or problem for each item, in order; a problem has a `status`."""

    items: list[Prediction | Problem]
