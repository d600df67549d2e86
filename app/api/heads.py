"""Heads of requests: none may be large, none may take long to come, and what is none is told so.

uvicorn bounds neither: whoever sends a head byte by byte, or one without end, would hold a
connection and its memory for ever. So would the headers that may come behind a body, and a body
that goes on when its request has been answered. Until then bodies are bounded elsewhere: their size
where they are read, their time by the deadline of the request.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import orjson
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from app.api.edge import NO_ROUTE, SAFE, request_id
from app.api.parting import LastAnswers
from app.api.problems import MEDIA_TYPE, HeadTooLarge, HeadTooSlow, RequestUnreadable, problem_of
from app.api.readings import fault_of
from app.api.whole import lines_of
from app.errors import TracerError
from app.telemetry import Metrics

log = logging.getLogger(__name__)


class _Parser(HttpRequestParser):
    """Reads requests that ask for another protocol as those that do not.

    None is spoken here. httptools would take what comes behind such a head for that protocol, and
    leave out its body: Java's client asks for HTTP/2 so, by itself.
    """

    def __init__(self, protocol: BoundedHeads) -> None:
        super().__init__(protocol)
        # As uvicorn's own: the last answer goes out though more has been sent behind it.
        self.set_dangerous_leniencies(lenient_data_after_close=True)
        self._protocol = protocol

    @property
    def is_for_another_protocol(self) -> bool:
        """The head just read asks for one, and is to be read again."""
        return bool(self.should_upgrade()) and self.get_method() != b"CONNECT"

    def feed_data(self, data: Any) -> None:
        """Read on; raise as httptools does."""
        while True:
            try:
                super().feed_data(data)
            except HttpParserUpgrade as exc:
                if not self.is_for_another_protocol:
                    raise
                data = self._protocol.head_again() + data[exc.args[0] :]
                if not self.should_keep_alive():  # then it reads nothing that comes behind the head
                    self._protocol.parser_anew().feed_data(data)
                    return
            else:
                return


class BoundedHeads(LastAnswers):
    """uvicorn's protocol of one connection; its heads are bounded by the application's state."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.parser = self._parser = _Parser(self)
        self._most_bytes: int = self.app_state["max_head_bytes"]
        self._metrics: Metrics = self.app_state["metrics"]
        self._is_in_head = True  # a head is due, or has come in part
        self._is_in_body = False  # the rest of a request is due
        self._head_bytes = 0
        self._heads = 0  # that have been read
        self._mute_bytes = 0  # behind a head, since something of a body has come
        self._before: Any = None  # uvicorn's cycle of the request before the one that is being read
        self._is_deaf = False  # what comes is no part of anything any more
        self._is_turned_away = False
        self._timer: asyncio.TimerHandle | None = None  # of a head
        self._end: asyncio.TimerHandle | None = None  # of a body that nobody wants any more

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect the first head."""
        super().connection_made(transport)
        self._expect()

    def on_message_begin(self) -> None:
        """Expect the rest of a head."""
        self._is_in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Count what the path takes."""
        self._head_bytes += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count what a header takes. One behind a body is none of the request's: it is dropped."""
        if self._is_in_head:
            self._head_bytes += len(name) + len(value) + 4
            # By hand, as uvicorn does: a call for each header would cost more than all that
            # is looked for in them (`app.api.readings`).
            name = name.lower()
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Expect no more of it, but for one that is to be read again."""
        if not (self._is_deaf or self._parser.is_for_another_protocol):
            self._is_in_head = False
            self._heads += 1
            self._mute_bytes = 0
            self._before = self.cycle
            if self.expect_100_continue and self.parser.get_http_version() == "1.0":
                self.expect_100_continue = False  # he would take `100 Continue` for the answer
            self.on_head()
            self._is_in_body = True

    def on_head(self) -> None:
        """Begin with a request."""
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        self._mute_bytes = 0
        if not self._is_deaf:  # or it would be added to that of the request before
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Expect the next head, unless this one is to be read again."""
        if not (self._is_in_head or self._is_deaf):
            self._is_in_body, self._before = False, None
            self.headers = []  # those of a request that cannot be read may be none
            self._let_end()
            self.on_end()

    def on_end(self) -> None:
        """End reading a request."""
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        """Read on, unless the head has become too large."""
        if self._is_deaf:
            self.drop(data)
            return
        heads, was_in_body = self._heads, self._is_in_body
        unfinished = self._head_bytes if self._is_in_head else 0
        self._mute_bytes += len(data)
        self._unset_keepalive_if_required()
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self._turn_away(RequestUnreadable())
        if self._heads > heads:  # the time was that of another head
            self._stop_timer()
        if self._is_deaf or not self._is_in_head:
            self._bound_body()
            return
        # Of a header that has not ended the parser tells nothing: it is counted as it comes, unless
        # most of the data may have been of requests before it.
        is_all_of_it = self._heads == heads and not was_in_body
        self._head_bytes = max(self._head_bytes, unfinished + len(data) if is_all_of_it else 1)
        if self._head_bytes > self._most_bytes:
            self._turn_away(HeadTooLarge(self._most_bytes))
        elif self._timer is None:
            self._expect()

    def _bound_body(self) -> None:
        """Wait neither long for what nobody wants any more, nor for ever for what is no body."""
        if self._is_deaf or not self._is_in_body:
            return
        if self._mute_bytes > self._most_bytes:
            self.end()
        elif self.cycle.response_complete and self._end is None:
            self._end = self.loop.call_later(self._longest_s, self.end)

    def parser_anew(self) -> _Parser:
        """Return another parser, which reads on from here."""
        self.parser = self._parser = _Parser(self)
        return self._parser

    def head_again(self) -> bytes:
        """Return the head just read, without its wish for another protocol."""
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (method, self.url, version)]
        lines += [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing."""
        self._stop_timer()
        self._let_end()
        super().connection_lost(exc)

    def is_sent_on(self) -> bool:
        """Say whether the rest of a request is due, or what comes instead of one."""
        return self._is_in_body or self._is_turned_away

    def on_parting(self) -> None:
        """Expect nothing."""
        self._is_deaf = True
        self._stop_timer()
        self._let_end()

    def give_up(self) -> None:
        """End what is being done for a request."""

    def fault(self) -> TracerError | None:
        """Return what is wrong with the head that has just been read; None if nothing."""
        if self._head_bytes > self._most_bytes:
            return HeadTooLarge(self._most_bytes)
        return fault_of(self.parser.get_http_version(), self.url, self.headers)

    def _expect(self) -> None:
        self._timer = self.loop.call_later(self._longest_s, self._too_slow)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _let_end(self) -> None:
        if self._end is not None:
            self._end.cancel()
            self._end = None

    def _too_slow(self) -> None:
        self._timer = None
        if self._head_bytes:
            self._turn_away(HeadTooSlow(self._longest_s))
        else:  # nothing was asked
            self.end()

    def _turn_away(self, problem: TracerError) -> None:
        """Answer what cannot be read, where its answer is due, and close."""
        if self._is_deaf or self.transport.is_closing():
            return
        log.debug("turned_away", extra={"code": problem.code})
        if self._is_in_body and self.pipeline:  # it waits for those before it, and is not begun
            self.pipeline.popleft()
            self.cycle, self._is_in_body = self._before, False
        self._is_deaf = self._is_turned_away = True
        self._stop_timer()
        is_answered = self.cycle.response_complete
        if not (is_answered or self._is_in_body):
            # Its answer would be taken for that to the request before, with which all ends.
            self.cycle.keep_alive = False
            return
        if not (self._is_in_body and self.cycle.response_started):
            self._answer_unread(problem)
        if not is_answered:
            self.cycle.disconnected = True  # whoever answers it says no more
            self.give_up()
        self.linger()

    def _answer_unread(self, problem: TracerError) -> None:
        name = request_id(self.headers or ())
        told = {**problem_of(problem), "request_id": name}
        body = orjson.dumps(told)
        headers = [
            *self.server_state.default_headers,
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
            (b"x-request-id", name.encode()),
            *SAFE,
        ]
        head = STATUS_LINE[told["status"]] + lines_of(headers)
        is_asked = self.parser.get_method() != b"HEAD"
        self.transport.write(head + b"\r\n" + (body if is_asked else b""))
        self._metrics.requests.labels(NO_ROUTE, "any", str(told["status"])).inc()
        self._metrics.problems.labels(told["code"]).inc()
