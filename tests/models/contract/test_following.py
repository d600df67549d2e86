"""What follows a state is the end of the window that there would be without one."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.contract.counts import Counted
from models.contract.following import following, following_on, padded
from models.contract.interaction import Query
from models.contract.window import History, collate, window_of, window_start
from tests.models.contract.test_window import history_of

LENGTH, CUT = 12, 5
INPUTS_OF_A_PLACE = ("question", "skills", "response", "lag_s", "elapsed_s", "counts")


def joined(histories: list[History]) -> History:
    return History(
        *(np.concatenate([getattr(h, f) for h in histories]) for f in History.__slots__[:6])
    )


@given(
    users=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=5),
    with_counts=st.booleans(),
    seed=st.integers(0, 99),
)
def test_places_after_a_state_are_those_of_the_window(users, with_counts, seed):
    """For every user, whoever stands beside, whatever the state has seen."""
    rng = np.random.default_rng(seed)
    histories, queries, windows, rows = [], [], [], []
    for number, (total, unseen) in enumerate(users):
        history = history_of(total, seed + number)
        query = Query(
            question=int(rng.integers(1, 9)),
            skills=tuple(rng.integers(1, 5, rng.integers(1, 3)).tolist()),
            asked_ms=int(rng.integers(-1, 10**6)),
            difficulty=(float(number), 2.0),
        )
        start = window_start(total, LENGTH, CUT)
        seen = max(start, total - unseen)
        first = max(0, (start if with_counts else seen) - 1)
        histories.append(
            History(*(getattr(history, f)[first:] for f in History.__slots__[:6]), dropped=first)
        )
        queries.append(query)
        windows.append(window_of(history, query, length=LENGTH, cut=CUT))
        rows.append(
            (total - first, start - first if with_counts else 0, seen - first, seen - start)
        )
    count, before_window, before_new, shown = np.array(rows).T

    found = following(
        joined(histories),
        queries,
        rows=count,
        before_window=before_window,
        before_new=before_new,
        seen=shown,
        with_counts=with_counts,
    )

    begin = 0
    for number, window in enumerate(windows):
        new = found.new[number]
        assert new == len(window) - 1 - shown[number]
        for name in INPUTS_OF_A_PLACE if with_counts else INPUTS_OF_A_PLACE[:-1]:
            expected = getattr(window, name)[len(window) - 1 - new :]
            answered = found.answered[name][begin : begin + new]
            got = [*answered, found.queries[name][number]]
            for one, other in zip(got, expected, strict=True):
                wide = np.zeros(max(np.size(one), np.size(other)))
                wide[: np.size(one)] = one
                padded = np.zeros_like(wide)
                padded[: np.size(other)] = other
                np.testing.assert_allclose(wide, padded, rtol=1e-6)
        begin += new
    np.testing.assert_array_equal(found.seen, shown)


@given(
    totals=st.lists(st.integers(0, 30), min_size=1, max_size=5),
    side=st.sampled_from(["right", "left"]),
    with_counts=st.booleans(),
)
def test_without_states_they_are_the_windows_collated(totals, side, with_counts):
    """Array by array, padding too."""
    histories = [history_of(n, seed) for seed, n in enumerate(totals)]
    queries = [Query(question=3, skills=(2, 4)[: 1 + n % 2], asked_ms=10**9) for n in totals]
    starts = np.array([window_start(n, LENGTH, CUT) for n in totals])
    nothing = np.zeros(len(totals), np.int64)

    found = padded(
        following(
            joined(histories),
            queries,
            rows=np.array(totals),
            before_window=starts,
            before_new=starts,
            seen=nothing,
            with_counts=with_counts,
        ),
        side,
    )

    windows = [
        window_of(h, q, length=LENGTH, cut=CUT) for h, q in zip(histories, queries, strict=True)
    ]
    expected = collate(windows, side)
    assert found.keys() == expected.keys() - ({"counts"} if not with_counts else set())
    for name, array in found.items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-6)
        assert array.dtype == expected[name].dtype


@given(
    users=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=5),
    seed=st.integers(0, 99),
)
def test_what_was_read_before_need_not_be_read_again(users, seed):
    """The same places, and in the end the same is known as of a window read at once."""
    histories = [history_of(total, seed + number) for number, (total, _) in enumerate(users)]
    queries = [Query(question=3, skills=(2, 4)[: 1 + n % 2], asked_ms=10**9) for n, _ in users]
    totals = np.array([total for total, _ in users])
    starts = np.array([window_start(total, LENGTH, CUT) for total in totals])
    seen = np.maximum(starts, totals - np.array([unseen for _, unseen in users]))
    whole = following(
        joined(histories),
        queries,
        rows=totals,
        before_window=starts,
        before_new=seen,
        seen=seen - starts,
        with_counts=True,
    )
    firsts = np.maximum(seen - 1, 0)

    found, pasts = following_on(
        [
            Counted(h.question[a:b], h.skills[a:b], h.response[a:b])
            for h, a, b in zip(histories, starts, seen, strict=True)
        ],
        joined(
            [
                History(*(getattr(h, f)[first:] for f in History.__slots__[:6]))
                for h, first in zip(histories, firsts, strict=True)
            ]
        ),
        queries,
        rows=totals - firsts,
        before_new=seen - firsts,
    )

    np.testing.assert_array_equal(found.seen, whole.seen)
    np.testing.assert_array_equal(found.new, whole.new)
    for name in INPUTS_OF_A_PLACE:
        np.testing.assert_allclose(found.answered[name], whole.answered[name], rtol=1e-6)
        np.testing.assert_allclose(found.queries[name], whole.queries[name], rtol=1e-6)
    for past, history, start in zip(pasts, histories, starts, strict=True):
        np.testing.assert_array_equal(past.question, history.question[start:])
        np.testing.assert_array_equal(past.skills, history.skills[start:])
        np.testing.assert_array_equal(past.response, history.response[start:])
