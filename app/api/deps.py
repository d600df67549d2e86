"""What routes are given."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, TypedDict

from fastapi import Depends, Path, Request
from starlette.responses import Response

from app.api.callers import Caller, Needs
from app.api.deadlines import Deadlines
from app.api.door import Room
from app.api.schemas.fields import PathId
from app.api.writing import json_of
from app.rollout import Rollout
from app.service import Tracer
from app.telemetry import Metrics


async def _unhurried(request: Request) -> None:
    task = asyncio.current_task()
    assert task is not None
    request.state.deadlines.end(task)


class State(TypedDict):
    """What the lifespan of the application hands to every request."""

    rollout: Rollout
    metrics: Metrics
    room: Room
    deadlines: Deadlines
    max_body_bytes: int
    max_head_bytes: int
    head_timeout_s: float
    stuck_after_s: float


# Coroutines, though they wait for nothing: FastAPI sends a plain function to a thread.


async def _tracer(request: Request) -> Tracer:
    rollout: Rollout = request.state.rollout
    return rollout.tracer


async def _rollout(request: Request) -> Rollout:
    rollout: Rollout = request.state.rollout
    return rollout


async def _metrics(request: Request) -> Metrics:
    metrics: Metrics = request.state.metrics
    return metrics


async def _stuck_after_s(request: Request) -> float:
    stuck_after_s: float = request.state.stuck_after_s
    return stuck_after_s


class Writer:
    """Turns an answer into bytes, once."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def __call__(self, content: Any, status: int = 200) -> Response:
        """Return the JSON response with `content`; see `json_of`."""
        with self._metrics.stage("serialize"):
            body = json_of(content)
        return Response(body, status, media_type="application/json")


async def _writer(request: Request) -> Writer:
    return Writer(request.state.metrics)


TracerDep = Annotated[Tracer, Depends(_tracer)]
RolloutDep = Annotated[Rollout, Depends(_rollout)]
MetricsDep = Annotated[Metrics, Depends(_metrics)]
StuckAfterDep = Annotated[float, Depends(_stuck_after_s)]
WriterDep = Annotated[Writer, Depends(_writer)]

UNHURRIED = Depends(_unhurried)
"""Of a route that may take longer than a question: it has no deadline from there on."""

Predicts = Annotated[Caller, Depends(Needs("predict"))]
Reads = Annotated[Caller, Depends(Needs("read"))]
Writes = Annotated[Caller, Depends(Needs("write"))]
Administers = Annotated[Caller, Depends(Needs("admin"))]
Measures = Annotated[Caller, Depends(Needs("metrics"))]
"""The caller, who has that scope."""

UserId = Annotated[
    PathId,
    Path(description="The user. Any character may stand in it, percent-encoded.", examples=["u1"]),
]
ModelName = Annotated[PathId, Path(description="The model.", examples=["dkt_asked"])]
