"""The sets that figures are published for, with their traps."""

from __future__ import annotations

import gzip
import os
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from models.contract.artifact import WindowRule
from models.contract.interaction import skills_key_of
from models.contract.window import window_of
from models.datasets.dataset import Dataset, DatasetError
from models.datasets.encoded import encode
from models.datasets.known import KNOWN, open_dataset
from models.datasets.simulator import simulate
from models.datasets.split import SplitConfig, open_split

FOLDER = Path(os.environ.get("KTSERVE_TEST_DATA", Path(__file__).parents[4] / "shared" / "data"))

# users, answers: from the README beside the data; repeats of an attempt are one answer
COUNTS = {
    "assist2009": (3852, 282_613),
    "assist2017": (1705, 941_502),
    "statics2011": (333, 189_297),
    "riiid_sample": (299, 49_158),
}


@cache
def opened(name: str) -> Dataset:
    return open_dataset(name, FOLDER)


def test_the_sets_that_are_here_have_the_answers_their_readme_counts():
    """None is lost and none is counted twice."""
    for name in KNOWN:
        if not (FOLDER / name).is_dir():
            continue
        data = opened(name)
        assert len(data) == data.offsets[-1]
        assert len(set(data.users)) == len(data.users)
        assert (len(data.users), len(data)) == COUNTS[name]


def table(folder: Path, name: str, **columns: list) -> None:
    (folder / name).mkdir()
    frame = pl.DataFrame(columns)
    frame.write_csv(folder / name / "interactions.csv")
    text = (folder / name / "interactions.csv").read_bytes()
    (folder / name / "interactions.csv.gz").write_bytes(gzip.compress(text))


def test_repeats_of_an_attempt_are_one_answer_with_all_its_skills(tmp_path):
    """Else the first row would tell the answer of the next."""
    table(
        tmp_path,
        "assist2009",
        user_id=["u", "u", "u", "u"],
        question_id=["1", "1", "1", "2"],
        skill_id=["a", "b", "a", "a"],
        correct=[1, 1, 0, 1],
        is_repeat=[0, 1, 0, 0],
    )
    data = open_dataset("assist2009", tmp_path)

    assert data.interactions["response"].tolist() == [1, 0, 1]
    assert data.interactions["skills_key"].tolist()[0] == skills_key_of(["a", "b"])


def test_answers_of_a_bundle_do_not_see_each_other(tmp_path):
    """They are given together: each sees what was before the bundle."""
    table(
        tmp_path,
        "riiid_sample",
        user_id=["u"] * 6,
        question_id=list("123456"),
        skill_id=["a"] * 6,
        correct=[1, 0, 1, 1, 0, 1],
        task_container_id=[0, 1, 1, 1, 2, 3],
    )
    data = open_dataset("riiid_sample", tmp_path)
    (user,) = encode(data, data.vocabulary())

    assert data.visible.tolist() == [0, 1, 1, 1, 4, 5]
    lengths = [len(user.window(r, WindowRule(length=100))) for r in range(6)]
    assert lengths == [1, 2, 2, 2, 5, 6]


def test_a_set_that_is_not_there_is_said_to_be(tmp_path):
    """With where it is looked for, or which there are."""
    with pytest.raises(DatasetError, match="assist2017"):
        open_dataset("assist2017", tmp_path)
    with pytest.raises(DatasetError, match="known: assist2009"):
        open_dataset("assist2071", tmp_path)


def test_folds_keep_users_apart(tmp_path):
    """Nobody is in two parts, and drawn parts are the same for the same seed."""
    log = tmp_path / "log.csv"
    users = [f"u{i}" for i in range(50)]
    pl.DataFrame({"user_id": users, "question_id": ["1"] * 50, "correct": [1] * 50}).write_csv(log)
    pl.DataFrame({"user_id": users, "fold": [i % 5 + 1 for i in range(50)]}).write_csv(
        tmp_path / "folds.csv"
    )
    by_fold = open_split(
        SplitConfig(
            set=str(log),
            folds=str(tmp_path / "folds.csv"),
            train=(3, 4, 5),
            validation=(2,),
            test=(1,),
        ),
        seed=0,
    )
    drawn, again, other = (open_split(SplitConfig(set=str(log)), seed=s) for s in (1, 1, 2))

    assert [len(p.users) for p in by_fold[:3]] == [30, 10, 10]
    for split in (by_fold, drawn):
        assert sorted(u for part in split[:3] for u in part.users) == sorted(users)
    assert drawn.test.users == again.test.users != other.test.users


def test_a_fold_in_two_parts_is_refused(tmp_path):
    """A student in training and test would be remembered, not predicted."""
    log = tmp_path / "log.csv"
    log.write_text("user_id,question_id,correct\nu,1,1\n")
    (tmp_path / "folds.csv").write_text("user_id,fold\nu,1\n")
    with pytest.raises(DatasetError, match="two of"):
        open_split(
            SplitConfig(set=str(log), folds=str(tmp_path / "folds.csv"), train=(1,), test=(1,)),
            seed=0,
        )


def test_difficulty_is_counted_on_training_users_and_leaves_out_oneself():
    """A user who made the table sees what the others did; one who comes later, all of it."""
    log = simulate(users=4, answers=30, questions=6, skills=2, seed=3).dataset
    train, late = log.select(log.users[:3]), log.select(log.users[3:])
    vocabulary = train.vocabulary()
    rows = {user.user_id: user.history for user in encode(train, vocabulary)}
    own = {user.user_id: user.history for user in encode(train, vocabulary, leave_own_out=True)}
    [later] = encode(late, vocabulary)

    for user_id, history in rows.items():
        for row in range(len(history)):
            by_others = [
                response
                for other, past in rows.items()
                if other != user_id
                for response in past.response[past.question == history.question[row]]
            ]
            expected = [sum(by_others), len(by_others) - sum(by_others)]
            assert own[user_id].difficulty[row].tolist() == expected
    everyone = np.concatenate([h.question for h in rows.values()])
    for row in range(len(later.history)):
        met = (everyone == later.history.question[row]).sum()
        assert later.history.difficulty[row].sum() == met
    assert vocabulary.query("never met").difficulty == (0.0, 0.0)


def test_a_window_is_what_the_server_would_build(tmp_path):
    """From the raw prefix, by the same function, for every row."""
    data = simulate(users=3, answers=60, questions=10, skills=3, seed=0).dataset
    vocabulary = data.vocabulary()
    rule = WindowRule(length=20, cut=5)
    for number, user in enumerate(encode(data, vocabulary)):
        for row in range(0, 60, 7):
            past = vocabulary.read(data.history(number)[:row])
            expected = window_of(past, user.query(row), length=rule.length, cut=rule.cut)
            found = user.window(row, rule)
            for name in ("question", "response", "lag_s", "elapsed_s", "counts"):
                np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
