"""Outside ids <-> a model's integers, with a place for what was never seen in training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from models.contract.interaction import (
    FIRST,
    NO_KEY,
    PAD,
    UNKNOWN_MS,
    UNSEEN,
    Query,
    key_of,
    skills_key_of,
)
from models.contract.queries import Queries
from models.contract.window import MISSING_S, History

_FORMAT = 1


@dataclass(frozen=True)
class Vocabulary:
    """The frozen tables of one model.

    `question_ids[i]` is the question `i + FIRST`, `skill_ids[j]` the skill `j + FIRST`.
    """

    question_ids: tuple[str, ...]
    skill_ids: tuple[str, ...]
    question_skills: tuple[tuple[int, ...], ...]  # by question, its usual skills; may be empty
    skill_sets: tuple[tuple[int, ...], ...] = ()  # every set of two or more skills met in training
    skill_names: Mapping[str, str] = field(default_factory=dict)
    question_counts: tuple[tuple[int, int], ...] = ()  # right and wrong answers in training

    def __post_init__(self) -> None:
        if len(self.question_skills) != len(self.question_ids):
            raise ValueError(
                f"{len(self.question_ids)} questions but {len(self.question_skills)} skill lists"
            )
        if self.question_counts and len(self.question_counts) != len(self.question_ids):
            raise ValueError(
                f"{len(self.question_ids)} questions but {len(self.question_counts)} counts"
            )
        for what, ids in (("question", self.question_ids), ("skill", self.skill_ids)):
            if len(set(ids)) != len(ids):
                raise ValueError(f"a {what} id stands twice in the vocabulary")
            if len({key_of(i) for i in ids}) != len(ids):
                raise ValueError(f"two {what} ids share one key; rename one of them")

    @property
    def n_questions(self) -> int:
        """Size of a table over questions, PAD and UNSEEN counted."""
        return len(self.question_ids) + FIRST

    @property
    def n_skills(self) -> int:
        """Size of a table over skills, PAD and UNSEEN counted."""
        return len(self.skill_ids) + FIRST

    # -- outside -> inside ---------------------------------------------------------------------

    def question_of(self, question_id: str) -> int:
        """Return the question behind an outside id, or UNSEEN."""
        return self._questions.get(question_id, UNSEEN)

    def skill_of(self, skill_id: str) -> int:
        """Return the skill behind an outside id, or UNSEEN."""
        return self._skills.get(skill_id, UNSEEN)

    def query(
        self, question_id: str, skill_ids: Iterable[str] | None = None, asked_ms: int = UNKNOWN_MS
    ) -> Query:
        """Return the query for a question, under the named skills or else under its usual ones."""
        question = self.question_of(question_id)
        if skill_ids is not None:
            skills = tuple(sorted({self.skill_of(s) for s in skill_ids}))
        else:
            skills = self.skills_of(question)
        right, wrong = self.difficulty[question].tolist()
        return Query(
            question=question,
            skills=skills or (UNSEEN,),
            asked_ms=asked_ms,
            difficulty=(right, wrong),
        )

    def queries(
        self,
        question_ids: Sequence[str],
        skill_ids: Sequence[Sequence[str] | None],
        asked_ms: Sequence[int],
    ) -> Queries:
        """Return what `query` does, for many questions at once."""
        question = np.array([self._questions.get(q, UNSEEN) for q in question_ids], np.int64)
        skills = self._skill_rows[self._usual_row[question]]
        named = {i: n for i, n in enumerate(skill_ids) if n is not None}
        if named:
            sets = {i: sorted({self.skill_of(s) for s in n}) or [UNSEEN] for i, n in named.items()}
            width = max(skills.shape[1], *(len(s) for s in sets.values()))
            skills = np.pad(skills, ((0, 0), (0, width - skills.shape[1])), constant_values=PAD)
            for i, members in sets.items():
                skills[i] = members + [PAD] * (width - len(members))
        return Queries(
            question=question,
            skills=_trimmed(skills),
            asked_ms=np.array(asked_ms, np.int64),
            difficulty=self.difficulty[question],
        )

    def question_keys(self, question: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Return the keys under which questions are stored; 0 of those that are not known."""
        return self._keys_of_questions[question]

    def skills_of(self, question: int) -> tuple[int, ...]:
        """Return the usual skills of a question, (UNSEEN,) where none are known."""
        usual = self.question_skills[question - FIRST] if question >= FIRST else ()
        return usual or (UNSEEN,)

    def read(
        self,
        interactions: NDArray[np.void],
        *,
        dropped: int = 0,
        sets: Mapping[int, Sequence[int]] | None = None,
    ) -> History:
        """Turn stored interactions (`INTERACTION`, oldest first) into this model's integers.

        `dropped` counts older interactions that are not in the array: window borders are counted
        from a user's very first answer. `sets` gives the skill keys of sets that this vocabulary
        has not met (see `unknown_sets`).
        """
        question = _look_up(interactions["question_key"], *self._question_table)
        named = interactions["skills_key"]
        row = self._usual_row[question]
        if named.any():  # seldom: callers leave skills to the vocabulary
            row = np.where(named == NO_KEY, row, _look_up(named, *self._skills_table))
        skills = self._skill_rows[row]
        if sets:
            skills = self._with_sets(skills, named, sets)
        return History(
            question=question,
            skills=_trimmed(skills),
            response=interactions["response"].astype(np.int64),
            asked_ms=interactions["asked_ms"].astype(np.int64),
            elapsed_s=_seconds(interactions["elapsed_ms"]),
            difficulty=self.difficulty[question],
            dropped=dropped,
        )

    def unknown_sets(self, interactions: NDArray[np.void]) -> NDArray[np.uint64]:
        """Return the distinct skill-set keys that this vocabulary cannot resolve by itself."""
        named = interactions["skills_key"]
        if not named.any():  # the common case: callers leave skills to the vocabulary
            return named[:0]
        unknown = _look_up(named, *self._skills_table) == UNSEEN
        return np.unique(named[unknown & (named != NO_KEY)])

    # -- on disk -------------------------------------------------------------------------------

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over everything that gives an integer its meaning."""
        meaning = {k: v for k, v in self.as_dict().items() if k != "skill_names"}
        text = json.dumps(meaning, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def as_dict(self) -> dict[str, Any]:
        """Return the content of `vocabulary.json`."""
        content = {
            "format": _FORMAT,
            "question_ids": list(self.question_ids),
            "skill_ids": list(self.skill_ids),
            "question_skills": [list(s) for s in self.question_skills],
            "skill_sets": [list(s) for s in self.skill_sets],
            "skill_names": dict(self.skill_names),
        }
        if self.question_counts:
            content["question_counts"] = [list(c) for c in self.question_counts]
        return content

    def save(self, path: Path) -> None:
        """Write `vocabulary.json`."""
        text = json.dumps(self.as_dict(), ensure_ascii=False, separators=(",", ":"))
        path.write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read `vocabulary.json`; raise `ValueError` where it is not one we understand."""
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.get("format") != _FORMAT:
            raise ValueError(f"{path}: vocabulary format {content.get('format')!r}, not {_FORMAT}")
        return cls(
            question_ids=tuple(content["question_ids"]),
            skill_ids=tuple(content["skill_ids"]),
            question_skills=tuple(tuple(s) for s in content["question_skills"]),
            skill_sets=tuple(tuple(s) for s in content["skill_sets"]),
            skill_names=content["skill_names"],
            question_counts=tuple((r, w) for r, w in content.get("question_counts", ())),
        )

    @cached_property
    def difficulty(self) -> NDArray[np.float32]:
        """(n_questions, 2) by question: right and wrong answers in training; none for UNSEEN."""
        table = np.zeros((self.n_questions, 2), np.float32)
        if self.question_counts:
            table[FIRST:] = self.question_counts
        return table

    # -- tables --------------------------------------------------------------------------------

    @cached_property
    def _questions(self) -> dict[str, int]:
        return {q: i for i, q in enumerate(self.question_ids, FIRST)}

    @cached_property
    def _skills(self) -> dict[str, int]:
        return {s: i for i, s in enumerate(self.skill_ids, FIRST)}

    @cached_property
    def _keys_of_questions(self) -> NDArray[np.uint64]:
        return np.array([0] * FIRST + [key_of(q) for q in self.question_ids], np.uint64)

    @cached_property
    def _question_table(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        keys = self._keys_of_questions[FIRST:]
        order = np.argsort(keys)
        return keys[order], order + FIRST

    @cached_property
    def _sets(self) -> list[tuple[int, ...]]:
        """Row -> skills: UNSEEN, then every single skill at its own row, then larger sets."""
        singles: list[tuple[int, ...]] = [(), (UNSEEN,)]
        singles += [(s,) for s in range(FIRST, self.n_skills)]
        larger = {tuple(sorted(s)) for s in (*self.skill_sets, *self.question_skills) if len(s) > 1}
        return singles + sorted(larger)

    @cached_property
    def _skill_rows(self) -> NDArray[np.int64]:
        """(rows, K) skills of each row of `_sets`, padded with PAD."""
        width = max(len(s) for s in self._sets)
        return np.array([s + (PAD,) * (width - len(s)) for s in self._sets], np.int64)

    @cached_property
    def _skills_table(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        rows = range(FIRST, len(self._sets))
        keys = np.array(
            [skills_key_of(self.skill_ids[s - FIRST] for s in self._sets[r]) for r in rows],
            np.uint64,
        )
        order = np.argsort(keys)
        return keys[order], order + FIRST

    @cached_property
    def _single_keys(self) -> dict[int, int]:
        """Key of a skill -> the skill."""
        keys, rows = self._skills_table
        return {
            k: s for k, s in zip(keys.tolist(), rows.tolist(), strict=True) if s < self.n_skills
        }

    @cached_property
    def _usual_row(self) -> NDArray[np.int64]:
        """Question -> the row of its usual skills."""
        row_of = {s: r for r, s in enumerate(self._sets)}
        usual = [row_of[tuple(sorted(s))] if s else UNSEEN for s in self.question_skills]
        return np.array([UNSEEN, UNSEEN, *usual], np.int64)

    def _with_sets(
        self,
        skills: NDArray[np.int64],
        named: NDArray[np.uint64],
        sets: Mapping[int, Sequence[int]],
    ) -> NDArray[np.int64]:
        """Put the skills of sets given by their members' keys in place of UNSEEN."""
        singles = self._single_keys
        width = max(skills.shape[1], *(len(members) for members in sets.values()))
        wider = np.full((len(skills), width), PAD, np.int64)
        wider[:, : skills.shape[1]] = skills
        wanted = np.array(sorted(sets), np.uint64)
        table = np.full((len(wanted), width), PAD, np.int64)
        for row, key in zip(table, wanted.tolist(), strict=True):
            found = sorted({singles.get(m, UNSEEN) for m in sets[key]}) or [UNSEEN]
            row[: len(found)] = found
        place = np.minimum(np.searchsorted(wanted, named), len(wanted) - 1)
        is_one = wanted[place] == named
        wider[is_one] = table[place[is_one]]
        return wider


def _look_up(
    wanted: NDArray[np.uint64], keys: NDArray[np.uint64], values: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the value of each wanted key, UNSEEN where `keys` (sorted) has none."""
    if not len(keys):
        return np.full(len(wanted), UNSEEN, np.int64)
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], UNSEEN)


def _trimmed(skills: NDArray[np.int64]) -> NDArray[np.int64]:
    """Leave out columns that hold nothing but padding."""
    return skills[:, : int((skills != PAD).sum(axis=1).max(initial=1))]


def _seconds(ms: NDArray[np.int32]) -> NDArray[np.float32]:
    return np.where(ms < 0, MISSING_S, ms / 1000).astype(np.float32)
