"""Both stores beside a model of them in plain Python: whatever is done, they say the same.

Never lose, never double, never mix: after each step everything that is kept of every user is what
the model says, and no state is found that was made of anything else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from app.errors import (
    AnswerLate,
    HistoryChanged,
    IdempotencyKeyReused,
    InteractionUnknown,
    TracerError,
)
from app.records import Answer, records_of
from app.settings import Settings
from app.store.histories import NO_HISTORY, Amendment, Everything, Recorded, Terms, Version
from app.store.opening import Store, open_store
from app.store.redis_histories import RedisHistories
from app.store.states import Known, Standing, StateRule
from models.contract.interaction import UNKNOWN_MS

KEEP = 8
USERS = ("one", "two}", "{one}")
RULES = [
    StateRule(key="all", size=8, length=200, cut=1, whole_window=False),
    StateRule(key="cut", size=8, length=6, cut=2, whole_window=True),
]

times = st.none() | st.integers(0, 12)
drawn_answers = st.lists(
    st.builds(
        Answer,
        question_id=st.sampled_from(["q1", "q2", "q3"]),
        correct=st.booleans(),
        asked_ms=times,
        elapsed_ms=st.none() | st.integers(0, 9),
        skill_ids=st.none() | st.just(["s"]),
        event_id=st.none() | st.sampled_from([f"e{i}" for i in range(40)]),
    ),
    min_size=1,
    max_size=9,
)
some_answers = drawn_answers | drawn_answers.map(  # of the plainest form, in order
    lambda found: [Answer(question_id=a.question_id, correct=a.correct) for a in found]
)
late_rules = st.sampled_from(["append", "append", "refuse", "insert", "insert"])
call_keys = st.none() | st.sampled_from(["k1", "k2", "k3"])
conditions = st.sampled_from(
    ["none"] * 6 + ["now", "then", "there", "nowhere", "not now", "not then"]
)
amendments = st.builds(
    Amendment,
    st.none() | st.booleans(),
    st.none() | st.integers(UNKNOWN_MS, 12),
    st.none() | st.integers(UNKNOWN_MS, 9),
)


@dataclass
class User:
    """What the model knows of one user."""

    held: list[Answer] = field(default_factory=list)
    gone: int = 0
    version: Version = NO_HISTORY
    newest: int = 0
    calls: dict[str, tuple[Any, Any]] = field(default_factory=dict)  # key -> content, answer

    @property
    def total(self) -> int:
        return self.gone + len(self.held)

    @property
    def kept(self) -> int:
        return min(len(self.held), KEEP)

    def made_of(self, start: int, seen: int) -> bytes:
        """A state that says exactly which answers it was made of."""
        answers = self.held[start - self.gone : seen - self.gone]
        return blake2b(records_of(answers).interactions.tobytes(), digest_size=8).digest()


def has_answers(machine: Beside) -> bool:
    """Say whether there is anybody to be asked about."""
    return any(user.total for user in machine.users.values())


class Beside(RuleBasedStateMachine):
    """Does to a store and to the model the same, and compares."""

    standings = Bundle("standings")

    def __init__(
        self, run: Callable[[Any], Any], store: Store, by_rule: dict[str, RedisHistories]
    ) -> None:
        super().__init__()
        self.run, self.store, self.by_rule = run, store, by_rule
        self.histories = store.histories
        self.users = {user_id: User() for user_id in USERS}
        self.names: set[bytes] = set()
        self.held: dict[tuple[str, StateRule], Any] = {}

    @initialize()
    def begin(self) -> None:
        for user_id in USERS:
            self.run(self.histories.forget(user_id))

    def terms(self, user: User, condition: str, call_key: str | None) -> tuple[Terms, bool]:
        """Return terms, and whether the history is as they say."""
        is_there = user.total > 0
        then = [Version(user.version.name, user.total + 1), Version(b"abcd", user.total)]
        terms, holds = {
            "none": (Terms(), True),
            "now": (Terms(meant=[*then, user.version]), True),
            "then": (Terms(meant=then), False),
            "there": (Terms(meant="*"), is_there),
            "nowhere": (Terms(not_meant="*"), not is_there),
            "not now": (Terms(not_meant=[user.version]), False),
            "not then": (Terms(meant=[user.version], not_meant=then), True),
        }[condition]
        return replace(terms, call_key=call_key), holds

    def outcome(self, call: Any) -> Any:
        """Return what a call gives, or the class of what it raises."""
        try:
            return self.run(call)
        except TracerError as exc:
            return type(exc)

    def renamed(self, version: Version) -> None:
        """Take note of a history's new name; it was nobody's before."""
        assert version.name not in self.names
        assert version.name != NO_HISTORY.name
        self.names.add(version.name)

    @rule(user_id=st.sampled_from(USERS), answers=some_answers, late=late_rules)
    def append(self, user_id, answers, late):
        self.append_on_terms(user_id, answers, late, "none", None)

    @rule(user_id=st.sampled_from(USERS), answers=drawn_answers, late=late_rules)
    def append_what_names_much(self, user_id, answers, late):
        self.append_on_terms(user_id, answers, late, "none", None)

    @rule()
    def restart_without_scripts(self):
        self.run(self.histories._client.redis.script_flush())

    @rule(
        user_id=st.sampled_from(USERS),
        answers=some_answers,
        late=late_rules,
        condition=conditions,
        call_key=call_keys,
    )
    def append_on_terms(self, user_id, answers, late, condition, call_key):
        user = self.users[user_id]
        terms, holds = self.terms(user, condition, call_key)
        records = records_of(answers)
        found = self.outcome(
            self.by_rule[late].append(user_id, records.interactions, records.texts, terms)
        )
        content = records.interactions.tobytes()
        if call_key in user.calls:
            before, answer = user.calls[call_key]
            expected = answer if before == content else IdempotencyKeyReused
            assert found == expected
            return
        if not holds:
            assert found is HistoryChanged
            return
        self.added(user, answers, late, found)
        if call_key is not None and isinstance(found, Recorded):
            user.calls[call_key] = (content, found._replace(is_repeated=True))
        self.predict(user_id)

    def added(self, user: User, answers: Sequence[Answer], late: str, found: Any) -> None:
        """Do in the model what an append should have done, and compare."""
        events = {a.event_id for a in user.held if a.event_id is not None}
        held, newest, n_late, new, is_moved = list(user.held), user.newest, 0, 0, False
        for answer in answers:
            if answer.event_id in events:
                continue
            if answer.event_id is not None:
                events.add(answer.event_id)
            asked, place = answer.asked_ms, len(held)
            if asked is not None and asked < newest:
                n_late += 1
                if late == "insert":
                    later = [n for n, a in enumerate(held) if (a.asked_ms or 0) > asked]
                    place = later[0] if later else place
                    is_moved = is_moved or any(a is b for a in held[place:] for b in user.held)
            newest = newest if asked is None else max(newest, asked)
            held.insert(place, answer)
            new += 1
        if n_late and late == "refuse":
            assert found is AnswerLate
            return
        gone, total = user.gone, user.gone + len(held)
        if new and len(held) > KEEP * 1.25:
            gone, held = total - KEEP, held[-KEEP:]
            newest = max(a.asked_ms or 0 for a in held)
        duplicates = len(answers) - new
        assert found[:3] == (new, duplicates, min(len(held), KEEP))
        assert (found.late, found.is_repeated, found.version.total) == (n_late, False, total)
        if new and (not user.total or is_moved):
            self.renamed(found.version)
        else:
            assert found.version.name == user.version.name
        user.held, user.gone, user.newest, user.version = held, gone, newest, found.version

    @precondition(has_answers)
    @rule(
        user_id=st.sampled_from(USERS),
        back=st.integers(0, KEEP + 2).map(lambda n: n - 1),
        amendment=amendments,
        condition=conditions,
        call_key=call_keys,
    )
    def amend(self, user_id, back, amendment, condition, call_key):
        user = self.users[user_id]
        number = max(0, user.total - 1 - back)
        terms, holds = self.terms(user, condition, call_key)
        found = self.outcome(self.histories.amend(user_id, number, amendment, terms))
        if call_key in user.calls:
            before, answer = user.calls[call_key]
            if before == (number, amendment):
                assert (found.version, found.interactions.tobytes()) == answer
                assert found.is_repeated
            else:
                assert found is IdempotencyKeyReused
            return
        if not user.total - user.kept <= number < user.total:
            assert found is InteractionUnknown
            return
        if not holds:
            assert found is HistoryChanged
            return
        correct, asked_ms, elapsed_ms = amendment
        place = number - user.gone
        said = user.held[place]
        for name, ms in (("asked_ms", asked_ms), ("elapsed_ms", elapsed_ms)):
            if ms is not None:
                said = replace(said, **{name: None if ms == UNKNOWN_MS else ms})
        user.held[place] = said if correct is None else replace(said, correct=correct)
        if asked_ms is not None:
            user.newest = max((a.asked_ms or 0 for a in user.held), default=0)
        self.renamed(found.version)
        user.version = found.version
        content = found.interactions.tobytes()
        assert content == records_of([user.held[place]]).interactions.tobytes()
        if call_key is not None:
            user.calls[call_key] = ((number, amendment), (found.version, content))
        self.predict(user_id)

    @precondition(has_answers)
    @rule(user_id=st.sampled_from(USERS))
    def forget(self, user_id):
        user = self.users[user_id]
        existed = self.run(self.histories.forget(user_id))
        assert existed or not user.total
        self.users[user_id] = User()

    @precondition(has_answers)
    @rule(user_id=st.sampled_from(USERS), start=st.integers(0, 30), limit=st.integers(1, 12))
    def page(self, user_id, start, limit):
        user = self.users[user_id]
        page = self.run(self.histories.page(user_id, start, limit))
        first = max(start, user.total - user.kept)
        expected = user.held[first - user.gone :][:limit]
        assert page.interactions.tobytes() == records_of(expected).interactions.tobytes()
        after = first + len(expected)
        assert page.first == first or not expected
        assert page.next == (after if after < user.total else None)
        assert (page.length, page.version) == (user.kept, user.version)

    @precondition(has_answers)
    @rule(target=standings, user_id=st.sampled_from(USERS), which=st.sampled_from(RULES))
    def stand(self, user_id, which):
        return self.stood(user_id, which, None) or multiple()

    def predict(self, user_id: str) -> None:
        """Stand with every model, by what is kept and what is held, and keep and hold the next."""
        for which in RULES:
            old = self.held.get((user_id, which))
            known = old and Known(old[2].history, old[2].start, old[2].total)
            self.stood(user_id, which, None)
            if stood := self.stood(user_id, which, known, old):
                self.keep(stood)
                self.held[user_id, which] = stood

    @rule(target=standings, old=standings)
    def stand_on_what_is_held(self, old):
        user_id, which, standing, _ = old
        known = Known(standing.history, standing.start, standing.total)
        return self.stood(user_id, which, known, old) or multiple()

    def stood(self, user_id: str, which: StateRule, known: Known | None, old: Any = None) -> Any:
        """Compare how a user stands; return that, and the state it should lead to."""
        user = self.users[user_id]
        standing: Standing = self.run(self.store.states.stand(user_id, which, known))
        assert (standing.total, standing.kept) == (user.total, user.kept)
        assert standing.history == user.version.name
        expected = user.held[standing.first - user.gone :] if user.total else []
        assert standing.interactions.tobytes() == records_of(expected).interactions.tobytes()
        made = user.made_of(standing.start, standing.seen)
        if standing.state:
            assert standing.state == made
        if standing.is_known:
            assert old[3] == made
        if user.total == 0:
            return None
        return (user_id, which, standing, user.made_of(standing.start, standing.total))

    @rule(old=standings)
    def keep_a_late_state(self, old):
        self.keep(old)

    def keep(self, stood: Any) -> None:
        """Keep the state that a standing leads to, however long ago the user stood so."""
        user_id, which, standing, state = stood

        async def keep() -> None:
            self.store.states.keep(user_id, which, standing, state)
            await self.store.states.aclose()

        self.run(keep())

    @invariant()
    def everything_is_as_the_model_says(self):
        async def read() -> list[Everything]:
            return await asyncio.gather(*map(self.histories.everything, self.users))

        for user, found in zip(self.users.values(), self.run(read()), strict=True):
            assert found.interactions.tobytes() == records_of(user.held).interactions.tobytes()
            assert (found.first, found.version) == (user.gone, user.version)
            assert len(found.calls) == len(user.calls)
            for state in found.states:
                if state.history == user.version.name:
                    made = user.made_of(state.start, state.seen)
                    assert state.start < user.gone or state.content == made


@pytest.mark.parametrize("kind", ["redis", "embedded"])
def test_a_store_does_what_the_model_does(kind, tmp_path, redis_socket):
    """Appended, amended, forgotten, read, in any order; with scripts that are gone now and then."""
    url = f"unix://{redis_socket}" if kind == "redis" else None
    given = Settings(redis_url=url, data_dir=tmp_path, history_max_items=KEEP)
    with asyncio.Runner() as runner:
        opening = open_store(given)
        store = runner.run(opening.__aenter__())
        client = store.histories._client
        by_rule = {
            late: RedisHistories(client, KEEP, kind, late=late)
            for late in ("append", "refuse", "insert")
        }
        try:
            run_state_machine_as_test(
                lambda: Beside(runner.run, store, by_rule),
                settings=settings(
                    max_examples=15,
                    phases=[Phase.reuse, Phase.generate],  # to shrink takes minutes
                    stateful_step_count=40,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            runner.run(opening.__aexit__(None, None, None))
