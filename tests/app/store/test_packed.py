"""Forms of a history: what goes in comes out, whichever form it is and was kept in."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.records import Answer, records_of
from app.settings import Settings
from app.store.keys import BESIDE, HISTORY, user_key
from app.store.opening import open_store
from app.store.packed import FORMS, WIDEST, packed, unpacked
from app.store.states import StateRule
from models.contract.interaction import INTERACTION
from tests.app.store.conftest import KEEP, a_server, of_before
from tests.app.store.test_histories import add

LATEST_MS, LONGEST_MS = 253_402_300_799_999, 86_400_000
RULE = StateRule(key="of-a-test", length=500, cut=250, whole_window=True, size=0)

drawn_answers = st.lists(
    st.builds(
        Answer,
        question_id=st.sampled_from([f"q{i}" for i in range(9)]),
        correct=st.booleans(),
        asked_ms=st.none() | st.integers(0, LATEST_MS),
        elapsed_ms=st.none() | st.integers(0, LONGEST_MS),
        skill_ids=st.none() | st.lists(st.sampled_from("abc"), min_size=1, max_size=2),
        event_id=st.none() | st.sampled_from([f"e{i}" for i in range(30)]),
    ),
    max_size=12,
)


async def form_of(histories, user_id) -> int:
    return int((await histories._client.redis.getrange(user_key(HISTORY, user_id), 3, 3)).decode())


@given(drawn_answers)
def test_a_packed_record_comes_back_as_it_was(answers):
    """Every field of every interaction that a caller can report."""
    interactions = records_of(answers).interactions

    assert unpacked(packed(interactions), WIDEST).tobytes() == interactions.tobytes()


def test_a_record_takes_eighteen_bytes_and_eight_for_what_is_named():
    """Skills and events cost those who name them."""
    assert {f: d.itemsize for f, d in FORMS.items()} == {1: 40, 2: 18, 3: 26, 4: 26, 5: 34}


@pytest.mark.parametrize(
    ("field", "value"), [("asked_ms", -2), ("asked_ms", 1 << 48), ("elapsed_ms", (1 << 31) - 1)]
)
def test_a_time_that_would_come_back_as_another_is_refused(field, value):
    """Nothing is stored in its place."""
    interactions = np.zeros(1, INTERACTION)
    interactions[field] = value

    with pytest.raises(ValueError, match=f"{field} does not fit"):
        packed(interactions)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("more", "form"),
    [
        ({}, 2),
        ({"skill_ids": ["a"]}, 3),
        ({"event_id": "e"}, 4),
        ({"skill_ids": ["a", "b"], "event_id": "e"}, 5),
    ],
)
async def test_a_history_is_as_wide_as_what_it_holds(histories, more, form):
    """And grows wider with the first answer that needs it, whatever it holds already."""
    plain = [Answer(question_id=f"q{i}", correct=i % 2 == 0, asked_ms=i) for i in range(4)]
    wide = [Answer(question_id="q9", correct=True, elapsed_ms=7, **more)]
    user_id = uuid4().hex

    await add(histories, user_id, plain)
    narrow = await form_of(histories, user_id)
    await add(histories, user_id, wide)
    await add(histories, user_id, plain)

    stored = await histories.read(user_id, 100)
    assert (narrow, await form_of(histories, user_id)) == (2, form)
    expected = records_of([*plain, *wide, *plain]).interactions
    assert stored.interactions.tobytes() == expected.tobytes()


@pytest.mark.anyio
@pytest.mark.parametrize("name", [b"\0\0\0\0", b"abcd"])
@pytest.mark.parametrize("more", [{}, {"skill_ids": ["a"]}, {"event_id": "e"}])
async def test_a_history_of_before_is_read_and_gone_on_with(store, name, more):
    """Its answers, their number, and its events are what they were."""
    histories, user_id = store.histories, uuid4().hex
    old = records_of(
        [Answer(question_id=f"q{i}", correct=i % 2 == 0, elapsed_ms=i or None) for i in range(3)]
        + [Answer(question_id="q", correct=True, asked_ms=LATEST_MS, **more)]
    ).interactions
    await histories._client.redis.set(user_key(HISTORY, user_id), of_before(old, name, dropped=5))

    before = await histories.read(user_id, 100)
    standing = await store.states.stand(user_id, RULE)
    done = await add(histories, user_id, [Answer(question_id="new", correct=False, event_id="e")])
    after = await histories.read(user_id, 100)

    assert before.interactions.tobytes() == standing.interactions.tobytes() == old.tobytes()
    assert (before.dropped, standing.total) == (5, 9)
    is_known = "event_id" in more
    assert (done.recorded, done.duplicates) == ((0, 1) if is_known else (1, 0))
    assert after.interactions[:4].tobytes() == old.tobytes()
    assert (after.dropped, after.length) == (5, 4 + done.recorded)
    named = (await store.states.stand(user_id, RULE)).history
    assert named == name if name.strip(b"\0") or is_known else named.strip(b"\0")


@pytest.mark.anyio
@pytest.mark.parametrize("count", [1, 8, 9, 19])
async def test_an_event_is_found_however_many_come(histories, count):
    """A few are searched for, many are looked up; bytes that only look like one are none."""
    user_id = uuid4().hex
    events = [
        Answer(question_id=f"q{i}", correct=True, event_id=f"e{i}", skill_ids=["s"])
        for i in range(19)
    ]
    # The key of its question and of its skill is that of an event that nobody has sent.
    events[4] = Answer(question_id="e99", correct=True, event_id="e4", skill_ids=["e99"])
    await add(histories, user_id, events)

    again = await add(histories, user_id, events[-count:])
    new = await add(histories, user_id, [Answer(question_id="q", correct=True, event_id="e99")])

    assert again[:3] == (0, count, 19)
    assert new[:3] == (1, 0, KEEP)


@pytest.mark.anyio
async def test_users_of_every_form_are_read_together(store):
    """Each has his own answers, in the order of the users."""
    kinds = [{}, {"skill_ids": ["a"]}, {"event_id": "e"}, {"skill_ids": ["a"], "event_id": "e"}]
    users = {uuid4().hex: kinds[n % 4] for n in range(12)}
    written = {}
    for n, (user_id, more) in enumerate(users.items()):
        answers = [Answer(question_id=f"q{i}", correct=True, asked_ms=i) for i in range(n)]
        if n % 5:
            answers.append(Answer(question_id="last", correct=False, **more))
        written[user_id] = records_of(answers).interactions
        if answers:
            await add(store.histories, user_id, answers)
    of_before_id = uuid4().hex
    written[of_before_id] = records_of([Answer(question_id="q", correct=True)] * 3).interactions
    await store.histories._client.redis.set(
        user_key(HISTORY, of_before_id), of_before(written[of_before_id])
    )

    together = (await store.states.stand_all([*written], RULE)).each()
    apart = await asyncio.gather(*(store.states.stand(u, RULE) for u in written))

    for standings in (together, apart):
        for standing, expected in zip(standings, written.values(), strict=True):
            assert standing.interactions.tobytes() == expected.tobytes()


@pytest.mark.anyio
async def test_a_history_takes_no_more_room_than_its_records(store):
    """However it was written; and nothing is left beside it."""
    redis = store.histories._client.redis
    answers = [Answer(question_id=f"q{i}", correct=True) for i in range(KEEP)]
    one_by_one, at_once = uuid4().hex, uuid4().hex
    for answer in answers:
        await add(store.histories, one_by_one, [answer])
    await add(store.histories, at_once, answers)

    for user_id in (one_by_one, at_once):
        used = await redis.memory_usage(user_key(HISTORY, user_id), samples=0)
        assert used < 24 + 18 * KEEP + 150  # header, records, the name of the key
        assert not await redis.exists(user_key(BESIDE, user_id))


@pytest.mark.anyio
@pytest.mark.parametrize("command", ["COPY", "RENAME"])
async def test_a_server_without_a_command_keeps_histories_all_the_same(command):
    """An old one, or one whose operator has taken it away; nothing is left beside a history."""
    with a_server("--rename-command", command, "") as socket:
        async with open_store(Settings(redis_url=f"unix://{socket}")) as store:
            for number in range(3):
                await add(store.histories, "u", [Answer(question_id=f"q{number}", correct=True)])

            assert (await store.histories.read("u", 10)).length == 3
            assert not await store.histories._client.redis.exists(user_key(BESIDE, "u"))
