"""What a store promises of forecasts: each is compared once, with the answer that it was of."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from functools import partial
from uuid import uuid4

import numpy as np
import pytest

from app.errors import StoreFull, StoreUnavailable
from app.records import Answer
from app.settings import Settings
from app.store import redis_outcomes
from app.store.histories import Terms
from app.store.keys import FORECASTS, OUTCOMES, user_key
from app.store.opening import open_store
from app.store.outcomes import FORECAST, KEPT_FORECAST
from app.store.redis_histories import RedisHistories
from app.store.redis_outcomes import RedisOutcomes
from benchmarks.stores import clustered, one_server
from models.contract.interaction import key_of
from tests.app.store.conftest import KEEP, killed_at_its_40th_answer
from tests.app.store.proxy import a_proxy
from tests.app.store.test_faults import in_time, opened
from tests.app.store.test_histories import add

pytestmark = pytest.mark.anyio


def a_model() -> int:
    """A key that no other test has."""
    return key_of(uuid4().hex)


def forecast(model: int, question: str, p: float, *, length: int = 0) -> bytes:
    return np.array([(key_of(question), model, p, 3, 2, length, 0)], FORECAST).tobytes()


def note(store, user_id: str, model: int, question: str, p: float, *, length: int = 0) -> None:
    store.outcomes.note(user_id, model, forecast(model, question, p, length=length))


async def record(store, user_id: str, *answers: tuple[str, bool], **more):
    """Record answers, question and whether it was right, under event ids where there are any."""
    events = more.get("events", [None] * len(answers))
    made = [
        Answer(question_id=q, correct=c, event_id=e)
        for (q, c), e in zip(answers, events, strict=True)
    ]
    return await add(store.histories, user_id, made, more.get("terms", Terms()))


async def found(store, model: int) -> list[tuple[float, int]]:
    """What was said, and what was answered."""
    table = (await store.outcomes.outcomes(model)).table
    return [(round(p, 4), right) for p, right in table[["p_correct", "right"]].tolist()]


# -- one after the other ---------------------------------------------------------------------------


async def test_a_forecast_is_compared_with_the_answer(store):
    """Though nobody has waited for it to be kept, and with what it was asked on."""
    user_id, model = uuid4().hex, a_model()
    note(store, user_id, model, "q1", 0.25)

    await record(store, user_id, ("q2", False), ("q1", True), ("q1", False))
    outcomes = await store.outcomes.outcomes(model)

    assert await found(store, model) == [(0.25, 1)]
    assert outcomes.total == 1
    assert outcomes.table[["skill", "lag", "length"]].tolist() == [(3, 2, 0)]


async def test_the_newest_forecast_of_each_model_counts(store):
    """Others of the question are gone with it; those of another question wait on."""
    user_id, one, other = uuid4().hex, a_model(), a_model()
    note(store, user_id, one, "q1", 0.1)
    note(store, user_id, other, "q1", 0.2)
    await store.outcomes.aclose()
    note(store, user_id, one, "q1", 0.3)
    note(store, user_id, one, "q2", 0.4)

    await record(store, user_id, ("q1", True))
    await record(store, user_id, ("q1", False))
    waiting = (await store.histories.everything(user_id)).forecasts

    assert (await found(store, one), await found(store, other)) == ([(0.3, 1)], [(0.2, 1)])
    assert waiting["p_correct"].round(4).tolist() == [np.float32(0.4).round(4)]


async def test_what_is_not_recorded_is_compared_with_nothing(store):
    """An event that is there already, a call that comes again, a history that has changed."""
    user_id, model = uuid4().hex, a_model()
    await record(store, user_id, ("q1", True), events=["e1"])
    terms = Terms(call_key="k")
    await record(store, user_id, ("q1", True), terms=terms)
    note(store, user_id, model, "q1", 0.5)

    mixed = await record(store, user_id, ("q1", True), ("q2", True), events=["e1", "e0"])
    again = await record(store, user_id, ("q1", True), terms=terms)

    assert (mixed.recorded, mixed.duplicates, again.is_repeated) == (1, 1, True)
    assert await found(store, model) == []
    await record(store, user_id, ("q1", False), events=["e2"], terms=Terms(call_key="l"))
    again = await record(store, user_id, ("q1", False), events=["e2"], terms=Terms(call_key="l"))
    assert (again.recorded, again.is_repeated) == (1, True)
    assert await found(store, model) == [(0.5, 0)]


async def test_a_late_answer_that_is_put_where_it_belongs_is_compared(store):
    """It is an answer as any other."""
    user_id, model = uuid4().hex, a_model()
    inserting = RedisHistories(
        store.histories._client, KEEP, "redis", late="insert", outcomes=store.outcomes
    )
    await add(inserting, user_id, [Answer(question_id="q2", correct=True, asked_ms=2000)])
    note(store, user_id, model, "q1", 0.5, length=1)

    await add(inserting, user_id, [Answer(question_id="q1", correct=True, asked_ms=1000)])

    assert await found(store, model) == [(0.5, 1)]


@pytest.mark.parametrize("begins", ["", "}"], ids=["a name", "a name that closes a brace"])
async def test_nothing_is_left_of_a_forgotten_user(store, begins):
    """Not of what was kept, nor of what waited to be; outcomes name no user and stay."""
    name, model = uuid4().hex, a_model()
    user_id = begins + name
    note(store, user_id, model, "q1", 0.5)
    await record(store, user_id, ("q1", True))
    note(store, user_id, model, "q1", 0.6, length=1)
    await store.outcomes.aclose()
    note(store, user_id, model, "q2", 0.7, length=1)

    await store.histories.forget(user_id)
    await store.outcomes.aclose()
    left = await store.histories._client.redis.keys(f"kt:*{name}*")

    assert left == []
    assert await found(store, model) == [(0.5, 1)]


async def test_a_forecast_outlives_no_history(redis_socket):
    """One that a server keeps too late: another one has forgotten the user."""
    given = Settings(redis_url=f"unix://{redis_socket}")
    user_id, model = uuid4().hex, a_model()
    async with open_store(given) as one, open_store(given) as other:
        await record(one, user_id, ("q1", True))
        note(one, user_id, model, "q1", 0.5, length=1)

        await other.histories.forget(user_id)
        await one.outcomes.aclose()
        left = await one.histories._client.redis.keys(f"kt:*{user_id}*")

    assert left == []


async def test_a_ring_holds_the_newest(store):
    """Over its own beginning, in order; what went before is counted."""
    model, told = a_model(), Counter()
    client = store.histories._client
    outcomes = RedisOutcomes(client, 60, lambda what, n: told.update({what: n}), most=8)
    histories = RedisHistories(client, KEEP, "redis", outcomes=outcomes)
    user_id = uuid4().hex
    for number in range(21):
        outcomes.note(user_id, model, forecast(model, f"q{number}", number / 100))
    for first, last in ((0, 3), (3, 4), (4, 14), (14, 21)):
        answers = [Answer(question_id=f"q{n}", correct=True) for n in range(first, last)]
        await add(histories, user_id, answers)
        newest = await outcomes.outcomes(model)
        expected = [n / 100 for n in range(last)][-8:]

        assert newest.table["p_correct"].round(4).tolist() == np.float32(expected).round(4).tolist()
        assert newest.total == last
    assert told == {"kept": 21, "joined": 21}


async def test_of_a_user_the_newest_forecasts_are_kept(store):
    """However many questions are asked of him in one call."""
    user_id, model = uuid4().hex, a_model()
    store.outcomes.note(
        user_id, model, b"".join(forecast(model, f"q{n}", 0.5) for n in range(3000))
    )
    await store.outcomes.aclose()

    kept = (await store.histories.everything(user_id)).forecasts
    await record(store, user_id, ("q0", True), ("q2999", True))

    assert len(kept) == 1024
    assert kept["question_key"][-1] == key_of("q2999")
    assert await found(store, model) == [(0.5, 1)]


async def test_an_answer_that_too_few_replicas_have_is_compared(opened):
    """It is recorded, and the same answer sent again would be none."""
    user_id, model = uuid4().hex, a_model()
    one = await opened()
    note(one, user_id, model, "q1", 0.5)
    await one.outcomes.aclose()
    client = one.histories._client
    outcomes = RedisOutcomes(client, 60, lambda what, n: None)
    other = RedisHistories(client, KEEP, "redis", min_replicas=1, longest_s=0.1, outcomes=outcomes)

    with pytest.raises(StoreUnavailable, match="recorded, but"):
        await add(other, user_id, [Answer(question_id="q1", correct=True)])

    assert await found(one, model) == [(0.5, 1)]


async def test_a_forecast_that_has_waited_too_long_is_not_compared(opened):
    """By the store's clock; and it waits no longer, for an answer that comes later still."""
    store = await opened(quality_within_s=100)
    user_id, model = uuid4().hex, a_model()
    redis = store.histories._client.redis
    for question, age_s in (("q1", 90), ("q2", 110)):
        note(store, user_id, model, question, age_s / 1000)
        await store.outcomes.aclose()
        await aged(redis, user_id, age_s)

        await record(store, user_id, (question, True))
        await record(store, user_id, (question, False))

    assert await found(store, model) == [(0.09, 1)]


