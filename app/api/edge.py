"""The outermost ring: every request gets an id, is timed and counted, and is always answered."""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
from collections.abc import Iterable
from http import HTTPStatus
from time import perf_counter
from typing import TYPE_CHECKING
from uuid import uuid4

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.callers import CALLER, Bucket, Gate
from app.api.deadlines import Deadlines
from app.api.problems import answer_of, problem_of, response_of
from app.errors import DeadlinePassed, TracerError
from app.telemetry import Metrics, Request, current_request

if TYPE_CHECKING:  # what it imports need not be installed
    from app.api.traces import Traces

log = logging.getLogger("app.access")
errors = logging.getLogger(__name__)

_GOOD_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
QUIET = frozenset({"/livez", "/readyz", "/metrics"})
"""Asked by machinery every few seconds, for ever."""

NO_ROUTE = "none"
"""The label of a request that has reached no route."""

SAFE = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),  # answers are of learners, and of this moment
]
"""Headers of every answer."""

_PROCESS, _count = uuid4().hex[:20], itertools.count()  # unlike any other process's
_LEFT = 499  # nothing was answered: the caller had gone


def request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the id that the caller has given the request, if it is one, or else a new one."""
    for name, value in headers:
        if name == b"x-request-id":
            given = value.decode("latin-1")
            if _GOOD_ID.fullmatch(given):
                return given
            break
    return f"{_PROCESS}{next(_count):012x}"


class Edge:
    """ASGI middleware. Labels and log lines hold the route's template, never the path."""

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        deadlines: Deadlines,
        gate: Gate,
        traces: Traces | None = None,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._deadlines = deadlines
        self._gate = gate
        self._traces = traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; pass on what is not HTTP."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Routes match the path as it was sent, so that an id may hold a slash as %2F.
        scope["path"] = scope.get("raw_path", scope["path"].encode()).decode("latin-1")
        request = Request(request_id(scope["headers"]))
        token = current_request.set(request)
        started, status = perf_counter(), 0
        limit: Bucket | None = None

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message["headers"]
                headers.append((b"x-request-id", request.id.encode()))
                if timing := request.server_timing:
                    headers.append((b"server-timing", timing.encode()))
                headers += SAFE
                if limit is not None:
                    headers += limit.headers()
            await send(message)

        task = asyncio.current_task()
        assert task is not None
        self._deadlines.begin(task)
        self._metrics.in_progress.inc()
        try:
            caller, limit = self._gate.admit(scope["path"], scope["headers"])
            scope[CALLER], request.key = caller, caller.key
            # Not of whoever may do nothing: he could have his spans in others' traces.
            if self._traces is not None and caller.scopes and scope["path"] not in QUIET:
                request.trace = self._traces.begin(scope)
            if limit is not None:
                limit.take()
            await self._app(scope, receive, send_with_headers)
        except TracerError as exc:  # of the gate: all others are answered further in
            await answer_of(exc)(scope, receive, send_with_headers)
        except ClientDisconnect:  # in the midst of the body: nobody is there to be answered
            pass
        except asyncio.CancelledError:
            if not self._deadlines.end(task) or status:
                raise
            task.uncancel()
            passed = DeadlinePassed(self._deadlines.after_s)
            await answer_of(passed)(scope, receive, send_with_headers)
        except Exception as exc:
            errors.error("request_broken", exc_info=exc)
            if status:  # the answer has begun: nothing can be said any more
                raise
            await response_of(problem_of(exc))(scope, receive, send_with_headers)
        finally:
            self._deadlines.end(task)
            self._metrics.in_progress.dec()
            self._note(scope, request, status or _LEFT, perf_counter() - started)
            current_request.reset(token)

    def _note(self, scope: Scope, request: Request, status: int, spent_s: float) -> None:
        route = getattr(scope.get("route"), "path", NO_ROUTE)
        # One that the route does not take is the caller's invention, of which there are many.
        is_taken = route != NO_ROUTE and status != HTTPStatus.METHOD_NOT_ALLOWED
        method = scope["method"] if is_taken else "any"
        self._metrics.requests.labels(route, method, str(status)).inc()
        self._metrics.request_duration.labels(route, method).observe(spent_s)
        if request.key is not None:
            self._metrics.key_requests.labels(request.key).inc()
        for code in request.problems:
            self._metrics.problems.labels(code).inc()
        level = logging.DEBUG if route in QUIET else logging.INFO
        if log.isEnabledFor(level):
            log.log(
                level,
                "request",
                extra={
                    "route": route,
                    "method": method,
                    "status": status,
                    "ms": round(spent_s * 1000, 3),
                    **({} if request.key is None else {"key": request.key}),
                },
            )
        if request.trace is not None:
            request.trace.end(None if route == NO_ROUTE else route, status, request.problems)
