"""Every order of events: callers come and leave, runs come back in any order, well or failed.

The threads stand still and the test moves them, so that a course that breaks a rule is found again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st

from app.engine.batcher import Answered, Batcher, Bounds
from app.engine.observer import NoObserver
from app.engine.workers import Workers
from app.errors import Overloaded, ScoringFailed

BOUNDS = Bounds(max_items=3, max_places=60, max_waiting=6)

WORDS = st.one_of(
    st.tuples(st.just("come"), st.integers(0, 1), st.lists(st.integers(1, 80), max_size=8)),
    st.tuples(st.just("leave"), st.integers(0, 20)),
    st.tuples(st.just("come back"), st.integers(0, 3)),
)


class Steps(Workers):
    """Threads that hold back what they have done until they are told."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.held_back: list[Callable[[], None]] = []

    def run(self, function):
        future: Future = Future()
        try:
            self.held_back.append(partial(future.set_result, function()))
        except ValueError as exc:
            self.held_back.append(partial(future.set_exception, exc))
        return future

    def come_back(self, which: int) -> None:
        if self.held_back:
            self.held_back.pop(which % len(self.held_back))()


class Item(str):
    """A name, as long as it is asked to be."""

    __slots__ = ("places",)

    def __len__(self) -> int:
        return self.places

    @classmethod
    def of(cls, name: str, places: int) -> Item:
        item = cls(name)
        item.places = places
        return item


class Model(NoObserver):
    """One batcher, and what has to hold of it."""

    def __init__(self, name: str, workers: Workers, failures: list[str]) -> None:
        self.batcher = Batcher(name, self.score, workers, BOUNDS, observer=self)
        self.failures = failures  # how the next runs go; after them all go well
        self.queue: list[Item] = []  # of which no run has begun, oldest first
        self.told_waiting = 0
        self.begun: list[tuple[list[Item], list[Item]]] = []  # runs, and the queue before each
        self.in_failed_run: set[Item] = set()
        self.failed_alone: set[Item] = set()
        self.left: set[Item] = set()

    def queue_changed(self, model: str, more: int) -> None:
        self.told_waiting += more

    def score(self, items):
        self.begun.append((list(items), list(self.queue)))
        self.queue = [item for item in self.queue if item not in items]
        how = self.failures.pop(0) if self.failures else "well"
        if how == "well":
            return [item.upper() for item in items]
        (self.failed_alone if len(items) == 1 else self.in_failed_run).update(items)
        if how == "raises":
            raise ValueError("a run that failed")
        return items[1:]

    def judge(self, idle: int) -> None:
        for run, queue in self.begun:
            assert len(run) <= BOUNDS.max_items
            assert len(run) == 1 or len(run) * max(map(len, run)) <= BOUNDS.max_places
            assert not self.left.intersection(run), "run for nobody"
            if run[0] in queue:
                assert queue[0] in run, "somebody else was first"
                assert set(run) <= set(queue)
            else:
                assert len(run) == 1, "run twice"
                assert run[0] in self.in_failed_run, "run twice"
                self.in_failed_run.discard(run[0])
        self.begun.clear()
        assert self.told_waiting == len(self.queue)
        assert not (self.queue and idle), "somebody waits while a thread is idle"


class Course:
    """Two models on the same threads, and everybody who has come."""

    def __init__(self, threads: int, failures: list[str]) -> None:
        self.workers = Steps(threads)
        self.models = [Model(name, self.workers, failures) for name in ("one", "two")]
        self.calls: list[tuple[Model, list[Item], int, asyncio.Task]] = []

    async def come(self, which: int, sizes: list[int]) -> None:
        """Call with some items; those the queue has no room for are refused."""
        model = self.models[which]
        items = [Item.of(f"i{len(self.calls)}.{n}", size) for n, size in enumerate(sizes)]
        room = BOUNDS.max_waiting - len(model.queue)
        model.queue += items[:room]
        task = asyncio.create_task(model.batcher.submit_all(items))
        self.calls.append((model, items, room, task))

    async def leave(self, which: int) -> None:
        """Cancel one call, wherever its items are."""
        if self.calls:
            model, items, _, task = self.calls[which % len(self.calls)]
            if not task.done():
                task.cancel()
                model.left.update(items)
                model.queue = [item for item in model.queue if item not in items]

    async def come_back(self, which: int) -> None:
        """Let one run end."""
        self.workers.come_back(which)

    async def settle(self) -> None:
        """Let everything follow that follows, and judge it."""
        for _ in range(5):
            await asyncio.sleep(0)
        for model in self.models:
            model.judge(self.workers.idle)

    async def play(self, words) -> None:
        """Play all of it, end every run, and judge what each caller was given."""
        async with self.models[0].batcher, self.models[1].batcher:
            for verb, *rest in words:
                await getattr(self, verb.replace(" ", "_"))(*rest)
                await self.settle()
            while self.workers.held_back:
                await self.come_back(0)
                await self.settle()
            for model, items, room, task in self.calls:
                if not task.cancelled():
                    for place, (item, found) in enumerate(zip(items, task.result(), strict=True)):
                        judge_answer(model, item, found, is_refused=place >= room)


def judge_answer(model: Model, item: Item, found, *, is_refused: bool) -> None:
    if is_refused:
        assert isinstance(found, Overloaded)
    elif item in model.failed_alone:
        assert isinstance(found, ScoringFailed)
    else:
        assert isinstance(found, Answered)
        assert found.result == item.upper()


@settings(deadline=None, max_examples=300)
@given(
    st.integers(1, 3),
    st.lists(st.sampled_from(["well", "raises", "too few"]), max_size=12),
    st.lists(WORDS, max_size=30),
)
def test_whatever_happens_everybody_gets_the_own_outcome_in_turn(threads, failures, words):
    """Runs keep their bounds, nobody waits beside an idle thread, nothing is run for nobody."""
    asyncio.run(Course(threads, failures).play(words))
