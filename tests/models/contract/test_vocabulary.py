"""Outside ids, keys and integers."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.contract.interaction import (
    FIRST,
    INTERACTION,
    NO_KEY,
    PAD,
    UNKNOWN_MS,
    UNSEEN,
    key_of,
    skill_set_text,
    skills_key_of,
)
from models.contract.vocabulary import Vocabulary

VOCABULARY = Vocabulary(
    question_ids=("q1", "q2", "q3"),
    skill_ids=("a", "b", "c"),
    question_skills=((2,), (2, 4), ()),
    skill_sets=((3, 4),),
    skill_names={"a": "addition"},
)


def stored(*rows: tuple[str, tuple[str, ...], int]) -> np.ndarray:
    records = np.zeros(len(rows), INTERACTION)
    for record, (question, skills, correct) in zip(records, rows, strict=True):
        record["question_key"] = key_of(question)
        record["skills_key"] = skills_key_of(skills)
        record["response"] = correct
        record["asked_ms"] = record["elapsed_ms"] = UNKNOWN_MS
    return records


def test_a_stored_interaction_reads_as_what_was_recorded():
    history = VOCABULARY.read(
        stored(("q1", (), 1), ("q2", (), 0), ("q2", ("b",), 1), ("q3", ("c", "b"), 1))
    )

    assert history.question.tolist() == [2, 3, 3, 4]
    assert history.skills.tolist() == [[2, PAD], [2, 4], [3, PAD], [3, 4]]
    assert history.response.tolist() == [1, 0, 1, 1]


def test_what_was_never_seen_has_a_place_of_its_own():
    history = VOCABULARY.read(stored(("new", (), 1), ("q1", ("new",), 1), ("q3", (), 0)))

    assert history.question.tolist() == [UNSEEN, 2, 4]
    assert history.skills.tolist() == [[UNSEEN], [UNSEEN], [UNSEEN]]


def test_a_new_set_of_known_skills_is_read_by_its_members():
    records = stored(("q1", ("a", "b", "zzz"), 1))
    unknown = VOCABULARY.unknown_sets(records)

    history = VOCABULARY.read(
        records, sets={int(k): [key_of(s) for s in ("a", "b", "zzz")] for k in unknown}
    )

    assert unknown.tolist() == [skills_key_of(["a", "b", "zzz"])]
    assert history.skills.tolist() == [[UNSEEN, 2, 3]]


def test_the_same_bytes_serve_another_vocabulary():
    """A new model with other integers disturbs no stored history."""
    other = Vocabulary(("q3", "q1"), ("c", "a"), ((), (3,)))
    records = stored(("q1", ("a",), 1), ("q2", ("b",), 0))

    assert VOCABULARY.read(records).question.tolist() == [2, 3]
    assert other.read(records).question.tolist() == [3, UNSEEN]
    assert other.read(records).skills.tolist() == [[3], [UNSEEN]]


def test_a_query_reads_as_its_record_would():
    query = VOCABULARY.query("q2", ["c", "b", "c"])
    history = VOCABULARY.read(stored(("q2", ("b", "c"), 1)))

    assert query.question == history.question[0]
    assert list(query.skills) == history.skills[0].tolist()
    assert VOCABULARY.query("q2").skills == (2, 4)
    assert VOCABULARY.query("nowhere").skills == (UNSEEN,)


@given(st.lists(st.text(min_size=1, max_size=9).filter(lambda s: "\x1f" not in s), max_size=6))
def test_the_key_of_a_set_knows_no_order_and_no_repetition(skills):
    key = skills_key_of(skills)

    assert key == skills_key_of([*reversed(skills), *skills])
    assert (key == NO_KEY) == (not skills)
    if len(set(skills)) == 1:
        assert key == key_of(skills[0])
    assert set(skill_set_text(skills).split("\x1f")) - {""} == set(skills) - {""}


def test_an_empty_history_reads_as_empty():
    history = VOCABULARY.read(stored())

    assert len(history) == 0
    assert history.skills.shape == (0, 1)


def test_a_vocabulary_comes_back_from_disk(tmp_path):
    VOCABULARY.save(tmp_path / "v.json")
    again = Vocabulary.load(tmp_path / "v.json")

    assert again == VOCABULARY
    assert again.fingerprint == VOCABULARY.fingerprint


def test_the_fingerprint_follows_the_meaning_and_not_the_names():
    other_names = dataclasses.replace(VOCABULARY, skill_names={"a": "sums"})
    other_order = dataclasses.replace(VOCABULARY, skill_ids=("b", "a", "c"))

    assert other_names.fingerprint == VOCABULARY.fingerprint
    assert other_order.fingerprint != VOCABULARY.fingerprint


@pytest.mark.parametrize(
    ("questions", "skills", "lists", "reason"),
    [
        (("q", "q"), (), ((), ()), "twice"),
        (("q",), ("s", "s"), ((),), "twice"),
        (("q",), (), (), "skill lists"),
    ],
)
def test_contradictory_tables_are_refused(questions, skills, lists, reason):
    with pytest.raises(ValueError, match=reason):
        Vocabulary(questions, skills, lists)


def test_tables_start_after_padding_and_unseen():
    assert VOCABULARY.question_of("q1") == FIRST
    assert VOCABULARY.n_questions == 3 + FIRST
