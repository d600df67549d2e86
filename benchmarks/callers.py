"""Callers who notice everything: each records a learner's answers and asks in between.

An answer that is not acknowledged is sent again, by the same event id, until it is. At the end the
store has exactly what was acknowledged, each answer once, or the callers say what is wrong.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from benchmarks.generator import request

QUESTIONS = 20
_BASE_MS = 1_700_000_000_000
_PACE_S = 0.01  # between two requests of one caller
_LONGEST_S = 15.0
_PAGE = 1000


@dataclass
class Seen:
    """What callers have seen."""

    requests: int = 0
    failed: Counter[str] = field(default_factory=Counter)  # by code, or what broke
    last_failure_s: float = 0.0  # on the clock of `perf_counter`
    longest_s: float = 0.0  # that one request took
    forgotten: int = 0  # predictions that stood on less than was acknowledged


class Caller:
    """One learner's client: one request at a time, over one connection."""

    def __init__(
        self, urls: Callable[[], Sequence[str]], seen: Seen, user_id: str | None = None
    ) -> None:
        """`urls` gives the servers that there are; another one is asked where one hangs up."""
        self.user_id = user_id or uuid4().hex
        self.acknowledged = 0
        self._urls = urls
        self._seen = seen
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._turn = 0

    async def meet(self) -> None:
        """Record an answer to every question, so that all have been met."""
        for _ in range(QUESTIONS):
            await self.record()

    async def run(self, end: asyncio.Event) -> None:
        """Record and ask until the end."""
        while not end.is_set():
            await self.record()
            await asyncio.sleep(_PACE_S)
            await self.ask()
            await asyncio.sleep(_PACE_S)
        self.hang_up()

    async def record(self) -> None:
        """Record the next answer, or the last one again that was not acknowledged."""
        number = self.acknowledged
        answer = {
            "question_id": str(number % QUESTIONS),
            "correct": number % 3 > 0,
            "asked_ms": _BASE_MS + number,
            "event_id": str(number),
        }
        done = await self._told(
            "POST", f"/users/{self.user_id}/interactions", {"interactions": [answer]}
        )
        if done is not None:
            self.acknowledged += 1

    async def ask(self) -> None:
        """Ask for a prediction, which must stand on all that was acknowledged."""
        asked = {"user_id": self.user_id, "question_id": "7", "knowledge_state": False}
        found = await self._told("POST", "/predict", asked)
        if found is not None and found["history_length"] < self.acknowledged:
            self._seen.forgotten += 1

    async def kept(self) -> list[int]:
        """Return the numbers of the answers that are there now, in order."""
        numbers: list[int] = []
        start: int | None = 0
        while start is not None:
            path = f"/users/{self.user_id}/interactions?start={start}&limit={_PAGE}"
            page = await self._told("GET", path)
            assert page is not None, "whoever counts must be answered"
            numbers += [one["asked_ms"] - _BASE_MS for one in page["interactions"]]
            start = page["next"]
        self.hang_up()
        return numbers

    def hang_up(self) -> None:
        """Close the connection; the next request makes another."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _told(self, method: str, path: str, body: Any = None) -> dict[str, Any] | None:
        """Return the answer, or note why there is none."""
        began_s = perf_counter()
        self._seen.requests += 1
        content = b"" if body is None else json.dumps(body).encode()
        failure = "no connection"
        for url in self._in_turn():
            try:
                async with asyncio.timeout(_LONGEST_S):
                    status, told = await self._answer(url, method, path, content)
            except asyncio.IncompleteReadError as exc:
                self.hang_up()
                if not exc.partial:  # hung up before a word: as good as never asked
                    self._turn += 1
                    continue
                failure = "cut short"
            except (OSError, TimeoutError) as exc:
                self.hang_up()
                failure = type(exc).__name__
                if isinstance(exc, ConnectionError):
                    self._turn += 1
                    continue
            else:
                self._seen.longest_s = max(self._seen.longest_s, perf_counter() - began_s)
                if status == 200:
                    found: dict[str, Any] = json.loads(told)
                    return found
                failure = json.loads(told)["code"]
            break
        self._seen.failed[failure] += 1
        self._seen.last_failure_s = perf_counter()
        self._seen.longest_s = max(self._seen.longest_s, perf_counter() - began_s)
        return None

    def _in_turn(self) -> list[str]:
        """Return whom to ask: who was asked last, and the others; a second time who is alone."""
        urls = list(self._urls())
        if not urls:
            return []
        turn = self._turn % len(urls)
        return [*urls[turn:], *urls[:turn], urls[turn]]

    async def _answer(self, url: str, method: str, path: str, content: bytes) -> tuple[int, bytes]:
        if self._streams is None:
            parts = urlsplit(url)
            self._streams = await asyncio.open_connection(parts.hostname, parts.port)
        reader, writer = self._streams
        writer.write(request(url, method, path, content))
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0])
        told = await reader.readexactly(length)
        if b"\r\nconnection: close" in head:
            self.hang_up()
        return int(head[9:12]), told


@dataclass
class Wrong:
    """What must not be: of all callers together."""

    lost: int = 0  # acknowledged, and not there
    doubled: int = 0
    disordered: int = 0


async def wrong_of(callers: Sequence[Caller]) -> Wrong:
    """Compare what is there with what was acknowledged."""
    wrong = Wrong()
    for caller in callers:
        there = await caller.kept()
        wrong.lost += len(set(range(caller.acknowledged)) - set(there))
        wrong.doubled += len(there) - len(set(there))
        wrong.disordered += sum(b <= a for a, b in pairwise(there))
    return wrong
