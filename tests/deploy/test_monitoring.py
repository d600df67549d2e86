"""Dashboard and alerts: they ask for what there is, and each alert has been tried."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from app import errors
from app.main import create_app
from app.quality import FIGURES
from app.settings import Settings
from app.telemetry import STAGES, Metrics

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "deploy/grafana/dashboards/ktserve.json"
ALERTS = ROOT / "deploy/prometheus/alerts.yml"
TRIED = ROOT / "deploy/prometheus/alerts_test.yml"
_SCRAPED = {"job", "instance"}
_PARTS = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}


def labels_by_name() -> dict[str, set[str]]:
    """The labels of every series that a scrape may hold."""
    found = {}
    for collector in list(Metrics().registry._collector_to_names):
        if not getattr(collector, "_name", "").startswith("kt_"):
            continue
        for part in _PARTS[collector._type]:
            more = {"le"} if part == "_bucket" else set()
            found[collector._name + part] = {*collector._labelnames, *more, *_SCRAPED}
    return found


def rules() -> list[dict]:
    return [r for g in yaml.safe_load(ALERTS.read_text())["groups"] for r in g["rules"]]


def panels() -> list[tuple[str, str]]:
    """What the dashboard asks, and how it names what comes."""
    found = json.loads(DASHBOARD.read_text())["panels"]
    return [(t["expr"], t["legendFormat"]) for p in found for t in p["targets"]]


def used(text: str) -> set[str]:
    return set(re.findall(r"\bkt_[a-z_]+", text))


def groupings(expr: str) -> Iterator[tuple[set[str], set[str]]]:
    """The labels of every `by`, with the metrics that it gathers."""
    for found in re.finditer(r"\bby \(([^)]*)\)\s*\(", expr):
        depth, end = 1, found.end()
        while depth:
            depth += {"(": 1, ")": -1}.get(expr[end], 0)
            end += 1
        yield set(re.split(r",\s*", found[1])), used(expr[found.end() : end])


EXPRESSIONS = [*(expr for expr, _ in panels()), *(rule["expr"] for rule in rules())]


def test_dashboard_and_alerts_use_only_metrics_that_exist():
    """A renamed metric would leave a panel empty and an alert silent."""
    assert len(rules()) > 5
    assert used(" ".join(EXPRESSIONS)) <= labels_by_name().keys()


@pytest.mark.parametrize("expr", EXPRESSIONS)
def test_dashboard_and_alerts_use_only_labels_that_their_metrics_have(expr):
    """A label that is not there matches nothing, and groups everything into one."""
    known = labels_by_name()

    for name, inside in re.findall(r"\b(kt_[a-z_]+)\{([^}]*)\}", expr):
        assert set(re.findall(r"(\w+)\s*[=!]", inside)) <= known[name], name
    for labels, names in groupings(expr):
        assert names
        for name in names:
            assert labels <= known[name], name


@pytest.mark.parametrize(("expr", "legend"), panels())
def test_a_legend_names_only_labels_that_are_left(expr, legend):
    """Of what is summed, those stand that it is summed by."""
    groups = re.findall(r"\bby \(([^)]*)\)", expr)
    left = set(re.split(r",\s*", groups[0])) if groups else _SCRAPED
    if not groups and used(expr):
        left |= set.union(*(labels_by_name()[name] for name in used(expr)))

    assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= left


def test_alerts_ask_for_values_that_occur():
    """A stage, a route, a code: one that never occurs would keep an alert silent."""
    routes = create_app(Settings()).openapi()["paths"].keys()
    codes = {e.code for e in vars(errors).values() if isinstance(e, type)}
    occur = {
        "stage": {*STAGES},
        "route": {*routes},
        "kind": {"question", "skill"},
        "result": {"done", "refused", "kept", "lost", "joined", "missed"},
        "figure": {*FIGURES},
    }

    asked = re.findall(r"(\w+)=\"([^\"]*)\"", " ".join(rule["expr"] for rule in rules()))

    assert asked
    for label, value in asked:
        if label == "job":
            jobs = yaml.safe_load((ALERTS.parent / "prometheus.yml").read_text())
            assert value in {job["job_name"] for job in jobs["scrape_configs"]}
        elif label == "code":
            assert value in codes
        else:
            assert value in occur[label], (label, value)


def test_every_metric_is_on_the_dashboard():
    """What is measured is shown."""
    shown = used(DASHBOARD.read_text())
    for family in Metrics().registry.collect():
        if family.name.startswith("kt_"):
            assert any(name.startswith(family.name) for name in shown), family.name


def test_every_alert_is_tried_and_told_of():
    """It fires in one case and keeps quiet in another, and the manual says what to do."""
    manual = (ROOT / "docs/operations.md").read_text()
    tried = [
        case
        for test in yaml.safe_load(TRIED.read_text())["tests"]
        for case in test["alert_rule_test"]
    ]

    for rule in rules():
        name = rule["alert"]
        assert {bool(c["exp_alerts"]) for c in tried if c["alertname"] == name} == {True, False}
        assert f"| `{name}` |" in manual
        assert rule["labels"]["severity"] in ("page", "ticket")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not here")
def test_alerts_fire_when_they_should():
    """As Prometheus itself reads them."""
    done = subprocess.run(
        ["promtool", "test", "rules", str(TRIED)], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
