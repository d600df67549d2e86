"""Answers of many users in the form in which a server would have stored them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.contract.interaction import FIRST, RIGHT, SKILL_SEPARATOR
from models.contract.vocabulary import Vocabulary


class DatasetError(ValueError):
    """A file is not what it should be; the message names the file, the place and what would do."""


@dataclass(frozen=True)
class Dataset:
    """Users, one after another; each user's interactions, oldest first."""

    name: str
    users: tuple[str, ...]  # user ids, in the order of the file
    interactions: NDArray[np.void]  # (N,) INTERACTION
    offsets: NDArray[np.int64]  # (users + 1,): where each user's rows begin and end
    visible: NDArray[np.int64]  # (N,): how many earlier rows of its user a query for this row sees
    texts: Mapping[int, str]  # key -> outside id, or the text of a skill set
    skill_names: Mapping[str, str]

    def history(self, user: int) -> NDArray[np.void]:
        """Return the interactions of the user with this number."""
        return self.interactions[self.offsets[user] : self.offsets[user + 1]]

    def __len__(self) -> int:
        return len(self.interactions)

    def select(self, user_ids: Collection[str]) -> Dataset:
        """Return the data of these users alone, in the order they have here."""
        wanted = set(user_ids)
        numbers = [n for n, user_id in enumerate(self.users) if user_id in wanted]
        spans = [np.arange(self.offsets[n], self.offsets[n + 1]) for n in numbers]
        rows = np.concatenate(spans) if spans else np.zeros(0, np.int64)
        return Dataset(
            name=self.name,
            users=tuple(self.users[n] for n in numbers),
            interactions=self.interactions[rows],
            offsets=np.cumsum([0, *(len(s) for s in spans)]),
            visible=self.visible[rows],
            texts=self.texts,
            skill_names=self.skill_names,
        )

    def skills_of(self, skills_key: int) -> tuple[str, ...]:
        """Return the ids of the skills behind a key of a skill or of a set of skills."""
        return tuple(self.texts[skills_key].split(SKILL_SEPARATOR)) if skills_key else ()

    def vocabulary(self) -> Vocabulary:
        """Return the vocabulary of these rows: call it on the training split alone.

        A question's usual skills are the set it was asked under most often.
        """
        pairs = Counter(
            zip(
                self.interactions["question_key"].tolist(),
                self.interactions["skills_key"].tolist(),
                strict=True,
            )
        )
        most: dict[int, tuple[int, int]] = {}
        for (question, named), count in sorted(pairs.items()):
            if count > most.get(question, (0, 0))[0]:
                most[question] = (count, named)
        right = Counter(
            self.interactions["question_key"][self.interactions["response"] == RIGHT].tolist()
        )
        answers: Counter[int] = Counter()
        for (question, _), count in pairs.items():
            answers[question] += count
        sets = {named: self.skills_of(named) for _, named in pairs}
        skill_ids = sorted({s for members in sets.values() for s in members}, key=natural)
        place = {s: i for i, s in enumerate(skill_ids, FIRST)}
        questions = sorted(
            ((self.texts[q], n, q) for q, (_, n) in most.items()), key=lambda x: natural(x[0])
        )
        return Vocabulary(
            question_ids=tuple(q for q, _, _ in questions),
            skill_ids=tuple(skill_ids),
            question_skills=tuple(
                tuple(sorted(place[s] for s in sets[n])) for _, n, _ in questions
            ),
            skill_sets=tuple(
                sorted(tuple(sorted(place[s] for s in m)) for m in sets.values() if len(m) > 1)
            ),
            skill_names={s: self.skill_names[s] for s in skill_ids if s in self.skill_names},
            question_counts=tuple((right[k], answers[k] - right[k]) for _, _, k in questions),
        )


def natural(outside_id: str) -> tuple[int, int, str]:
    """Return a sorting key under which numbers go by size, before every other text."""
    is_number = outside_id.isascii() and outside_id.isdigit() and len(outside_id) < 19
    return (0, int(outside_id), outside_id) if is_number else (1, 0, outside_id)