async def aged(redis, user_id: str, seconds: int) -> None:
    """Let so much time go by for all that waits of a user."""
    kept = np.frombuffer(await redis.get(user_key(FORECASTS, user_id)) or b"", KEPT_FORECAST).copy()
    if len(kept):
        kept["noted_s"] -= seconds
        await redis.setrange(user_key(FORECASTS, user_id), 0, kept.tobytes())


class Held:
    """Scripts that are sent when somebody lets them go."""

    def __init__(self, crowd) -> None:
        self.crowd = crowd
        self.has_begun, self.goes_on = asyncio.Event(), asyncio.Event()
        self.trips = 0

    async def run(self, *arguments):
        self.trips += 1
        self.has_begun.set()
        await self.goes_on.wait()
        return await self.crowd.run(*arguments)


@pytest.mark.parametrize("then", ["record", "forget"])
async def test_what_is_on_its_way_is_waited_for(store, then):
    """An answer would not find it; and of a forgotten user it would come too late."""
    user_id, model = uuid4().hex, a_model()
    held = store.outcomes._crowd = Held(store.outcomes._crowd)
    note(store, user_id, model, "q1", 0.5)
    await held.has_begun.wait()
    if then == "record":
        doing = asyncio.create_task(record(store, user_id, ("q1", True)))
    else:
        doing = asyncio.create_task(store.histories.forget(user_id))
    other = await asyncio.wait_for(record(store, uuid4().hex, ("q1", True)), 10)

    held.goes_on.set()
    await doing
    left = (await store.histories.everything(user_id)).forecasts

    assert other.recorded == 1
    assert await found(store, model) == ([(0.5, 1)] if then == "record" else [])
    assert len(left) == 0


