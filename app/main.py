"""The application: the one place where its parts are wired."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import FastAPI

from app import __version__
from app.api import description, health, models, predictions, problems, users
from app.api.deadlines import Deadlines
from app.api.deps import State
from app.api.direct import Direct, Service
from app.api.door import Room
from app.api.edge import Edge
from app.engine.engine import open_engine
from app.errors import TracerError
from app.meters import EngineMeter
from app.service import Tracer
from app.settings import Settings
from app.store.opening import open_store
from app.telemetry import Metrics

log = logging.getLogger(__name__)

ABOUT = """\
A learner's answers go in; the chance of the next right answer and the knowledge state come out.

Ask before each question (`POST /predict`), report after each answer
(`POST /users/{user_id}/interactions`). Errors are `application/problem+json`; every answer carries
`X-Request-Id`, taken over from the request where one is given, and `Server-Timing`."""


def create_app(settings: Settings) -> FastAPI:
    """Return the application; everything is opened when its lifespan begins.

    Where that fails the lifespan raises a `TracerError`, kept in `app.state.start_failure`.
    """
    metrics = Metrics()
    deadlines = Deadlines(settings.deadline_ms / 1000)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[State]:
        began_s = time.monotonic()
        async with AsyncExitStack() as stack:
            try:
                engine = await stack.enter_async_context(
                    open_engine(settings, EngineMeter(metrics))
                )
                store = await stack.enter_async_context(
                    open_store(
                        settings, lambda result, n: metrics.states_kept.labels(result).inc(n)
                    )
                )
                tracer = Tracer(engine, store.histories, store.states, settings, metrics)
                EngineMeter(metrics).opened(
                    engine.provider.requested,
                    engine.provider.effective,
                    [(m.name, m.version, m.manifest.network) for m in tracer.models],
                )
            except TracerError as exc:
                app.state.start_failure = exc
                raise
            app.state.tracer = tracer
            readiness = await tracer.readiness()
            if not readiness.is_ready:
                log.error("not_ready", extra={"reasons": readiness.reasons})
            log.info("started", extra={"seconds": round(time.monotonic() - began_s, 3)})
            yield State(
                tracer=tracer,
                metrics=metrics,
                room=Room(settings.requests_max_items, metrics),
                max_body_bytes=settings.max_body_bytes,
                stuck_after_s=settings.stuck_after_s,
            )
            tracer.drain()
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
    )
    app.state.start_failure = None
    app.state.tracer = None
    for router in (predictions.router, users.router, models.router, health.router):
        app.include_router(router)
    problems.install(app)
    app.add_middleware(Edge, metrics=metrics, deadlines=deadlines)
    app.direct = Direct({"/predict": predictions.prediction})
    app.edge_of_direct = Edge(app.direct, metrics, deadlines)
    description.complete(app)
    return app
