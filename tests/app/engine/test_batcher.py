"""Callers who come at the same time share a run, and nobody pays for it."""

from __future__ import annotations

import asyncio
import random
import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.engine.batcher import Batcher, Bounds
from app.engine.observer import NoObserver
from app.engine.workers import Workers
from app.errors import NotReady, Overloaded, ScoringFailed
from app.telemetry import Request, current_request

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Echo:
    """Scores an item by itself, and remembers which items ran together."""

    def __init__(self) -> None:
        self.runs: list[list[str]] = []

    def __call__(self, items):
        self.runs.append(list(items))
        if any(item.startswith("poison") for item in items):
            raise ValueError("a poisoned item")
        return [item.upper() for item in items]


class Gated(Echo):
    """Stands still until it is let through."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.entered = threading.Event()

    def __call__(self, items):
        self.entered.set()
        self.gate.wait(30)
        return super().__call__(items)


class Tally(NoObserver):
    """Counts what it is told."""

    def __init__(self) -> None:
        self.waiting = self.refusals = self.left = self.failures = self.answered = 0

    def queue_changed(self, model, more):
        self.waiting += more

    def refused(self, model, windows):
        self.refusals += windows

    def abandoned(self, model, windows):
        self.left += windows

    def failed(self, model):
        self.failures += 1

    def batch_ran(self, model, items, padded_places, real_places, wait_s, run_s):
        assert items <= real_places <= padded_places
        self.answered += items


def bounds(items: int = 4, places: int = 1000, waiting: int = 100) -> Bounds:
    return Bounds(max_items=items, max_places=places, max_waiting=waiting)


async def held(batcher: Batcher, score: Gated) -> asyncio.Task:
    """Return a caller whose run stands at the gate."""
    first = asyncio.create_task(batcher.submit("first"))
    await asyncio.to_thread(score.entered.wait, 10)
    return first


async def test_what_comes_during_a_run_goes_into_the_next_together():
    """Ten callers, at most four a run: 4, 4, 2, each with its own answer, in order of coming."""
    score = Gated()
    async with Workers(1) as workers, Batcher("m", score, workers, bounds()) as batcher:
        first = await held(batcher, score)
        rest = [asyncio.create_task(batcher.submit(f"i{n}")) for n in range(10)]
        await asyncio.sleep(0)
        score.gate.set()
        found = [a.result for a in await asyncio.gather(first, *rest)]

    assert found == ["FIRST", *(f"I{n}" for n in range(10))]
    assert [len(run) for run in score.runs] == [1, 4, 4, 2]
    assert [item for run in score.runs[1:] for item in run] == [f"i{n}" for n in range(10)]


async def test_a_run_is_bounded_by_its_padded_places():
    """Rows times the longest; an item that is too long alone still runs, alone."""
    score = Gated()
    rules = bounds(items=100, places=64)
    async with Workers(1) as workers, Batcher("m", score, workers, rules) as batcher:
        first = await held(batcher, score)
        items = ["x" * 20] * 7 + ["y" * 90]
        rest = [asyncio.create_task(batcher.submit(i)) for i in items]
        await asyncio.sleep(0)
        score.gate.set()
        await asyncio.gather(first, *rest)

    for run in score.runs:
        assert len(run) == 1 or len(run) * max(map(len, run)) <= 64
    assert ["y" * 90] in score.runs


@pytest.mark.parametrize("longest", [40, 200, 400])
async def test_windows_of_many_lengths_are_hardly_padded(longest):
    """Those of like length share a run: of all that is run, less than a quarter is padding."""
    rng = np.random.default_rng(longest)
    lengths = np.clip(rng.lognormal(4, 1, 600), 1, longest).astype(int)
    score = Gated()
    rules = bounds(items=64, places=65_536, waiting=1000)
    async with Workers(1) as workers, Batcher("m", score, workers, rules) as batcher:
        first = await held(batcher, score)
        rest = [asyncio.create_task(batcher.submit("x" * n)) for n in lengths]
        await asyncio.sleep(0)
        score.gate.set()
        await asyncio.gather(first, *rest)

    real = sum(len(item) for run in score.runs for item in run)
    padded = sum(len(run) * max(map(len, run)) for run in score.runs)
    assert padded < 1.3 * real
    assert len(score.runs) < 60  # and yet they are many together


async def test_nobody_waits_while_a_thread_is_idle():
    """A lone caller is run at once, without company."""
    score = Echo()
    async with Workers(2) as workers, Batcher("m", score, workers, bounds()) as batcher:
        answered = await batcher.submit("a")

    assert answered.result == "A"
    assert answered.queued_s < 1


async def test_a_poisoned_item_fails_alone():
    """Its neighbours in the run are answered."""
    score = Gated()
    async with Workers(1) as workers, Batcher("m", score, workers, bounds()) as batcher:
        first = await held(batcher, score)
        task = asyncio.create_task(batcher.submit_all(["a", "poison", "b"]))
        await asyncio.sleep(0)
        score.gate.set()
        a, poison, b = await task
        await first

    assert (a.result, b.result) == ("A", "B")
    assert isinstance(poison, ScoringFailed)
    assert "poison" not in str(poison)


async def test_a_full_queue_is_refused_at_once():
    """And there is room again once it has been worked off."""
    score = Gated()
    async with Workers(1) as workers, Batcher("m", score, workers, bounds(waiting=2)) as batcher:
        first = await held(batcher, score)
        waiting = [asyncio.create_task(batcher.submit(f"i{n}")) for n in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="2 windows are waiting"):
            await batcher.submit("late")
        score.gate.set()
        await asyncio.gather(first, *waiting)
        again = await batcher.submit("again")

    assert again.result == "AGAIN"


async def test_who_leaves_before_the_run_costs_nothing():
    """The item is never scored, and the neighbours are."""
    score = Gated()
    async with Workers(1) as workers, Batcher("m", score, workers, bounds()) as batcher:
        first = await held(batcher, score)
        tasks = [asyncio.create_task(batcher.submit(i)) for i in ("a", "gone", "b")]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.sleep(0)
        score.gate.set()
        found = await asyncio.gather(first, tasks[0], tasks[2])

    assert [f.result for f in found] == ["FIRST", "A", "B"]
    assert "gone" not in [item for run in score.runs for item in run]


async def test_too_few_results_fail_loudly():
    """Nobody is given a neighbour's number."""
    async with Workers(1) as workers, Batcher("m", lambda _: [], workers, bounds()) as batcher:
        with pytest.raises(ScoringFailed):
            await batcher.submit("a")


