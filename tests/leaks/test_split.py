"""Users are split, never rows, and what is fitted is fitted on the training users alone."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.datasets.simulator import simulate
from models.datasets.split import Split, SplitConfig, draw_users, open_split
from models.evaluation.run import VOCABULARY, WEIGHTS
from models.training.__main__ import train
from models.training.config import TrainingConfig

FOLDS = {"train": (0, 1, 2), "validation": (3,), "test": (4,)}


@pytest.fixture(scope="module")
def learners(tmp_path_factory) -> Path:
    """A log of 50 users, and their folds beside it."""
    folder = tmp_path_factory.mktemp("split")
    frame = simulate(users=50, answers=12, questions=10, skills=3, seed=0).frame
    frame.write_csv(folder / "log.csv")
    users = frame["user_id"].unique(maintain_order=True)
    fold = pl.Series("fold", [n % 5 for n in range(len(users))])
    pl.DataFrame([users, fold]).write_csv(folder / "folds.csv")
    return folder


def parts(split: Split) -> list[set[str]]:
    return [set(d.users) for d in (split.train, split.validation, split.test)]


@given(st.integers(1, 300), st.integers(0, 2**32))
def test_drawn_parts_share_no_user_and_lose_none(users, seed):
    names = tuple(f"u{n}" for n in range(users))
    drawn = draw_users(names, seed=seed)

    assert sorted(user for part in drawn.values() for user in part) == sorted(names)


@pytest.mark.parametrize("by", ["draw", "folds"])
def test_no_user_stands_in_two_parts_of_an_opened_log(learners, by):
    """All of a user's rows stand in the user's part."""
    folds = {"folds": str(learners / "folds.csv"), **FOLDS} if by == "folds" else {}
    split = open_split(SplitConfig(set=str(learners / "log.csv"), **folds), seed=3)
    train_users, validation_users, test_users = parts(split)

    assert not train_users & validation_users
    assert not (train_users | validation_users) & test_users
    assert len(train_users | validation_users | test_users) == 50
    for part in (split.train, split.validation, split.test):
        assert len(part) == 12 * len(part.users)


def test_nothing_of_a_run_depends_on_who_is_held_out(learners, tmp_path):
    """Neither vocabulary nor weights nor any table among them: to the byte.

    Every held-out user is given other answers, to questions and skills that nobody else has met.
    After one epoch nothing was chosen by validation yet.
    """
    frame = pl.read_csv(learners / "log.csv")
    fold = frame.join(pl.read_csv(learners / "folds.csv"), on="user_id")["fold"]
    other = frame.with_columns(
        pl.when(fold >= 3).then(1 - pl.col("correct")).otherwise("correct").alias("correct"),
        pl.when(fold >= 3).then(pl.lit("new")).otherwise("question_id").alias("question_id"),
        pl.when(fold >= 3).then(pl.lit("n1;n2")).otherwise("skill_id").alias("skill_id"),
    )
    other.write_csv(tmp_path / "other.csv")
    runs = []
    for log in (learners / "log.csv", tmp_path / "other.csv"):
        config = TrainingConfig.of(
            {
                "name": log.stem,
                "network": "dkt",
                "data": {"set": str(log), "folds": str(learners / "folds.csv"), **FOLDS},
                "window": {"length": 20},
                "model": {"hidden": 8, "question": True},
                "fit": {"epochs": 1, "threads": 1},
            }
        )
        runs.append(train(config, tmp_path / "runs"))
    one, two = runs

    assert (tmp_path / "other.csv").read_text() != (learners / "log.csv").read_text()
    for name in (VOCABULARY, WEIGHTS):
        assert (one / name).read_bytes() == (two / name).read_bytes()
