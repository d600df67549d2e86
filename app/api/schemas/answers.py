"""Answers: recorded, corrected, listed."""

from __future__ import annotations

from typing import Annotated, Any, Required

from pydantic import BaseModel, Field, model_validator, with_config
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from app import answers
from app.api.schemas.fields import (
    LONGEST_MS,
    MAX_ITEMS,
    Body,
    ElapsedMs,
    HistoryVersion,
    Ms,
    OutsideId,
    SkillIds,
    Whole,
)
from app.records import Answer
from app.store import histories
from models.contract.interaction import UNKNOWN_MS


class Interaction(Body):
    """One answered question."""

    question_id: OutsideId = Field(description="The question answered.", examples=["q17"])
    correct: bool = Field(description="Whether it was answered right.")
    asked_ms: Annotated[Ms | None, Whole] = Field(
        None,
        description="When it was asked, Unix milliseconds; any clock whose differences are times.",
        examples=[1_700_000_000_000],
    )
    elapsed_ms: Annotated[ElapsedMs | None, Whole] = Field(
        None, description="Thinking time on this question.", examples=[21_000]
    )
    skill_ids: SkillIds | None = Field(
        None,
        description="The skills it exercised here; left out: the skills the model knows it by.",
        examples=[["fractions"]],
    )
    event_id: OutsideId | None = Field(
        None,
        description="Names this answer among the user's: sent again, it is not recorded again.",
        examples=["attempt-8812"],
    )

    def to_answer(self) -> Answer:
        """Return the answer meant."""
        return Answer(
            question_id=self.question_id,
            correct=self.correct,
            asked_ms=self.asked_ms,
            elapsed_ms=self.elapsed_ms,
            skill_ids=self.skill_ids,
            event_id=self.event_id,
        )


class Interactions(Body):
    """Answers of one user, oldest first."""

    interactions: list[Interaction] = Field(
        min_length=1, max_length=MAX_ITEMS, description="Oldest first; kept all or none."
    )


@with_config(Body.model_config)
class AnswerFields(TypedDict, total=False):
    """An `Interaction`, as a dict."""

    question_id: Required[OutsideId]
    correct: Required[bool]
    asked_ms: Ms | None
    elapsed_ms: ElapsedMs | None
    skill_ids: SkillIds | None
    event_id: OutsideId | None


class Amendment(Body):
    """What one kept answer should have said; what is left out stays as it is."""

    correct: bool | None = Field(None, description="Whether it was answered right.")
    asked_ms: Ms | None = Field(
        None, description="When it was asked; null: not known.", examples=[1_700_000_000_000]
    )
    elapsed_ms: int | None = Field(
        None, ge=0, le=LONGEST_MS, description="Thinking time; null: not known.", examples=[21_000]
    )

    @model_validator(mode="after")
    def _says_something(self) -> Amendment:
        given = self.model_fields_set
        if not given or ("correct" in given and self.correct is None):
            raise PydanticCustomError(
                "amendment_empty",
                "correct (true or false), asked_ms or elapsed_ms is needed, or several of them",
            )
        return self

    def to_amendment(self) -> histories.Amendment:
        """Return the amendment meant."""
        asked_ms, elapsed_ms = (
            UNKNOWN_MS if field in self.model_fields_set and value is None else value
            for field, value in (("asked_ms", self.asked_ms), ("elapsed_ms", self.elapsed_ms))
        )
        return histories.Amendment(self.correct, asked_ms, elapsed_ms)


class Recorded(BaseModel):
    """What one call has recorded."""

    @staticmethod
    def content_of(done: histories.Recorded) -> dict[str, Any]:
        """Return the JSON content."""
        return {
            "recorded": done.recorded,
            "duplicates": done.duplicates,
            "history_length": done.length,
            "history_version": str(done.version),
        }

    recorded: int = Field(description="Answers added.")
    duplicates: int = Field(description="Answers left out: their event_id was there already.")
    history_length: int = Field(description="Interactions kept of this user now.")
    history_version: HistoryVersion


class NumberedInteraction(BaseModel):
    """One kept interaction."""

    number: int = Field(description="Counted from the user's very first answer, which is 0.")
    question_id: str | None = Field(description="null where the store has lost the text.")
    skill_ids: list[str] | None = Field(description="As named when recorded; null: none were.")
    correct: bool
    asked_ms: int | None
    elapsed_ms: int | None


class InteractionPage(BaseModel):
    """A run of kept interactions, oldest first."""

    @staticmethod
    def content_of(listing: answers.Listing) -> dict[str, Any]:
        """Return the JSON content."""
        return {
            "interactions": [
                {"number": number, **answer._asdict()}
                for number, answer in enumerate(listing.answers, listing.first)
            ],
            "next": listing.next,
            "history_length": listing.history_length,
            "history_version": str(listing.version),
        }

    interactions: list[NumberedInteraction]
    next: int | None = Field(description="`start` of the next page; null at the end.")
    history_length: int = Field(description="Interactions kept of this user.")
    history_version: HistoryVersion


class Amended(BaseModel):
    """One kept interaction as it is after an amendment."""

    @staticmethod
    def content_of(done: answers.Correction) -> dict[str, Any]:
        """Return the JSON content."""
        return {
            "interaction": {"number": done.number, **done.answer._asdict()},
            "history_version": str(done.version),
        }

    interaction: NumberedInteraction
    history_version: HistoryVersion
