"""How a connection ends: who is told something last can read it, and holds nothing for ever.

A socket that is closed while its peer still sends is ended by a reset, and a reset may take from
the peer what he has not read yet: the very answer that says why he is not listened to. So where
more may come our side alone is closed; what comes is dropped, for a bounded time, to a bounded
length, and for so many connections at once.

A socket that is closed while its peer takes nothing waits for him. That too is bounded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_MOST = 128


class Lingering:
    """How many connections of one application are closed on our side alone."""

    def __init__(self, most: int = _MOST) -> None:
        """`most` may be at a time; others are closed at once."""
        self.most = most
        self.now = 0


class _Transport:
    """What uvicorn takes for a connection's transport.

    All but `close` is the transport's own, bound once: nothing that is written costs more.
    """

    def __init__(self, own: asyncio.Transport, close: Callable[[], None]) -> None:
        self.own = own
        self.close = close
        self.write: Callable[[bytes], None] = own.write
        self.abort = own.abort
        self.pause_reading, self.resume_reading = own.pause_reading, own.resume_reading
        self.get_extra_info = own.get_extra_info
        self.get_write_buffer_size = own.get_write_buffer_size
        self.is_closing = own.is_closing

    def say_no_more(self) -> None:
        """Close our side."""
        self.write, self.is_closing = _drop, _yes
        self.own.write_eof()


class LastAnswers(HttpToolsProtocol):
    """uvicorn's protocol of one connection, whose end is bounded by the application's state."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._longest_s: float = self.app_state["head_timeout_s"]
        self._most_dropped_bytes: int = self.app_state["max_body_bytes"]
        self._lingering: Lingering = self.app_state["lingering"]
        self._is_lingering = False
        self._dropped_bytes = 0
        self._leaving: asyncio.TimerHandle | None = None  # while it lingers
        self._untaken_bytes = 0  # when they were last looked at
        self._taking: asyncio.TimerHandle | None = None  # while the caller takes no more

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection."""
        self._own = transport
        made: Any = _Transport(transport, self.close)
        super().connection_made(made)

    def is_sent_on(self) -> bool:
        """Say whether more may come of what has been answered."""
        return False

    def on_parting(self) -> None:
        """Read nothing more."""

    def close(self) -> None:
        """Close the connection when its answers have been taken."""
        if self.is_sent_on() and not self._is_lingering:
            self.linger()
        else:
            self.end()

    def linger(self) -> None:
        """Close our side alone, where there is room for it; drop what comes."""
        if self.transport.is_closing():
            return
        if self._lingering.now >= self._lingering.most:
            self.end()
            return
        self._lingering.now += 1
        self._is_lingering = True
        self.on_parting()
        self._unset_keepalive_if_required()
        self.flow.resume_reading()
        self._leaving = self.loop.call_later(self._longest_s, self.end)
        made: Any = self.transport
        try:
            made.say_no_more()
        except OSError:  # he has gone
            self.end()

    def drop(self, data: bytes) -> None:
        """Read nothing in what has come."""
        self._dropped_bytes += len(data)
        if self._is_lingering and self._dropped_bytes > self._most_dropped_bytes:
            self.end()

    def end(self) -> None:
        """Close the connection, whatever may come still."""
        self.on_parting()
        self._own.close()
        if self._own.get_write_buffer_size():
            self._look_later()

    def shutdown(self) -> None:
        """End it, where nothing is asked: a process that stops waits for no one's farewell."""
        super().shutdown()
        if self.transport.is_closing():
            self.end()

    def pause_writing(self) -> None:
        """Wait until the caller takes more of his answers, unless he takes nothing."""
        super().pause_writing()
        self._look_later()

    def resume_writing(self) -> None:
        """Go on: he has taken them."""
        if not self.transport.is_closing():  # else what is left has no other bound
            self._look_no_more()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing."""
        super().connection_lost(exc)
        self._look_no_more()
        if self._leaving is not None:
            self._leaving.cancel()
        if self._is_lingering:
            self._lingering.now -= 1
            self._is_lingering = False

    def _look_later(self) -> None:
        if self._taking is None:
            self._untaken_bytes = self._own.get_write_buffer_size()
            self._taking = self.loop.call_later(self._longest_s, self._look_who_takes)

    def _look_no_more(self) -> None:
        if self._taking is not None:
            self._taking.cancel()
            self._taking = None

    def _look_who_takes(self) -> None:
        self._taking = None
        if self._own.get_write_buffer_size() < self._untaken_bytes:
            self._look_later()
        else:
            self._own.abort()


def _drop(_: bytes) -> None:
    """Write nothing."""


def _yes() -> bool:
    return True
