"""The one route that is asked before every question, without a router's way to it.

FastAPI wraps a request in seven layers, finds its route and resolves what that depends on, each
time anew; for a prediction that took longer than the prediction (docs/benchmarks.md). What is
answered here is what the route answers: both call the same function behind the same edge, and the
route is what /docs shows.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.bodies import bytes_of
from app.api.callers import Caller, caller_of
from app.api.deps import State
from app.api.problems import answer_of
from app.errors import TracerError

Answer = Callable[[State, Caller, bytes], Awaitable[bytes]]
"""From a caller's body to the body of a 200; raises `TracerError`."""

_METHOD = "POST"


class _Route:
    """What the edge asks of a route."""

    def __init__(self, path: str) -> None:
        self.path = path


class Direct:
    """ASGI: answers the POSTs that it knows, all of which predict; asked for nothing else."""

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        """`answers` by path."""
        self._answers = {path: (_Route(path), answer) for path, answer in answers.items()}

    def knows(self, scope: Scope) -> bool:
        """Say whether a request is one of those."""
        if scope["type"] != "http" or scope["method"] != _METHOD:
            return False
        raw = scope.get("raw_path")  # the edge goes by the path as it was sent
        path = scope["path"] if raw is None else raw.decode("latin-1")
        return path in self._answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        scope["route"], answer = self._answers[scope["path"]]
        state: State = scope["state"]
        caller = caller_of(scope)
        try:
            caller.require("predict")
            body = await bytes_of(scope, receive, state["max_body_bytes"])
            content = await answer(state, caller, body)
        except TracerError as exc:
            await answer_of(exc)(scope, receive, send)
        else:
            headers = [
                (b"content-length", b"%d" % len(content)),
                (b"content-type", b"application/json"),
            ]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": content})


class Service(FastAPI):
    """FastAPI, but for the requests that are answered before it."""

    direct: Direct
    edge_of_direct: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or run the lifespan."""
        if self.direct.knows(scope):
            await self.edge_of_direct(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)
