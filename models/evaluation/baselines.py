"""What a model must beat: predictions from means and counts, in numpy alone.

Each baseline learns from the training users, may choose on the validation users, and returns for
every test user p of every answer, from the answers before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from models.contract.interaction import PAD, UNSEEN
from models.contract.logit import logit_of, p_of
from models.datasets.encoded import EncodedUser
from models.evaluation import logistic
from models.evaluation.counts import Rows, counts_before
from models.evaluation.logistic import Sparse
from models.evaluation.metrics import auc

Users = Sequence[EncodedUser]
Found = list[NDArray[np.float64]]
Baseline = Callable[[Users, Users, Users], Found]

QUESTION_WEIGHT = 5.0
"""Answers that the training mean counts as, in the mean of a question."""

USER_WEIGHT = 5.0
"""The same, in the running mean of a user."""

PENALTIES = (0.3, 1.0, 3.0, 10.0)


def global_mean(train: Users, validation: Users, test: Users) -> Found:
    """Everybody, everything: the share answered right in training."""
    mean = Rows.of(train).right.mean()
    return [np.full(len(user), mean) for user in test]


def question_mean(train: Users, validation: Users, test: Users) -> Found:
    """The question's mean, drawn towards that of all; an unseen question has the mean of all."""
    seen, asked = Rows.of(train), Rows.of(test)
    return asked.apart(_question_means(seen)[asked.question])


def question_user_mean(train: Users, validation: Users, test: Users) -> Found:
    """Log odds of the question's mean plus those of the user's own running mean.

    The floor of the README that lies beside the data sets, which learned from the validation users
    too: there it is higher by up to 0.002. The log odds of the mean of all are
    taken off once, which makes probabilities of them and changes no AUC.
    """
    seen, asked = Rows.of(train), Rows.of(test)
    mean = seen.right.mean()
    right, wrong = (c[:, 0] for c in counts_before(asked, np.zeros((len(asked.row), 1), np.int64)))
    user = (right + USER_WEIGHT * mean) / (right + wrong + USER_WEIGHT)
    logit = logit_of(_question_means(seen)[asked.question]) + logit_of(user) - logit_of(mean)
    return asked.apart(p_of(logit))


def logistic_counts(train: Users, validation: Users, test: Users) -> Found:
    """Logistic regression on biases and counts; the penalty is chosen by validation AUC.

    The features of PFA (Pavlik et al. 2009) and DAS3H (Choffin et al. 2019) without its time
    windows: a bias for the question and each skill; log(1 + right) and log(1 + wrong) for each
    skill, with weights of the skill's own, for the question, and over all the user has answered.
    """
    rows = [Rows.of(users) for users in (train, validation, test)]
    n_questions = 1 + max(int(r.question.max(initial=0)) for r in rows)
    n_skills = 1 + max(int(r.skills.max(initial=0)) for r in rows)
    seen, chosen, asked = (_features(r, n_questions, n_skills) for r in rows)
    size = _size(n_questions, n_skills)
    best, best_weights = -np.inf, np.zeros(size)
    for penalty in PENALTIES:
        weights = logistic.fit(seen, rows[0].right, np.full(size, penalty))
        reached = auc(rows[1].right, p_of(chosen.logit(weights)))
        if not reached <= best:
            best, best_weights = reached, weights
    return rows[2].apart(p_of(asked.logit(best_weights)))


BASELINES: Mapping[str, Baseline] = {
    "global_mean": global_mean,
    "question_mean": question_mean,
    "question_user_mean": question_user_mean,
    "logistic_counts": logistic_counts,
}


def _question_means(seen: Rows) -> NDArray[np.float64]:
    """Return the smoothed mean of every question, UNSEEN's too, (n_questions,)."""
    mean = float(seen.right.mean())
    size = 1 + int(seen.question.max(initial=UNSEEN))
    right = np.bincount(seen.question, seen.right, minlength=size)
    answers = np.bincount(seen.question, minlength=size)
    means: NDArray[np.float64] = (right + QUESTION_WEIGHT * mean) / (answers + QUESTION_WEIGHT)
    return means


def _size(n_questions: int, n_skills: int) -> int:
    """Return how many weights `_features` speaks of."""
    return n_questions + 3 * n_skills + 5


def _features(rows: Rows, n_questions: int, n_skills: int) -> Sparse:
    """Return the matrix (N, W): W holds questions, skills thrice, four counts and the bias."""
    n = len(rows.row)
    known = (rows.skills != PAD).astype(np.float64)  # (N, K)
    met = (rows.skills != PAD) & (rows.skills != UNSEEN)  # nothing is known of what UNSEEN was
    by_skill = [np.log1p(c) * met for c in counts_before(rows, rows.skills)]
    asked_before = counts_before(rows, rows.question[:, None])
    by_question = [np.log1p(c) * (rows.question != UNSEEN)[:, None] for c in asked_before]
    overall = [np.log1p(c) for c in counts_before(rows, np.zeros((n, 1), np.int64))]
    skills = n_questions + rows.skills
    counts = n_questions + 3 * n_skills + np.arange(5)
    place = np.concatenate(
        [
            rows.question[:, None],
            skills,
            skills + n_skills,
            skills + 2 * n_skills,
            np.broadcast_to(counts, (n, 5)),
        ],
        axis=1,
    )
    ones = np.ones((n, 1))
    value = np.concatenate([ones, known, *by_skill, *by_question, *overall, ones], axis=1)
    return Sparse(place, value)
