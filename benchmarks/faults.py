"""What goes wrong under `make chaos`, on which stores, and how soon all must be well again."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from app.engine.versions import newest_versions
from app.settings import Settings
from app.store.keys import HISTORY, user_key
from benchmarks.server import ROOT, OwnServer, start, stop
from benchmarks.stores import Clustered, Watched, clustered, one_server, watched

MODEL = "dkt"
UNPROCESSABLE = 422

RETURNED_S = 2.0
"""Longest time until nobody fails any more, once what was gone is back."""

FAILED_OVER_S = 10.0
"""The same, from the death of a master on."""

_HALT_S, _FULL_S = 3.0, 1.5
_SLOW_MS = 100
_DISK = "32m"
_DRAIN_S = Settings().drain_s


class NotHere(RuntimeError):
    """This machine has not what a fault needs; it is in the message."""


class World:
    """Servers and the store behind them, for faults to reach into."""

    def __init__(self, folder: Path, settings: dict[str, str], store: Any = None) -> None:
        self.store = store
        self.servers: list[OwnServer] = []
        self.exit_code: int | None = None  # of a server that was told to stop
        self.folder = folder
        self.artifacts, self.versions = _one_model(folder)
        self._settings = {
            "KT_LOG_LEVEL": "warning",
            "KT_ARTIFACT_DIR": str(self.artifacts),
            "KT_DEFAULT_MODEL": MODEL,
            **settings,
        }

    def urls(self) -> list[str]:
        """Return where the servers listen."""
        return [server.url for server in self.servers]

    def start(self) -> None:
        """Start one more."""
        self.servers.append(start(self.folder / "data", self._settings))

    def kill(self) -> None:
        """End the oldest by SIGKILL."""
        server = self.servers.pop(0)
        server.process.kill()
        server.process.wait()

    def stop(self) -> None:
        """Tell the oldest to stop, as a platform would, and note how it ends."""
        server = self.servers[0]
        server.process.send_signal(signal.SIGTERM)
        try:
            self.exit_code = server.process.wait(_DRAIN_S)
        finally:
            server.process.kill()
        self.servers.pop(0)

    def end(self) -> None:
        """Stop them all."""
        while self.servers:
            stop(self.servers.pop())


def _one_model(folder: Path) -> tuple[Path, tuple[int, int]]:
    """Return a folder of two versions of a model, and these; a server of one is soon ready."""
    (shipped,) = (f for f in newest_versions(ROOT / "artifacts") if f.parent.name == MODEL)
    (folder / "artifacts" / MODEL).mkdir(parents=True)
    versions = int(shipped.name), int(shipped.name) + 1
    for version in versions:
        there = folder / "artifacts" / MODEL / str(version)
        shutil.copytree(shipped, there)
        manifest = json.loads((there / "manifest.json").read_text("utf-8"))
        manifest["version"] = there.name
        (there / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    return folder / "artifacts", versions


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Something that goes wrong, and how soon all must be well again."""

    name: str
    strike: Callable[[World], None]  # returns when what was gone is back
    bound_s: float = RETURNED_S
    from_strike: bool = False  # nobody brings it back: the bound is from the blow on
    may_fail: bool = True
    concerns: Callable[[World, str], bool] = lambda world, user_id: True
    before: Callable[[World], None] = lambda world: None


def _store_killed(world: World) -> None:
    world.store.kill()
    world.store.start()


def _store_halted(world: World) -> None:
    world.store.halt()
    time.sleep(_HALT_S)
    world.store.go_on()


def _connections_cut(world: World) -> None:
    for _ in range(20):
        world.store.redis.client_kill_filter(_type="normal", skipme=True)
        time.sleep(0.05)


def _store_full(world: World) -> None:
    world.store.redis.config_set("maxmemory", "1")
    time.sleep(_FULL_S)
    world.store.redis.config_set("maxmemory", "0")


def _store_slow(world: World) -> None:
    for _ in range(10):
        world.store.redis.client_pause(_SLOW_MS, all=True)
        time.sleep(1.5 * _SLOW_MS / 1000)


def _store_read_only(world: World) -> None:
    """Make it the replica of nobody who is there: it keeps what it has and takes no writes."""
    world.store.redis.replicaof("127.0.0.1", "1")
    time.sleep(_FULL_S)
    world.store.redis.replicaof("NO", "ONE")


def _scripts_forgotten(world: World) -> None:
    for _ in range(20):
        world.store.redis.script_flush()
        time.sleep(0.05)


