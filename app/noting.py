"""Values noted now, and put into their metrics when somebody reads these.

The client takes two locks for a value and looks through the bounds of all buckets for its own; for
a prediction, of which eight are taken, that was a tenth of the time (docs/benchmarks.md). Metrics
of one application are written and read in its event loop alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

_MOST = 4096
"""Values of one metric that wait, at most."""


class Notes(Collector):
    """What has been noted for the metrics of a registry; each read of it puts it in first."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Of a registry that is empty yet: collectors are read in the order of their coming."""
        self._all: list[Counted | Kept | Observed] = []
        registry.register(self)

    def counted(self, counter: Any) -> Counted:
        """Return what notes for a counter."""
        self._all.append(made := Counted(counter))
        return made

    def kept(self, gauge: Any) -> Kept:
        """Return what notes for a gauge."""
        self._all.append(made := Kept(gauge))
        return made

    def observed(self, histogram: Any) -> Observed:
        """Return what notes for a histogram."""
        self._all.append(made := Observed(histogram))
        return made

    def drop(self, note: Counted | Kept | Observed) -> None:
        """Put nothing in any more that is noted there."""
        self._all.remove(note)

    def collect(self) -> Iterable[Metric]:
        """Put in what has been noted; there is no metric of its own."""
        for one in self._all:
            one.settle()
        return ()

    def describe(self) -> Iterable[Metric]:
        """Tell of no metric."""
        return ()


class Counted:
    """A counter."""

    __slots__ = ("_counter", "_noted")

    def __init__(self, counter: Any) -> None:
        self._counter = counter
        self._noted = 0

    def inc(self, times: int = 1) -> None:
        """Count so many more."""
        self._noted += times

    def settle(self) -> None:
        """Put in what has been noted."""
        noted, self._noted = self._noted, 0
        if noted:
            self._counter.inc(noted)


class Kept:
    """A gauge."""

    __slots__ = ("_gauge", "_value")

    def __init__(self, gauge: Any) -> None:
        self._gauge = gauge
        self._value: float = 0

    def set(self, value: float) -> None:
        """Be this from now on."""
        self._value = value

    def inc(self, more: float = 1) -> None:
        """Be more by so much."""
        self._value += more

    def dec(self) -> None:
        """Be less by one."""
        self._value -= 1

    def settle(self) -> None:
        """Put in what it is."""
        self._gauge.set(self._value)


class Observed:
    """A histogram."""

    __slots__ = ("_histogram", "_noted")

    def __init__(self, histogram: Any) -> None:
        self._histogram = histogram
        self._noted: list[float] = []

    def observe(self, value: float) -> None:
        """Note a value."""
        self._noted.append(value)
        if len(self._noted) >= _MOST:
            self.settle()

    def observe_all(self, values: Iterable[float]) -> None:
        """Note many values."""
        self._noted.extend(values)
        if len(self._noted) >= _MOST:
            self.settle()

    def settle(self) -> None:
        """Put in what has been noted."""
        noted, self._noted = self._noted, []
        if noted:
            observe_all(self._histogram, noted)


def observe_all(histogram: Any, values: Sequence[float]) -> None:
    """Put many values into a histogram at once.

    The client has no call for it, so this reaches for what its own `observe` does; a test compares.
    """
    places = np.searchsorted(histogram._upper_bounds, values)
    histogram._sum.inc(float(np.sum(values)))
    for place, times in enumerate(np.bincount(places).tolist()):
        if times:
            histogram._buckets[place].inc(times)
