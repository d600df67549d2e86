"""How kept answers are changed: in place, and by answers that come late."""

from __future__ import annotations

from dataclasses import replace
from uuid import uuid4

import pytest

from app.errors import AnswerLate, HistoryChanged, IdempotencyKeyReused, InteractionUnknown
from app.records import Answer, records_of
from app.store.histories import Amendment, Terms, Version
from app.store.keys import HISTORY, user_key
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
