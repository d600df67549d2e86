"""The peers: what each is, and its processes, from start to end."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.server import ROOT

_START_WAIT_S = 60.0
_STOP_WAIT_S = 10.0


class PeerFailed(RuntimeError):
    """A peer cannot be measured; the message says which, and why."""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One server beside ktserve."""

    name: str  # of its environment, and of its requirements file
    what: str
    packages: tuple[str, ...]  # whose versions are told
    command: tuple[str, ...]  # what its Python is given
    takes_lists: bool = False

    def body(self, user_id: str, question_id: str) -> dict[str, Any]:
        """Return a request for one prediction."""
        ask = {"user_id": user_id, "question_id": question_id}
        return {"asks": [ask]} if self.takes_lists else ask

    def p_correct(self, content: Any) -> float:
        """Return the probability in an answer."""
        found: float = content[0] if self.takes_lists else content["p_correct"]
        return found


PEERS = (
    Peer(
        name="fastapi-onnx",
        what="plain FastAPI, one ONNX run a request",
        packages=("fastapi", "uvicorn", "onnxruntime"),
        command=("-m", "benchmarks.peers.plain", "onnx", "{model}", "{redis}", "{port}"),
    ),
    Peer(
        name="fastapi-torch",
        what="plain FastAPI, eager torch, one forward pass a request",
        packages=("fastapi", "uvicorn", "torch"),
        command=("-m", "benchmarks.peers.plain", "torch", "{model}", "{redis}", "{port}"),
    ),
    Peer(
        name="litserve",
        what="LitServe, batches of up to 32, one worker",
        packages=("litserve", "fastapi", "uvicorn", "onnxruntime"),
        command=("-m", "benchmarks.peers.lit", "{model}", "{redis}", "{port}"),
    ),
    Peer(
        name="bentoml",
        what="BentoML, adaptive batches of up to 32, one worker",
        packages=("bentoml", "uvicorn", "onnxruntime"),
        command=(
            *("-m", "bentoml", "serve", "benchmarks.peers.bento:Predictor"),
            *("--host", "127.0.0.1", "--port", "{port}"),
        ),
        takes_lists=True,
    ),
)


class Running:
    """A peer's processes. They stand still unless they are measured: some are busy when idle."""

    def __init__(self, peer: Peer, process: subprocess.Popen[bytes], url: str) -> None:
        self.peer = peer
        self.url = url
        self._process = process

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Let it run for a while."""
        for process in self._tree():
            process.resume()
        try:
            yield
        finally:
            self.pause()

    def pause(self) -> None:
        """Let it stand still."""
        for process in self._tree():
            process.suspend()

    def stop(self) -> None:
        """End it, with all that it started."""
        tree = self._tree()
        for process in tree:
            process.resume()
        self._process.terminate()
        _, alive = psutil.wait_procs(tree, _STOP_WAIT_S)
        for process in alive:
            process.kill()
        self._process.wait()

    def _tree(self) -> list[psutil.Process]:
        try:
            root = psutil.Process(self._process.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


@contextmanager
def running(
    peer: Peer, python: Path, model: Path, redis_url: str, folder: Path
) -> Iterator[Running]:
    """Start a peer with this Python, wait until it answers, pause it, and stop it at the end.

    `folder` takes its log. Raises `PeerFailed`.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / f"{peer.name}.log"
    given = {"model": str(model), "redis": redis_url, "port": str(port)}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(python), *(part.format(**given) for part in peer.command)],
            cwd=ROOT,
            env={
                **os.environ,
                "PEERS_MODEL": str(model),
                "PEERS_REDIS_URL": redis_url,
                "BENTOML_DO_NOT_TRACK": "True",
                "BENTOML_HOME": str(folder / "bentoml"),
            },
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    started = Running(peer, process, f"http://127.0.0.1:{port}")
    try:
        _wait(started, process, log)
        started.pause()
        yield started
    finally:
        started.stop()


def versions(peer: Peer, python: Path) -> dict[str, str]:
    """Return the versions of a peer's packages, as its environment has them."""
    code = (
        "import importlib.metadata, json, sys\n"
        "print(json.dumps({n: importlib.metadata.version(n) for n in sys.argv[1:]}))"
    )
    done = subprocess.run(
        [str(python), "-c", code, *peer.packages], capture_output=True, text=True, check=True
    )
    found: dict[str, str] = json.loads(done.stdout)
    return found


def python_of(peer: Peer, environments: Path | None) -> Path:
    """Return the Python of a peer's environment; this one where there are none.

    Raises `PeerFailed`.
    """
    if environments is None:
        return Path(sys.executable)
    python = environments / peer.name / "bin/python"
    if not python.is_file():
        raise PeerFailed(f"{peer.name}: there is no {python}; `make bench-peers` makes it")
    return python


def _wait(started: Running, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when it has answered a question about a user who has no history."""
    until = time.monotonic() + _START_WAIT_S
    body = json.dumps(started.peer.body("nobody", "1"))
    while not _answers(started.url, body):
        if process.poll() is not None or time.monotonic() > until:
            last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]
            raise PeerFailed(f"{started.peer.name} did not start: " + "\n".join(last))
        time.sleep(0.1)


def _answers(url: str, body: str) -> bool:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=_START_WAIT_S)
    try:
        connection.request("POST", "/predict", body, {"content-type": "application/json"})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
