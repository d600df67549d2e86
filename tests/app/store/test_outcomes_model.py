"""Forecasts and answers in any order, by two servers: a model says what is to be compared."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from uuid import uuid4

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from app.records import Answer
from app.settings import Settings
from app.store.opening import open_store
from tests.app.store.test_histories import add
from tests.app.store.test_outcomes import a_model, aged, found, note


@dataclass
class User:
    """What a store should hold of a user's forecasts: question, model, chance, is it fresh."""

    id: str = field(default_factory=lambda: uuid4().hex)
    events: set[str] = field(default_factory=set)
    answers: int = 0
    forecasts: list[tuple[str, int, float, bool]] = field(default_factory=list)

    def joined(self, questions: dict[str, bool]) -> list[tuple[int, float, int]]:
        """Take the forecasts of questions: what becomes of the newest of each model."""
        newest = {(q, m): (p, fresh) for q, m, p, fresh in self.forecasts if q in questions}
        self.forecasts = [one for one in self.forecasts if one[0] not in questions]
        return [(m, p, int(questions[q])) for (q, m), (p, fresh) in newest.items() if fresh]


QUESTIONS = st.sampled_from(["q0", "q1"])
ANSWERED = st.tuples(QUESTIONS, st.booleans(), st.sampled_from([None, "e0", "e1"]))
USER, SERVER = st.integers(0, 1), st.integers(0, 1)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("note"), SERVER, USER, QUESTIONS, st.integers(0, 1)),
        st.tuples(st.just("note"), SERVER, USER, QUESTIONS, st.integers(0, 1)),
        st.tuples(st.just("record"), SERVER, USER, st.lists(ANSWERED, min_size=1, max_size=3)),
        st.tuples(st.just("forget"), SERVER, USER),
        st.tuples(st.just("age"), USER),
        st.tuples(st.just("restart"), SERVER),
    ),
    min_size=10,
    max_size=40,
)


class Servers:
    """Two servers on one store, and what it should hold."""

    def __init__(self, socket) -> None:
        self.settings = Settings(redis_url=f"unix://{socket}", quality_within_s=1000)
        self.users = [User(), User()]
        self.models = [a_model(), a_model()]
        self.expected: Counter = Counter()
        self.noted = 0
        self.stacks = [AsyncExitStack(), AsyncExitStack()]
        self.stores: list = [None, None]

    async def restart(self, server: int) -> None:
        await self.stacks[server].aclose()
        self.stores[server] = await self.stacks[server].enter_async_context(
            open_store(self.settings)
        )

    async def note(self, server: int, user: int, question: str, model: int) -> None:
        """Say something, after what the other server has said."""
        await self.stores[1 - server].outcomes.aclose()
        self.noted += 1
        one, p = self.users[user], self.noted / 1000
        length = min(one.answers, 1)
        note(self.stores[server], one.id, self.models[model], question, p, length=length)
        one.forecasts.append((question, model, p, True))

    async def record(self, server: int, user: int, given: list) -> None:
        one = self.users[user]
        await self.stores[1 - server].outcomes.aclose()
        answers, questions = [], {}
        for question, correct, event in given:
            answers.append(Answer(question_id=question, correct=correct, event_id=event))
            if event is None or event not in one.events:
                questions.setdefault(question, correct)
                one.answers += 1
            one.events |= {event} - {None}
        await add(self.stores[server].histories, one.id, answers)
        self.expected.update(one.joined(questions))

    async def forget(self, server: int, user: int) -> None:
        await self.stores[1 - server].outcomes.aclose()
        await self.stores[server].histories.forget(self.users[user].id)
        self.users[user] = User(id=self.users[user].id)

    async def age(self, user: int) -> None:
        """Let more time go by than forecasts wait."""
        for store in self.stores:
            await store.outcomes.aclose()
        one = self.users[user]
        await aged(self.stores[0].histories._client.redis, one.id, 1001)
        one.forecasts = [(q, m, p, False) for q, m, p, _ in one.forecasts]

    async def joined(self) -> Counter:
        counted: Counter = Counter()
        for number, model in enumerate(self.models):
            counted.update((number, p, right) for p, right in await found(self.stores[0], model))
        return counted


@settings(
    max_examples=80,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=STEPS)
def test_every_answer_is_compared_once_with_the_newest_forecast_in_time(redis_socket, steps):
    """Whoever says it, whoever records it, whatever is repeated, forgotten, stopped or too old."""

    async def run() -> tuple[Counter, Counter]:
        servers = Servers(redis_socket)
        async with servers.stacks[0], servers.stacks[1]:
            for server in (0, 1):
                await servers.restart(server)
            for name, *arguments in steps:
                await getattr(servers, name)(*arguments)
            return await servers.joined(), servers.expected

    joined, expected = asyncio.run(run())

    assert joined == expected
