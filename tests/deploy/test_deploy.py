"""The production form: image, compose, dashboard, alerts."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

from app.telemetry import Metrics

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "deploy/grafana/dashboards/ktserve.json"
ALERTS = ROOT / "deploy/prometheus/alerts.yml"


def metric_names() -> set[str]:
    """Every name a scrape may hold."""
    names = set()
    for family in Metrics().registry.collect():
        if family.name.startswith("kt_"):
            suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
            names |= {family.name + s for s in suffixes.get(family.type, [""])}
    return names


def used(text: str) -> set[str]:
    return set(re.findall(r"\bkt_[a-z_]+", text))


def test_dashboard_and_alerts_use_only_metrics_that_exist():
    """A renamed metric would leave a panel empty and an alert silent."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    asked = [t["expr"] for p in panels for t in p["targets"]]
    rules = [r["expr"] for g in yaml.safe_load(ALERTS.read_text())["groups"] for r in g["rules"]]

    assert len(rules) > 5
    assert used(" ".join([*asked, *rules])) <= metric_names()


def test_every_metric_is_on_the_dashboard():
    """What is measured is shown."""
    shown = used(DASHBOARD.read_text())
    for family in Metrics().registry.collect():
        if family.name.startswith("kt_"):
            assert any(name.startswith(family.name) for name in shown), family.name


def test_the_store_of_compose_forgets_nothing():
    """Append-only file on, nothing evicted, on a volume."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    command = " ".join(services["redis"]["command"])

    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command
    assert services["redis"]["volumes"] == ["histories:/data"]
    assert services["app"]["depends_on"]["redis"]["condition"] == "service_healthy"


def test_only_loopback_is_published():
    """There are no keys yet."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    for service in services.values():
        assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", []))


def test_the_image_is_small_and_nobody():
    """Only what serves goes in, and no root runs it."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    last = dockerfile.split("FROM ")[-1]

    assert "USER 10001" in last
    assert "HEALTHCHECK" in last
    assert "--require-hashes" in dockerfile
    copied = re.findall(r"^COPY (?:--\S+ )?(.+) \S+$", dockerfile, re.MULTILINE)
    assert set(copied) == {
        *("requirements.lock", "app", "models/__init__.py", "models/contract"),
        *("/venv", "/srv", "artifacts"),
    }
