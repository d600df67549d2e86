"""A caller that costs little: raw HTTP/1.1 over kept connections, many at a time.

It shares the machine with the server, so every microsecond that it spends is one that the server
does not have. Requests are bytes made beforehand; of an answer it reads status and length.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import uvloop

TURN_S = 0.25

_END = b"\r\n\r\n"
_LOST = 0  # in place of a status
_LAST_ANSWER_S = 60.0


class AnswerRefused(RuntimeError):
    """An answer was not what may come; it is in the message."""


@dataclass
class Load:
    """What a stretch of load brought."""

    seconds: float
    spent_s: list[float] = field(default_factory=list)  # of each answer
    late_s: list[float] = field(default_factory=list)  # open loop: from when it was due
    refused_s: list[float] = field(default_factory=list)  # of each 429, from when it was due
    behind_s: list[float] = field(default_factory=list)  # how late the generator itself was

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return len(self.spent_s) / self.seconds

    @property
    def refused(self) -> int:
        """Requests answered with 429."""
        return len(self.refused_s)

    def add(self, more: Load) -> None:
        """Take in another stretch of the same load."""
        self.seconds += more.seconds
        self.spent_s += more.spent_s
        self.late_s += more.late_s
        self.refused_s += more.refused_s
        self.behind_s += more.behind_s

    def percentile_ms(self, percent: float) -> float:
        """Return a percentile of the time of an answer, from when it was due in an open loop."""
        return float(np.percentile(self.late_s or self.spent_s, percent)) * 1000


def post(url: str, path: str, body: Any, key: str | None = None) -> bytes:
    """Return the bytes of a POST with a JSON body, by an API key where there is one."""
    return request(url, "POST", path, json.dumps(body, separators=(",", ":")).encode(), key)


def request(
    url: str, method: str, path: str, content: bytes = b"", key: str | None = None
) -> bytes:
    """Return the bytes of a request, with JSON where there is any."""
    shown = "" if key is None else f"authorization: Bearer {key}\r\n"
    head = (
        f"{method} {path} HTTP/1.1\r\nhost: {urlsplit(url).netloc}\r\n{shown}"
        f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def closed_loop(url: str, requests: Sequence[bytes], callers: int, seconds: float) -> Load:
    """Let so many callers ask one after the other, each as soon as it is answered."""
    return drawn_loop(url, itertools.cycle(requests), callers, seconds)


def drawn_loop(url: str, requests: Iterator[bytes], callers: int, seconds: float) -> Load:
    """Be a closed loop that draws each request when it is due."""
    with _undisturbed():
        return uvloop.run(_closed(url, requests, callers, seconds))


def side_by_side(
    url: str, groups: Sequence[tuple[Sequence[bytes], int]], seconds: float
) -> list[Load]:
    """Let groups of callers, each with its own requests, ask in closed loops at the same time."""

    async def all_groups() -> list[Load]:
        return await asyncio.gather(
            *(_closed(url, itertools.cycle(asks), callers, seconds) for asks, callers in groups)
        )

    with _undisturbed():
        return uvloop.run(all_groups())


def in_turns(loops: Sequence[Callable[[float], Load]], seconds: float) -> list[Load]:
    """Let loops, each told for how long, take short turns until each has had `seconds`.

    What disturbs the machine for longer than a turn disturbs all of them: their ratios hold.
    """
    turns = max(1, round(seconds / TURN_S))
    loads = [Load(0.0) for _ in loops]
    for _ in range(turns):
        for load, loop in zip(loads, loops, strict=True):
            load.add(loop(seconds / turns))
    return loads


def each_once(url: str, requests: Sequence[bytes]) -> list[bytes]:
    """Ask each request once, one after the other, and return the bodies of the answers."""
    return uvloop.run(_each(url, requests))


def open_loop(
    url: str, requests: Sequence[bytes], per_second: float, seconds: float, connections: int
) -> Load:
    """Ask at a fixed rate, whatever the answers do.

    A request that is due while every connection is busy waits, and its time counts from when it was
    due: a slow answer does not thin out the load (no coordinated omission).
    """
    with _undisturbed():
        return uvloop.run(_open(url, requests, per_second, seconds, connections))


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Collect no garbage meanwhile: the pause would be taken for the server's."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class _Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._answered: Callable[[int], object] | None = None
        self.head = self.body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(_END)
        if end < 0 or self._answered is None:
            return
        head = bytes(self._buffer[:end]).lower()
        at = head.index(b"content-length: ") + 16
        length = int(head[at:].partition(b"\r\n")[0])
        if len(self._buffer) >= end + len(_END) + length:
            self.head, self.body = head, bytes(self._buffer[end + len(_END) :])
            self._buffer.clear()
            self._tell(int(head[9:12]))

    def connection_lost(self, exc: Exception | None) -> None:
        self._tell(_LOST)

    def send(self, request: bytes, answered: Callable[[int], object]) -> None:
        """Ask, and call `answered` with the status; `_LOST` where the server hangs up."""
        self._answered = answered
        self._transport.write(request)  # type: ignore[attr-defined]

    async def ask(self, request: bytes) -> int:
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.send(request, lambda status: answer.done() or answer.set_result(status))
        return await answer

    def close(self) -> None:
        self._transport.close()  # type: ignore[attr-defined]

    def _tell(self, status: int) -> None:
        answered, self._answered = self._answered, None
        if answered is not None:
            answered(status)


async def _connect(url: str, count: int) -> list[_Connection]:
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    made = [
        loop.create_connection(_Connection, parts.hostname, parts.port or 80) for _ in range(count)
    ]
    return [connection for _, connection in await asyncio.gather(*made)]


async def _each(url: str, requests: Sequence[bytes]) -> list[bytes]:
    (connection,) = await _connect(url, 1)
    bodies = []
    for request in requests:
        _check(await connection.ask(request), connection)
        bodies.append(connection.body)
    connection.close()
    return bodies


async def _closed(url: str, requests: Iterator[bytes], callers: int, seconds: float) -> Load:
    connections = await _connect(url, callers)
    began = perf_counter()
    until, load = began + seconds, Load(seconds)

    async def caller(connection: _Connection) -> None:
        while (start := perf_counter()) < until:
            _check(await connection.ask(next(requests)), connection)
            load.spent_s.append(perf_counter() - start)

    await asyncio.gather(*map(caller, connections))
    load.seconds = perf_counter() - began
    for connection in connections:
        connection.close()
    return load


async def _open(
    url: str, requests: Sequence[bytes], per_second: float, seconds: float, count: int
) -> Load:
    connections = await _connect(url, count)
    crowd = _Crowd(connections, requests, Load(seconds))
    began = perf_counter()
    for due in _arrivals(began, per_second, seconds):
        if (early_s := due - perf_counter()) > 0:
            await asyncio.sleep(early_s)
        crowd.load.behind_s.append(perf_counter() - due)
        crowd.come(due)
    async with asyncio.timeout(_LAST_ANSWER_S):
        await crowd.answered()
    crowd.load.seconds = perf_counter() - began
    for connection in connections:
        connection.close()
    return crowd.load


class _Crowd:
    """Requests that are due, each over whichever connection is idle; no task for one of them."""

    def __init__(
        self, connections: Sequence[_Connection], requests: Sequence[bytes], load: Load
    ) -> None:
        self.load = load
        self._count = len(connections)
        self._idle = deque(connections)
        self._due: deque[float] = deque()  # of those who wait for a connection
        self._following = itertools.cycle(requests)
        self._done = asyncio.Event()
        self._failure: AnswerRefused | None = None

    def come(self, due: float) -> None:
        """Ask now, or as soon as a connection is idle; raises as `answered` does."""
        if self._failure is not None:
            raise self._failure
        if self._idle:
            self._ask(self._idle.popleft(), due)
        else:
            self._due.append(due)

    async def answered(self) -> None:
        """Return when everybody is; raise `AnswerRefused` where an answer was not 200 or 429."""
        while len(self._idle) < self._count and self._failure is None:
            self._done.clear()
            await self._done.wait()
        if self._failure is not None:
            raise self._failure

    def _ask(self, connection: _Connection, due: float) -> None:
        connection.send(
            next(self._following), partial(self._ended, connection, due, perf_counter())
        )

    def _ended(self, connection: _Connection, due: float, start: float, status: int) -> None:
        now = perf_counter()
        if status == 200:
            self.load.spent_s.append(now - start)
            self.load.late_s.append(now - due)
        elif status == 429 and b"\r\nretry-after: " in connection.head:
            self.load.refused_s.append(now - due)
        else:
            self._failure = _refusal(status, connection)
            self._done.set()
            return
        if self._due:
            self._ask(connection, self._due.popleft())
        else:
            self._idle.append(connection)
            self._done.set()


def _arrivals(began: float, per_second: float, seconds: float) -> list[float]:
    """Return when requests are due: at random, as callers who know nothing of each other come."""
    rng = np.random.default_rng(0)
    gaps = rng.exponential(1 / per_second, size=round(1.2 * per_second * seconds) + 50)
    due = np.cumsum(gaps)
    return (began + due[due < seconds]).tolist()


def _check(status: int, connection: _Connection) -> None:
    if status != 200:
        raise _refusal(status, connection)


def _refusal(status: int, connection: _Connection) -> AnswerRefused:
    if status == _LOST:
        return AnswerRefused("the server hung up")
    return AnswerRefused(f"{status}: {connection.body[:300]!r}")
