"""A server of one's own: `python -m app` in a process, on a free port, stopped at the end."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[1]


class ServerFailed(RuntimeError):
    """The server ended before it served; its last words are in the message."""


class OwnServer:
    """A running `python -m app`, or the empty route."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.url = url

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self.process.pid


def start(data_dir: Path, settings: Mapping[str, str] | None = None) -> OwnServer:
    """Start a server on `data_dir` and return when it serves; raise `ServerFailed` if it does not.

    Settings of the surrounding environment do not reach it.
    """
    environ = {k: v for k, v in os.environ.items() if not k.startswith("KT_")}
    environ |= {"KT_PORT": "0", "KT_DATA_DIR": str(data_dir), **(settings or {})}
    process = subprocess.Popen(
        [sys.executable, "-m", "app"], cwd=ROOT, env=environ, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    too_late = threading.Timer(60, process.kill)
    too_late.start()
    said = []
    for line in process.stderr:
        said.append(line)
        if (url := _url_in(line)) is not None:
            too_late.cancel()
            # Its log must be read on, or the server would stand still with a full pipe.
            threading.Thread(target=_drain, args=(process.stderr,), daemon=True).start()
            return OwnServer(process, url)
    too_late.cancel()
    process.wait()
    process.stderr.close()
    raise ServerFailed("".join(said[-5:]))


def stop(server: OwnServer) -> int:
    """Ask a server to stop, wait, and return its exit code."""
    server.process.terminate()
    try:
        return server.process.wait(60)
    finally:
        server.process.kill()


@contextmanager
def own_server(data_dir: Path, settings: Mapping[str, str] | None = None) -> Iterator[OwnServer]:
    """Start a server and stop it at the end."""
    server = start(data_dir, settings)
    try:
        yield server
    finally:
        stop(server)


@contextmanager
def empty_server() -> Iterator[OwnServer]:
    """Serve the empty route in a process of its own, on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.empty", str(port)], cwd=ROOT, text=True
    )
    try:
        for _ in range(500):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.02)
        yield OwnServer(process, f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(10)


def _url_in(line: str) -> str | None:
    try:
        told = json.loads(line)
    except ValueError:
        return None
    url: str | None = told["url"] if told.get("event") == "serving" else None
    return url


def _drain(stream: IO[str]) -> None:
    with stream:
        for _ in stream:
            pass
