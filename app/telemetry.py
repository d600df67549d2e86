"""What the service says about itself: metrics, and the stages of a request.

No label ever holds a user id, a question id or an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Protocol

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

from app.errors import StoreUnavailable
from app.noting import Kept, Notes, Observed

STAGES = ("store_read", "store_write", "queue", "run", "serialize")
"""Where the time of a request goes; each is one observation an operation, not a request."""

_DURATIONS_S = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03),
    *(0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_HISTORY = (0, 1, 5, 20, 50, 100, 200, 500, 1000, 2000, 4096)
_DIFFERENCES = (0.0001, 0.001, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5)
_RATIOS = (1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0)


class Trace(Protocol):
    """What is told of one request elsewhere than here (`app.api.traces`)."""

    id: str
    span_id: str

    def note(self, stage: str, spent_s: float, ago_s: float = 0.0, windows: int = 0) -> None:
        """Note a stage that ended just now, or so long ago; `windows` are those of a run."""

    def end(self, route: str | None, status: int, problems: Sequence[str]) -> None:
        """Tell of the request, which is over now."""


@dataclass(slots=True)
class Request:
    """What is known of the request under way in this task."""

    id: str
    stages_s: dict[str, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)  # codes of those told in the answer
    key: str | None = None  # name of the key that was shown, where there are keys
    trace: Trace | None = None  # None where nobody is told of it

    @property
    def server_timing(self) -> str:
        """The value of a `Server-Timing` header."""
        return ", ".join([f"{k};dur={v * 1000:.3f}" for k, v in self.stages_s.items()])


current_request: ContextVar[Request | None] = ContextVar("current_request", default=None)


class Metrics:
    """Every metric of one application, in a registry of its own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a third more series, of no use
        self.registry = CollectorRegistry()
        self._notes = Notes(self.registry)
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.requests = self._counter(
            "kt_requests", "Requests answered.", "route", "method", "code"
        )
        self.request_duration = self._histogram(
            "kt_request_duration_seconds",
            "Time from a request's head to the end of its answer.",
            _DURATIONS_S,
            "route",
            "method",
        )
        self.in_progress = self._gauge("kt_requests_in_progress", "Requests being answered now.")
        self.loop_lag = self._histogram(
            "kt_loop_lag_seconds", "How late the event loop comes to what is due.", _DURATIONS_S
        )
        self.problems = self._counter("kt_problems", "Problems answered.", "code")
        self.key_requests = self._counter("kt_key_requests", "Requests of each API key.", "key")
        self.key_reloads = self._counter(
            "kt_key_reloads", "The file of keys was read again: done, or refused.", "result"
        )
        self.stage_duration = self._histogram(
            "kt_stage_duration_seconds", "Time of one stage of a request.", _DURATIONS_S, "stage"
        )
        self.predictions = self._counter(
            "kt_predictions", "Predictions answered.", "model", "cold_start"
        )
        self.unseen = self._counter(
            "kt_unseen", "Ids in a prediction's request that the model does not know.", "kind"
        )
        self.history_length = self._histogram(
            "kt_history_length", "Interactions a prediction could stand on.", _HISTORY
        )
        self.recorded = self._counter("kt_interactions_recorded", "Interactions recorded.")
        self.duplicates = self._counter(
            "kt_interactions_duplicate", "Interactions left out: their event id was there already."
        )
        self.late = self._counter(
            "kt_answers_late",
            "Answers asked before one already there, by what was done: append, refuse, insert.",
            "done",
        )
        self.repeated = self._counter(
            "kt_calls_repeated", "Calls with an Idempotency-Key answered as they were before."
        )
        self.amended = self._counter("kt_interactions_amended", "Interactions corrected.")
        self.forgotten = self._counter("kt_users_forgotten", "Users deleted.")
        self.batch_items = self._histogram(
            "kt_batch_items", "Windows that shared one run.", _ITEMS, "model"
        )
        self.batch_padding_ratio = self._histogram(
            "kt_batch_padding_ratio", "Places run over places filled, of one run.", _RATIOS, "model"
        )
        self.queue_items = self._gauge("kt_queue_items", "Windows waiting for a run.", "model")
        self.queue_refused = self._counter(
            "kt_queue_refused", "Windows refused because the queue was full.", "model"
        )
        self.abandoned = self._counter(
            "kt_queue_abandoned", "Windows whose caller left before their run began.", "model"
        )
        self.scoring_failed = self._counter(
            "kt_scoring_failed", "Windows that no run could answer.", "model"
        )
        self.states_found = self._counter(
            "kt_states_found",
            "States looked for, held here or kept in the store: current, behind, or absent.",
            "model",
            "found",
        )
        self.answers_folded = self._counter(
            "kt_answers_folded", "Answers folded into kept states.", "model"
        )
        self.states_kept = self._counter(
            "kt_states_kept",
            "States after new answers: written, outrun by another server's, or lost.",
            "result",
        )
        self.memory_bytes = self._gauge(
            "kt_memory_bytes", "Held in this process of the users seen last."
        )
        self.memories_evicted = self._counter(
            "kt_memories_evicted", "Users' memories that had to go for want of room."
        )
        self.stuck = self._gauge(
            "kt_run_stuck_seconds", "Age of the oldest run that has not come back, 0 for none."
        )
        self.store_up = self._gauge("kt_store_up", "1 while the store answers.")
        self.store_warnings = self._gauge(
            "kt_store_warnings", "Ways in which the store may lose what it has acknowledged."
        )
        self.store_refuses_writes = self._gauge(
            "kt_store_refuses_writes", "1 while the store answers and takes no writes."
        )
        self.servers_gone = self._gauge(
            "kt_store_servers_gone", "Servers of the store that do not do what they should."
        )
        self.ready = self._gauge("kt_ready", "1 while /readyz says ready.")
        self.provider = self._gauge(
            "kt_provider_info",
            "Execution provider, as asked for and as had.",
            "requested",
            "effective",
        )
        self.provider_fallback = self._gauge(
            "kt_provider_fallback", "1 where the provider had is not the one hoped for."
        )
        self.candidate_difference = self._histogram(
            "kt_candidate_difference",
            "Between a candidate's probability and that of the version served, without its sign.",
            _DIFFERENCES,
            "model",
        )
        self.candidate_asked = self._counter(
            "kt_candidate_asked",
            "Questions put to a candidate: answered by it, compared, failed, or dropped.",
            "model",
            "result",
        )
        self.forecasts = self._counter(
            "kt_forecasts",
            "Predictions that wait for their answers: kept, or lost on the way to the store.",
            "result",
        )
        self.outcomes = self._counter(
            "kt_outcomes",
            "Predictions whose answer came: joined with it, or missed by the figures.",
            "result",
        )
        self.quality_answers = self._gauge(
            "kt_quality_answers", "Answers that the figures stand on.", "model", "version"
        )
        self.quality_auc = self._gauge(
            "kt_quality_auc", "Area under the ROC curve, of these answers.", "model", "version"
        )
        self.quality_log_loss = self._gauge(
            "kt_quality_log_loss", "Log loss in nats, of these answers.", "model", "version"
        )
        self.quality_calibration_error = self._gauge(
            "kt_quality_calibration_error",
            "Expected calibration error over 15 bins, of these answers.",
            "model",
            "version",
        )
        self.quality_correct_ratio = self._gauge(
            "kt_quality_correct_ratio",
            "Share of these answers that were right.",
            "model",
            "version",
        )
        self.quality_predicted_mean = self._gauge(
            "kt_quality_predicted_mean", "Mean prediction of these answers.", "model", "version"
        )
        self.quality_expected = self._gauge(
            "kt_quality_expected",
            "The same figures on the test split, as the artifact says.",
            "model",
            "version",
            "figure",
        )
        self.input_drift = self._gauge(
            "kt_input_drift",
            "Population stability index of these answers beside the training split.",
            "model",
            "version",
            "input",
        )
        self.model = self._gauge(
            "kt_model_info",
            "1 for each artifact that answers or is a candidate, 0 for one that did or was.",
            "model",
            "version",
            "network",
            "role",
        )
        for stage in STAGES:
            self.stage_duration.labels(stage)
        # There from the start: an increase is seen of what was there before.
        for result in ("done", "refused"):
            self.key_reloads.labels(result)
        for result in ("kept", "lost"):
            self.forecasts.labels(result)
        for result in ("joined", "missed"):
            self.outcomes.labels(result)

    def stage(self, name: str) -> _Stage:
        """Time a stage; stages that run one after the other add up in the request's own sum."""
        return _Stage(name, self.stage_duration.labels(name))

    def watched(self) -> _Watched:
        """Note whether the store answers."""
        return _Watched(self.store_up)

    def foreseen(self, result: str, times: int) -> None:
        """Note what became of forecasts, or of outcomes."""
        counter = self.forecasts if result in ("kept", "lost") else self.outcomes
        counter.labels(result).inc(times)

    def waited(
        self, name: str, spent_s: float, times: int = 1, *, ago_s: float = 0.0, windows: int = 0
    ) -> None:
        """Note a stage timed elsewhere, as often as it was shared; it ended so long ago.

        Of several at one time a request keeps the longest. `windows` are those of a run.
        """
        child = self.stage_duration.labels(name)
        if times == 1:
            child.observe(spent_s)
        else:
            child.observe_all([spent_s] * times)
        if request := current_request.get():
            request.stages_s[name] = max(request.stages_s.get(name, 0.0), spent_s)
            if request.trace is not None:
                request.trace.note(name, spent_s, ago_s, windows)

    def _noted(self, metric: Any, labels: tuple[str, ...], noting: Callable[[Any], Any]) -> Any:
        return _Labelled(metric, self._notes, noting) if labels else noting(metric)

    def _counter(self, name: str, text: str, *labels: str) -> Any:
        made = Counter(name, text, labels, registry=self.registry)
        return self._noted(made, labels, self._notes.counted)

    def _gauge(self, name: str, text: str, *labels: str) -> Any:
        made = Gauge(name, text, labels, registry=self.registry)
        return self._noted(made, labels, self._notes.kept)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Any:
        made = Histogram(name, text, labels, buckets=buckets, registry=self.registry)
        return self._noted(made, labels, self._notes.observed)


