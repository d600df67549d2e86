"""EM makes the answers likelier, finds what made them, and keeps its chances within bounds."""

from itertools import pairwise, product

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from models.contract.interaction import RIGHT
from models.contract.window import History
from models.datasets.encoded import EncodedUser
from models.evaluation.run import WEIGHTS
from models.nets import build
from models.training import em
from models.training.baum_welch import Bounds, Chances, Sequences, expect, maximise
from models.training.config import ConfigInvalid, TrainingConfig

UNSEEN_COLUMN = 0
BOUNDS = Bounds(guess=0.4, slip=0.3, forgets=True)


def user(skills: list[list[int]], response: list[int]) -> EncodedUser:
    n = len(response)
    named = np.array(skills, np.int64).reshape(n, -1)
    unknown = np.full(n, -1)
    history = History(
        question=named[:, 0],
        skills=named,
        response=np.array(response),
        asked_ms=unknown,
        elapsed_s=np.full(n, -1, np.float32),
        difficulty=np.zeros((n, 2), np.float32),
    )
    return EncodedUser("u", history, np.arange(n))


def learners(chances: Chances, users: int, answers: int, seed: int) -> list[EncodedUser]:
    """Users who answer each skill so often, by the chances of its column."""
    rng = np.random.default_rng(seed)
    skills = len(chances.prior)
    known = rng.random((users, skills)) < chances.prior
    rows = []
    for _ in range(answers):
        right = np.where(known, 1 - chances.slip, chances.guess)
        rows.append(rng.random((users, skills)) < right)
        stays = rng.random((users, skills))
        known = np.where(known, stays >= chances.forget, stays < chances.learn)
    response = np.stack(rows, axis=1).reshape(users, -1)  # skills take turns
    named = np.tile(np.arange(1, skills + 1), answers)[:, None]
    return [user(named.tolist(), r.astype(int).tolist()) for r in response]


def test_sequences_are_a_user_s_answers_on_one_skill():
    """An answer stands once in the sequence of every skill of its set, in the order of time."""
    two = [
        user([[2, 0], [3, 2], [2, 0]], [1, 0, 1]),
        user([[3, 0]], [1]),
    ]

    found = Sequences.of(two, n_skills=4)

    as_text = {
        (int(s), "".join(str(int(r)) for r in found.right[a : a + n]))
        for s, a, n in zip(found.skill, found.start, found.length, strict=True)
    }
    assert as_text == {(1, "101"), (2, "0"), (2, "1")}
    np.testing.assert_array_equal(found.answers, [0, 3, 2])
    np.testing.assert_array_equal(found.pooled().answers, [5, 3, 2])


def test_expectations_are_sums_over_all_paths():
    """Of one short sequence, every path of known and not known is weighed by hand."""
    chances = Chances(*(np.array([c]) for c in (0.3, 0.25, 0.15, 0.2, 0.1)))
    prior, learn, forget, guess, slip = (c.item() for c in chances)
    response = [1, 0, 1, 1]
    total, learned, forgot, guessed, first = 0.0, 0.0, 0.0, 0.0, 0.0
    for path in product((False, True), repeat=4):
        weight = prior if path[0] else 1 - prior
        for known, right in zip(path, response, strict=True):
            chance = 1 - slip if known else guess
            weight *= chance if right else 1 - chance
        for a, b in pairwise(path):
            moves = forget if a else learn
            weight *= moves if a != b else 1 - moves
        total += weight
        first += weight * path[0]
        learned += weight * sum(not a and b for a, b in pairwise(path))
        forgot += weight * sum(a and not b for a, b in pairwise(path))
        guessed += weight * sum(not k and r for k, r in zip(path, response, strict=True))

    expected, log_likelihood = expect(chances, Sequences.of([user([[1]] * 4, response)], 2))

    assert log_likelihood.item() == pytest.approx(np.log(total))
    assert expected.known_first.item() == pytest.approx(first / total)
    assert expected.learned.item() == pytest.approx(learned / total)
    assert expected.forgot.item() == pytest.approx(forgot / total)
    assert expected.guessed.item() == pytest.approx(guessed / total)
    assert (expected.known + expected.unknown).item() == pytest.approx(4)
    assert (expected.could_learn + expected.could_forget).item() == pytest.approx(3)


@pytest.mark.parametrize("bounds", [BOUNDS, Bounds(guess=0.1, slip=0.05, forgets=False)])
def test_the_likelihood_never_falls_and_bounds_hold(bounds):
    """For each skill, in each round, also where a bound is in the way."""
    truth = Chances(*(np.array([a, b]) for a, b in ((0.2, 0.5), (0.1, 0.3), (0.02, 0.1))), *(
        np.array(pair) for pair in ((0.35, 0.1), (0.25, 0.05))
    ))  # fmt: skip
    sequences = Sequences.of(learners(truth, users=60, answers=8, seed=0), n_skills=3)
    chances = bounds.draw(np.random.default_rng(1), skills=2)
    expected, before = expect(chances, sequences)

    for _ in range(40):
        chances = maximise(expected, chances, bounds)
        expected, after = expect(chances, sequences)

        assert (after >= before - 1e-9).all()
        assert (chances.guess < bounds.guess).all()
        assert (chances.slip < bounds.slip).all()
        assert (chances.forget > 0).all() == bounds.forgets
        before = after


