"""What many questions to many users stand on is what each would stand on alone."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.contract.asking import counts_asked
from models.contract.interaction import Query
from models.contract.queries import Queries
from models.contract.vocabulary import Vocabulary
from models.contract.window import window_of
from tests.models.contract.test_following import joined
from tests.models.contract.test_window import history_of


@given(
    totals=st.lists(st.integers(0, 25), min_size=1, max_size=5),
    asked=st.lists(st.integers(0, 4), min_size=1, max_size=12),
    seed=st.integers(0, 99),
)
def test_counts_of_a_query_are_those_of_its_own_window(totals, asked, seed):
    """However many queries a user has, and whoever stands beside."""
    rng = np.random.default_rng(seed)
    histories = [history_of(total, seed + n) for n, total in enumerate(totals)]
    of_user = np.array([n % len(totals) for n in asked])
    queries = [
        Query(
            question=int(rng.integers(1, 9)),
            skills=tuple(rng.integers(1, 5, rng.integers(1, 4)).tolist()),
            difficulty=(float(n), 2.0),
        )
        for n in range(len(asked))
    ]

    found = counts_asked(
        joined(histories), np.repeat(np.arange(len(totals)), totals), Queries.of(queries), of_user
    )

    for one, query, user in zip(found, queries, of_user, strict=True):
        window = window_of(histories[user], query, length=1000)
        np.testing.assert_array_equal(one, window.counts[-1])


VOCABULARY = Vocabulary(
    question_ids=("q1", "q2", "q3"),
    skill_ids=("a", "b", "c"),
    question_skills=((2,), (), (2, 4)),
    skill_sets=((2, 4),),
    question_counts=((1, 2), (3, 4), (5, 6)),
)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["q1", "q2", "q3", "q9"]),
            st.none() | st.lists(st.sampled_from(["a", "b", "c", "z"]), max_size=5),
            st.integers(-1, 10**12),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_queries_in_columns_are_the_queries_one_by_one(asks):
    """Named skills or usual ones, known ids or not."""
    one_by_one = Queries.of([VOCABULARY.query(*ask) for ask in asks])

    found = VOCABULARY.queries(*zip(*asks, strict=True))

    for name in Queries.__slots__:
        np.testing.assert_array_equal(getattr(found, name), getattr(one_by_one, name))
