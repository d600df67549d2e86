"""Learners whose truth is known."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from models.datasets.simulator import main, simulate
from models.datasets.table import read_table
from models.evaluation.metrics import auc
from tests.refused import last_words


def test_answers_come_up_as_their_chances_say():
    """The truth is calibrated, and no model can rank better than it."""
    simulation = simulate(users=300, answers=60, seed=5)
    right = simulation.dataset.interactions["response"]

    assert abs(right.mean() - simulation.p_true.mean()) < 0.01
    for low in (0.2, 0.4, 0.6, 0.8):
        chosen = (simulation.p_true > low - 0.05) & (simulation.p_true < low + 0.05)
        assert abs(right[chosen].mean() - simulation.p_true[chosen].mean()) < 0.05
    assert auc(right, simulation.p_true) > 0.65


def test_learners_learn():
    """Later answers are better than early ones."""
    simulation = simulate(users=300, answers=100, seed=5)
    right = simulation.dataset.interactions["response"].reshape(300, 100)

    assert right[:, 60:].mean() > right[:, :20].mean() + 0.02


def test_the_seed_is_the_data():
    """The same seed, the same learners."""
    one, two, other = (simulate(users=5, answers=10, seed=s) for s in (1, 1, 2))

    assert one.frame.equals(two.frame)
    assert not one.frame.equals(other.frame)
    np.testing.assert_array_equal(one.p_true, two.p_true)


def test_the_command_writes_a_file_that_the_reader_reads(tmp_path):
    """With as many users and answers as it says."""
    path = tmp_path / "learners.csv"
    done = subprocess.run(
        [sys.executable, "-m", "models.datasets.simulator", path, "--users", "4", "--answers", "9"],
        capture_output=True,
        text=True,
        check=True,
    )
    data = read_table(path)

    assert "36 answers of 4 users" in done.stdout
    assert (len(data.users), len(data)) == (4, 36)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["x.csv", "--users", "0"], "--users: 0: must be at least 1"),
        (["x.csv", "--answers", "0"], "--answers: 0"),
        (["x.csv", "--questions", "0"], "--questions: 0"),
        (["x.csv", "--skills", "0"], "--skills: 0"),
        (["x.csv", "--seed", "-1"], "--seed: -1"),
        (["nodir/x.csv"], "there is no folder nodir"),
    ],
)
def test_learners_that_cannot_be_are_refused(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)

    assert said in last_words(main, arguments, capsys)
    assert list(tmp_path.iterdir()) == []
