"""What the engine tells of its work, counted."""

from __future__ import annotations

from app.telemetry import Metrics


class EngineMeter:
    """An `app.engine.observer.Observer` that keeps the engine's metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def opened(self, requested: str, effective: str) -> None:
        """The engine runs on a provider."""
        self._metrics.provider.labels(requested, effective).set(1)
        is_fallback = requested == "auto" and effective == "cpu"
        self._metrics.provider_fallback.set(is_fallback)

    def serves(self, name: str, version: str, network: str) -> None:
        """A version of a model answers."""
        self._metrics.model.labels(name, version, network, "current").set(1)
        queue = self._metrics.queue_items, self._metrics.queue_refused
        for metric in (*queue, self._metrics.abandoned, self._metrics.scoring_failed):
            metric.labels(name)  # 0 and not absent: an autoscaler goes by it

    def retired(self, name: str, version: str, network: str) -> None:
        """A version of a model answers no more, and is closed."""
        self._metrics.model.labels(name, version, network, "current").set(0)

    def tries(self, name: str, version: str, network: str, *, is_on: bool) -> None:
        """A version of a model is a candidate, or is one no more."""
        self._metrics.model.labels(name, version, network, "candidate").set(is_on)

    def queue_changed(self, model: str, more: int) -> None:
        """So many more windows wait for a run than before, or fewer."""
        self._metrics.queue_items.labels(model).inc(more)

    def refused(self, model: str, windows: int) -> None:
        """So many windows were refused: the queue is full."""
        self._metrics.queue_refused.labels(model).inc(windows)

    def abandoned(self, model: str, windows: int) -> None:
        """A caller left before the run of so many windows began; they are not run."""
        self._metrics.abandoned.labels(model).inc(windows)

    def failed(self, model: str) -> None:
        """No run could answer a window."""
        self._metrics.scoring_failed.labels(model).inc()

    def batch_ran(
        self,
        model: str,
        items: int,
        padded_places: int,
        real_places: int,
        wait_s: float,
        run_s: float,
    ) -> None:
        """A run answered `items` windows; the one that came first had waited `wait_s`."""
        del wait_s, run_s  # timed for each request, as stages
        self._metrics.batch_items.labels(model).observe(items)
        self._metrics.batch_padding_ratio.labels(model).observe(padded_places / real_places)
