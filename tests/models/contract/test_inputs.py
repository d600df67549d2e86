"""Trainer and server count alike, and what differs is told."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.contract.inputs import (
    N_LAGS,
    N_LENGTHS,
    Inputs,
    lag_bucket,
    lag_buckets,
    length_bucket,
    length_buckets,
    stability,
)
from models.contract.window import MISSING_S


@given(st.lists(st.one_of(st.just(MISSING_S), st.floats(0, 1e7, width=32)), min_size=1))
def test_one_lag_falls_where_many_do(lags):
    """The trainer counts in columns, the server also one by one."""
    found = lag_buckets(np.array(lags, np.float32))

    assert found.tolist() == [lag_bucket(lag) for lag in lags]
    assert set(found.tolist()) <= set(range(N_LAGS))


@given(st.lists(st.integers(0, 5000), min_size=1))
def test_one_length_falls_where_many_do(lengths):
    """As of lags."""
    found = length_buckets(np.array(lengths))

    assert found.tolist() == [length_bucket(length) for length in lengths]
    assert set(found.tolist()) <= set(range(N_LENGTHS))


def drawn(seed: int, answers: int = 4000, skills: int = 40):
    """Skills, lags in seconds, lengths, and whether it was right."""
    rng = np.random.default_rng(seed)
    return (
        1 + rng.zipf(1.5, answers) % skills,
        np.where(rng.random(answers) < 0.1, MISSING_S, rng.exponential(200, answers)),
        rng.integers(0, 400, answers),
        rng.random(answers) < 0.6,
    )


def drift(inputs: Inputs, seen) -> dict[str, float]:
    skill, lag_s, length, right = seen
    return inputs.drift(skill, lag_buckets(lag_s), length_buckets(length), right)


def test_what_is_like_the_training_has_not_drifted():
    """And what is not, has: each input by itself."""
    inputs = Inputs.counted(*drawn(1), reads_lag=True)
    skill, lag_s, length, right = drawn(2)

    assert all(0 <= value < 0.05 for value in drift(inputs, drawn(2)).values())
    for name, changed in {
        "skill": (skill % 3 + 30, lag_s, length, right),
        "lag": (skill, lag_s * 100, length, right),
        "history": (skill, lag_s, length // 50, right),
        "correct": (skill, lag_s, length, right & (length % 2 == 0)),
    }.items():
        found = drift(inputs, changed)
        assert found.pop(name) > 0.25
        assert all(value < 0.05 for value in found.values())


def test_skills_that_no_model_knows_are_told_apart():
    """Whether there were none of them in training, or the number is past all that is known."""
    inputs = Inputs.counted(*drawn(1), reads_lag=True)
    _, lag_s, length, right = drawn(2)

    for number in (1, 2**32 - 1):
        skill = np.full(len(right), number, np.uint32)
        assert drift(inputs, (skill, lag_s, length, right))["skill"] > 1


def test_what_is_in_no_bucket_of_these_is_in_the_last():
    """Another version of the service may have more of them, on the same store."""
    inputs = Inputs.counted(*drawn(1), reads_lag=True)
    skill, _, _, right = drawn(2)
    last, beyond = (
        inputs.drift(skill, np.full(len(right), lag, np.uint8), np.full(len(right), length), right)
        for lag, length in ((N_LAGS - 1, N_LENGTHS - 1), (255, 255))
    )

    assert last == beyond


def test_a_model_that_reads_no_lag_drifts_in_none():
    """It would answer the same."""
    assert "lag" not in drift(Inputs.counted(*drawn(1), reads_lag=False), drawn(2))


def test_inputs_are_the_same_after_json():
    """As a manifest holds them."""
    inputs = Inputs.counted(*drawn(3), reads_lag=True)

    assert Inputs.of(json.loads(json.dumps(dataclasses.asdict(inputs)))) == inputs
    assert inputs.is_known
    assert not Inputs().is_known


@pytest.mark.parametrize(
    "content",
    [{"answers": 1.5}, {"lags": [1]}, {"skills": [[1]]}, {"right": -1}, {"other": 1}],
)
def test_what_are_no_counts_is_refused(content):
    """An artifact that says so is not served."""
    with pytest.raises((TypeError, ValueError)):
        Inputs.of(content)


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=9))
def test_the_index_is_zero_of_the_same_and_never_below(counts):
    """Also where a bucket is empty."""
    assert stability(counts, counts) == pytest.approx(0)
    assert stability(counts, counts[::-1]) >= 0
