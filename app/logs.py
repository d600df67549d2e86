"""Log lines, each a JSON object; none ever holds a user id, a question id or an answer."""

from __future__ import annotations

import logging
import sys
import time
import traceback
from types import TracebackType
from typing import IO, Any

import orjson

from app.telemetry import current_request

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


class JsonLines(logging.Formatter):
    """One JSON object a line: the event, its fields, the id of the request.

    Of an exception it tells the type and the places, and the message at level debug only: messages
    quote values, and values are personal data.
    """

    converter = staticmethod(time.gmtime)

    def __init__(self, *, messages: bool = False) -> None:
        super().__init__()
        self._messages = messages

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "at": f"{self.formatTime(record, '%Y-%m-%dT%H:%M:%S')}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": self._event(record),
        }
        if request := current_request.get():
            line["request_id"] = request.id
            if request.trace is not None:
                line |= {"trace_id": request.trace.id, "span_id": request.trace.span_id}
        line |= {k: v for k, v in vars(record).items() if k not in _STANDARD}
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = type(record.exc_info[1]).__name__
            line["trace"] = _places(record.exc_info[2])
            if self._messages:
                line["message"] = str(record.exc_info[1])
        return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode()

    def _event(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if self._messages or record.name != "asyncio":
            return text
        # It goes on with what a task or a call holds, and the message of what it raised.
        return text.partition("\n")[0].partition("(")[0]


def _places(tb: TracebackType | None) -> list[str]:
    return [f"{f.filename}:{f.lineno} {f.name}" for f in traceback.extract_tb(tb)]


def log_to(stream: IO[str] | None = None, *, level: str = "info") -> None:
    """Send every log line of this process to `stream` (standard error) as JSON."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines(messages=level == "debug"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
