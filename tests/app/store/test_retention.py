"""How long what is kept of a user lives; how it is given out, and how it is gone."""

from __future__ import annotations

from dataclasses import replace
from uuid import uuid4

import pytest

from app.records import records_of
from app.store.histories import NO_HISTORY, Amendment, Terms
from app.store.keys import BESIDE, CALLS, HISTORY, STATES, user_key
from tests.app.store.conftest import KEEP
from tests.app.store.test_histories import add, answers
from tests.app.store.test_states import RULE, kept

pytestmark = pytest.mark.anyio


# -- retention ---------------------------------------------------------------------------------


async def test_a_history_lives_for_so_long_after_its_last_answer(opened):
    """Each answer renews that, however it is written; a reading or a correction does not."""
    store, user_id = await opened(retention_days=40), uuid4().hex
    histories, redis = store.histories, store.histories._client.redis
    for first, count in ((0, 1), (1, 1), (2, KEEP), (KEEP + 2, 9)):
        await redis.expire(user_key(HISTORY, user_id), 5)
        given = answers(first, first + count)
        given[0] = replace(given[0], skill_ids=["s"] if first == 1 else None)
        await add(histories, user_id, given)
        assert 40 * 86_400 - 60 < await redis.ttl(user_key(HISTORY, user_id)) <= 40 * 86_400
        assert not await redis.exists(user_key(BESIDE, user_id))
    await redis.expire(user_key(HISTORY, user_id), 50)

    await histories.amend(user_id, KEEP, Amendment(correct=True), Terms(call_key="k"))
    await kept(store, user_id)

    for key in (HISTORY, STATES, CALLS):  # what is made of it does not outlive it
        assert 0 < await redis.ttl(user_key(key, user_id)) <= 50


async def test_what_is_kept_for_ever_has_no_end(opened):
    """Nor has a history once it is added to under such a rule."""
    store, user_id = await opened(), uuid4().hex
    histories, redis = store.histories, store.histories._client.redis
    await add(histories, user_id, answers(0, 2))
    assert await redis.ttl(user_key(HISTORY, user_id)) == -1
    await redis.expire(user_key(HISTORY, user_id), 50)

    await add(histories, user_id, answers(2, 3))
    await kept(store, user_id)

    assert await redis.ttl(user_key(HISTORY, user_id)) == -1
    assert await redis.ttl(user_key(STATES, user_id)) > 29 * 86_400


# -- everything out, everything gone -----------------------------------------------------------


async def test_everything_kept_is_given_out(store):
    """Also what only waits to be dropped, and what was made of it."""
    user_id, histories = uuid4().hex, store.histories
    given = [*answers(0, KEEP + 3), *answers(30, 32, events=True)]
    done = await add(histories, user_id, given, Terms(call_key="k"))
    await kept(store, user_id)

    found = await histories.everything(user_id)

    assert found.interactions.tobytes() == records_of(given).interactions.tobytes()
    assert (found.first, found.version, found.history_left_ms) == (0, done.version, None)
    [state], [call] = found.states, found.calls
    assert (state.model, state.content) == (RULE.key, b"abcd")
    assert (state.history, state.start, state.seen) == (done.version.name, 5, KEEP + 5)
    assert found.states_left_ms > 29 * 86_400_000
    assert 86_000_000 < found.calls_left_ms <= 86_400_000
    assert (len(call.key), len(call.content)) == (16, 16)


async def test_of_a_new_user_there_is_nothing_to_give_out(histories):
    """Which is no error."""
    found = await histories.everything(uuid4().hex)

    assert (len(found.interactions), found.version) == (0, NO_HISTORY)
    assert (found.states, found.calls) == ([], [])


async def test_nothing_is_left_of_a_forgotten_user(store):
    """No key's name and no value in the whole store has the user's id or what they answered."""
    user_id, histories = f"somebody-{uuid4().hex}", store.histories
    given = [replace(a, skill_ids=["s"]) for a in answers(0, KEEP + 9, events=True)]
    await add(histories, user_id, given, Terms(call_key="k"))
    await histories.amend(user_id, KEEP, Amendment(correct=True), Terms(call_key="l"))
    await kept(store, user_id)
    before = await dumped(histories._client.redis, user_id)

    await histories.forget(user_id)

    assert {name[:5] for name in before} == {b"kt:h1", b"kt:s1", b"kt:i1"}
    assert await dumped(histories._client.redis, user_id) == {}


async def dumped(redis, user_id: str) -> dict[bytes, bytes]:
    """Return every key of the whole store that is of a user, or whose value speaks of one."""
    found = {}
    mark = user_id.encode()
    await redis.config_set("rdbcompression", "no")  # or a value's text could hide in its dump
    async for key in redis.scan_iter(count=1000):
        value = await redis.dump(key)
        if mark in key or (value is not None and mark in value):
            found[key] = value
    return found