def test_em_finds_the_chances_that_made_the_answers():
    """From 2,000 learners of 15 answers a skill: to 0.05, for the best of three starts."""
    truth = Chances(
        prior=np.array([0.2, 0.6]),
        learn=np.array([0.15, 0.3]),
        forget=np.array([0.0, 0.0]),
        guess=np.array([0.2, 0.1]),
        slip=np.array([0.05, 0.15]),
    )
    sequences = Sequences.of(learners(truth, users=2000, answers=15, seed=2), n_skills=3)
    bounds = BOUNDS._replace(forgets=False)
    ends = []
    for start in range(3):
        chances = bounds.draw(np.random.default_rng(start), skills=2)
        for _ in range(60):
            chances = maximise(expect(chances, sequences)[0], chances, bounds)
        ends.append((chances, expect(chances, sequences)[1]))

    likeliest = em._likeliest([c for c, _ in ends], np.stack([ll for _, ll in ends]))

    for found, true in zip(likeliest, truth, strict=True):
        np.testing.assert_allclose(found.numpy(), true, atol=0.05)


def test_forgetting_is_found_where_there_is_any():
    truth = Chances(*(np.array([c]) for c in (0.5, 0.2, 0.15, 0.1, 0.1)))
    sequences = Sequences.of(learners(truth, users=2000, answers=15, seed=4), n_skills=2)
    chances = BOUNDS.draw(np.random.default_rng(0), skills=1)
    for _ in range(100):
        chances = maximise(expect(chances, sequences)[0], chances, BOUNDS)

    assert chances.forget.item() == pytest.approx(0.15, abs=0.05)
    assert chances.learn.item() == pytest.approx(0.2, abs=0.05)


def test_a_round_lowers_the_loss_and_a_run_is_over_when_it_no_longer_does(tmp_path):
    """Records follow one another as the gradient fitter's do; a run that has ended stays ended."""
    truth = Chances(*(np.array([0.5, c]) for c in (0.2, 0.15, 0.02, 0.2, 0.1)))
    users = learners(truth, users=80, answers=10, seed=5)
    config = TrainingConfig.of(
        {
            "name": "bkt",
            "network": "bkt",
            "data": {"set": "drawn"},
            "window": {"length": 40},
            "fit": {"epochs": 60, "patience": 60, "restarts": 2, "tolerance": 1e-4},
        }
    )
    network = build("bkt", {"n_questions": 4, "n_skills": 3, "max_guess": 0.6, "max_slip": 0.3})

    records = list(em.fit(network, config, tmp_path, users[:60], users[60:]))

    losses = [r.loss for r in records]
    assert losses == sorted(losses, reverse=True)
    assert 2 < len(records) < 60
    assert list(em.fit(network, config, tmp_path, users[:60], users[60:])) == []
    best = max(records, key=lambda r: r.validation_auc)
    assert best.best
    assert torch.isfinite(load_file(tmp_path / WEIGHTS)["prior"]).all()


def test_a_skill_never_met_is_fitted_on_all_answers_together():
    """One skill alone in the log: UNSEEN has the same sequences, and so the same chances."""
    users = learners(Chances(*(np.array([c]) for c in (0.4, 0.2, 0.0, 0.2, 0.1))), 50, 8, seed=6)
    moved = [
        EncodedUser(
            "u", History(**{**_fields(u.history), "skills": u.history.skills + 1}), u.visible
        )
        for u in users
    ]
    sequences = Sequences.of(moved, n_skills=3).pooled()
    start = Chances(*(np.repeat(c, 2) for c in BOUNDS.draw(np.random.default_rng(0), 1)))

    chances = maximise(expect(start, sequences)[0], start, BOUNDS)

    for chance in chances:
        assert chance[UNSEEN_COLUMN] == pytest.approx(chance[1])
    assert sequences.right.sum() == sum((u.history.response == RIGHT).sum() for u in users)


def test_windows_longer_than_the_network_reads_are_refused(tmp_path):
    """Its graph would leave out their first answers without a word."""
    content = {"name": "b", "network": "bkt", "data": {"set": "drawn"}, "window": {"length": 9}}
    network = build("bkt", {"n_questions": 3, "n_skills": 3, "length": 8})

    with pytest.raises(ConfigInvalid, match="at most model"):
        next(em.fit(network, TrainingConfig.of(content), tmp_path, [], []))


def _fields(history: History) -> dict:
    return {name: getattr(history, name) for name in History.__slots__}
