"""/livez, /readyz, /metrics: what an operator's machinery asks."""

from __future__ import annotations

import math

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

from app.api import description
from app.api.deps import Measures, MetricsDep, StuckAfterDep, TracerDep, WriterDep
from app.api.schemas.health import Liveness, Readiness

router = APIRouter(tags=["operations"])


@router.get(
    "/livez",
    summary="Should the process live on?",
    response_model=Liveness,
    responses={503: {"model": Liveness, "description": "A model run hangs: restart."}},
)
async def livez(tracer: TracerDep, write: WriterDep, stuck_after_s: StuckAfterDep) -> Response:
    """Alive unless a model run has hung for longer than `KT_STUCK_AFTER_S`."""
    stuck_s = tracer.condition.stuck_s()
    alive = stuck_s < stuck_after_s
    shown = round(stuck_s, 3) if math.isfinite(stuck_s) else None
    return write({"alive": alive, "stuck_s": shown}, 200 if alive else 503)


@router.get(
    "/readyz",
    summary="May requests come?",
    response_model=Readiness,
    responses={503: {"model": Readiness, "description": "Not now; `reasons` says why."}},
)
async def readyz(tracer: TracerDep, write: WriterDep) -> Response:
    """Ready when every artifact is proved and warm, the store answers, and nobody is stopping."""
    readiness = await tracer.condition.readiness()
    content = Readiness.content_of(readiness)
    return write(content, 200 if readiness.is_ready else 503)


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {}}, "description": "Prometheus text format."},
        **description.responses(401, 403),
    },
)
async def metrics(_: Measures, tracer: TracerDep, found: MetricsDep) -> Response:
    """Every metric of the service; docs/operations.md says what each means."""
    # Both are noted as they are asked: a scrape shows them as they are now.
    tracer.condition.stuck_s()
    await tracer.condition.readiness()
    await tracer.tell_quality()
    return Response(generate_latest(found.registry), media_type=CONTENT_TYPE_LATEST)
