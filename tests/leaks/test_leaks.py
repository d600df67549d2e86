"""No answer is known before it is given: shown on logs that would give it away.

Each test also shows the trap at work where the guard is taken off, so that it can fail.
"""

from __future__ import annotations

import gzip

import numpy as np
import polars as pl
import pytest

from models.datasets.known import open_dataset
from models.datasets.simulator import simulate
from tests.leaks.learners import (
    OPTIONS,
    SCORED,
    TRAINED,
    chance_bound,
    coins,
    log,
    train_on,
    train_on_dataset,
)

TAKEN_IN = 0.6
"""A network that falls for a trap is far above this."""


@pytest.mark.parametrize("network", OPTIONS)
def test_shuffled_answers_cannot_be_predicted(network):
    """Nor would a pipeline that leaks stay in the bound: these networks learn from true ones."""
    true = simulate(users=TRAINED + SCORED, answers=40, questions=20, skills=4, seed=1).frame
    shuffled = true.with_columns(pl.col("correct").shuffle(seed=1))

    bound = chance_bound(SCORED * 39)
    assert train_on(true, network).auc() > 0.5 + 2 * bound
    assert abs(train_on(shuffled, network).auc() - 0.5) < bound


LEVELS_MS = np.array([[1_000, 3_000], [9_000, 60_000]])  # of this answer, and of a hint


@pytest.fixture(scope="module")
def telling_times() -> pl.DataFrame:
    """Elapsed time tells its own answer, and a hint that three in four next answers follow."""
    rng = np.random.default_rng(2)
    hint = coins(rng)
    before = np.roll(hint, 1, axis=1)
    correct = np.where(rng.random(hint.shape) < 0.75, before, 1 - before)
    return log(
        question_id=np.full(hint.shape, "q"), correct=correct, elapsed_ms=LEVELS_MS[correct, hint]
    )


@pytest.mark.parametrize("network", ["dkt", "dkt_asked", "last_query", "saint_plus"])
def test_the_elapsed_time_of_the_asked_question_cannot_be_seen(network, telling_times):
    """That of earlier ones can: the hint is worth an AUC of 3/4, and no more is had, by any way."""
    trained = train_on(telling_times, network, elapsed="categorical", epochs=8)
    blind = train_on(telling_times, network, elapsed="none")
    most = 0.75 + chance_bound(SCORED * 39)

    assert abs(blind.auc() - 0.5) < chance_bound(SCORED * 39)
    assert 0.7 < trained.auc(in_blocks=True) < most
    assert 0.7 < trained.auc(in_blocks=False) < most


def test_nor_can_it_where_the_query_is_mixed_into_every_place(telling_times):
    """LastQuery's broadcast residual, which is trained window by window."""
    options = {"elapsed": "categorical", "residual": "broadcast"}
    trained = train_on(telling_times, "last_query", epochs=3, **options)

    assert 0.7 < trained.auc() < 0.75 + chance_bound(SCORED * 39)


def test_an_elapsed_time_known_before_the_answer_would_be_used(telling_times):
    """The same log with each time one row early, as careless preparation leaves it."""
    early = telling_times.with_columns(
        pl.col("elapsed_ms").shift(-1).over("user_id").fill_null(1_000)
    )

    assert train_on(early, "dkt", elapsed="categorical", epochs=8).auc() > 0.95


MULTI_SKILL = [f"s{3 * q};s{3 * q + 1};s{3 * q + 2}" for q in range(6)]


def test_rows_of_one_attempt_are_one_answer(tmp_path):
    """In the form of assist2009, where the first row of an attempt tells the answer of the rest.

    As the set is read, coins stay coins; read row by row, most of them are known beforehand.
    """
    rng = np.random.default_rng(3)
    correct = coins(rng, 30)
    question = rng.integers(0, 6, correct.shape)
    skills = np.array([cell.split(";") for cell in MULTI_SKILL])[question]  # (users, 30, 3)
    rows = log(
        question_id=np.repeat(question, 3, axis=1),
        skill_id=skills,
        correct=np.repeat(correct, 3, axis=1),
        is_repeat=np.tile([0, 1, 1], correct.shape),
    )
    (tmp_path / "assist2009").mkdir()
    with gzip.open(tmp_path / "assist2009" / "interactions.csv.gz", "wb") as file:
        rows.write_csv(file)
    attempts = open_dataset("assist2009", tmp_path)

    assert len(attempts) == correct.size
    assert {len(attempts.skills_of(k)) for k in attempts.interactions["skills_key"]} == {3}
    assert abs(train_on_dataset(attempts, "dkt").auc() - 0.5) < chance_bound(SCORED * 29)
    assert train_on(rows, "dkt").auc() > TAKEN_IN


def test_several_skills_in_a_cell_are_one_answer():
    """Anybody's log names a question's skills in one cell: nothing is told twice."""
    rng = np.random.default_rng(4)
    correct = coins(rng, 30)
    cells = np.array(MULTI_SKILL)[rng.integers(0, 6, correct.shape)]
    trained = train_on(log(question_id=cells, skill_id=cells, correct=correct), "dkt")

    assert sum(len(u) for u in trained.scored) == SCORED * 30
    assert abs(trained.auc() - 0.5) < chance_bound(SCORED * 29)


@pytest.mark.parametrize("network", OPTIONS)
def test_questions_of_one_bundle_do_not_see_each_other(network):
    """Three questions served together share one coin; where they do see each other it is known."""
    rng = np.random.default_rng(5)
    correct = np.repeat(coins(rng, 13), 3, axis=1)
    bundle = np.tile(np.repeat(np.arange(13), 3), (len(correct), 1))
    frame = log(question_id=rng.integers(0, 6, correct.shape), correct=correct, bundle_id=bundle)

    apart = train_on(frame, network)
    assert abs(apart.auc() - 0.5) < chance_bound(SCORED * 38, alike=3)
    assert train_on(frame.drop("bundle_id"), network).auc() > TAKEN_IN
