"""Questions put to users, and what is answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

from app.engine.model import ServedModel
from app.records import Records
from models.contract.interaction import FIRST, UNSEEN
from models.contract.vocabulary import Vocabulary

DECIMALS = 7  # what a float32 holds


class Ask(NamedTuple):
    """A question put to a user, and what the caller wants to know."""

    question_id: str
    user_id: str | None = None  # None only with a history of its own
    model: str | None = None
    asked_ms: int | None = None
    skill_ids: Sequence[str] | None = None
    history: Records | None = None  # instead of the stored one
    knowledge_state: bool | Sequence[str] = True  # or only these skills


@dataclass(frozen=True, slots=True)
class Unseen:
    """An id of the request that the model does not know."""

    kind: str  # question or skill
    id: str


@dataclass(frozen=True, slots=True)
class ModelRef:
    """Which artifact an answer comes from."""

    name: str
    version: str


class SkillVector(NamedTuple):
    """A probability for every skill, in the order of their ids."""

    skill_ids: tuple[str, ...]
    values: NDArray[np.float32]


Knowledge = SkillVector | dict[str, np.float32]
"""Skill id -> probability."""


class Prediction(TypedDict):
    """How likely the user is to answer right, and what that stands on.

    A dict, as it is written: one is made for every question of the service.
    """

    p_correct: float
    knowledge_state: Knowledge | None
    model: ModelRef
    history_length: int
    truncated: bool  # part of the history did not take part
    cold_start: bool  # there was no history
    unseen: list[Unseen]


def ref_of(model: ServedModel) -> ModelRef:
    """Return the name under which a model's answers go out."""
    return _ref(model.name, model.version)


@lru_cache(maxsize=256)
def _ref(name: str, version: str) -> ModelRef:
    return ModelRef(name, version)


def unseen_of(ask: Ask, question: int, vocabulary: Vocabulary) -> list[Unseen]:
    """Return the ids of an ask that a model does not know; `question` is its integer."""
    unseen = [Unseen("question", ask.question_id)] if question == UNSEEN else []
    if ask.skill_ids is None:
        return unseen
    named = dict.fromkeys(ask.skill_ids)
    return unseen + [Unseen("skill", s) for s in named if vocabulary.skill_of(s) == UNSEEN]


def selected(
    values: NDArray[np.float32], wanted: bool | Sequence[str], vocabulary: Vocabulary
) -> tuple[Knowledge, list[Unseen]]:
    """Return of a knowledge state what the caller wants, and the skills that are not in it."""
    if isinstance(wanted, bool):
        return SkillVector(vocabulary.skill_ids, values), []
    places = {s: vocabulary.skill_of(s) for s in wanted}
    known = {s: values[p - FIRST] for s, p in places.items() if p != UNSEEN}
    return known, [Unseen("skill", s) for s, p in places.items() if p == UNSEEN]
