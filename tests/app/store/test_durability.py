"""A store that may lose what it has acknowledged is told of, and refused where that must not be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import redis

from app.settings import Settings
from app.store.opening import open_store
from tests.app.conftest import ARTIFACTS, serving
from tests.app.store.conftest import a_server

ROOT = Path(__file__).parents[3]
AOF = ("--appendonly", "yes")


@pytest.mark.anyio
async def test_the_embedded_store_loses_nothing(tmp_path):
    """It is ours to set up."""
    async with open_store(Settings(data_dir=tmp_path)) as store:
        found = await store.histories.ping()

    assert found == ("append_only_file", "noeviction", [], None)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("options", "retention_days", "persistence", "said"),
    [
        ((*AOF,), 0, "append_only_file", []),
        ((), 0, "none", ["nothing to disk"]),
        ((*AOF, "--maxmemory-policy", "allkeys-lru"), 0, "append_only_file", ["drop histories"]),
        ((*AOF, "--maxmemory-policy", "volatile-lru"), 0, "append_only_file", ["Idempotency-Key"]),
        ((*AOF, "--maxmemory-policy", "volatile-ttl"), 9, "append_only_file", ["drop histories"]),
        (("--maxmemory-policy", "allkeys-random"), 0, "none", ["disk", "drop histories"]),
    ],
)
async def test_what_a_server_may_lose_is_read_from_it(
    options, retention_days, persistence, said, tmp_path
):
    """By no command that managed servers forbid."""
    with a_server(*options) as socket:
        settings = Settings(
            redis_url=f"unix://{socket}", data_dir=tmp_path, retention_days=retention_days
        )
        redis.Redis(unix_socket_path=str(socket)).acl_setuser(
            "default", enabled=True, categories=["+@all"], commands=["-config"]
        )
        async with open_store(settings) as store:
            found = await store.histories.ping()

    assert found.persistence == persistence
    assert len(found.warnings) == len(said)
    assert all(word in warning for word, warning in zip(said, found.warnings, strict=True))


@pytest.mark.anyio
async def test_a_server_that_has_written_a_snapshot_may_lose_what_came_after(tmp_path):
    """It is told apart from one that writes nothing."""
    with a_server() as socket:
        redis.Redis(unix_socket_path=str(socket)).save()
        async with open_store(Settings(redis_url=f"unix://{socket}", data_dir=tmp_path)) as store:
            found = await store.histories.ping()

    assert found.persistence == "snapshots"
    assert "snapshots only" in found.warnings[0]


@pytest.mark.anyio
async def test_a_server_that_does_not_say_is_not_trusted(tmp_path):
    """Nor is it taken for one that does not answer."""
    with a_server(*AOF) as socket:
        redis.Redis(unix_socket_path=str(socket)).acl_setuser(
            "default", enabled=True, categories=["+@all"], commands=["-info"]
        )
        async with open_store(Settings(redis_url=f"unix://{socket}", data_dir=tmp_path)) as store:
            found = await store.histories.ping()

    assert found[:2] == ("unknown", "unknown")
    assert len(found.warnings) == 2


def test_a_doubtful_store_is_told_of_everywhere(tmp_path):
    """In /readyz, which stays green, and in a metric; until it is doubtful no more."""
    with a_server() as socket:
        settings = Settings(artifact_dir=ARTIFACTS, redis_url=f"unix://{socket}", data_dir=tmp_path)
        with serving(settings) as client:
            before = client.get("/readyz")
            metrics = client.get("/metrics").text
            redis.Redis(unix_socket_path=str(socket)).config_set("appendonly", "yes")
            after = client.get("/readyz").json()

    assert (before.status_code, before.json()["ready"]) == (200, True)
    assert len(before.json()["warnings"]) == 1
    assert "kt_store_warnings 1.0" in metrics.splitlines()
    assert after["warnings"] == []


def test_a_store_that_must_be_durable_and_becomes_doubtful_is_not_ready(tmp_path):
    """Though it answers."""
    with a_server(*AOF) as socket:
        settings = Settings(
            artifact_dir=ARTIFACTS,
            redis_url=f"unix://{socket}",
            data_dir=tmp_path,
            require_durable=True,
        )
        with serving(settings) as client:
            before = client.get("/readyz").status_code
            redis.Redis(unix_socket_path=str(socket)).config_set("maxmemory-policy", "allkeys-lru")
            after = client.get("/readyz")

    assert (before, after.status_code) == (200, 503)
    assert "drop histories" in after.json()["reasons"][0]


def test_where_it_must_be_durable_the_service_does_not_start_on_a_doubtful_one(tmp_path):
    """The last line says why."""
    with a_server() as socket:
        environ = {
            "KT_REDIS_URL": f"unix://{socket}",
            "KT_REQUIRE_DURABLE": "1",
            "KT_ARTIFACT_DIR": str(ARTIFACTS),
            "KT_PORT": "0",
        }
        done = subprocess.run(
            [sys.executable, "-m", "app"],
            cwd=ROOT,
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert done.returncode == 3
    assert "nothing to disk" in done.stderr.splitlines()[-1]
    assert "store_durability" in done.stderr
