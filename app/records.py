"""Answers as callers give them <-> interactions as they are stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.contract.interaction import (
    INTERACTION,
    NO_KEY,
    RIGHT,
    SKILL_SEPARATOR,
    UNKNOWN_MS,
    WRONG,
    key_of,
    skill_set_text,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answered question, in outside ids."""

    question_id: str
    correct: bool
    asked_ms: int | None = None
    elapsed_ms: int | None = None
    skill_ids: Sequence[str] | None = None  # None: the skills the model knows the question by
    event_id: str | None = None


class KeptAnswer(NamedTuple):
    """One interaction as it is given back, in outside ids."""

    question_id: str | None  # None where the store has lost the text behind a key
    skill_ids: list[str] | None  # None where the caller named none
    correct: bool
    asked_ms: int | None
    elapsed_ms: int | None


class Records(NamedTuple):
    """Answers ready to be stored or read by a vocabulary."""

    interactions: NDArray[np.void]  # INTERACTION, in the order given
    texts: dict[int, str]  # what stands behind each question key and skills key


def records_of(answers: Sequence[Answer]) -> Records:
    """Encode answers. Event ids leave only their key: nobody reads them again."""
    texts: dict[int, str] = {}
    keys: dict[str, int] = {}

    def noted(text: str) -> int:
        key = keys.get(text)
        if key is None:
            key = keys[text] = key_of(text)
            texts[key] = text
        return key

    rows = []
    for answer in answers:
        skills_key = NO_KEY
        if answer.skill_ids:
            for skill_id in answer.skill_ids:
                noted(skill_id)
            skills_key = noted(skill_set_text(answer.skill_ids))
        rows.append(
            (
                noted(answer.question_id),
                skills_key,
                NO_KEY if answer.event_id is None else key_of(answer.event_id),
                UNKNOWN_MS if answer.asked_ms is None else answer.asked_ms,
                UNKNOWN_MS if answer.elapsed_ms is None else answer.elapsed_ms,
                RIGHT if answer.correct else WRONG,
                0,
                0,
            )
        )
    return Records(np.array(rows, INTERACTION), texts)


def given_records(answers: Sequence[Mapping[str, Any]]) -> Records:
    """Encode answers that come with a question: in columns, and without what is only stored.

    Each is an `Answer` as a dict, whose absent fields are None. `texts` are those of skill sets.
    """
    interactions = np.zeros(len(answers), INTERACTION)
    interactions["question_key"] = [known_key(a["question_id"]) for a in answers]
    interactions["response"] = [RIGHT if a["correct"] else WRONG for a in answers]
    for field in ("asked_ms", "elapsed_ms"):
        given = [a.get(field) for a in answers]
        interactions[field] = [UNKNOWN_MS if ms is None else ms for ms in given]
    texts: dict[int, str] = {}
    for place, answer in enumerate(answers):
        if skill_ids := answer.get("skill_ids"):
            text = skill_set_text(skill_ids)
            is_short = len(text) <= _ID_LENGTH  # many long ones would take gigabytes
            interactions["skills_key"][place] = key = (known_key if is_short else key_of)(text)
            texts[key] = text
    return Records(interactions, texts)


_ID_LENGTH = 256  # characters of an id, at most

known_key = lru_cache(maxsize=65_536)(key_of)
"""A hash takes longer than all else that is done with an answer, and questions come again."""


def answers_of(interactions: NDArray[np.void], texts: Mapping[int, str]) -> list[KeptAnswer]:
    """Decode stored interactions; `texts` is what the store knows of their keys."""
    rows = zip(
        interactions["question_key"].tolist(),
        interactions["skills_key"].tolist(),
        (interactions["response"] == RIGHT).tolist(),
        interactions["asked_ms"].tolist(),
        interactions["elapsed_ms"].tolist(),
        strict=True,
    )
    return [
        KeptAnswer(
            question_id=texts.get(question_key),
            skill_ids=members_of(texts[skills_key]) if skills_key in texts else None,
            correct=correct,
            asked_ms=None if asked_ms == UNKNOWN_MS else asked_ms,
            elapsed_ms=None if elapsed_ms == UNKNOWN_MS else elapsed_ms,
        )
        for question_key, skills_key, correct, asked_ms, elapsed_ms in rows
    ]


def members_of(text: str) -> list[str]:
    """Return the skill ids in the text of a skill set."""
    return text.split(SKILL_SEPARATOR)
