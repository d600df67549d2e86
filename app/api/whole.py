"""Answers that are whole go out in one piece.

uvicorn sends a head and then a body: two calls of the system, two packets for the caller to read,
and each header goes through two patterns. That was a sixth of the time of a prediction
(docs/benchmarks.md).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from starlette.types import Message
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

_CONTROLS = bytes([*range(9), *range(10, 32), 127])
_NOT_IN_NAMES = bytes([*range(33), 127]) + b'()<>@,;:\\[]={}"'
_UVICORNS = frozenset({b"connection", b"transfer-encoding"})
"""Headers by which uvicorn is told what to do with the connection or the body."""


def lines_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return headers as they go over the wire."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])


class WholeAnswer:
    """ASGI's `send` of one request; the head of its answer waits for what follows.

    What is no whole answer, or goes out by other rules, uvicorn sends as ever.
    """

    __slots__ = ("_cycle", "_head")

    def __init__(self, cycle: Any) -> None:
        """`cycle` is uvicorn's, of the request."""
        self._cycle = cycle
        self._head: Message | None = None

    async def __call__(self, message: Message) -> None:
        """Send a part of the answer."""
        head, self._head = self._head, None
        if head is None and message["type"] == "http.response.start":
            if self._cycle.waiting_for_100_continue:
                # Nobody has asked for the body: whether it comes, or another request, is not known.
                self._cycle.keep_alive = False
            self._head = message
        elif head is None:
            await self._cycle.send(message)
        elif not self._sent(head, message):
            await self._cycle.send(head)
            await self._cycle.send(message)

    def _sent(self, head: Message, message: Message) -> bool:
        """Send an answer if it is whole and there is nothing out of the way about it."""
        cycle = self._cycle
        if (
            message.get("more_body", False)
            or cycle.response_started
            or cycle.disconnected
            or cycle.flow.write_paused
            or not cycle.keep_alive
            or cycle.scope["method"] == "HEAD"
        ):
            return False
        body = message.get("body", b"")
        answer = _joined(head["status"], [*cycle.default_headers, *head["headers"]], body)
        if answer is None:
            return False
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        cycle.transport.write(answer)
        cycle.message_event.set()
        cycle.on_response()
        return True


def _joined(status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> bytes | None:
    """Return the bytes of an answer; None where its headers say no whole one."""
    is_whole = False
    for name, value in headers:
        if name in _UVICORNS:
            return None
        if name == b"content-length":
            is_whole = value == b"%d" % len(body)
    if not is_whole:
        return None
    lines = lines_of(headers)
    names = b"".join([name for name, _ in headers])
    # A control character would end a header where it does not end: uvicorn refuses these answers.
    if (
        len(lines) - len(lines.translate(None, _CONTROLS)) != 2 * len(headers)
        or names.translate(None, _NOT_IN_NAMES) != names
    ):
        return None
    return b"%b%b\r\n%b" % (STATUS_LINE[status], lines, body)
