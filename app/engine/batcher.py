"""Callers who come at the same time share one run of the model."""

from __future__ import annotations

import asyncio
import heapq
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence, Sized
from concurrent.futures import Future
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Generic, NamedTuple, Self, TypeVar

from app.engine.observer import NoObserver, Observer
from app.engine.workers import Workers
from app.errors import NotReady, Overloaded, ScoringFailed, TracerError

log = logging.getLogger(__name__)

Item = TypeVar("Item", bound=Sized)
Result = TypeVar("Result")

Score = Callable[[Sequence[Item]], Sequence[Result]]

_CHOICE = 2
"""So many times the items of a run are looked at for it: the nearest in length to the oldest."""


@dataclass(frozen=True, slots=True)
class Answered(Generic[Result]):
    """A result, and where its time went."""

    result: Result
    queued_s: float  # from the call until the run began
    run_s: float  # of the run, shared with the others in it
    windows: int = 1  # of the run, all together


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much may share one run, and how much may wait."""

    max_items: int  # of one run
    max_places: int  # rows times longest length of one run; a longer single item still runs
    max_waiting: int
    max_inline_places: int = 0  # an item of no more is run in the event loop itself
    max_inline_rows: int = 0  # rows to be read for one run there
    max_inline_items: int = 1  # of one run there


@dataclass(slots=True, eq=False)
class _Job(Generic[Item, Result]):
    item: Item
    places: int
    rows: int
    windows: int
    answer: asyncio.Future[Answered[Result]]
    came_s: float


class _Ran(NamedTuple, Generic[Result]):
    results: Sequence[Result]
    began_s: float
    ended_s: float


@dataclass(slots=True, eq=False)
class _Run(Generic[Item, Result]):
    jobs: list[_Job[Item, Result]]
    began_s: float | None = None  # None while it lies ready for the next thread


class Batcher(Generic[Item, Result]):
    """Runs `score` over waiting items, as many together as fit.

    Nobody waits while a thread is idle: there is no time to gather in but the turn of the event
    loop in which the first one comes, and what comes during a run goes into the next. Every caller
    gets a result or a `TracerError`. The queue belongs to the event loop's thread, and a run's end
    wakes its callers in one step. A run that is shorter than the way to a thread and back
    (`max_inline_places`) is done in the loop. Leaving `async with` lets nobody in and answers who
    is in.
    """

    def __init__(
        self,
        model: str,
        score: Score[Item, Result],
        workers: Workers,
        bounds: Bounds,
        *,
        drain_s: float = 10.0,
        observer: Observer | None = None,
        rows: Callable[[Item], int] = len,
        windows: Callable[[Item], int] = lambda _: 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`score` gives one result an item, in order; it is called in several threads at once.

        `rows` tells what must be read for an item, where that is more than its places; `windows`,
        how many callers' questions it is, where one item holds many.
        """
        self._model = model
        self._rows = rows
        self._windows = windows
        self._score = score
        self._workers = workers
        self._bounds = bounds
        self._drain_s = drain_s
        self._observer = observer or NoObserver()
        self._clock = clock
        self._waiting: dict[_Job[Item, Result], None] = {}  # oldest first
        self._small: dict[_Job[Item, Result], None] = {}  # for the loop; oldest first
        self._queued = 0  # windows in both
        self._told = 0  # how many waited when the observer was last told
        self._alone: deque[_Job[Item, Result]] = deque()  # of batches that failed: one by one
        self._runs: dict[object, _Run[Item, Result]] = {}  # in a thread now
        self._is_open = False
        self._is_due = False  # this turn of the loop ends with a dispatch
        self._apart = Context()  # of no request: what is dispatched is of all who came
        self._is_done = asyncio.Event()  # nobody waits and nothing runs

    async def submit(self, item: Item) -> Answered[Result]:
        """Return the result of `item`.

        Raises `Overloaded` at once where the queue is full, `NotReady` where the batcher is not
        open, `ScoringFailed` where the item could not be run even alone.
        """
        job = self._enqueue(item)
        self._dispatch_soon()
        try:
            return await job.answer
        except asyncio.CancelledError:
            self._abandon([job])
            raise

    async def submit_all(self, items: Iterable[Item]) -> list[Answered[Result] | TracerError]:
        """Return the result of each item in order, or at its place what `submit` would raise."""
        jobs: list[_Job[Item, Result] | TracerError] = []
        for item in items:
            try:
                jobs.append(self._enqueue(item))
            except TracerError as exc:
                jobs.append(exc)
        entered = [job for job in jobs if isinstance(job, _Job)]
        self._dispatch_soon()
        try:
            if entered:
                await asyncio.wait([job.answer for job in entered])
        finally:
            self._abandon(entered)
        return [_outcome(job) if isinstance(job, _Job) else job for job in jobs]

    def stuck_s(self) -> float:
        """Return the age of the oldest run that has not come back, 0 for none."""
        now_s = self._clock()
        began = (run.began_s for run in self._runs.values())
        return max((now_s - began_s for began_s in began if began_s is not None), default=0.0)

    async def __aenter__(self) -> Self:
        self._is_open = True
        self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Answer everybody who is in; after `drain_s` the rest gets `NotReady`."""
        self._is_open = False
        self._note_done()
        try:
            async with asyncio.timeout(self._drain_s):
                await self._is_done.wait()
        except TimeoutError:
            log.error("drain_cut_short", extra={"model": self._model})
        finally:
            running = (job for run in self._runs.values() for job in run.jobs)
            left = [*self._waiting, *self._small, *self._alone, *running]
            self._waiting.clear()
            self._small.clear()
            self._alone.clear()
            self._queued = 0
            for job in left:
                _fail(job, NotReady(f"stopped before model {self._model!r} had answered"))

    # -- callers -------------------------------------------------------------------------------

    def _enqueue(self, item: Item) -> _Job[Item, Result]:
        if not self._is_open:
            raise NotReady(
                f"model {self._model!r} takes no windows: it is not started, or stopping"
            )
        windows = self._windows(item)
        if self._queued >= self._bounds.max_waiting:
            self._observer.refused(self._model, windows)
            raise Overloaded(
                f"{self._bounds.max_waiting} windows are waiting for model {self._model!r} already"
            )
        answer = self._loop.create_future()
        job: _Job[Item, Result] = _Job(
            item, len(item), self._rows(item), windows, answer, self._clock()
        )
        is_small = (
            job.places <= self._bounds.max_inline_places
            and job.rows <= self._bounds.max_inline_rows
        )
        (self._small if is_small else self._waiting)[job] = None
        self._queued += windows
        return job

    def _abandon(self, jobs: Iterable[_Job[Item, Result]]) -> None:
        """Take out of the queue what nobody waits for any more; answered jobs are not in it."""
        for job in jobs:
            if job.answer.done() and not job.answer.cancelled():
                continue
            job.answer.cancel()
            if job in self._alone:
                self._alone.remove(job)
            for queue in (self._waiting, self._small):
                if job in queue:
                    self._leave(queue, job)
                    self._observer.abandoned(self._model, job.windows)
        self._tell_queue()
        self._note_done()

    def _leave(self, queue: dict[_Job[Item, Result], None], job: _Job[Item, Result]) -> None:
        del queue[job]
        self._queued -= job.windows

    # -- runs ----------------------------------------------------------------------------------

    def _dispatch_soon(self) -> None:
        """Dispatch when all who come in this turn of the loop are in."""
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._dispatch_due, context=self._apart)

    def _dispatch_due(self) -> None:
        self._is_due = False
        if self._small:
            self._run_here()
        self._dispatch()
        self._tell_queue()

    def _tell_queue(self) -> None:
        """Tell how the queue has changed: several queues may be of one model."""
        if self._queued != self._told:
            self._observer.queue_changed(self._model, self._queued - self._told)
            self._told = self._queued

    def _dispatch(self) -> None:
        """Give every idle thread a batch, while there is any."""
        while (self._waiting or self._alone) and self._workers.take(
            self._dispatch, is_full=self._is_more_than_a_run
        ):
            # Threads that stand idle take their share of a burst, which is sooner done in parallel.
            share = math.ceil(len(self._waiting) / (self._workers.idle + 1))
            batch = self._next(min(share, self._bounds.max_items))
            mark, run = object(), _Run(batch)
            self._runs[mark] = run
            future = self._workers.run(partial(self._begun, run))
            future.add_done_callback(partial(self._report, mark))

    @property
    def _is_more_than_a_run(self) -> bool:
        """More wait than go into the next run, about."""
        if not self._waiting:
            return False
        places = next(iter(self._waiting)).places
        a_run = min(self._bounds.max_items, self._bounds.max_places // places + 1)
        return len(self._waiting) > 2 * a_run

    def _run_here(self) -> None:
        """Run the oldest of the small jobs, as many as fit; the rest in the loop's next turn."""
        batch: list[_Job[Item, Result]] = []
        rows = 0
        for job in self._small:
            rows += job.rows
            if batch and (
                len(batch) >= self._bounds.max_inline_items or rows > self._bounds.max_inline_rows
            ):
                break
            batch.append(job)
        for job in batch:
            self._leave(self._small, job)
        if self._small:
            self._dispatch_soon()
        future: Future[_Ran[Result]] = Future()
        try:
            future.set_result(self._timed([job.item for job in batch]))
        except Exception as exc:  # as from a thread
            future.set_exception(exc)
        self._answer(batch, future)
        self._note_done()

    def _begun(self, run: _Run[Item, Result]) -> _Ran[Result]:
        """Score a run, in a thread."""
        run.began_s = self._clock()
        return self._timed([job.item for job in run.jobs])

    def _timed(self, items: Sequence[Item]) -> _Ran[Result]:
        """Score, and say how long it took."""
        began_s = self._clock()
        results = self._score(items)
        if len(results) != len(items):
            raise ValueError(f"{len(results)} results for {len(items)} items")
        return _Ran(results, began_s, self._clock())

    def _report(self, mark: object, future: Future[_Ran[Result]]) -> None:
        """Tell the event loop, from the thread; a run that hung may come back to none."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._ended, mark, future)

    def _ended(self, mark: object, future: Future[_Ran[Result]]) -> None:
        """Every job of the run leaves here with a result or an error: a caller must never hang."""
        jobs = self._runs.pop(mark).jobs
        try:
            self._answer(jobs, future)
        finally:
            self._workers.give_back()  # whoever has waited for the thread goes first
            self._dispatch()
            self._note_done()

    def _note_done(self) -> None:
        if not (self._is_open or self._waiting or self._small or self._alone or self._runs):
            self._is_done.set()

    def _next(self, most: int) -> list[_Job[Item, Result]]:
        """Take the oldest job out of the queue, and with it the nearest in length that fit."""
        if self._alone:
            return [self._alone.popleft()]
        oldest, *others = self._waiting
        batch = [oldest]
        longest = real = oldest.places
        near = heapq.nsmallest(_CHOICE * most, others, key=lambda j: abs(j.places - oldest.places))
        for job in near:
            if len(batch) >= most:
                break
            longer, more = max(longest, job.places), real + job.places
            padded = (len(batch) + 1) * longer
            if padded <= self._bounds.max_places and _wastes_little(padded, more):
                batch.append(job)
                longest, real = longer, more
        for job in batch:
            self._leave(self._waiting, job)
        self._tell_queue()
        return batch

    def _answer(self, jobs: list[_Job[Item, Result]], future: Future[_Ran[Result]]) -> None:
        exc = future.exception()
        if exc is not None:
            self._explain(jobs, exc)
            return
        ran = future.result()
        run_s = ran.ended_s - ran.began_s
        windows = sum(job.windows for job in jobs)
        for job, result in zip(jobs, ran.results, strict=True):
            if not job.answer.done():  # the caller may have left
                job.answer.set_result(Answered(result, ran.began_s - job.came_s, run_s, windows))
        real = sum(job.places for job in jobs)
        # An item of many windows has padded them by itself, if at all.
        padded = len(jobs) * max(job.places for job in jobs) if windows == len(jobs) else real
        self._observer.batch_ran(
            self._model,
            windows,
            padded,
            real,
            ran.began_s - min(job.came_s for job in jobs),
            run_s,
        )

    def _explain(self, jobs: list[_Job[Item, Result]], exc: BaseException) -> None:
        if len(jobs) > 1:
            log.warning("batch_failed", extra={"model": self._model, "items": len(jobs)})
            # One item may have spoilt it for all: alone, it fails alone.
            self._alone += [job for job in jobs if not job.answer.done()]
            return
        log.error("scoring_failed", extra={"model": self._model}, exc_info=exc)
        failure = ScoringFailed(f"model {self._model!r} could not be run on this window")
        failure.__cause__ = exc
        _fail(jobs[0], failure)
        self._observer.failed(self._model)


def _wastes_little(padded: int, real: int) -> bool:
    """Say whether a run is mostly of real places: all but a fifth, or but sixteen.

    A run costs about as much as sixteen places before it has done anything.
    """
    return padded <= max(1.25 * real, real + 16)


def _outcome(job: _Job[Item, Result]) -> Answered[Result] | TracerError:
    exc = job.answer.exception()
    if exc is None:
        return job.answer.result()
    assert isinstance(exc, TracerError), "jobs fail by `_fail` alone"
    return exc


def _fail(job: _Job[Item, Result], failure: TracerError) -> None:
    if not job.answer.done():
        job.answer.set_exception(failure)
        job.answer.exception()  # marked as seen: the caller may have left
