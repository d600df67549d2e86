"""How histories are changed: on terms, again, in place, late; and how they are gone."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from uuid import uuid4

import pytest

from app.errors import AnswerLate, HistoryChanged, IdempotencyKeyReused, InteractionUnknown
from app.records import Answer, records_of
from app.store.histories import NO_HISTORY, Amendment, Terms, Version
from app.store.keys import BESIDE, CALLS, HISTORY, STATES, user_key
from app.store.packed import packed
from models.contract.interaction import UNKNOWN_MS
from tests.app.store.conftest import KEEP, of_before
from tests.app.store.test_histories import add, answers
from tests.app.store.test_states import RULE, kept

pytestmark = pytest.mark.anyio


async def asked_ms(histories, user_id) -> list[int]:
    return (await histories.read(user_id, 1000)).interactions["asked_ms"].tolist()


def at(*times: int | None) -> list[Answer]:
    """Answers to questions asked at these seconds."""
    return [
        Answer(question_id="q", correct=True, asked_ms=None if t is None else 1000 * t)
        for t in times
    ]


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


# -- corrections -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [{}, {"skill_ids": ["a"]}, {"event_id": "e"}, {"skill_ids": ["a"], "event_id": "e"}],
)
@pytest.mark.parametrize(
    ("amendment", "changed"),
    [
        (Amendment(correct=False), {"correct": False}),
        (Amendment(asked_ms=9_999_999_999_999), {"asked_ms": 9_999_999_999_999}),
        (Amendment(elapsed_ms=0), {"elapsed_ms": 0}),
        (
            Amendment(asked_ms=UNKNOWN_MS, elapsed_ms=UNKNOWN_MS),
            {"asked_ms": None, "elapsed_ms": None},
        ),
        (
            Amendment(True, 0, 86_400_000),
            {"correct": True, "asked_ms": 0, "elapsed_ms": 86_400_000},
        ),
    ],
)
async def test_an_amended_answer_says_what_it_should_have_said(histories, more, amendment, changed):
    """And every other one what it said before."""
    user_id = uuid4().hex
    given = answers(0, 5)
    given[3] = Answer(question_id="q", correct=True, asked_ms=3000, elapsed_ms=7, **more)
    before = await add(histories, user_id, given)

    done = await histories.amend(user_id, 3, amendment)

    given[3] = replace(given[3], **changed)
    expected = records_of(given).interactions
    stored = await histories.read(user_id, 10)
    assert stored.interactions.tobytes() == expected.tobytes()
    assert done.interactions.tobytes() == expected[3:4].tobytes()
    assert stored.version == done.version
    assert (done.version.name != before.version.name, done.version.total) == (True, 5)


async def test_only_what_is_kept_can_be_amended(histories):
    """Not what was dropped, nor what never was, nor anything of a new user."""
    user_id = uuid4().hex
    version = (await add(histories, user_id, answers(0, KEEP + 3))).version
    for who, number in ((user_id, 2), (user_id, KEEP + 3), (user_id, 2**53), (uuid4().hex, 0)):
        with pytest.raises(InteractionUnknown):
            await histories.amend(who, number, Amendment(correct=True))

    assert (await histories.read(user_id, 1)).version == version
    done = await histories.amend(user_id, 3, Amendment(asked_ms=1))
    assert done.interactions["asked_ms"].tolist() == [1]
    assert (await asked_ms(histories, user_id))[:2] == [1, 4000]


async def test_an_amendment_keeps_terms_and_comes_once(histories):
    """As answers do."""
    user_id = uuid4().hex
    version = (await add(histories, user_id, answers(0, 3))).version
    terms = Terms(meant=[version], call_key="k")
    done = await histories.amend(user_id, 1, Amendment(correct=True), terms)
    again = await histories.amend(user_id, 1, Amendment(correct=True), terms)

    with pytest.raises(HistoryChanged):
        await histories.amend(user_id, 1, Amendment(correct=False), Terms(meant=[version]))
    with pytest.raises(IdempotencyKeyReused):
        await histories.amend(user_id, 2, Amendment(correct=True), terms)
    assert again.version == done.version == (await histories.read(user_id, 1)).version
    assert again.interactions.tobytes() == done.interactions.tobytes()
    assert (done.is_repeated, again.is_repeated) == (False, True)


async def test_a_state_of_what_was_amended_is_of_another_history(store):
    """Neither the one that is kept, nor one that comes later, nor what a caller holds."""
    user_id = uuid4().hex
    await add(store.histories, user_id, answers(0, 3))
    before = await kept(store, user_id)
    await store.histories.amend(user_id, 0, Amendment(correct=False))
    after = await store.states.stand(user_id, RULE)

    store.states.keep(user_id, RULE, before, b"late")
    await store.states.aclose()

    assert (await store.states.stand(user_id, RULE)).state == after.state == b""
    await kept(store, user_id)
    assert (await store.states.stand(user_id, RULE)).state == b"abcd"


@pytest.mark.parametrize("name", [b"\0\0\0\0", b"abcd"])
async def test_a_history_of_before_can_be_amended(histories, name):
    """It is packed by the way."""
    user_id = uuid4().hex
    given = [*answers(0, 3), Answer(question_id="q", correct=True, skill_ids=["a"], event_id="e")]
    old = records_of(given).interactions
    await histories._client.redis.set(user_key(HISTORY, user_id), of_before(old, name, dropped=5))

    done = await histories.amend(user_id, 8, Amendment(asked_ms=77))
    again = await add(histories, user_id, [given[-1]])

    expected = old.copy()
    expected["asked_ms"][3] = 77
    assert (await histories.read(user_id, 10)).interactions.tobytes() == expected.tobytes()
    assert again[:3] == (0, 1, 4)
    assert done.version.name not in (name, bytes(4))


# -- late answers ------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["append", "refuse", "insert"])
async def test_late_answers_are_kept_by_the_rule(opened, rule):
    """As they arrived, not at all, or where they belong: after those of the same time."""
    histories, user_id = (await opened(late_answers=rule)).histories, uuid4().hex
    before = (await add(histories, user_id, at(1, 5, None, 5, 9))).version
    done = add(histories, user_id, at(9, 5, None, 0, 10))

    if rule == "refuse":
        with pytest.raises(AnswerLate) as caught:
            await done
        assert caught.value.late == 2
        assert (await histories.read(user_id, 1)).version == before
    else:
        recorded = await done
        assert (recorded.recorded, recorded.late, recorded.length) == (5, 2, 10)
        assert (recorded.version.name == before.name) == (rule == "append")
        assert recorded.version == (await histories.read(user_id, 1)).version
    found = [None if ms < 0 else ms // 1000 for ms in await asked_ms(histories, user_id)]
    assert (
        found
        == {
            "append": [1, 5, None, 5, 9, 9, 5, None, 0, 10],
            "refuse": [1, 5, None, 5, 9],
            "insert": [0, 1, 5, None, 5, 5, 9, 9, None, 10],
        }[rule]
    )


@pytest.mark.parametrize("rule", ["append", "insert"])
async def test_the_newest_time_is_known_however_answers_come(opened, rule):
    """Behind answers of no time, after it was dropped, and after it was corrected."""
    histories, user_id = (await opened(late_answers=rule)).histories, uuid4().hex

    async def late(*times: int | None) -> int:
        return (await add(histories, user_id, at(*times))).late

    assert await late(None) == 0
    assert await late(50, None, None) == 0
    assert await late(49) == 1
    assert await late(50) == 0
    assert await late(*[None] * (KEEP - 4)) == 0
    assert await late(49) == 1
    assert await late(*[None] * 2 * KEEP) == 0
    assert await late(49) == 0  # what is there no more makes nobody late
    total = (await histories.read(user_id, 1)).version.total
    await add(histories, user_id, at(100))
    await histories.amend(user_id, total, Amendment(asked_ms=60_000))
    assert await late(70, 80) == 0
    assert await late(79) == 1


async def test_an_insertion_within_a_call_leaves_what_was_there(opened):
    """States of it still fit: it has only grown at its end."""
    store, user_id = await opened(late_answers="insert"), uuid4().hex
    await add(store.histories, user_id, at(1, 2))
    await kept(store, user_id)
    done = await add(store.histories, user_id, at(9, 5))

    standing = await store.states.stand(user_id, RULE)

    assert (done.late, standing.state, standing.new) == (1, b"abcd", 2)
    assert await asked_ms(store.histories, user_id) == [1000, 2000, 5000, 9000]


async def test_a_state_of_what_was_there_before_an_insertion_does_not_fit(opened):
    """It has not seen what stands before its end now."""
    store, user_id = await opened(late_answers="insert"), uuid4().hex
    await add(store.histories, user_id, at(1, 5))
    await kept(store, user_id)
    await add(store.histories, user_id, at(3))

    standing = await store.states.stand(user_id, RULE)

    assert (standing.state, standing.new) == (b"", 3)


async def test_insertions_keep_events_skills_and_what_is_kept(opened):
    """However wide the records are, and however many are too many."""
    histories, user_id = (await opened(late_answers="insert")).histories, uuid4().hex
    wide = [
        Answer(question_id=f"q{t}", correct=True, asked_ms=t, event_id=f"e{t}", skill_ids=["s"])
        for t in range(1, 4 * KEEP, 2)
    ]
    for answer in reversed(wide):
        await add(histories, user_id, [answer])
    again = await add(histories, user_id, wide[-3:])

    stored = await histories.read(user_id, 1000)

    assert again.duplicates == 3
    assert stored.interactions.tobytes() == records_of(wide[-KEEP:]).interactions.tobytes()
    assert stored.version.total == len(wide)


async def test_a_late_answer_that_is_there_already_is_no_late_one(opened):
    """To send an event again is harmless under every rule."""
    histories, user_id = (await opened(late_answers="refuse")).histories, uuid4().hex
    await add(histories, user_id, answers(0, 5, events=True))

    done = await add(histories, user_id, answers(2, 4, events=True))

    assert (done.recorded, done.duplicates, done.late) == (0, 2, 0)


async def test_histories_of_before_know_their_newest_time(opened):
    """Those of 40 bytes an answer, and those of 16 bytes of header."""
    store = await opened(late_answers="refuse")
    histories, old = store.histories, records_of(at(3, 9, 5)).interactions
    in_form_5 = b"KTH5abcd" + bytes(8) + packed(old)
    for value in (of_before(old, b"abcd"), in_form_5):
        user_id = uuid4().hex
        await histories._client.redis.set(user_key(HISTORY, user_id), value)
        read, standing = await histories.read(user_id, 10), await store.states.stand(user_id, RULE)
        assert read.interactions.tobytes() == standing.interactions.tobytes() == old.tobytes()

        with pytest.raises(AnswerLate):
            await add(histories, user_id, at(8))
        done = await add(histories, user_id, at(9))
        with pytest.raises(AnswerLate):
            await add(histories, user_id, at(8))

        assert done.version == Version(b"abcd", 4)
        assert await asked_ms(histories, user_id) == [3000, 9000, 5000, 9000]


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
