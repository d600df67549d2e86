"""The one route that is asked before every question, without a router's way to it.

FastAPI finds a route, resolves what it depends on and wraps it in four layers, for every request
anew; for a prediction that took longer than the prediction (docs/benchmarks.md). What `direct`
answers is what the route answers: both call the same function, and the route is what /docs shows.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.bodies import bytes_of
from app.api.deps import State
from app.api.problems import answer_of
from app.errors import TracerError

Answer = Callable[[State, bytes], Awaitable[bytes]]
"""From a body to the body of a 200; raises `TracerError`."""

_METHOD = "POST"


class _Route:
    """What the edge asks of a route."""

    def __init__(self, path: str) -> None:
        self.path = path


class Direct:
    """ASGI middleware: answers the POSTs that it knows, and passes on the rest."""

    def __init__(self, app: ASGIApp, answers: Mapping[str, Answer]) -> None:
        """`answers` by path."""
        self._app = app
        self._answers = {path: (_Route(path), answer) for path, answer in answers.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        known = self._answers.get(scope["path"]) if scope["type"] == "http" else None
        if known is None or scope["method"] != _METHOD:
            await self._app(scope, receive, send)
            return
        scope["route"], answer = known
        state: State = scope["state"]
        try:
            body = await bytes_of(scope, receive, state["max_body_bytes"])
            content = await answer(state, body)
        except TracerError as exc:
            await answer_of(exc)(scope, receive, send)
        else:
            headers = [
                (b"content-length", b"%d" % len(content)),
                (b"content-type", b"application/json"),
            ]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": content})
