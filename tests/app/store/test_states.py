"""What a store of states promises: a state is found only by whom and for what it was made."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from uuid import uuid4

import pytest
from redis import Redis

from app.errors import Overloaded, StoreCorrupt
from app.records import records_of
from app.settings import Settings
from app.store.keys import HISTORY, user_key
from app.store.opening import open_store
from app.store.states import SPOILT, Known, StateRule
from tests.app.store.conftest import KEEP, a_server, of_before
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
    await store.histories._client.redis.set(f"kt:h1:{{{spoilt}}}", b"what is this")
    for number, user_id in enumerate(users):
        await add(store.histories, user_id, answers(0, number))

    found = await asyncio.gather(
        *(store.states.stand(u, RULE) for u in [*users[:10], spoilt, *users[10:]]),
        return_exceptions=True,
    )

    assert isinstance(found.pop(10), StoreCorrupt)
    assert [standing.total for standing in found] == list(range(20))


async def test_many_users_asked_for_together_stand_as_each_does(store):
    """One whose history cannot be read among them."""
    users = [uuid4().hex for _ in range(30)]
    for number, user_id in enumerate(users):
        await add(store.histories, user_id, answers(0, number))
        if number % 3:
            await kept(store, user_id)
        await add(store.histories, user_id, answers(number, number + number % 2))
    await store.histories._client.redis.set(f"kt:h1:{{{users[9]}}}", b"what is this")

    for rule in (RULE, replace(RULE, whole_window=True), replace(RULE, size=0)):
        found = await store.states.stand_all(users, rule)

        assert found.table["kept"][9] == SPOILT
        for row, (user_id, standing) in enumerate(zip(users, found.each(), strict=True)):
            if row == 9:
                assert standing is None is found.one(row)
                continue
            alone = await store.states.stand(user_id, rule)
            for one in (standing, found.one(row)):
                assert one._replace(interactions=None) == alone._replace(interactions=None)
                assert one.interactions.tobytes() == alone.interactions.tobytes()


async def test_too_many_users_are_refused_at_once(redis_socket, tmp_path):
    """And those who are in get their answers."""
    settings = Settings(redis_url=f"unix://{redis_socket}", data_dir=tmp_path, queue_max_items=4)
    users = [uuid4().hex for _ in range(32)]
    async with open_store(settings) as store:
        first = asyncio.create_task(store.states.stand_all(users, RULE))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await store.states.stand_all(users[:1], RULE)

        assert len((await first).table) == 32
        assert len((await store.states.stand_all(users[:1], RULE)).table) == 1


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"KTS1abc",
        b"KTS1" + b"\0" * 20 + b"abcd",
        b"KTS1%s" + b"\xff" * 8 + b"\x7f" * 8 + b"abcd",
    ],
    ids=["empty", "short", "of no history", "of a far future"],
)
async def test_a_damaged_state_is_none_and_is_replaced(store, damage):
    """And spoils no other that is written with it."""
    users = [uuid4().hex for _ in range(3)]
    for user_id in users:
        await add(store.histories, user_id, answers(0, 3))
    name = (await store.states.stand(users[0], RULE)).history
    await store.histories._client.redis.hset(
        f"kt:s1:{{{users[0]}}}", RULE.key, damage.replace(b"%s", name)
    )

    standings = [await store.states.stand(user_id, RULE) for user_id in users]
    for user_id, standing in zip(users, standings, strict=True):
        store.states.keep(user_id, RULE, standing, b"good")
    await store.states.aclose()

    assert [standing.state for standing in standings] == [b"", b"", b""]
    assert [(await store.states.stand(u, RULE)).state for u in users] == [b"good"] * 3


async def test_a_state_that_begins_elsewhere_takes_the_place_of_one_that_knows_no_more(store):
    """As after a change of how much is kept: or it would be made anew for ever."""
    user_id, later = uuid4().hex, replace(RULE, length=3)
    await add(store.histories, user_id, answers(0, 5))
    await kept(store, user_id, later, b"late")
    standing = await kept(store, user_id)

    assert standing.state == b""
    assert (await store.states.stand(user_id, RULE)).state == b"abcd"


async def test_a_history_without_a_name_keeps_no_states_until_it_has_one(store):
    """Histories of before had none; a server of then forgets a user and leaves the states."""
    user_id = uuid4().hex
    old = records_of(answers(0, 2)).interactions
    await store.histories._client.redis.set(user_key(HISTORY, user_id), of_before(old))

    nameless = await kept(store, user_id)
    still = await store.states.stand(user_id, RULE)
    await add(store.histories, user_id, answers(2, 3))
    named = await kept(store, user_id)

    assert (nameless.history, still.state, named.state) == (b"\0" * 4, b"", b"")
    assert named.history != nameless.history
    assert (await store.states.stand(user_id, RULE)).state == b"abcd"
    assert named.total == 3


async def test_in_a_cluster_every_user_is_asked_for_apart(tmp_path):
    """Keys of two users lie in two slots: no script may touch both."""
    with a_server("--cluster-enabled", "yes") as socket:
        redis = Redis(unix_socket_path=str(socket))
        redis.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        until = time.monotonic() + 10
        while b"cluster_state:ok" not in redis.execute_command("CLUSTER", "INFO"):
            assert time.monotonic() < until
            await asyncio.sleep(0.05)
        users = [uuid4().hex for _ in range(9)]
        async with open_store(Settings(redis_url=f"unix://{socket}", data_dir=tmp_path)) as store:
            for number, user_id in enumerate(users):
                await add(store.histories, user_id, answers(0, number))
            first = await asyncio.gather(*(store.states.stand(u, RULE) for u in users))
            for user_id, standing in zip(users, first, strict=True):
                store.states.keep(user_id, RULE, standing, b"abcd")
            await store.states.aclose()
            second = await asyncio.gather(*(store.states.stand(u, RULE) for u in users))
            together = await store.states.stand_all(users, RULE)

    assert [s.total for s in first] == list(range(9))
    assert [s.state for s in second] == [b""] + [b"abcd"] * 8
    assert [s.state for s in together.each()] == [b""] + [b"abcd"] * 8


async def test_what_the_caller_holds_takes_the_place_of_a_state(store):
    """Only what came after it is read, and the one before that gives the first lag."""
    user_id, rule = uuid4().hex, replace(RULE, whole_window=True)
    await add(store.histories, user_id, answers(0, 5))
    before = await kept(store, user_id, rule)

    held = Known(before.history, 0, 3)
    standing = await store.states.stand(user_id, rule, held)

    assert standing.is_known
    assert (standing.start, standing.seen, standing.new, standing.state) == (0, 3, 2, b"")
    assert asked_ms(standing) == [2000, 3000, 4000]


@pytest.mark.parametrize(
    "other",
    [{"history": b"abcd"}, {"start": 1}, {"seen": 6}, {"history": b""}],
    ids=["another history", "another window", "more than there is", "none"],
)
async def test_what_the_caller_holds_of_something_else_does_not_fit(store, other):
    """The kept state is found as if there were nothing held."""
    user_id, rule = uuid4().hex, replace(RULE, whole_window=True)
    await add(store.histories, user_id, answers(0, 5))
    before = await kept(store, user_id, rule)

    held = Known(before.history, 0, 3)._replace(**other)
    standing = await store.states.stand(user_id, rule, held)

    assert not standing.is_known
    assert (standing.state, standing.new, len(standing.interactions)) == (b"abcd", 0, 5)


async def test_what_is_held_of_a_forgotten_user_does_not_fit(store):
    """Not even when somebody of the same name has answered as much again."""
    user_id = uuid4().hex
    await add(store.histories, user_id, answers(0, 3))
    before = await store.states.stand(user_id, RULE)
    held = Known(before.history, 0, 3)
    await store.histories.forget(user_id)

    nobody = await store.states.stand(user_id, RULE, held)
    await add(store.histories, user_id, answers(0, 3))
    standing = await store.states.stand(user_id, RULE, held)

    assert not nobody.is_known
    assert not standing.is_known
    assert (standing.new, standing.total) == (3, 3)