async def test_those_who_record_hold_up_nobody_elses_forecasts(store, monkeypatch):
    """Each is kept once and nobody waits for ever, whoever ends first."""
    monkeypatch.setattr(redis_outcomes, "_PAUSE_S", 0)
    first, last, model = uuid4().hex, uuid4().hex, a_model()
    outcomes = store.outcomes
    async with AsyncExitStack() as of_first:
        note(store, last, model, "q1", 0.1)
        async with outcomes.carried(last):
            note(store, first, model, "q1", 0.2)
            note(store, last, model, "q1", 0.3)
            await turns()
            note(store, first, model, "q1", 0.4)
            await of_first.enter_async_context(outcomes.carried(first))
            note(store, first, model, "q1", 0.5)
        await turns()
    await outcomes.aclose()
    done = [record(store, user_id, ("q1", True)) for user_id in (first, last)]
    await asyncio.wait_for(asyncio.gather(*done), 10)

    assert sorted(await found(store, model)) == [(0.3, 1), (0.5, 1)]


async def test_forecasts_of_a_caller_who_leaves_are_counted_once():
    """What he had set going is ended, beside the next recording of the same user."""
    told: Counter = Counter()
    with one_server() as node:
        async with a_proxy(node.port) as (proxy, url):
            given = Settings(redis_url=url)
            async with open_store(given, tell_of_outcomes=partial(count, told)) as store:
                await record(store, "u", ("q0", True))
                proxy.delay_s = 0.3
                note(store, "u", a_model(), "q1", 0.5, length=1)
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(record(store, "u", ("q1", True)), 0.1)
                for question in ("q2", "q3"):
                    note(store, "u", a_model(), question, 0.5, length=1)
                await record(store, "u", ("q2", True))

    assert (told["kept"], told["lost"]) == (3, 0)