class _Labelled:
    """A metric whose children are looked up once: its own way takes a lock and joins strings."""

    def __init__(self, metric: Any, notes: Notes, noting: Callable[[Any], Any]) -> None:
        self._metric = metric
        self._notes = notes
        self._noting = noting
        self._children: dict[tuple[str, ...], Any] = {}

    def labels(self, *values: str) -> Any:
        """Return the child of these label values."""
        child = self._children.get(values)
        if child is None:
            child = self._children[values] = self._noting(self._metric.labels(*values))
        return child

    def remove(self, *values: str) -> None:
        """Tell nothing any more of these label values."""
        if (child := self._children.pop(values, None)) is not None:
            self._notes.drop(child)
            self._metric.remove(*values)


class _Stage:
    """Times what stands in its `with`."""

    __slots__ = ("_child", "_name", "_started")

    def __init__(self, name: str, child: Observed) -> None:
        self._name = name
        self._child = child

    def __enter__(self) -> None:
        self._started = perf_counter()

    def __exit__(self, *_: object) -> None:
        spent_s = perf_counter() - self._started
        self._child.observe(spent_s)
        if request := current_request.get():
            request.stages_s[self._name] = request.stages_s.get(self._name, 0.0) + spent_s
            if request.trace is not None:
                request.trace.note(self._name, spent_s)


class _Watched:
    """Notes whether the store answers what stands in its `with`."""

    __slots__ = ("_store_up",)

    def __init__(self, store_up: Kept) -> None:
        self._store_up = store_up

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._store_up.set(1)
        elif issubclass(kind, StoreUnavailable):
            self._store_up.set(0)
