"""What is noted is what the client would have counted."""

import hypothesis.strategies as st
import pytest
from hypothesis import given
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from app import noting
from app.noting import Notes
from app.telemetry import Metrics

BOUNDS = (0.5, 1, 2, 10)

values = st.lists(st.floats(0, 20), max_size=30)


def samples(registry):
    return [
        (s.name, s.labels, pytest.approx(s.value))
        for metric in registry.collect()
        for s in metric.samples
        if not s.name.endswith("_created")
    ]


@given(values, values, st.lists(values, max_size=3))
def test_noted_is_counted(first, second, more):
    """However often it is read in between, and however many are told at once."""
    clients, ours = CollectorRegistry(), CollectorRegistry()
    notes = Notes(ours)
    plain = [
        (
            Counter("c", "", registry=registry),
            Gauge("g", "", registry=registry),
            Histogram("h", "", buckets=BOUNDS, registry=registry),
        )
        for registry in (clients, ours)
    ]
    counter, gauge, histogram = plain[0]
    noted_counter, noted_gauge, noted_histogram = (
        notes.counted(plain[1][0]),
        notes.kept(plain[1][1]),
        notes.observed(plain[1][2]),
    )
    for part in (first, second):
        for value in part:
            for one in (counter, noted_counter):
                one.inc(2)
            for one in (gauge, noted_gauge):
                one.set(value)
                one.inc(3)
                one.dec()
            for one in (histogram, noted_histogram):
                one.observe(value)
        assert samples(ours) == samples(clients)
    for part in more:
        noted_histogram.observe_all(part)
        for value in part:
            histogram.observe(value)
    assert samples(ours) == samples(clients)


def test_what_nobody_reads_is_bounded():
    """A service that is never scraped keeps no value of each prediction."""
    notes = Notes(CollectorRegistry())
    histogram = notes.observed(Histogram("h", "", buckets=BOUNDS, registry=CollectorRegistry()))
    for _ in range(2 * noting._MOST + 1):
        histogram.observe(1.0)
        assert len(histogram._noted) < noting._MOST


def test_what_is_told_no_more_leaves_nothing():
    """Label values come and go with the versions of models."""
    metrics = Metrics()
    notes = len(metrics._notes._all)
    for version in range(3):
        metrics.quality_auc.labels("m", str(version)).set(0.5)
        metrics.quality_auc.remove("m", str(version))

    assert len(metrics._notes._all) == notes
    assert (
        metrics.registry.get_sample_value("kt_quality_auc", {"model": "m", "version": "1"}) is None
    )
