"""Anybody's log of answers: read as it stands, or refused by its place."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.records import answers_of
from models.contract.interaction import NO_KEY, UNKNOWN_MS, key_of, skills_key_of
from models.datasets.dataset import DatasetError
from models.datasets.table import read_table

GOOD = "user_id,question_id,skill_id,correct,timestamp_ms,elapsed_ms\n"


def write(tmp_path, text, name="log.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_table_is_read_as_it_stands(tmp_path):
    """Users in the order of the file, their rows in order, ids as text, gaps as gaps."""
    data = read_table(
        write(tmp_path, GOOD + "b,007,x;y,1,1000,\na,7,,0,,250\nb,7,y;x,0,2000,500\n")
    )

    assert data.users == ("b", "a")
    b, a = data.history(0), data.history(1)
    assert b["question_key"].tolist() == [key_of("007"), key_of("7")]
    assert set(b["skills_key"].tolist()) == {skills_key_of(["x", "y"])}
    assert b["response"].tolist() == [1, 0]
    assert b["elapsed_ms"].tolist() == [UNKNOWN_MS, 500]
    assert a["skills_key"].tolist() == [NO_KEY]
    assert a["asked_ms"].tolist() == [UNKNOWN_MS]
    assert data.visible.tolist() == [0, 1, 0]


def test_without_questions_the_skill_is_the_question(tmp_path):
    """As skill-only logs have it."""
    data = read_table(write(tmp_path, "user_id,skill_id,correct\nu,fractions,1\n"))

    assert data.interactions["question_key"].tolist() == [key_of("fractions")]
    assert data.interactions["skills_key"].tolist() == [key_of("fractions")]


def test_order_says_what_came_first(tmp_path):
    """Whatever the order of the lines."""
    data = read_table(
        write(tmp_path, "user_id,question_id,correct,order\nu,c,1,3\nu,a,0,1\nu,b,1,2\n")
    )

    assert [data.texts[k] for k in data.interactions["question_key"].tolist()] == ["a", "b", "c"]


def test_parquet_gives_what_csv_gives(tmp_path):
    """Typed columns too."""
    text = GOOD + "u,1,x,1,1000,5\nu,2,y,0,2000,6\n"
    from_csv = read_table(write(tmp_path, text))
    pl.read_csv(tmp_path / "log.csv").write_parquet(tmp_path / "log.parquet")

    from_parquet = read_table(tmp_path / "log.parquet")

    assert from_parquet.interactions.tobytes() == from_csv.interactions.tobytes()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            GOOD + "u,1,x,1,1000,5\nu,1,x,maybe,1000,5\n",
            ["row 3", "'correct'", "'maybe'", "0 or 1"],
        ),
        (GOOD + "u,1,x,,1000,5\n", ["row 2", "'correct'", "nothing"]),
        (GOOD + ",1,x,1,1000,5\n", ["row 2", "'user_id'"]),
        (GOOD + "u,1,x,1,1,5\nu,,,1,1000,5\n", ["row 3", "'question_id'"]),
        (GOOD + "u,1,x,1,noon,5\n", ["row 2", "'timestamp_ms'", "'noon'"]),
        (GOOD + "u,1,x,1,1000,-5\n", ["row 2", "'elapsed_ms'", "'-5'"]),
        ("user_id,correct\nu,1\n", ["question_id", "skill_id"]),
        ("question_id,correct\nq,1\n", ["user_id"]),
        ("user_id,question_id,correct, correct\nu,q,1,0\n", ["'correct'", "twice"]),
        ("\x0c,,", ["user_id"]),
        (GOOD, ["no row"]),
        ("", []),
    ],
)
def test_a_bad_file_is_refused_by_its_place(tmp_path, text, said):
    """File, row, column, value, and what would do."""
    path = write(tmp_path, text)
    with pytest.raises(DatasetError) as caught:
        read_table(path)

    assert str(path) in str(caught.value)
    for word in said:
        assert word in str(caught.value)


def test_a_file_that_is_not_there_is_said_to_be(tmp_path):
    """And one that is no table."""
    (tmp_path / "log.parquet").write_bytes(b"not parquet")
    for name in ("none.csv", "log.parquet"):
        with pytest.raises(DatasetError, match=name):
            read_table(tmp_path / name)


ids = st.text(st.characters(codec="utf-8", categories=["L", "N"]), min_size=1, max_size=6)
rows = st.lists(
    st.tuples(ids, ids, st.lists(ids, max_size=3, unique=True), st.booleans()),
    min_size=1,
    max_size=30,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(rows)
def test_no_row_is_lost_and_none_is_changed(tmp_path, given_rows):
    """What is read back, in outside ids, is what was written, user by user."""
    path = tmp_path / "log.csv"
    pl.DataFrame(
        {
            "user_id": [r[0] for r in given_rows],
            "question_id": [r[1] for r in given_rows],
            "skill_id": [";".join(r[2]) for r in given_rows],
            "correct": [str(int(r[3])) for r in given_rows],
        }
    ).write_csv(path)
    data = read_table(path)

    assert data.users == tuple(dict.fromkeys(r[0] for r in given_rows))
    for number, user_id in enumerate(data.users):
        found = answers_of(data.history(number), data.texts)
        own = [r for r in given_rows if r[0] == user_id]
        assert [(a.question_id, sorted(a.skill_ids or []), a.correct) for a in found] == [
            (r[1], sorted(r[2]), r[3]) for r in own
        ]


def test_the_vocabulary_knows_a_question_by_its_most_common_skills(tmp_path):
    """A question may come under several."""
    text = "user_id,question_id,skill_id,correct\n" + "u,1,a,1\nu,1,b;a,1\nu,1,a;b,0\nu,2,a,1\n"
    vocabulary = read_table(write(tmp_path, text)).vocabulary()

    names = [[vocabulary.skill_ids[s - 2] for s in skills] for skills in vocabulary.question_skills]
    assert dict(zip(vocabulary.question_ids, names, strict=True)) == {"1": ["a", "b"], "2": ["a"]}
