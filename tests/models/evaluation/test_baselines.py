"""Baselines against small cases by hand, against scikit-learn, and against a leak."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from models.datasets.encoded import encode
from models.datasets.simulator import simulate
from models.datasets.split import draw_users
from models.evaluation import logistic
from models.evaluation.baselines import BASELINES, global_mean, question_mean, question_user_mean
from models.evaluation.counts import Rows, counts_before
from models.evaluation.logistic import Sparse
from models.evaluation.metrics import auc
from tests.models.evaluation.learners import user_of

QUESTION_A, QUESTION_B, UNSEEN = 2, 3, 1
TRAIN = [user_of([QUESTION_A] * 5 + [QUESTION_B] * 5, [[2]] * 10, [1, 1, 1, 1, 0, 1, 0, 0, 0, 0])]


def odds(p: float) -> float:
    return p / (1 - p)


def test_the_means_are_those_by_hand():
    """Half is right in training; 4 of 5 of A, 1 of 5 of B; five more answers count as the mean."""
    test = [user_of([QUESTION_B, QUESTION_A, UNSEEN], [[2]] * 3, [0, 1, 1])]

    np.testing.assert_allclose(global_mean(TRAIN, [], test)[0], [0.5, 0.5, 0.5])
    np.testing.assert_allclose(question_mean(TRAIN, [], test)[0], [0.35, 0.65, 0.5])


def test_the_floor_multiplies_the_odds_of_question_and_user():
    """The user stands at 2.5 of 5, then 3.5 of 6 after a right answer, then 3.5 of 7."""
    test = [user_of([QUESTION_A, QUESTION_B, QUESTION_A], [[2]] * 3, [1, 0, 0])]

    (p,) = question_user_mean(TRAIN, [], test)

    expected = [odds(0.65), odds(0.35) * odds(3.5 / 6), odds(0.65) * odds(3.5 / 7)]
    np.testing.assert_allclose(p / (1 - p), expected)


def test_a_training_set_of_right_answers_alone_gives_a_chance():
    """Certainty has no log odds: they are held finite."""
    train = [user_of([QUESTION_A] * 3, [[2]] * 3, [1, 1, 1])]
    test = [user_of([QUESTION_A, UNSEEN], [[2]] * 2, [0, 1])]

    (p,) = question_user_mean(train, [], test)

    np.testing.assert_allclose(p, [1, 5 / 6], atol=1e-6)


@st.composite
def users(draw):
    """Users whose answers come in bundles of one to three."""
    made = []
    for _ in range(draw(st.integers(1, 3))):
        bundles = draw(st.lists(st.integers(1, 3), max_size=5))
        visible = [start for i, n in enumerate(bundles) for start in [sum(bundles[:i])] * n]
        row = st.tuples(st.integers(1, 3), st.sets(st.integers(1, 3), min_size=1, max_size=2))
        rows = [draw(row) for _ in visible]
        skills = [[*sorted(s), 0][:2] for _, s in rows]
        right = [draw(st.integers(0, 1)) for _ in visible]
        made.append(user_of([q for q, _ in rows], np.reshape(skills, (-1, 2)), right, visible))
    return made


@settings(deadline=None)
@given(users())
def test_counts_are_of_what_the_user_had_answered_before(made):
    """Of the same user, the same skill, in the visible rows alone: as counted one by one."""
    rows = Rows.of(made)
    right, wrong = counts_before(rows, rows.skills)
    by_user = rows.apart(rows.right)

    at = 0
    assert [len(found) for found in by_user] == [len(user) for user in made]
    for user in made:
        for row in range(len(user)):
            past = range(user.visible[row])
            for k, skill in enumerate(user.history.skills[row]):
                met = [
                    int(user.history.response[i])
                    for i in past
                    for other in user.history.skills[i]
                    if other == skill
                ]
                assert (right[at, k], wrong[at, k]) == (sum(met), len(met) - sum(met))
            at += 1


@pytest.mark.parametrize("penalty", [0.5, 3.0])
def test_logistic_regression_is_scikit_learn_s(penalty):
    """On a sparse matrix in which one weight may be met twice in a row."""
    rng = np.random.default_rng(0)
    features = Sparse(rng.integers(0, 12, (400, 4)), rng.gamma(1.0, 1.0, (400, 4)))
    dense = np.zeros((400, 12))
    np.add.at(dense, (np.arange(400)[:, None], features.place), features.value)
    right = (rng.random(400) < 1 / (1 + np.exp(-dense @ rng.normal(0, 0.5, 12)))).astype(float)

    weights = logistic.fit(features, right, np.full(12, penalty))

    reference = LogisticRegression(C=1 / penalty, fit_intercept=False, tol=1e-10, max_iter=5000)
    reference.fit(dense, right)
    np.testing.assert_allclose(weights, reference.coef_[0], atol=2e-4)


def learners(shuffled: bool):
    """Simulated users in three parts, their answers right by their level or by chance alone."""
    data = simulate(users=300, answers=40, questions=20, skills=4, seed=5).dataset
    if shuffled:
        order = np.random.default_rng(0).permutation(len(data))
        data.interactions["response"] = data.interactions["response"][order]
    drawn = draw_users(data.users, seed=0)
    parts = [data.select(drawn[part]) for part in ("train", "validation", "test")]
    vocabulary = parts[0].vocabulary()
    return [encode(part, vocabulary) for part in parts]


def reached(name: str, parts) -> float:
    p = np.concatenate(BASELINES[name](*parts))
    return auc(np.concatenate([u.history.response for u in parts[2]]), p)


@pytest.mark.parametrize("name", BASELINES)
def test_shuffled_answers_cannot_be_predicted(name):
    """2,400 answers by chance: an AUC outside of 0.5 +- 0.04 has seen what it predicts."""
    assert abs(reached(name, learners(shuffled=True)) - 0.5) < 0.04


def test_each_baseline_knows_more_than_the_one_before():
    """On learners whose questions differ, who differ, and who learn."""
    parts = learners(shuffled=False)
    found = [reached(name, parts) for name in BASELINES]

    assert found[0] == 0.5
    assert all(better > worse + 0.005 for worse, better in pairwise(found))
