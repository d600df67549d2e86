"""The production form: image, compose, workflow."""

from __future__ import annotations

import json
import re
import stat
import subprocess
from pathlib import Path

import pytest
import yaml

from app import main
from app.settings import PREFIX, Settings
from deploy import try_compose

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
KEYS = yaml.safe_load((ROOT / "deploy/compose.keys.yml").read_text())["services"]
OURS = ("password", "redis", "app")


def test_the_store_of_compose_forgets_nothing():
    """Append-only file on, nothing evicted, on a volume."""
    command = " ".join(SERVICES["redis"]["command"])

    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command
    assert "histories:/data" in SERVICES["redis"]["volumes"]
    assert SERVICES["app"]["depends_on"]["redis"]["condition"] == "service_healthy"


def test_only_loopback_is_published():
    """Who comes from there needs no key."""
    for service in SERVICES.values():
        assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", []))


def test_the_store_has_a_password_and_a_network_that_nobody_else_is_in():
    """Made once and read by both sides; what watches the service never meets its store."""
    redis, app = SERVICES["redis"], SERVICES["app"]
    secret = app["environment"]["KT_REDIS_PASSWORD_FILE"]

    assert "/secret/redis.conf" in redis["command"]
    assert secret == "/secret/password"
    for service in ("redis", "app"):
        assert "store-secret:/secret:ro" in SERVICES[service]["volumes"]
    assert redis["networks"] == ["store"]
    assert COMPOSE["networks"]["store"]["internal"]
    assert [name for name, s in SERVICES.items() if "store" in s.get("networks", [])] == [
        *("redis", "app")
    ]


def test_the_password_is_made_once_and_whole(tmp_path):
    """A second start finds that of the first; one that was cut short is begun anew."""
    service = SERVICES["password"]
    (script,) = service["command"]
    script = script.replace("/secret", str(tmp_path)).replace("$$", "$")
    password, config = tmp_path / "password", tmp_path / "redis.conf"

    def start() -> str:
        subprocess.run([*service["entrypoint"], script], check=True)
        assert config.read_text() == f"requirepass {password.read_text()}\n"
        assert {stat.S_IMODE(f.stat().st_mode) for f in (password, config)} == {0o444}
        return password.read_text()

    first = start()
    assert re.fullmatch(r"[0-9a-f]{64}", first)
    assert start() == first
    config.unlink()
    assert start() != first
    assert {f.name for f in tmp_path.iterdir()} == {"password", "redis.conf"}


@pytest.mark.parametrize("name", OURS)
def test_what_holds_answers_is_shut_in(name):
    """Nothing is writable but volumes and /tmp, and no capability is left."""
    service = SERVICES[name]

    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_with_keys_nobody_comes_without_one():
    """The other form of compose takes back that anyone may come, and lets Prometheus show a key."""
    environment = KEYS["app"]["environment"]
    plain, keyed = (
        yaml.safe_load((ROOT / "deploy/prometheus" / name).read_text())
        for name in ("prometheus.yml", "prometheus.keys.yml")
    )
    (job,) = keyed["scrape_configs"]
    credentials = job.pop("authorization")["credentials_file"]

    assert environment["KT_OPEN_TO_ANYONE"] == ""
    assert environment["KT_KEYS_FILE"] == "/run/keys/keys.json"
    assert KEYS["app"]["volumes"] == ["./secrets/keys:/run/keys:ro"]
    assert credentials == "/run/metrics/key"
    assert KEYS["prometheus"]["volumes"] == ["./secrets/metrics:/run/metrics:ro"]
    assert "--config.file=/etc/prometheus/prometheus.keys.yml" in KEYS["prometheus"]["command"]
    assert keyed == plain


def test_the_image_is_small_and_nobody():
    """Only what serves goes in, and no root runs it."""
    last = DOCKERFILE.split("FROM ")[-1]

    assert "USER 10001" in last
    assert "HEALTHCHECK" in last
    assert "--require-hashes" in DOCKERFILE
    copied = re.findall(r"^COPY (?:--\S+ )?(.+) \S+$", DOCKERFILE, re.MULTILINE)
    assert set(copied) == {
        *("requirements.lock", "app", "models/__init__.py", "models/contract"),
        *("/venv", "/srv", "artifacts"),
    }


def test_the_image_asks_for_the_provider_that_it_has():
    """Or an alert would say for ever that no GPU was to be had."""
    locked = (ROOT / "requirements.lock").read_text()

    assert "\nonnxruntime==" in locked
    assert "onnxruntime-gpu" not in locked
    assert "KT_PROVIDER=cpu" in DOCKERFILE.split("FROM ")[-1]


def test_the_image_needs_no_shell_to_run():
    """What it runs is told as a list: nothing of it goes through /bin/sh."""
    commands = re.findall(r"^(?:  )?CMD (.+)$", DOCKERFILE, re.MULTILINE)

    assert len(commands) == 2
    assert [json.loads(command)[0] for command in commands] == ["python", "python"]
    assert "ENTRYPOINT" not in DOCKERFILE


def test_no_start_of_compose_leaves_a_volume_behind():
    """Every volume of the image has something mounted over it."""
    (volume,) = re.findall(r"^VOLUME (\S+)$", DOCKERFILE, re.MULTILINE)

    assert volume in SERVICES["app"]["tmpfs"]


def test_nothing_but_what_is_named_reaches_the_builder():
    """Data, secrets and the repository's past stay out of what is sent to it."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]

    assert rules[0] == "*"
    assert [rule for rule in rules if rule.startswith("!")] == [
        *("!requirements.lock", "!app", "!models/__init__.py", "!models/contract", "!artifacts")
    ]


def test_every_setting_of_compose_is_one():
    """One that is not keeps the service from starting."""
    given = {*SERVICES["app"]["environment"], *KEYS["app"]["environment"]}

    assert {name for name in given if name.startswith(PREFIX)} <= known_settings()


def test_compose_waits_as_long_as_a_stop_takes():
    """SIGKILL comes to nobody who still works on what he has."""
    grace_s = int(SERVICES["app"]["stop_grace_period"].removesuffix("s"))

    assert longest_stop_s(Settings()) < grace_s


def longest_stop_s(settings: Settings) -> float:
    """From SIGTERM to the end, where callers, the store, a run and a collector all hang."""
    writes = 2  # what models made of users, and what was said to them
    store_s = writes * settings.redis_timeout_ms / 1000
    return 2 * settings.drain_s + store_s + main._LAST_TRACES_S


def known_settings() -> set[str]:
    """The names that the service takes."""
    return {PREFIX + name.upper() for name in Settings.model_fields}


def test_the_workflow_runs_what_make_knows():
    """By the README's commands, with actions that nobody can change under their names."""
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    made = [
        target
        for step in steps
        if "run" in step
        for target in step["run"].removeprefix("make ").split()
    ]

    assert {"test", "audit", "sbom", "manifests"} <= set(made) <= set(targets)
    assert workflow["permissions"] == {}
    for step in steps:
        assert re.fullmatch(r"\S+@[0-9a-f]{40}", step.get("uses", f"x@{'0' * 40}")), step


def test_where_there_is_no_docker_the_trial_says_so(monkeypatch, capsys, tmp_path):
    """Instead of a traceback."""
    monkeypatch.setenv("PATH", str(tmp_path))

    assert try_compose.main([]) == 1

    assert "docker is not here" in capsys.readouterr().err
