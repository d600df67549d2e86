"""Threads that are lent, first come, first served."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import wait

import pytest

from app.engine.workers import Workers

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


HANGS = """
import asyncio, threading
from app.engine.batcher import Batcher, Bounds
from app.engine.workers import Workers
from app.errors import NotReady

async def main():
    entered = threading.Event()
    def score(items):
        entered.set()
        threading.Event().wait()
    bounds = Bounds(max_items=1, max_places=1, max_waiting=1)
    async with Workers(1) as workers:
        async with Batcher("m", score, workers, bounds, drain_s=0.01) as batcher:
            caller = asyncio.create_task(batcher.submit("x"))
            await asyncio.to_thread(entered.wait)
        try:
            await caller
        except NotReady:
            print("told")

asyncio.run(main())
"""


def test_a_run_that_never_comes_back_does_not_keep_the_process():
    """A service told to stop ends, whatever its model does."""
    done = subprocess.run(
        [sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=30, check=False
    )

    assert (done.returncode, done.stdout) == (0, "told\n"), done.stderr


async def test_as_many_calls_run_side_by_side_as_there_are_threads():
    """They meet at a barrier that fewer would never open."""
    barrier = threading.Barrier(3)
    async with Workers(3) as workers:
        running = [workers.run(lambda: barrier.wait(20)) for _ in range(3)]
        wait(running)

    assert sorted(run.result() for run in running) == [0, 1, 2]


async def test_a_call_that_raises_costs_no_thread():
    """Its error is in its future, SystemExit too, and the next call runs."""

    def leave():
        raise SystemExit("not yours to leave")

    async with Workers(1) as workers:
        left, stayed = workers.run(leave), workers.run(lambda: "here")
        wait([left, stayed])

    assert isinstance(left.exception(), SystemExit)
    assert stayed.result() == "here"


async def test_an_idle_thread_is_offered_in_order_of_asking():
    """Each asks once however often it asks, and who needs none leaves it to the next."""
    offered = []

    def one():
        offered.append("one")

    def two():
        offered.append("two")
        workers.take(two)

    def three():
        offered.append("three")

    workers = Workers(1)
    assert workers.take(one)
    taken = [workers.take(ask) for ask in (one, one, two, three)]
    workers.give_back()

    assert taken == [False] * 4
    assert offered == ["one", "two"]
    assert workers.idle == 0
