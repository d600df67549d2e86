"""Before a request is one: refused where too many are being answered, ended where its caller left.

Under three times the load that can be carried two requests of three are refused, and what that
costs is taken from the third one. So it is done in uvicorn's protocol, as soon as the head has been
read, before anything is made for the request.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from contextvars import Context
from types import SimpleNamespace
from typing import Any

import orjson
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from app.api.edge import NO_ROUTE, QUIET, SAFE, request_id
from app.api.heads import BoundedHeads
from app.api.problems import MEDIA_TYPE, problem_of
from app.api.whole import WholeAnswer, lines_of
from app.errors import Overloaded
from app.telemetry import Metrics

Headers = list[tuple[bytes, bytes]]

_OPEN = frozenset(path.encode() for path in QUIET)
"""Asked by whoever decides whether this process lives: a full house is no reason to restart it."""

_CROWDED = 3  # so many times smaller is the room while some are refused
_CALM_S = 0.05  # without a refusal: the crowd has gone

_ID = "\0"  # stands where the request's id will


class Room:
    """How many requests are being answered, and the answer to who is not let in."""

    def __init__(self, most: int, metrics: Metrics) -> None:
        """`most` requests may be answered at a time."""
        self.inside = 0
        self._most = most
        self._refused_s = -math.inf  # when the last one was, on the loop's clock
        problem = problem_of(
            Overloaded(f"{most} requests may be answered at a time, and more have come")
        )
        body = orjson.dumps({**problem, "request_id": _ID})
        self._before, self._after = body.split(orjson.dumps(_ID)[1:-1])
        self._length = len(self._before) + len(self._after)
        self._head = STATUS_LINE[problem["status"]] + (
            f"content-type: {MEDIA_TYPE}\r\nretry-after: {problem['retry_after_s']}\r\n".encode()
            + lines_of(SAFE)
        )
        self._requests = metrics.requests.labels(NO_ROUTE, "any", str(problem["status"]))
        self._problems = metrics.problems.labels(problem["code"])

    def is_full(self, now_s: float) -> bool:
        """Say whether who comes now must be refused.

        A burst may fill the room. Once it has, the room is smaller for as long as some are refused:
        where more come than can be answered, a full one would only make everybody wait.
        """
        is_crowded = now_s - self._refused_s < _CALM_S
        if self.inside < (math.ceil(self._most / _CROWDED) if is_crowded else self._most):
            return False
        self._refused_s = now_s
        return True

    def refusal(self, asked: Headers, more: Headers) -> bytes:
        """Return the answer to the request with the headers `asked`; `more` go with its own."""
        self._requests.inc()
        self._problems.inc()
        name = request_id(asked).encode()
        return b"%sx-request-id: %s\r\ncontent-length: %d\r\n%s\r\n%s%s%s" % (
            *(self._head, name, self._length + len(name), lines_of(more)),
            *(self._before, name, self._after),
        )


class Door(BoundedHeads):
    """uvicorn's protocol of one connection, with a door; for `uvicorn.Config(http=...)`."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._service: Any = self.app
        self.app = self._answer
        self._room: Room = self.app_state["room"]
        self._places: deque[int] = deque()  # of each of its requests, 0 or 1; answers go in order
        self.cycle = _ANSWERED
        self._answering: tuple[asyncio.Task[Any], Any] | None = None  # and uvicorn's cycle of it
        self._has_left = False
        self._is_refused = False  # the request that is being read

    def on_head(self) -> None:
        """Let a request in, or refuse it; what is left of a refused one is read and forgotten."""
        if fault := self.fault():
            self._is_refused = False
            self._turn_away(fault)
            return
        is_open = self.url.partition(b"?")[0] in _OPEN
        self._is_refused = (
            # Answers go in order: behind one that is still to come this is no place to refuse.
            self.cycle.response_complete
            and self.parser.get_method() != b"HEAD"  # the refusal has a body
            and not is_open
            and self._room.is_full(self.loop.time())
        )
        if self._is_refused:
            self._refuse()
        else:
            super().on_head()
            self._places.append(0 if is_open else 1)
            if len(self._places) == 1:  # one that was sent ahead waits for those before it
                self._room.inside += self._places[0]

    def on_end(self) -> None:
        """Be ready for the next request."""
        super().on_end()
        if not self.pipeline:
            self.flow.resume_reading()  # behind a large body a hang-up would not be noticed
        if self._is_refused:
            super().on_response_complete()  # the time begins after which an idle one is closed
            if not self.parser.should_keep_alive():
                self.transport.close()

    def on_response_complete(self) -> None:
        """Make room: the answer is on its way."""
        self._room.inside -= self._places.popleft()
        if self._places:
            self._room.inside += self._places[0]
        # The next request is no part of this one, and its log lines have another id.
        Context().run(super().on_response_complete)

    def connection_lost(self, exc: Exception | None) -> None:
        """End what is being done for a caller who has left."""
        super().connection_lost(exc)
        self.give_up()

    def give_up(self) -> None:
        """End what is being done.

        What the store has been asked to write is written: it is shielded there.
        """
        self._has_left = True
        if self._places:
            self._room.inside -= self._places[0]
            self._places.clear()
        if self._answering is not None:
            task, cycle = self._answering
            cycle.disconnected = True  # of requests sent ahead uvicorn tells the last one only
            task.cancel()

    def _refuse(self) -> None:
        if self.flow.write_paused:  # refusals that nobody takes would be kept without end
            self.transport.abort()
            return
        more = self.server_state.default_headers
        # A caller who waits to be let in with the body will not send it: nobody could tell then
        # where the next request begins.
        if self.expect_100_continue or not self.parser.should_keep_alive():
            more = [*more, (b"connection", b"close")]
        self.transport.write(self._room.refusal(self.headers, more))
        if self.expect_100_continue:
            self.linger()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None
        cycle = send.__self__  # type: ignore[attr-defined]
        self._answering = task, cycle
        try:
            await self._service(scope, receive, WholeAnswer(cycle))
        except asyncio.CancelledError:
            if not (self._has_left or self.flow.write_paused):
                raise
            cycle.disconnected = True
            if not self._has_left:
                # Its time has passed while its answer waited for the caller to take the one before.
                self.transport.abort()
        finally:
            self._answering = None


_ANSWERED: Any = SimpleNamespace(response_complete=True, message_event=asyncio.Event())
"""The request before the first one of a connection: uvicorn asks whether it has been answered."""