async def turns() -> None:
    """Let whatever can go on do so."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_forecasts_are_gone_when_their_time_is_over(opened):
    """By themselves, and a first time of asking is no reason to keep them for longer."""
    store = await opened(quality_within_s=60)
    user_id = uuid4().hex
    note(store, user_id, a_model(), "q1", 0.5)
    await store.outcomes.aclose()

    everything = await store.histories.everything(user_id)

    assert 0 < everything.forecasts_left_ms <= 60_000


async def test_a_ring_is_gone_when_no_answer_has_come_for_long(store):
    """Of versions that are served no more nothing stays."""
    user_id, model = uuid4().hex, a_model()
    note(store, user_id, model, "q1", 0.5)
    await record(store, user_id, ("q1", True))

    ring = OUTCOMES % model.to_bytes(8, "little").hex()
    left_s = await store.histories._client.redis.ttl(ring)

    assert 89 * 86_400 < left_s <= 90 * 86_400


# -- what goes wrong -------------------------------------------------------------------------------


async def test_what_spoils_forecasts_harms_no_recording(store):
    """A key that is not ours, in place of forecasts or of a ring: the answer is recorded."""
    user_id, model = uuid4().hex, a_model()
    redis = store.histories._client.redis
    ring = OUTCOMES % model.to_bytes(8, "little").hex()
    await redis.hset(ring, "x", "y")
    note(store, user_id, model, "q1", 0.5)

    done = await record(store, user_id, ("q1", True))
    await redis.unlink(ring)
    await redis.hset(user_key(FORECASTS, user_id), "x", "y")
    note(store, user_id, model, "q1", 0.5)
    again = await record(store, user_id, ("q1", True))

    assert (done.recorded, again.recorded) == (1, 1)
    assert await found(store, model) == []


async def test_forecasts_that_are_cut_short_are_forgotten_and_the_next_are_compared(store):
    """The answer is recorded and all is given out, whatever stands there."""
    user_id, model = uuid4().hex, a_model()
    await store.histories._client.redis.set(
        user_key(FORECASTS, user_id), (forecast(model, "q1", 0.9) + forecast(model, "q1", 0.9))[:50]
    )

    done = await record(store, user_id, ("q1", True))
    spoilt = await store.histories.everything(user_id)
    note(store, user_id, model, "q1", 0.5, length=1)
    again = await record(store, user_id, ("q1", True))

    assert (done.recorded, again.recorded, len(spoilt.forecasts)) == (1, 1, 1)
    assert await found(store, model) == [(0.5, 1)]


@pytest.mark.parametrize("content", [b"KTQ1", b"KTQ1\x10\x27" + bytes(20)])
async def test_a_ring_of_another_form_begins_anew(store, content):
    """Nothing is told of it, and it is in nobody's way."""
    user_id, model = uuid4().hex, a_model()
    ring = OUTCOMES % model.to_bytes(8, "little").hex()
    await store.histories._client.redis.set(ring, content)

    before = await found(store, model)
    note(store, user_id, model, "q1", 0.5)
    await record(store, user_id, ("q1", True))

    assert (before, await found(store, model)) == ([], [(0.5, 1)])


async def test_what_a_store_without_room_does_not_take_is_counted():
    """With an answer as well as without one."""
    told: Counter = Counter()
    with one_server() as node:
        given = Settings(redis_url=f"redis://127.0.0.1:{node.port}")
        async with open_store(given, tell_of_outcomes=partial(count, told)) as store:
            await record(store, "u", ("q0", True))
            node.redis.config_set("maxmemory", 1)
            note(store, "u", a_model(), "q1", 0.5, length=1)
            with pytest.raises(StoreFull):
                await record(store, "u", ("q1", True))
            note(store, "u", a_model(), "q1", 0.5, length=1)

    assert (told["lost"], told["kept"]) == (2, 0)


