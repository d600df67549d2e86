"""What a store of states promises: a state is found only by whom and for what it was made."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from uuid import uuid4

import pytest

from app.errors import StoreCorrupt
from app.store.states import StateRule
from tests.app.store.conftest import KEEP
from tests.app.store.test_histories import add, answers

pytestmark = pytest.mark.anyio

RULE = StateRule(key="m/1/abc", size=4, length=100, cut=1, whole_window=False)


async def kept(store, user_id, rule=RULE, state=b"abcd"):
    """Keep a state after all that is there, and return how the user stood."""
    standing = await store.states.stand(user_id, rule)
    store.states.keep(user_id, rule, standing, state)
    await store.states.aclose()
    return standing


def asked_ms(standing):
    return standing.interactions["asked_ms"].tolist()


async def test_a_new_user_stands_at_nothing(store):
    """And nothing is kept of one whose history is not there."""
    user_id = uuid4().hex

    await kept(store, user_id)
    standing = await store.states.stand(user_id, RULE)

    assert (standing.kept, standing.total, standing.new, standing.state) == (0, 0, 0, b"")
    assert len(standing.interactions) == 0


async def test_a_state_is_found_with_the_answers_after_it(store):
    """And the one before them: the first lag reaches back to it."""
    user_id = uuid4().hex
    await add(store.histories, user_id, answers(0, 3))
    before = await kept(store, user_id)
    await add(store.histories, user_id, answers(3, 5))

    standing = await store.states.stand(user_id, RULE)

    assert (before.state, before.new, asked_ms(before)) == (b"", 3, [0, 1000, 2000])
    assert (standing.state, standing.seen, standing.new) == (b"abcd", 3, 2)
    assert asked_ms(standing) == [2000, 3000, 4000]
    assert (standing.first, standing.kept, standing.total, standing.start) == (2, 5, 5, 0)


async def test_a_model_that_counts_gets_its_whole_window(store):
    """The state with it."""
    user_id, rule = uuid4().hex, replace(RULE, whole_window=True)
    await add(store.histories, user_id, answers(0, 3))
    await kept(store, user_id, rule)

    standing = await store.states.stand(user_id, rule)

    assert (standing.state, standing.new, len(standing.interactions)) == (b"abcd", 0, 3)


@pytest.mark.parametrize(
    "other",
    [{"key": "m/1/abd"}, {"size": 8}, {"length": 3}],
    ids=["another model", "another size", "another window"],
)
async def test_a_state_of_another_rule_does_not_fit(store, other):
    """It is made anew from the answers that it should stand on."""
    user_id, rule = uuid4().hex, replace(RULE, **other)
    await add(store.histories, user_id, answers(0, 5))
    await kept(store, user_id)

    standing = await store.states.stand(user_id, rule)

    assert standing.state == b""
    assert standing.new == min(5, rule.length - 1)


async def test_a_window_that_is_cut_wants_a_state_of_its_own(store):
    """Until the next cut the state is kept; then it is made from the answers behind the cut."""
    user_id, rule = uuid4().hex, replace(RULE, length=6, cut=3)
    stood = []
    for number in range(12):
        await add(store.histories, user_id, answers(number, number + 1))
        standing = await kept(store, user_id, rule)
        stood.append((standing.start, standing.new))

    assert stood == [
        *((0, 1), (0, 1), (0, 1), (0, 1), (0, 1)),
        *((3, 3), (3, 1), (3, 1), (6, 3), (6, 1), (6, 1), (9, 3)),
    ]


async def test_what_the_store_has_dropped_no_state_stands_on(store):
    """The state of a restart would be another one."""
    user_id = uuid4().hex
    await add(store.histories, user_id, answers(0, KEEP + 3))

    standing = await store.states.stand(user_id, RULE)

    assert (standing.start, standing.new, standing.kept) == (3, KEEP, KEEP)
    assert asked_ms(standing)[0] == 3000


async def test_a_late_writer_does_not_set_a_state_back(store):
    """Whoever has seen more stays."""
    user_id = uuid4().hex
    await add(store.histories, user_id, answers(0, 3))
    early = await store.states.stand(user_id, RULE)
    await add(store.histories, user_id, answers(3, 5))
    await kept(store, user_id, state=b"five")

    store.states.keep(user_id, RULE, early, b"tre!")
    await store.states.aclose()

    assert (await store.states.stand(user_id, RULE)).state == b"five"


async def test_a_state_outlives_no_history(store):
    """Not even where it arrives after the same user has begun anew, with as many answers."""
    user_id = uuid4().hex
    await add(store.histories, user_id, answers(0, 3))
    before = await kept(store, user_id)
    assert await store.histories.forget(user_id)
    assert (await store.states.stand(user_id, RULE)).state == b""
    await add(store.histories, user_id, answers(10, 13))

    store.states.keep(user_id, RULE, before, b"gone")
    await store.states.aclose()

    standing = await store.states.stand(user_id, RULE)
    assert (standing.state, standing.new) == (b"", 3)


async def test_a_history_keeps_its_name_when_it_is_cut_down(store):
    """Its states still fit it."""
    user_id, rule = uuid4().hex, replace(RULE, length=5, cut=2)
    await add(store.histories, user_id, answers(0, 5))
    first = await store.states.stand(user_id, rule)
    await add(store.histories, user_id, answers(5, 3 * KEEP))
    last = await store.states.stand(user_id, rule)

    assert first.history == last.history != b""
    assert last.total == 3 * KEEP


async def test_states_of_old_versions_do_not_pile_up(store):
    """They are caches: a user has a few."""
    user_id = uuid4().hex
    await add(store.histories, user_id, answers(0, 3))
    for number in range(40):
        await kept(store, user_id, replace(RULE, key=f"m/{number}/abc"))

    found = [
        (await store.states.stand(user_id, replace(RULE, key=f"m/{n}/abc"))).state
        for n in range(40)
    ]
    assert found[-1] == b"abcd"
    assert 1 <= sum(state != b"" for state in found) <= 8


async def test_a_spoilt_history_hurts_its_own_caller_alone(store):
    """Though all of them went in one trip."""
    spoilt, users = uuid4().hex, [uuid4().hex for _ in range(20)]
    await store.histories._redis.set(f"kt:h1:{{{spoilt}}}", b"what is this")
    for number, user_id in enumerate(users):
        await add(store.histories, user_id, answers(0, number))

    found = await asyncio.gather(
        *(store.states.stand(u, RULE) for u in [*users[:10], spoilt, *users[10:]]),
        return_exceptions=True,
    )

    assert isinstance(found.pop(10), StoreCorrupt)
    assert [standing.total for standing in found] == list(range(20))
