"""Counts stand on what came before, and on nothing else."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.contract.counts import N_COUNTS, Counted, counts_at, counts_of
from models.contract.interaction import RIGHT, UNKNOWN, WRONG


def test_counts_by_hand():
    """Overall, of the skills (their mean), of the question, and what training users did."""
    question = np.array([5, 6, 5, 5])
    skills = np.array([[2, 0], [3, 0], [2, 3], [2, 0]])
    response = np.array([RIGHT, WRONG, WRONG, UNKNOWN])
    difficulty = np.array([[9, 1], [4, 4], [9, 1], [9, 1]], np.float32)

    counts = counts_of(question, skills, response, difficulty)

    assert counts.tolist() == [
        [0, 0, 0, 0, 0, 0, 9, 1],
        [1, 0, 0, 0, 0, 0, 4, 4],
        [1, 1, 0.5, 0.5, 1, 0, 9, 1],
        [1, 2, 1, 1, 1, 1, 9, 1],
    ]


def test_nothing_is_counted_of_what_was_never_seen():
    """UNSEEN stands for many questions and skills at once."""
    counts = counts_of(
        np.array([1, 1]), np.array([[1], [1]]), np.array([RIGHT, UNKNOWN]), np.zeros((2, 2))
    )

    assert counts[1].tolist() == [1, 0, 0, 0, 0, 0, 0, 0]


@given(n=st.integers(1, 30), t=st.integers(0, 29), seed=st.integers(0, 999))
def test_no_answer_moves_a_count_at_its_own_place_or_before(n, t, seed):
    """Not even where a skill stands twice in a set, as no set should have it."""
    rng = np.random.default_rng(seed)
    question, skills = rng.integers(1, 6, n), rng.integers(0, 5, (n, 3))
    response, difficulty = rng.integers(0, 2, n), np.zeros((n, 2), np.float32)
    changed = response.copy()
    changed[t:] = 1 - changed[t:]

    before, after = (counts_of(question, skills, r, difficulty) for r in (response, changed))

    assert before.shape == (n, N_COUNTS)
    np.testing.assert_array_equal(before[: t + 1], after[: t + 1])


@given(
    sizes=st.lists(st.integers(0, 25), min_size=1, max_size=4),
    seed=st.integers(0, 999),
    width=st.integers(1, 3),
)
def test_counts_at_a_few_places_are_those_of_all(sizes, seed, width):
    """Of several users one after the other; unseen ids, and a skill named twice, among them."""
    rng = np.random.default_rng(seed)
    past, expected, places = [], [], []
    for n in sizes:
        question, skills = rng.integers(1, 6, n + 1), rng.integers(0, 5, (n + 1, 3))
        response, difficulty = rng.integers(0, 2, n + 1), rng.random((n + 1, 2), np.float32)
        skills[:, width:] = 0
        at = int(rng.integers(0, n + 1))
        expected.append(counts_of(question, skills, response, difficulty)[at])
        past.append((question[:n], skills[:n], response[:n]))
        places.append((at, question[at], skills[at], difficulty[at]))
    begin = np.cumsum(sizes) - sizes
    at, question, skills, difficulty = (np.array(part) for part in zip(*places, strict=True))

    found = counts_at(
        Counted(*(np.concatenate(part) for part in zip(*past, strict=True))),
        begin,
        begin + at,
        question,
        skills,
        difficulty,
    )

    np.testing.assert_allclose(found, expected, rtol=1e-6)
