"""The one encoder: what a window holds, and what it can never hold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.contract.interaction import PAD_RESPONSE, UNKNOWN, UNKNOWN_MS, Query
from models.contract.window import (
    INPUTS,
    MISSING_S,
    History,
    collate,
    lags_s,
    window_of,
    window_start,
)

QUERY = Query(question=3, skills=(2, 4), asked_ms=10**9)
FIELDS = ("question", "skills", "response", "lag_s", "elapsed_s", "counts")


def history_of(n: int, seed: int = 0, dropped: int = 0) -> History:
    rng = np.random.default_rng(seed)
    return History(
        question=rng.integers(1, 9, n),
        skills=rng.integers(1, 5, (n, 2)),
        response=rng.integers(0, 2, n),
        asked_ms=np.where(rng.random(n) < 0.2, UNKNOWN_MS, np.cumsum(rng.integers(0, 9999, n))),
        elapsed_s=rng.random(n).astype(np.float32),
        difficulty=rng.integers(0, 9, (n, 2)).astype(np.float32),
        dropped=dropped,
    )


@given(n=st.integers(0, 40), length=st.integers(1, 12), cut=st.integers(1, 12))
def test_a_window_holds_the_newest_places_and_never_more_than_its_length(n, length, cut):
    cut = min(cut, length)
    history = history_of(n)

    window = window_of(history, QUERY, length=length, cut=cut)

    assert 1 <= len(window) <= length
    assert window.question[-1] == QUERY.question
    np.testing.assert_array_equal(window.question[:-1], history.question[n - len(window) + 1 :])


@given(n=st.integers(0, 40), length=st.integers(2, 12), cut=st.integers(1, 12))
def test_a_trimmed_history_gives_the_same_window(n, length, cut):
    """The store may keep only `length` interactions: nothing older can matter."""
    cut = min(cut, length - 1)
    history = history_of(n)
    gone = max(0, n - length)
    trimmed = History(*(getattr(history, f)[gone:] for f in History.__slots__[:6]), dropped=gone)

    whole = window_of(history, QUERY, length=length, cut=cut)
    short = window_of(trimmed, QUERY, length=length, cut=cut)

    for field in FIELDS:
        np.testing.assert_array_equal(getattr(whole, field), getattr(short, field))


@given(n=st.integers(1, 30), seed=st.integers(0, 99))
def test_what_comes_after_the_query_cannot_enter(n, seed):
    """A history cut before row n gives one window, whatever row n and later hold."""
    one, other = history_of(30, seed=1), history_of(30, seed=seed)
    for field in ("question", "response", "asked_ms"):
        getattr(other, field)[:n] = getattr(one, field)[:n]
    other.skills[:n], other.elapsed_s[:n] = one.skills[:n], one.elapsed_s[:n]
    other.difficulty[:n] = one.difficulty[:n]

    first, second = (window_of(h.before(n), QUERY, length=16) for h in (one, other))

    for field in FIELDS:
        np.testing.assert_array_equal(getattr(first, field), getattr(second, field))


def test_the_asked_question_has_no_answer_and_no_elapsed_time():
    window = window_of(history_of(5), QUERY, length=10)

    assert window.response[-1] == UNKNOWN
    assert window.elapsed_s[-1] == MISSING_S
    assert set(window.response[:-1]) <= {0, 1}


def test_the_first_lag_of_a_window_reaches_outside_it():
    """The place before the window is not shown, but the pause since it is known."""
    history = History(
        question=np.array([2, 3, 4]),
        skills=np.ones((3, 1), int),
        response=np.array([0, 1, 1]),
        asked_ms=np.array([0, 5_000, 7_000]),
        elapsed_s=np.full(3, MISSING_S, np.float32),
        difficulty=np.zeros((3, 2), np.float32),
    )

    window = window_of(history, Query(question=2, skills=(1,), asked_ms=8_000), length=3)

    assert window.lag_s.tolist() == [5.0, 2.0, 1.0]


def test_lags_are_missing_where_a_time_is_and_zero_where_a_clock_ran_back():
    lag = lags_s(np.array([4_000, 1_000, UNKNOWN_MS, 2_000, 2_500]))

    assert lag.tolist() == [MISSING_S, 0.0, MISSING_S, MISSING_S, 0.5]


@given(length=st.integers(2, 50), cut=st.integers(1, 49))
def test_a_cut_window_keeps_its_start_for_cut_queries(length, cut):
    cut = min(cut, length - 1)
    starts = [window_start(n, length, cut) for n in range(200)]

    for n, start in enumerate(starts):
        assert start % cut == 0
        assert length - cut < n - start + 1 <= length or start == 0


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    side=st.sampled_from(["right", "left"]),
)
def test_collate_keeps_every_value_and_marks_every_other_place(sizes, side):
    windows = [window_of(history_of(n - 1, seed=n), QUERY, length=99) for n in sizes]

    batch = collate(windows, side)

    for name, (dtype, axes) in INPUTS.items():
        assert batch[name].dtype == dtype
        assert batch[name].ndim == len(axes)
    for row, window in enumerate(windows):
        mask = batch["mask"][row]
        assert mask.sum() == len(window)
        assert mask[0 if side == "right" else -1]
        np.testing.assert_array_equal(batch["lag_s"][row][mask], window.lag_s)
        np.testing.assert_array_equal(batch["skills"][row][mask], window.skills)
        assert (batch["response"][row][~mask] == PAD_RESPONSE).all()


def test_no_windows_are_refused():
    with pytest.raises(ValueError, match="no windows"):
        collate([])
