"""One answered question as it is stored, and what is known before the answer.

An interaction is stored under *keys*, 64-bit hashes of the outside ids, never under a model's
integers: a model with another vocabulary reads the same bytes, and nothing is rewritten.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

WRONG, RIGHT, UNKNOWN, PAD_RESPONSE = 0, 1, 2, 3
"""Response integers. UNKNOWN is the asked question's own: not wrong, not right, not padding."""

N_RESPONSES = PAD_RESPONSE + 1
"""Rows of a table of responses."""

PAD, UNSEEN, FIRST = 0, 1, 2
"""Places of every table: padding, never seen in training, the first known id."""

UNKNOWN_MS = -1
"""A time not given. Zero is a real time: some logs count from their first event."""

NO_KEY = 0
"""No event id; or, for skills, "the skills that the vocabulary knows this question by"."""

SKILL_SEPARATOR = "\x1f"
"""Joins the ids of a skill set before hashing. A control character: no id may hold one."""

INTERACTION = np.dtype(
    [
        ("question_key", "<u8"),
        ("skills_key", "<u8"),  # NO_KEY, one skill's key, or the key of a whole set
        ("event_key", "<u8"),  # the caller's event_id; NO_KEY where none was given
        ("asked_ms", "<i8"),  # Unix time of asking, or UNKNOWN_MS
        ("elapsed_ms", "<i4"),  # thinking time on this question, or UNKNOWN_MS
        ("response", "u1"),  # WRONG or RIGHT
        ("flags", "u1"),  # reserved, 0
        ("reserved", "<u2"),
    ]
)
"""One interaction; what a log, a training and a window are made of. A store may pack it."""


@dataclass(frozen=True, slots=True)
class Query:
    """What is known before the learner answers, in a model's integers.

    There is no field for the response or the elapsed time: they cannot leak by mistake.
    """

    question: int
    skills: tuple[int, ...]  # never empty; UNSEEN where nothing is known
    asked_ms: int = UNKNOWN_MS
    difficulty: tuple[float, float] = (0.0, 0.0)  # training users' right and wrong answers to it


NOBODYS = Query(question=UNSEEN, skills=(UNSEEN,))
"""A question that no model knows."""


def key_of(outside_id: str) -> int:
    """Return the 64-bit key under which an outside id is stored; never `NO_KEY`.

    Two ids out of a million meet in one key with a chance of about 3e-8.
    """
    digest = blake2b(outside_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") or 1


def skill_set_text(skill_ids: Iterable[str]) -> str:
    """Return the one text of a set of skill ids, whatever their order or number of mentions."""
    return SKILL_SEPARATOR.join(sorted(set(skill_ids)))


def skills_key_of(skill_ids: Iterable[str]) -> int:
    """Return the key of a set of skills: `NO_KEY` for none, a single skill's own key."""
    text = skill_set_text(skill_ids)
    return key_of(text) if text else NO_KEY
