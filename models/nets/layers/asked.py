"""What is asked at each place: the question, its skills, or both.

Letters: B batch, L places, D width.
"""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor, nn

from models.nets.layers.places import Inputs
from models.nets.layers.skills import SkillSet

AskedBy = Literal["both", "questions", "skills"]


def asked_tables(
    by: AskedBy, *, n_questions: int, n_skills: int, width: int
) -> tuple[nn.Embedding | None, SkillSet | None]:
    """Return the table of questions and that of skills, None for the one that `by` leaves out.

    Raises `ValueError` where `by` is none of its words.
    """
    if by not in get_args(AskedBy):
        raise ValueError(f"inputs = {by!r}: must be one of {', '.join(get_args(AskedBy))}")
    question = None if by == "skills" else nn.Embedding(n_questions, width)
    skills = None if by == "questions" else SkillSet(n_skills, width)
    return question, skills


def asked(batch: Inputs, question: nn.Embedding | None, skills: SkillSet | None) -> Tensor:
    """Return (B, L, D): what is asked at each place, by the tables that there are."""
    if question is None:
        assert skills is not None, "asked_tables leaves one out, never both"
        return skills(batch.skills)  # type: ignore[no-any-return]
    x = question(batch.question)
    return x if skills is None else x + skills(batch.skills)  # type: ignore[no-any-return]