def _versions_changed(world: World) -> None:
    """Serve the other version and this one again, and offer one that is broken, five times."""
    (server,) = world.servers
    url = f"{server.url}/models/{MODEL}/current"
    first, second = (str(n) for n in world.versions)
    broken = world.artifacts / MODEL / "99"
    with httpx.Client(timeout=60) as client:
        for _ in range(5):
            for version in (first, second):
                client.put(url, json={"version": version}).raise_for_status()
            shutil.copytree(world.artifacts / MODEL / second, broken)
            (broken / "step.onnx").write_bytes(b"cut short")
            refused = client.put(url, json={"version": broken.name}).status_code
            shutil.rmtree(broken)
            if refused != UNPROCESSABLE:
                raise RuntimeError(f"a broken version was answered with {refused}")


def _disk_full(world: World) -> None:
    """Fill the disk of the store to its last byte, and empty it again."""
    ballast = world.folder / "data" / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    time.sleep(_FULL_S)
    ballast.unlink()


def _embedded_killed(world: World) -> None:
    from psutil import Process  # of the development environment alone

    (server,) = world.servers
    (store,) = Process(server.pid).children()
    store.kill()
    store.wait()


def _server_killed(world: World) -> None:
    world.kill()
    world.start()


def _master_failed_over(world: World) -> None:
    store: Watched = world.store
    store.master.kill()


def _master_killed(world: World) -> None:
    """Kill the master that has the texts, too; it comes back as a replica of who took over."""
    store: Clustered = world.store
    killed = store.master_of("kt:t1")
    killed.kill()
    time.sleep(_HALT_S)
    killed.start()


def _is_on_killed(world: World, user_id: str) -> bool:
    store: Clustered = world.store
    return store.master_of(user_key(HISTORY, user_id)) is store.master_of("kt:t1")


@contextmanager
def _redis(folder: Path) -> Iterator[World]:
    with one_server() as node:
        yield World(folder, {"KT_REDIS_URL": f"redis://127.0.0.1:{node.port}"}, node)


@contextmanager
def _embedded(folder: Path) -> Iterator[World]:
    yield World(folder, {})


@contextmanager
def _small_disk(folder: Path) -> Iterator[World]:
    disk = folder / "data"
    disk.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={_DISK}", "tmpfs"]
    done = subprocess.run(
        ["mount", *options, str(disk)], check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise NotHere(f"no disk of its own can be mounted: {done.stderr.strip()}")
    world = World(folder, {})
    try:
        yield world
    finally:
        world.end()  # nothing is unmounted that somebody writes to
        subprocess.run(["umount", str(disk)], check=True)


@contextmanager
def _sentinel(folder: Path) -> Iterator[World]:
    with watched() as store:
        yield World(folder, {"KT_REDIS_URL": store.url, "KT_REDIS_MIN_REPLICAS": "1"}, store)


@contextmanager
def _cluster(folder: Path) -> Iterator[World]:
    with clustered() as store:
        yield World(folder, {"KT_REDIS_URL": store.url, "KT_REDIS_MIN_REPLICAS": "1"}, store)


FAULTS: tuple[tuple[str, Callable[[Path], Any], tuple[Fault, ...]], ...] = (
    (
        "Redis, synced file",
        _redis,
        (
            Fault(name="store killed, started again", strike=_store_killed),
            Fault(name=f"store halted for {_HALT_S:g} s", strike=_store_halted),
            Fault(name="connections cut, 20 times", strike=_connections_cut),
            Fault(name=f"store full for {_FULL_S:g} s", strike=_store_full),
            Fault(name=f"store read-only for {_FULL_S:g} s", strike=_store_read_only),
            Fault(name=f"store slow, {_SLOW_MS} ms, 10 times", strike=_store_slow, may_fail=False),
            Fault(
                name="store without its scripts, 20 times",
                strike=_scripts_forgotten,
                may_fail=False,
            ),
            Fault(
                name="versions changed 10 times, 5 broken ones refused",
                strike=_versions_changed,
                may_fail=False,
            ),
            Fault(
                name="one of two servers stopped",
                strike=World.stop,
                before=World.start,
                may_fail=False,
            ),
            Fault(name="server killed, started again", strike=_server_killed),
        ),
    ),
    (
        "embedded",
        _embedded,
        (
            Fault(name="its store killed", strike=_embedded_killed),
            Fault(name="server killed, started again", strike=_server_killed),
        ),
    ),
    (
        "embedded, a disk of its own",
        _small_disk,
        (Fault(name=f"disk full for {_FULL_S:g} s", strike=_disk_full),),
    ),
    (
        "sentinels",
        _sentinel,
        (
            Fault(
                name="master killed",
                strike=_master_failed_over,
                bound_s=FAILED_OVER_S,
                from_strike=True,
            ),
        ),
    ),
    (
        "cluster",
        _cluster,
        (
            Fault(
                name="one of three masters killed",
                strike=_master_killed,
                bound_s=FAILED_OVER_S,
                from_strike=True,
                concerns=_is_on_killed,
            ),
        ),
    ),
)
