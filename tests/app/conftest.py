"""The real application over HTTP, with the shipped models and an embedded store of its own."""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from app.api.door import Door
from app.engine.versions import newest_versions
from app.logs import JsonLines
from app.main import create_app
from app.settings import Settings

ARTIFACTS = Path(__file__).parents[2] / "artifacts"
SHIPPED = {folder.parent.name: folder for folder in newest_versions(ARTIFACTS)}
"""The artifact folder of each model, by name."""


class _Threaded(uvicorn.Server):
    """Tells when it serves, or that it never will."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.settled = threading.Event()

    async def startup(self, sockets: Any = None) -> None:
        try:
            await super().startup(sockets)
        finally:
            self.settled.set()


@contextmanager
def serving(settings: Settings) -> Iterator[httpx.Client]:
    """Serve in a thread, on a free port, and give a client."""
    app = create_app(settings)
    server = _Threaded(
        uvicorn.Config(app, host="127.0.0.1", port=0, http=Door, log_config=None, access_log=False)
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert server.settled.wait(60)
        assert server.started, app.state.start_failure
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="session")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a server that the whole session shares."""
    folder = tmp_path_factory.mktemp("server")
    with serving(Settings(artifact_dir=ARTIFACTS, data_dir=folder)) as opened:
        yield opened


@pytest.fixture(scope="session")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two models that a service cannot do without: it is ready in half the time."""
    folder = tmp_path_factory.mktemp("few")
    for name in ("dkt", "dkt_asked"):
        (folder / name).symlink_to(ARTIFACTS / name)
    return folder


@pytest.fixture
def serve(tmp_path: Path, few: Path) -> Iterator[Callable[..., httpx.Client]]:
    """Start a server of those with settings of the test's own."""
    with ExitStack() as stack:

        def start(**settings: Any) -> httpx.Client:
            given = {"artifact_dir": few, "data_dir": tmp_path / "data", **settings}
            return stack.enter_context(serving(Settings(**given)))

        yield start


@pytest.fixture
def lines() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Every log line of the process, as an operator would read it."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    handler.addFilter(lambda line: not line.name.startswith("http"))  # the test's own client
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel("INFO")
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.removeHandler(handler)
    root.setLevel(before)
