"""What both stores promise. Users are drawn anew for each test: one server serves many."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import numpy as np
import pytest

from app.errors import StoreCorrupt
from app.records import Answer, records_of
from app.store.histories import FREELY, Recorded, Terms
from app.store.redis_histories import RedisHistories

KEEP = 20

pytestmark = pytest.mark.anyio


def answers(first: int, last: int, *, events: bool = False) -> list[Answer]:
    """Answers number first..last-1, each to a question of its own."""
    return [
        Answer(
            question_id=f"q{i}",
            correct=i % 3 == 0,
            asked_ms=1_000 * i,
            event_id=f"e{i}" if events else None,
        )
        for i in range(first, last)
    ]


async def add(
    histories: RedisHistories, user_id: str, given: list[Answer], terms: Terms = FREELY
) -> Recorded:
    records = records_of(given)
    return await histories.append(user_id, records.interactions, records.texts, terms)


async def test_what_was_appended_is_read_back(histories):
    """Bytes in, the same bytes out, oldest first."""
    user_id, records = uuid4().hex, records_of(answers(0, 7))
    done = await histories.append(user_id, records.interactions, records.texts)

    stored = await histories.read(user_id, 100)

    assert done[:3] == (7, 0, 7)
    assert stored.interactions.tobytes() == records.interactions.tobytes()
    assert (stored.dropped, stored.length) == (0, 7)


async def test_a_new_user_has_an_empty_history(histories):
    """Nothing is not an error."""
    stored = await histories.read(uuid4().hex, 10)

    assert stored.is_empty
    assert stored.dropped == 0


async def test_only_the_newest_are_read_where_fewer_are_asked_for(histories):
    """Those not read are counted as dropped: windows count from the very first answer."""
    user_id = uuid4().hex
    await add(histories, user_id, answers(0, 9))

    stored = await histories.read(user_id, 4)

    assert stored.interactions["asked_ms"].tolist() == [5000, 6000, 7000, 8000]
    assert (stored.dropped, stored.length) == (5, 9)


@pytest.mark.parametrize("step", [1, 3, 7, 20, 33])
async def test_a_history_never_shows_more_than_is_kept(histories, step):
    """However answers come, the newest `keep` are there, and the rest is counted."""
    user_id = uuid4().hex
    for first in range(0, 99, step):
        done = await add(histories, user_id, answers(first, min(first + step, 99)))
        stored = await histories.read(user_id, 1000)

        total = min(first + step, 99)
        assert done.length == stored.length == min(total, KEEP)
        assert stored.dropped == total - stored.length
        assert stored.interactions["asked_ms"][-1] == 1000 * (total - 1)


async def test_an_event_is_recorded_once(histories):
    """Sent again, alone or among new ones or twice in one call, it is left out and counted."""
    user_id = uuid4().hex
    await add(histories, user_id, answers(0, 5, events=True))

    again = await add(histories, user_id, answers(3, 7, events=True) + answers(6, 7, events=True))

    assert again[:3] == (2, 3, 7)
    stored = await histories.read(user_id, 100)
    assert stored.interactions["asked_ms"].tolist() == [1000 * i for i in range(7)]


async def test_answers_without_an_event_are_all_recorded(histories):
    """The same answer twice is two answers: learners do repeat themselves."""
    user_id = uuid4().hex
    await add(histories, user_id, answers(0, 2))
    again = await add(histories, user_id, answers(0, 2))

    assert again[:3] == (2, 0, 4)


async def test_a_hundred_writers_lose_and_double_nothing(histories):
    """Each answer is there exactly once, and each call's answers stand together."""
    user_id = uuid4().hex
    done = await asyncio.gather(
        *(add(histories, user_id, answers(2 * i, 2 * i + 2, events=True)) for i in range(10)),
        *(add(histories, user_id, answers(2 * i, 2 * i + 2, events=True)) for i in range(10)),
    )

    stored = await histories.read(user_id, 100)
    seen = (stored.interactions["asked_ms"] // 1000).tolist()
    assert sorted(seen) == list(range(20))
    assert all(b == a + 1 for a, b in zip(seen[::2], seen[1::2], strict=True))
    assert sum(d.recorded for d in done) == sum(d.duplicates for d in done) == 20


async def test_pages_walk_through_the_whole_history(histories):
    """Every kept interaction comes once, in order, numbered from the user's first."""
    user_id = uuid4().hex
    await add(histories, user_id, answers(0, 31))
    numbers, start = [], 0
    while start is not None:
        page = await histories.page(user_id, start, 6)
        numbers += (page.interactions["asked_ms"] // 1000).tolist()
        assert page.first == numbers[-len(page.interactions)]
        start = page.next

    assert numbers == list(range(11, 31))


async def test_a_page_past_the_end_is_empty(histories):
    """Whoever polls for news asks from beyond the newest."""
    user_id = uuid4().hex
    await add(histories, user_id, answers(0, 3))

    page = await histories.page(user_id, 3, 10)

    assert len(page.interactions) == 0
    assert (page.next, page.length) == (None, 3)


async def test_texts_are_kept_behind_their_keys(histories):
    """Outside ids come back, of any language; keys never met are left out."""
    records = records_of([Answer(question_id="Frage-ü", correct=True, skill_ids=["b", "a"])])
    await histories.append(uuid4().hex, records.interactions, records.texts)

    found = await histories.texts([*records.texts, 12345])

    assert found == records.texts
    assert "Frage-ü" in found.values()


async def test_a_forgotten_user_is_new(histories):
    """And forgetting nobody says so."""
    user_id = uuid4().hex
    await add(histories, user_id, answers(0, 3, events=True))

    assert await histories.forget(user_id) is True
    assert await histories.forget(user_id) is False
    assert (await histories.read(user_id, 10)).is_empty
    assert (await add(histories, user_id, answers(0, 3, events=True))).recorded == 3


async def test_users_do_not_meet(histories):
    """Braces, spaces and percent signs in an id are part of it."""
    users = [f"{uuid4().hex}{tail}" for tail in ("", "}", "{x}", " ", "%s")]
    for n, user_id in enumerate(users, 1):
        await add(histories, user_id, answers(0, n))

    lengths = [(await histories.read(u, 100)).length for u in users]

    assert lengths == [1, 2, 3, 4, 5]


async def test_a_value_of_another_kind_is_refused(histories):
    """Neither read as a history nor written over."""
    user_id = uuid4().hex
    await histories._client.redis.set(f"kt:h1:{{{user_id}}}", b"something else entirely")

    with pytest.raises(StoreCorrupt):
        await histories.read(user_id, 10)
    with pytest.raises(StoreCorrupt):
        await add(histories, user_id, answers(0, 1))


async def test_a_server_without_our_scripts_is_given_them(histories):
    """As after a failover or a restart: nobody notices."""
    user_id = uuid4().hex
    await histories._client.redis.script_flush()
    await add(histories, user_id, answers(0, 2))
    await histories._client.redis.script_flush()

    assert (await histories.read(user_id, 10)).length == 2
    assert len(await histories.texts(records_of(answers(0, 2)).texts)) == 2


async def test_a_caller_who_leaves_spoils_no_connection(histories):
    """What comes after is one's own answer, not the one that was given up on."""
    ours, theirs = uuid4().hex, uuid4().hex
    await add(histories, theirs, answers(50, 60))
    await add(histories, ours, answers(0, 4))
    for _ in range(50):
        task = asyncio.create_task(histories.read(theirs, 10))
        await asyncio.sleep(0)
        task.cancel()
        stored = await histories.read(ours, 10)

        assert np.array_equal(stored.interactions["asked_ms"], [0, 1000, 2000, 3000])


async def test_the_store_says_that_it_takes_writes(histories):
    """A ping returns, and leaves no history behind."""
    await histories.ping()

    assert histories.describe()["kind"] in ("redis", "embedded")
