"""How late the event loop comes is told, for as long as the application runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from app.main import create_app
from app.settings import Settings
from app.telemetry import Metrics
from tests.app.conftest import ARTIFACTS


async def until(said: Callable[[], bool]) -> None:
    """Wait until it is so."""
    async with asyncio.timeout(30):
        while not said():
            await asyncio.sleep(0.01)


def noted(metrics: Metrics, part: str = "count", **labels: str) -> float:
    return metrics.registry.get_sample_value(f"kt_loop_lag_seconds_{part}", labels) or 0.0


def late(metrics: Metrics) -> float:
    """So many times the loop came late by more than what a busy machine makes of it."""
    return noted(metrics) - noted(metrics, "bucket", le="0.15")


def under_way() -> set[str]:
    return {task.get_name() for task in asyncio.all_tasks()}


def test_what_holds_up_the_event_loop_is_noted_while_the_application_runs(tmp_path):
    """Each time that passed meanwhile counts, so that half a second weighs more than a tenth."""

    async def run() -> None:
        app = create_app(Settings(artifact_dir=ARTIFACTS, data_dir=tmp_path))
        async with app.router.lifespan_context(app) as state:
            metrics = state["metrics"]
            await until(lambda: noted(metrics) > 0)
            before, began_s = late(metrics), time.monotonic()
            count = noted(metrics)
            time.sleep(0.6)
            await until(lambda: late(metrics) >= before + 3)
            assert noted(metrics) - count <= (time.monotonic() - began_s) / 0.1 + 2  # each once
            assert "lag" in under_way()
        await asyncio.sleep(0)  # it is cancelled, and has a turn to end

        assert "lag" not in under_way()

    asyncio.run(run())
