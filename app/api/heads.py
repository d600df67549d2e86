"""Heads of requests: none may be large, and none may take long to come.

uvicorn bounds neither: whoever sends a head byte by byte, or one without end, would hold a
connection and its memory for ever. Bodies are bounded elsewhere: their size where they are read,
their time by the deadline of the request.
"""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.api.problems import MEDIA_TYPE, HeadTooLarge, HeadTooSlow, problem_of
from app.errors import TracerError


class BoundedHeads(HttpToolsProtocol):
    """uvicorn's protocol of one connection; its heads are bounded by the application's state."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._most_bytes: int = self.app_state["max_head_bytes"]
        self._longest_s: float = self.app_state["head_timeout_s"]
        self._is_in_head = True  # a head is due, or has come in part
        self._head_bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect the first head."""
        super().connection_made(transport)
        self._expect()

    def on_message_begin(self) -> None:
        """Expect the rest of a head."""
        self._is_in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count what a header takes."""
        self._head_bytes += len(name) + len(value) + 4
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Expect no more of it."""
        self._is_in_head = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Read on, unless the head has become too large."""
        unfinished = self._head_bytes if self._is_in_head else 0
        super().data_received(data)
        if not self._is_in_head:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            return
        # Of a header that has not ended the parser tells nothing: it is counted as it comes.
        self._head_bytes = max(self._head_bytes, unfinished + len(data))
        if self._head_bytes > self._most_bytes:
            self._turn_away(HeadTooLarge(self._most_bytes))
        elif self._timer is None and self._head_bytes:
            self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        super().connection_lost(exc)

    @property
    def is_head_too_large(self) -> bool:
        """The head that has just been read is larger than any may be."""
        return self._head_bytes > self._most_bytes

    def _expect(self) -> None:
        self._timer = self.loop.call_later(self._longest_s, self._too_slow)

    def _too_slow(self) -> None:
        self._timer = None
        if self._head_bytes:
            self._turn_away(HeadTooSlow(self._longest_s))
        else:  # nothing was asked
            self.transport.close()

    def _turn_away(self, problem: TracerError) -> None:
        """Answer what cannot be read, and close."""
        if self.transport.is_closing():
            return
        told = problem_of(problem)
        body = orjson.dumps(told)
        head = STATUS_LINE[told["status"]] + (
            f"content-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\n"
            "connection: close\r\n\r\n"
        ).encode("ascii")
        self.transport.write(head + body)
        self.transport.close()