async def test_leaving_answers_who_is_in_and_lets_nobody_in():
    """A drained batcher owes nothing."""
    score = Gated()
    async with Workers(1) as workers:
        batcher = Batcher("m", score, workers, bounds())
        async with batcher:
            first = await held(batcher, score)
            waiting = asyncio.create_task(batcher.submit("waiting"))
            await asyncio.sleep(0)
            score.gate.set()
        found = await asyncio.gather(first, waiting)
        with pytest.raises(NotReady):
            await batcher.submit("late")

    assert [f.result for f in found] == ["FIRST", "WAITING"]


async def test_a_run_that_hangs_is_seen_and_given_up_at_the_end():
    """Its age grows; whoever waits for it gets an error and not nothing."""
    score, now = Gated(), [0.0]
    async with Workers(1) as workers:
        batcher = Batcher("m", score, workers, bounds(), drain_s=0.05, clock=lambda: now[0])
        async with batcher:
            first = await held(batcher, score)
            now[0] = 12.5
            assert batcher.stuck_s() == 12.5
        with pytest.raises(NotReady):
            await first
        score.gate.set()


async def test_a_caller_of_many_who_leaves_takes_all_of_them_along():
    """What has not begun is never run, and is counted as abandoned."""
    score, tally = Gated(), Tally()
    async with (
        Workers(1) as workers,
        Batcher("m", score, workers, bounds(), observer=tally) as batcher,
    ):
        first = await held(batcher, score)
        many = asyncio.create_task(batcher.submit_all(["a", "b", "c"]))
        await asyncio.sleep(0)
        many.cancel()
        await asyncio.wait([many])
        score.gate.set()
        await first

    assert score.runs == [["first"]]
    assert (tally.left, tally.waiting, tally.answered) == (3, 0, 1)


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 3), st.integers(1, 5))
def test_no_answer_is_lost_doubled_or_mixed_up(seed, threads, most):
    """Whatever callers leave and whatever items fail, each caller gets its own outcome."""
    rng = random.Random(seed)

    async def scenario() -> None:
        score = Echo()
        rules = bounds(items=most)
        async with Workers(threads) as workers, Batcher("m", score, workers, rules) as batcher:
            names = [("poison" if rng.random() < 0.1 else "item") + str(n) for n in range(30)]
            tasks = {n: asyncio.create_task(batcher.submit(n)) for n in names}
            for task in tasks.values():
                if rng.random() < 0.2:
                    await asyncio.sleep(0)
                    task.cancel()
            await asyncio.wait(tasks.values())
        for name, task in tasks.items():
            if task.cancelled():
                continue
            if name.startswith("poison"):
                assert isinstance(task.exception(), ScoringFailed)
            else:
                assert task.result().result == name.upper()

    asyncio.run(scenario())


async def test_models_share_threads_and_none_starves():
    """A batcher whose callers have all left lets the next one have the thread."""
    score, other = Gated(), Echo()
    async with (
        Workers(1) as workers,
        Batcher("one", score, workers, bounds()) as one,
        Batcher("two", other, workers, bounds()) as two,
        Batcher("three", other, workers, bounds()) as three,
    ):
        first = await held(one, score)
        gone = asyncio.create_task(two.submit("gone"))
        kept = asyncio.create_task(three.submit("kept"))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        score.gate.set()

        assert (await kept).result == "KEPT"
        assert (await first).result == "FIRST"


