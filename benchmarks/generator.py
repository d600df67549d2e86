"""A caller that costs little: raw HTTP/1.1 over kept connections, many at a time.

It shares the machine with the server, so every microsecond that it spends is one that the server
does not have. Requests are bytes made beforehand; of an answer it reads status and length.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import uvloop

_END = b"\r\n\r\n"


class AnswerRefused(RuntimeError):
    """An answer was not 200; the first of them is in the message."""


@dataclass
class Load:
    """What a stretch of load brought."""

    seconds: float
    spent_s: list[float] = field(default_factory=list)  # of each answer
    late_s: list[float] = field(default_factory=list)  # open loop: from when it was due
    refused: int = 0

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return len(self.spent_s) / self.seconds

    def percentile_ms(self, percent: float) -> float:
        """Return a percentile of the time of an answer, from when it was due in an open loop."""
        return float(np.percentile(self.late_s or self.spent_s, percent)) * 1000


def post(url: str, path: str, body: Any) -> bytes:
    """Return the bytes of a POST with a JSON body."""
    content = json.dumps(body, separators=(",", ":")).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {urlsplit(url).netloc}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def closed_loop(url: str, requests: Sequence[bytes], callers: int, seconds: float) -> Load:
    """Let so many callers ask one after the other, each as soon as it is answered."""
    return uvloop.run(_closed(url, requests, callers, seconds))


def side_by_side(
    url: str, groups: Sequence[tuple[Sequence[bytes], int]], seconds: float
) -> list[Load]:
    """Let groups of callers, each with its own requests, ask in closed loops at the same time."""

    async def all_groups() -> list[Load]:
        return await asyncio.gather(*(_closed(url, *group, seconds) for group in groups))

    return uvloop.run(all_groups())


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
    return uvloop.run(_open(url, requests, per_second, seconds, connections))


class _Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._answer: asyncio.Future[int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(_END)
        if end < 0 or self._answer is None:
            return
        head = bytes(self._buffer[:end]).lower()
        at = head.index(b"content-length: ") + 16
        length = int(head[at:].partition(b"\r\n")[0])
        if len(self._buffer) >= end + len(_END) + length:
            status, answer = int(head[9:12]), self._answer
            self.body = bytes(self._buffer[end + len(_END) :])
            self._buffer.clear()
            self._answer = None
            answer.set_result(status)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("the server hung up"))

    async def ask(self, request: bytes) -> int:
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)  # type: ignore[attr-defined]
        return await self._answer

    def close(self) -> None:
        self._transport.close()  # type: ignore[attr-defined]


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
        _check(await connection.ask(request), connection, Load(0))
        bodies.append(connection.body)
    connection.close()
    return bodies


async def _closed(url: str, requests: Sequence[bytes], callers: int, seconds: float) -> Load:
    connections = await _connect(url, callers)
    following = itertools.cycle(requests)
    began = perf_counter()
    until, load = began + seconds, Load(seconds)

    async def caller(connection: _Connection) -> None:
        while (start := perf_counter()) < until:
            _check(await connection.ask(next(following)), connection, load)
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
    idle: asyncio.Queue[_Connection] = asyncio.Queue()
    for connection in connections:
        idle.put_nowait(connection)
    load, following = Load(seconds), itertools.cycle(requests)
    began = perf_counter()

    async def one(connection: _Connection, due: float) -> None:
        start = perf_counter()
        status = await connection.ask(next(following))
        now = perf_counter()
        idle.put_nowait(connection)
        if status == 429:
            load.refused += 1
            return
        _check(status, connection, load)
        load.spent_s.append(now - start)
        load.late_s.append(now - due)

    async with asyncio.TaskGroup() as group:
        for due in _arrivals(began, per_second, seconds):
            await asyncio.sleep(max(0.0, due - perf_counter()))
            group.create_task(one(await idle.get(), due))
    load.seconds = perf_counter() - began
    for connection in connections:
        connection.close()
    return load


def _arrivals(began: float, per_second: float, seconds: float) -> Iterator[float]:
    """Yield when requests are due: at random, as callers who know nothing of each other come."""
    rng = np.random.default_rng(0)
    due = began
    while (due := due + rng.exponential(1 / per_second)) < began + seconds:
        yield due


def _check(status: int, connection: _Connection, load: Load) -> None:
    if status != 200:
        load.refused += 1
        raise AnswerRefused(f"{status}: {connection.body[:300]!r}")
