"""Answers in outside ids <-> interactions as stored."""

from __future__ import annotations

import gc
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from app.records import Answer, KeptAnswer, answers_of, given_records, records_of

ids = st.text(st.characters(blacklist_categories=["Cc", "Cs"]), min_size=1, max_size=20)
answers = st.builds(
    Answer,
    question_id=ids,
    correct=st.booleans(),
    asked_ms=st.none() | st.integers(0, 2**45),
    elapsed_ms=st.none() | st.integers(0, 86_400_000),
    skill_ids=st.none() | st.lists(ids, min_size=1, max_size=4),
)


@given(st.lists(answers, max_size=12))
def test_what_goes_in_comes_out(given_answers):
    """Skills as a set: sorted, each once."""
    records = records_of(given_answers)

    assert answers_of(records.interactions, records.texts) == [
        KeptAnswer(
            a.question_id,
            None if a.skill_ids is None else sorted(set(a.skill_ids)),
            a.correct,
            a.asked_ms,
            a.elapsed_ms,
        )
        for a in given_answers
    ]


@given(st.lists(answers, max_size=12))
def test_every_key_has_its_text(given_answers):
    """Members of a set too: a model may know the skill and not the set."""
    records = records_of(given_answers)

    used = {*records.interactions["question_key"].tolist()}
    used |= {*records.interactions["skills_key"].tolist()} - {0}
    assert used <= records.texts.keys()
    for answer in given_answers:
        assert {*(answer.skill_ids or ())} <= set(records.texts.values())


def test_long_sets_of_skills_are_not_held():
    """What questions are asked with comes again; sets of many skills would take gigabytes."""
    sets = [[f"{n}-{'x' * 250}-{m}" for m in range(64)] for n in range(30)]

    def records():
        return given_records([{"question_id": "1", "correct": True, "skill_ids": s} for s in sets])

    first = records()
    gc.collect()
    tracemalloc.start()
    for n in range(30):
        sets = [[f"{n}.{place}-{'x' * 250}-{m}" for m in range(64)] for place in range(30)]
        records()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert held < 4_000_000
    assert len({*first.interactions["skills_key"].tolist()}) == 30
