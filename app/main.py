"""The application: the one place where its parts are wired."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI

from app import __version__
from app.api import description, health, models, predictions, problems, users
from app.api.callers import Gate, Names
from app.api.deadlines import Deadlines
from app.api.deps import State
from app.api.direct import Direct, Service
from app.api.door import Room
from app.api.edge import Edge
from app.candidates import Candidate
from app.engine.engine import Engine, open_engine
from app.engine.memory import Memories
from app.errors import TracerError
from app.keys import Keyring
from app.lag import loop_lag
from app.meters import EngineMeter
from app.quality import Quality
from app.rollout import Rollout
from app.service import Tracer
from app.settings import Settings
from app.store.opening import open_store
from app.telemetry import Metrics

if TYPE_CHECKING:  # what it imports need not be installed
    from app.api.traces import Traces

log = logging.getLogger(__name__)

_LAST_TRACES_S = 3.0  # at the end; a platform waits for more than these

ABOUT = """\
A learner's answers go in; the chance of the next right answer and the knowledge state come out.

Ask before each question (`POST /predict`), report after each answer
(`POST /users/{user_id}/interactions`). Errors are `application/problem+json`; every answer carries
`X-Request-Id`, taken over from the request where one is given, and `Server-Timing`."""


def create_app(settings: Settings) -> FastAPI:
    """Return the application; everything is opened when its lifespan begins.

    Where that fails the lifespan raises a `TracerError`, kept in `app.state.start_failure`. Raises
    `KeysInvalid` at once where the file of keys cannot be used.
    """
    metrics = Metrics()
    deadlines = Deadlines(settings.deadline_ms / 1000)
    meter = EngineMeter(metrics)
    keyring = None if settings.keys_file is None else Keyring(settings.keys_file)
    gate = Gate(keyring, Names(settings.user_id_secret), metrics)
    traces = _traces(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[State]:
        began_s = time.monotonic()
        async with AsyncExitStack() as stack:
            if traces is not None:
                await stack.enter_async_context(traces)
            try:
                engine = await stack.enter_async_context(open_engine(settings, meter))
                store = await stack.enter_async_context(
                    open_store(
                        settings,
                        lambda result, n: metrics.states_kept.labels(result).inc(n),
                        metrics.foreseen,
                    )
                )
                quality = Quality(store.outcomes, settings.quality_share, metrics)
                memories = Memories(settings.memory_max_bytes, metrics.memories_evicted.inc)

                def traced(engine: Engine, candidates: Mapping[str, Candidate]) -> Tracer:
                    histories, states = store.histories, store.states
                    kept = histories, states, memories, quality
                    return Tracer(engine, *kept, settings, metrics, candidates)

                meter.opened(engine.provider.requested, engine.provider.effective)
                rollout = Rollout(engine, traced, memories, settings, meter)
                await rollout.tracer.condition.start()
            except TracerError as exc:
                app.state.start_failure = exc
                raise
            app.state.rollout = rollout
            stack.callback(asyncio.create_task(loop_lag(metrics.loop_lag), name="lag").cancel)
            if keyring is not None:
                stack.callback(asyncio.create_task(gate.watch(), name="keys").cancel)
            if settings.follow_artifacts_s:
                stack.callback(asyncio.create_task(rollout.follow(), name="versions").cancel)
            readiness = await rollout.tracer.condition.readiness()
            if not readiness.is_ready:
                log.error("not_ready", extra={"reasons": readiness.reasons})
            log.info("started", extra={"seconds": round(time.monotonic() - began_s, 3)})
            yield State(
                rollout=rollout,
                metrics=metrics,
                room=Room(settings.requests_max_items, metrics),
                deadlines=deadlines,
                max_body_bytes=settings.max_body_bytes,
                max_head_bytes=settings.max_head_bytes,
                head_timeout_s=settings.head_timeout_s,
                stuck_after_s=settings.stuck_after_s,
            )
            rollout.drain()
        log.info("stopped")

    app = Service(
        title="ktserve",
        summary="Knowledge tracing as a service.",
        description=ABOUT,
        version=__version__,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        lifespan=lifespan,
        redirect_slashes=False,
        separate_input_output_schemas=False,
        generate_unique_id_function=lambda route: route.name,
        # Of its own it would tell of paths, which hold user ids, and of bodies that are refused.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.state.start_failure = None
    app.state.rollout = None
    routers = (predictions.router, users.router, models.router, health.router)
    for router in routers:
        app.include_router(router)
    problems.install(app, [route for router in routers for route in router.routes])
    app.add_middleware(Edge, metrics=metrics, deadlines=deadlines, gate=gate, traces=traces)
    app.direct = Direct({"/predict": predictions.prediction})
    app.edge_of_direct = Edge(app.direct, metrics, deadlines, gate, traces)
    description.complete(app)
    return app


def _traces(settings: Settings) -> Traces | None:
    if settings.traces is None:
        return None
    from app.api.traces import Traces  # the extra `tracing`

    longest_s = min(settings.drain_s, _LAST_TRACES_S)
    return Traces(settings.traces, share=settings.traces_share, longest_s=longest_s)
