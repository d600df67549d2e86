"""On what terms a history is changed: in one version, and once for a call that comes again."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from app.errors import HistoryChanged, IdempotencyKeyReused
from app.store.histories import NO_HISTORY, Amendment, Terms, Version
from app.store.keys import CALLS, user_key
from tests.app.store.test_histories import add, answers

pytestmark = pytest.mark.anyio


# -- versions ----------------------------------------------------------------------------------


async def test_a_version_names_a_state_of_a_history(histories):
    """It is the same wherever it is read, and another after each answer and each new beginning."""
    user_id = uuid4().hex
    before = (await histories.read(user_id, 10)).version
    first = (await add(histories, user_id, answers(0, 3))).version
    read, paged = await histories.read(user_id, 2), await histories.page(user_id, 1, 1)
    second = (await add(histories, user_id, answers(3, 4))).version
    await histories.forget(user_id)
    anew = (await add(histories, user_id, answers(0, 4))).version

    assert before == NO_HISTORY
    assert first == read.version == paged.version
    assert (first.name, first.total + 1) == (second.name, second.total)
    assert anew.name != second.name
    assert anew.total == second.total


async def test_of_many_who_mean_the_same_version_one_comes_through(histories):
    """The others are told, and nothing of theirs is kept."""
    user_id = uuid4().hex
    version = (await add(histories, user_id, answers(0, 3))).version

    done = await asyncio.gather(
        *(add(histories, user_id, answers(3, 5), Terms(meant=[version])) for _ in range(50)),
        return_exceptions=True,
    )

    assert sum(isinstance(one, HistoryChanged) for one in done) == 49
    assert (await histories.read(user_id, 100)).length == 5


@pytest.mark.parametrize(
    ("terms", "of_nobody", "of_somebody"),
    [
        (Terms(meant="*"), False, True),
        (Terms(meant=[NO_HISTORY]), True, False),
        (Terms(meant=[]), False, False),
        (Terms(meant=[Version(b"abcd", 3)]), False, False),
        (Terms(not_meant="*"), True, False),
        (Terms(not_meant=[NO_HISTORY]), False, True),
        (Terms(not_meant=[Version(b"abcd", 3)]), True, True),
        (Terms(meant=[NO_HISTORY], not_meant="*"), True, False),
    ],
)
async def test_terms_can_tell_a_new_user_from_a_known_one(histories, terms, of_nobody, of_somebody):
    """For the first answers ever, too, there is something to say."""
    nobody, somebody = uuid4().hex, uuid4().hex
    await add(histories, somebody, answers(0, 3))
    for user_id, is_taken in ((nobody, of_nobody), (somebody, of_somebody)):
        before = await histories.read(user_id, 10)
        if is_taken:
            await add(histories, user_id, answers(3, 4), terms)
        else:
            with pytest.raises(HistoryChanged):
                await add(histories, user_id, answers(3, 4), terms)
        assert (await histories.read(user_id, 10)).length == before.length + is_taken


async def test_one_of_several_versions_is_enough(histories):
    """As a list in If-Match says; and one of several is enough to be refused."""
    user_id = uuid4().hex
    version = (await add(histories, user_id, answers(0, 1))).version
    others = [Version(version.name, 7), Version(b"abcd", 1)]

    with pytest.raises(HistoryChanged):
        await add(histories, user_id, answers(1, 2), Terms(not_meant=[*others, version]))
    assert (await add(histories, user_id, answers(1, 2), Terms(meant=[*others, version]))).recorded


@pytest.mark.parametrize("text", ["5f3a09c1-12", "00000000-0", "ffffffff-999999999999999"])
def test_a_version_is_read_as_it_was_written(text):
    """And nothing else is one."""
    assert str(Version.parsed(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "5f3a09c1", "5f3a09c1-", "5F3A09C1-1", "5f3a09c1-01", "5f3a09c1--1", "5f 3a09c-1"),
        *("x-1", "5f3a09c1-9999999999999999", "5f3a09c1-\u0661"),
    ],
)
def test_what_is_no_version_is_none(text):
    """One text a version."""
    assert Version.parsed(text) is None


# -- calls that come again ---------------------------------------------------------------------


async def test_a_call_that_comes_again_is_answered_as_it_was(histories):
    """Whatever has come in between, and whatever it asks to be the case."""
    user_id = uuid4().hex
    version = (await add(histories, user_id, answers(0, 1))).version
    terms = Terms(call_key="k", meant=[version])

    first = await add(histories, user_id, answers(1, 3), terms)
    await add(histories, user_id, answers(3, 4))
    again = await add(histories, user_id, answers(1, 3), terms)

    assert not first.is_repeated
    assert again == first._replace(is_repeated=True)
    assert (await histories.read(user_id, 10)).length == 4


async def test_a_call_that_comes_many_times_at_once_is_done_once(histories):
    """All of them are told the same."""
    user_id = uuid4().hex
    terms = Terms(call_key="k")

    done = await asyncio.gather(*(add(histories, user_id, answers(0, 2), terms) for _ in range(50)))

    assert sum(not one.is_repeated for one in done) == 1
    assert len({one[:-1] for one in done}) == 1
    assert (await histories.read(user_id, 10)).length == 2


async def test_a_key_is_of_one_call_of_one_user(histories):
    """With another body it is refused; of another user it is another one."""
    ours, theirs, terms = uuid4().hex, uuid4().hex, Terms(call_key="k")
    await add(histories, ours, answers(0, 2), terms)

    with pytest.raises(IdempotencyKeyReused):
        await add(histories, ours, answers(0, 3), terms)
    with pytest.raises(IdempotencyKeyReused):
        await histories.amend(ours, 0, Amendment(correct=True), terms)
    assert not (await add(histories, theirs, answers(0, 3), terms)).is_repeated
    assert (await histories.read(ours, 10)).length == 2


async def test_a_refused_call_may_come_again(histories):
    """It has done nothing: its key is still free."""
    user_id = uuid4().hex
    await add(histories, user_id, answers(0, 1))
    with pytest.raises(HistoryChanged):
        await add(histories, user_id, answers(1, 2), Terms(call_key="k", meant=[NO_HISTORY]))

    done = await add(histories, user_id, answers(1, 2), Terms(call_key="k", meant="*"))

    assert (done.recorded, done.is_repeated) == (1, False)


async def test_calls_are_remembered_for_a_day(histories):
    """Each for its own; those that are over make room, and a key may then be used again."""
    user_id = uuid4().hex
    redis, key = histories._client.redis, user_key(CALLS, user_id)
    for number in range(6):
        await add(histories, user_id, answers(number, number + 1), Terms(call_key=f"k{number}"))
    life_s, fields = await redis.ttl(key), await redis.hgetall(key)
    for number in (b"1", b"2", b"3", b"4"):  # for these a day goes by
        for field in (number, fields[number][8:]):
            await redis.hset(key, field, bytes(8) + fields[field][8:])

    again = await add(histories, user_id, answers(7, 9), Terms(call_key="k0"))
    await add(histories, user_id, answers(9, 10), Terms(call_key="k7"))
    still = await add(histories, user_id, answers(5, 6), Terms(call_key="k5"))

    assert 86_000 < life_s <= 86_400
    assert (again.recorded, again.is_repeated) == (2, False)
    assert still.is_repeated
    left = [value for value in (await redis.hgetall(key)).values() if len(value) > 24]
    assert len(left) == 4  # k0 anew, k4, k5, k7


async def test_calls_go_with_their_user(histories):
    """And are of nobody who comes after."""
    user_id, terms = uuid4().hex, Terms(call_key="k")
    await add(histories, user_id, answers(0, 2), terms)
    await histories.forget(user_id)

    assert not (await add(histories, user_id, answers(0, 2), terms)).is_repeated
