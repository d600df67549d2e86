"""Stores of one's own, to be hurt: one server, a service that sentinels watch, a cluster.

All on loopback, on free ports, in folders that are gone at the end.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from redis import Redis
from redis.crc import key_slot
from redis.exceptions import RedisError

from app.store.embedded import _binary

SERVICE = "histories"
_WAIT_S = 30.0


class Node:
    """One server process, which can be killed, halted and started again on what it has written."""

    def __init__(self, folder: Path, *options: str, password: str | None = None) -> None:
        """Start it; `options` as on its command line. A first one without dashes is its file."""
        self.port = _free_port()
        self.folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self.redis = Redis(port=self.port, password=password, socket_timeout=5)
        self.start()

    def start(self) -> None:
        """Start and return when it takes connections."""
        file = [] if not self._options or self._options[0].startswith("--") else [self._options[0]]
        more = self._options[len(file) :]
        command = [_binary(), *file, "--port", str(self.port), "--bind", "127.0.0.1", *more]
        self._process = subprocess.Popen(
            command, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until(self._takes_connections, f"a server on port {self.port}")

    def kill(self) -> None:
        """End it by SIGKILL, at once."""
        self._signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait()

    def halt(self) -> None:
        """Let it stand still: it keeps its connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it run again."""
        self._signal(signal.SIGCONT)

    def is_alive(self) -> bool:
        """Say whether its process is there."""
        return self._process is not None and self._process.poll() is None

    def close(self) -> None:
        """End it and hang up."""
        self.redis.close()
        if self.is_alive():
            self.kill()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _takes_connections(self) -> bool:
        assert self.is_alive(), f"the server of {self.folder} did not start"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@contextmanager
def one_server(*options: str) -> Iterator[Node]:
    """Give a server that syncs every write to its file before it answers."""
    with _room() as (folder, stack):
        node = Node(folder, *_DURABLE, *options)
        stack.callback(node.close)
        yield node


class Watched:
    """A master, two replicas, and three sentinels."""

    def __init__(self, nodes: Sequence[Node], sentinels: Sequence[Node]) -> None:
        self.nodes = nodes
        self.sentinels = sentinels
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in sentinels)
        self.url = f"redis+sentinel://{hosts}/{SERVICE}"

    @property
    def master(self) -> Node:
        """Return who the sentinels say it is."""
        address = self.sentinels[0].redis.sentinel_get_master_addr_by_name(SERVICE)
        return next(node for node in self.nodes if node.port == address[1])


@contextmanager
def watched(down_after_ms: int = 500) -> Iterator[Watched]:
    """Give a service under three sentinels that agree by two."""
    with _room() as (folder, stack):
        nodes: list[Node] = []
        for number in range(3):
            of = ["--replicaof", f"127.0.0.1 {nodes[0].port}"] if nodes else []
            nodes.append(Node(folder / f"node{number}", *_DURABLE, *_QUICK, *of))
            stack.callback(nodes[-1].close)
        for node in nodes[1:]:
            until(lambda n=node: _follows(n), "a replica to follow")  # type: ignore[misc]
        sentinels = []
        for number in range(3):
            home = folder / f"sentinel{number}"
            home.mkdir()
            # A sentinel writes into its file what it learns.
            (home / "sentinel.conf").write_text(
                f"sentinel monitor {SERVICE} 127.0.0.1 {nodes[0].port} 2\n"
                f"sentinel down-after-milliseconds {SERVICE} {down_after_ms}\n"
                f"sentinel failover-timeout {SERVICE} 1000\n"
            )
            sentinels.append(Node(home, "sentinel.conf", "--sentinel"))
            stack.callback(sentinels[-1].close)
        for sentinel in sentinels:
            until(lambda s=sentinel: _sees_all(s), "the sentinels to see each other")  # type: ignore[misc]
        yield Watched(nodes, sentinels)


class Clustered:
    """Masters and their replicas."""

    def __init__(self, masters: Sequence[Node], replicas: Sequence[Node]) -> None:
        self.masters = masters
        self.replicas = replicas
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in masters[:2])
        self.url = f"redis+cluster://{hosts}"

    def master_of(self, key: str) -> Node:
        """Return the master that had a key's slot in the beginning."""
        return self.masters[key_slot(key.encode()) * len(self.masters) // 16384]


@contextmanager
def clustered(
    masters: int = 3, *, with_replicas: bool = True, timeout_ms: int = 1000
) -> Iterator[Clustered]:
    """Give a cluster; the replica of each master has its number."""
    with _room() as (folder, stack):
        nodes = []
        for number in range(masters * (2 if with_replicas else 1)):
            options = [
                *("--cluster-enabled", "yes", "--cluster-node-timeout", str(timeout_ms)),
                *("--cluster-port", str(_free_port()), "--cluster-require-full-coverage", "no"),
                *("--cluster-replica-validity-factor", "0"),
            ]
            nodes.append(Node(folder / f"node{number}", *_DURABLE, *_QUICK, *options))
            stack.callback(nodes[-1].close)
        _join(nodes, masters)
        yield Clustered(nodes[:masters], nodes[masters:])


_DURABLE = ("--appendonly", "yes", "--appendfsync", "always", "--save", "")
_QUICK = ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")


def until(holds: Callable[[], bool], what: str, wait_s: float = _WAIT_S) -> None:
    """Return once something holds; fail where that takes too long."""
    end = time.monotonic() + wait_s
    while not holds():
        assert time.monotonic() < end, f"waited {wait_s:g} s for {what}"
        time.sleep(0.02)


@contextmanager
def _room() -> Iterator[tuple[Path, ExitStack]]:
    folder = Path(tempfile.mkdtemp(prefix="ktserve-stores-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        yield folder, stack


def _sees_all(sentinel: Node) -> bool:
    state: Any = sentinel.redis.sentinel_masters()[SERVICE]
    return bool(state["num-other-sentinels"] == 2 and state["num-slaves"] == 2)


def _join(nodes: Sequence[Node], masters: int) -> None:
    """Make a cluster of servers: all meet the first one, slots are dealt out, the rest follow."""
    names = [node.redis.execute_command("CLUSTER", "MYID").decode() for node in nodes]
    bounds = [-(-number * 16384 // masters) for number in range(masters + 1)]
    for number, node in enumerate(nodes):
        if number < masters:
            first, last = bounds[number], bounds[number + 1] - 1
            node.redis.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
            node.redis.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        if number:
            bus = nodes[0].redis.config_get("cluster-port")["cluster-port"]
            node.redis.execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[0].port, bus)
    for node in nodes:
        until(lambda n=node: _knows(n, len(nodes)), "the servers to meet")  # type: ignore[misc]
    for number, node in enumerate(nodes[masters:]):
        node.redis.execute_command("CLUSTER", "REPLICATE", names[number % masters])
    for node in nodes:
        until(lambda n=node: _is_whole(n), "the cluster to be whole")  # type: ignore[misc]
    for node in nodes[masters:]:
        until(lambda n=node: _follows(n), "a replica to follow")  # type: ignore[misc]


def _knows(node: Node, count: int) -> bool:
    return node.redis.execute_command("CLUSTER", "NODES").count(b"\n") == count


def _is_whole(node: Node) -> bool:
    with suppress(RedisError):
        info = node.redis.execute_command("CLUSTER", "INFO")
        return b"cluster_state:ok" in info and b"cluster_slots_ok:16384" in info
    return False


def _follows(node: Node) -> bool:
    return bool(node.redis.info("replication").get("master_link_status") == "up")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port