def inline(items: int = 4, rows: int = 100) -> Bounds:
    return replace(bounds(items), max_inline_places=3, max_inline_rows=rows, max_inline_items=items)


async def test_small_items_are_run_in_the_loop_and_wait_behind_no_long_one():
    """Also while every thread is busy; what is longer goes to a thread as ever."""
    score, here = Gated(), threading.current_thread()
    ran_in: dict[str, threading.Thread] = {}

    def watched(items):
        ran_in.update(dict.fromkeys(items, threading.current_thread()))
        return [item.upper() for item in items] if "long one" not in items else score(items)

    async with Workers(1) as workers, Batcher("m", watched, workers, inline()) as batcher:
        long = asyncio.create_task(batcher.submit("long one"))
        while not score.entered.is_set():
            await asyncio.sleep(0.001)
        waiting = asyncio.create_task(batcher.submit("long two"))
        small = await asyncio.wait_for(asyncio.gather(*map(batcher.submit, "abcdefgh")), 5)
        score.gate.set()
        await asyncio.gather(long, waiting)

    assert [one.result for one in small] == list("ABCDEFGH")
    assert {ran_in[item] for item in "abcdefgh"} == {here}
    assert here not in {ran_in["long one"], ran_in["long two"]}


async def test_a_run_in_the_loop_is_bounded_and_lets_others_in_between():
    """By its items and by the rows that they need read."""
    score, turns = Echo(), []

    async def somebody_else():
        while True:
            turns.append(len(score.runs))
            await asyncio.sleep(0)

    async with Workers(1) as workers:
        batcher = Batcher("m", score, workers, inline(rows=50), rows=lambda item: 20)
        async with batcher:
            other = asyncio.create_task(somebody_else())
            await asyncio.gather(*map(batcher.submit, "abcdefgh"))
            other.cancel()

    assert [len(run) for run in score.runs] == [2, 2, 2, 2]
    assert {1, 2, 3} <= set(turns)


async def test_what_is_poisoned_in_the_loop_fails_alone():
    """The others of its run are run again."""
    tally = Tally()
    async with (
        Workers(1) as workers,
        Batcher("m", Fragile(), workers, inline(), observer=tally) as batcher,
    ):
        found = await asyncio.gather(*map(batcher.submit, ("a", "!", "b")), return_exceptions=True)

    assert [found[0].result, found[2].result] == ["A", "B"]
    assert isinstance(found[1], ScoringFailed)
    assert (tally.waiting, tally.failures) == (0, 1)


async def test_what_fails_in_the_loop_is_not_told_of_another_request(lines):
    """Whoever comes first has the loop run for those who come with him."""

    async def asked(item: str) -> object:
        current_request.set(Request(f"request of {item}"))
        return await batcher.submit(item)

    async with Workers(1) as workers, Batcher("m", Fragile(), workers, inline(items=1)) as batcher:
        await asyncio.gather(*map(asked, ("a", "!")), return_exceptions=True)

    [line] = [line for line in lines() if line["event"] == "scoring_failed"]
    assert "request_id" not in line


class Fragile(Echo):
    """Cannot stand exclamation marks."""

    def __call__(self, items):
        if "!" in items:
            raise ValueError("!")
        return super().__call__(items)


async def test_an_item_of_many_windows_counts_as_so_many():
    """While it waits, when it is refused, and when it has run."""
    score, tally = Gated(), Tally()
    async with (
        Workers(1) as workers,
        Batcher(
            "m",
            score,
            workers,
            bounds(items=1, waiting=10),
            observer=tally,
            windows=len,
        ) as batcher,
    ):
        first = await held(batcher, score)
        waiting = asyncio.create_task(batcher.submit("a" * 12))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await batcher.submit("bbb")
        await asyncio.sleep(0)
        assert (tally.waiting, tally.refusals) == (12, 3)
        score.gate.set()
        assert (await waiting).result == "A" * 12
        await first

    assert (tally.waiting, tally.answered, tally.left) == (0, len("first") + 12, 0)


async def test_a_full_run_lies_ready_for_the_next_thread():
    """While more wait than a run holds; it is answered as ever."""
    score, now = Gated(), [0.0]
    async with (
        Workers(1) as workers,
        Batcher("m", score, workers, bounds(items=2), clock=lambda: now[0]) as batcher,
    ):
        first = await held(batcher, score)
        rest = [asyncio.create_task(batcher.submit(f"i{n}")) for n in range(12)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        now[0] = 100.0
        stuck_s, queued = batcher.stuck_s(), batcher._queued
        score.gate.set()
        answered = await asyncio.gather(first, *rest)

    assert stuck_s == 100  # of the run under way
    assert queued == 10  # which has left the queue
    assert [a.result for a in answered[1:]] == [f"I{n}" for n in range(12)]
    assert max(a.run_s for a in answered[1:]) == 0