async def test_while_a_store_is_gone_forecasts_wait():
    """It has not seen them, and nor has it the answer that could not be recorded."""
    told: Counter = Counter()
    users, model = [uuid4().hex, uuid4().hex], a_model()
    with one_server() as node:
        given = Settings(redis_url=f"redis://127.0.0.1:{node.port}", redis_timeout_ms=500)
        async with open_store(given, tell_of_outcomes=partial(count, told)) as store:
            for user_id in users:
                await record(store, user_id, ("q0", True))
            node.kill()
            for number, user_id in enumerate(users):
                note(store, user_id, model, "q1", 0.1 + number / 10, length=1)
                note(store, user_id, model, "q1", 0.3 + number / 10, length=1)
            with pytest.raises(StoreUnavailable):
                await record(store, users[0], ("q1", True))
            node.start()
            for user_id in users:
                await in_time(lambda: record(store, user_id, ("q1", True), events=["e"]))  # noqa: B023
            joined = await found(store, model)

    assert sorted(joined) == [(0.3, 1), (0.4, 1)]
    assert told == {"kept": 4, "joined": 2}


async def test_a_store_that_is_gone_is_not_asked_for_each_who_waits(monkeypatch):
    """Thousands may wait for it, and whoever needs no store is answered meanwhile."""
    told: Counter = Counter()
    with one_server() as node:
        given = Settings(redis_url=f"redis://127.0.0.1:{node.port}", redis_timeout_ms=500)
        async with open_store(given, tell_of_outcomes=partial(count, told)) as store:
            node.kill()
            with pytest.raises(StoreUnavailable):
                await store.histories.read("u", 1)
            held = store.outcomes._crowd = Held(store.outcomes._crowd)
            for number in range(1000):
                note(store, f"u{number}", a_model(), "q1", 0.5)
            await held.has_begun.wait()
            monkeypatch.setattr(redis_outcomes, "_PAUSE_S", 3600)
            held.goes_on.set()
            await turns()
            trips = held.trips

    assert trips == 1
    assert told["lost"] == 1000


async def test_what_a_store_that_does_not_come_back_has_missed_is_counted():
    """A server that stops does not wait for it."""
    told: Counter = Counter()
    with one_server() as node:
        given = Settings(redis_url=f"redis://127.0.0.1:{node.port}", redis_timeout_ms=500)
        async with open_store(given, tell_of_outcomes=partial(count, told)) as store:
            await record(store, "u", ("q0", True))
            node.kill()
            note(store, "u", a_model(), "q1", 0.5, length=1)

    assert told["lost"] == 1


def count(told: Counter, what: str, times: int) -> None:
    told[what] += times


async def test_an_acknowledged_answer_is_in_the_ring_whatever_dies(tmp_path):
    """Server and store by SIGKILL: each answer is there with its forecast, and none twice."""
    acknowledged = killed_at_its_40th_answer(tmp_path)
    async with open_store(Settings(data_dir=tmp_path)) as store:
        outcomes = await store.outcomes.outcomes(7)
        stored = await store.histories.read("u", 4096)

    assert acknowledged <= outcomes.total == stored.length <= acknowledged + 1
    expected = np.arange(outcomes.total, dtype=np.float32) % 100 / 100
    np.testing.assert_allclose(outcomes.table["p_correct"], expected, atol=1e-6)


# -- several servers -------------------------------------------------------------------------------


async def test_in_a_cluster_rings_and_users_lie_apart():
    """Whoever has the user gives the outcome back, and it is put where the ring is."""
    users, models = [uuid4().hex for _ in range(8)], [a_model() for _ in range(4)]
    with clustered(2, with_replicas=False) as cluster:
        async with opened(cluster.url) as one, opened(cluster.url) as other:
            for user_id in users:
                for number, model in enumerate(models):
                    note(one, user_id, model, "q1", number / 10)
            await one.outcomes.aclose()
            for at, user_id in enumerate(users):
                await in_time(lambda: record(other, user_id, ("q1", at % 2 == 0)))  # noqa: B023
            joined = [await found(one, model) for model in models]
            rings = {cluster.master_of(OUTCOMES % m.to_bytes(8, "little").hex()) for m in models}
            homes = {cluster.master_of(user_key(FORECASTS, user_id)) for user_id in users}

    assert len(rings | homes) == 2
    for number, outcomes in enumerate(joined):
        assert Counter(outcomes) == {(number / 10, 1): 4, (number / 10, 0): 4}
