"""Stores for tests: each a server process of its own, stopped at the end."""

from __future__ import annotations

import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.settings import Settings
from app.store.embedded import _binary
from app.store.opening import Store, open_store
from app.store.redis_histories import RedisHistories

KEEP = 20


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@contextmanager
def a_server(*options: str) -> Iterator[Path]:
    """Run a server as an operator would: not ours to start or stop, found by its socket."""
    folder = Path(tempfile.mkdtemp(prefix="kt-test-"))
    socket = folder / "r.sock"
    command = [_binary(), "--port", "0", "--unixsocket", str(socket), "--save", "", *options]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL) as process:
        while not socket.exists():
            assert process.poll() is None, "the server did not start"
            time.sleep(0.01)
        try:
            yield socket
        finally:
            process.terminate()
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def redis_socket() -> Iterator[Path]:
    """A server that the whole session shares."""
    with a_server() as socket:
        yield socket


@pytest.fixture(params=["redis", "embedded"])
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, redis_socket: Path
) -> AsyncIterator[Store]:
    """A store of at most `KEEP` interactions a user, of either kind."""
    url = f"unix://{redis_socket}" if request.param == "redis" else None
    settings = Settings(redis_url=url, data_dir=tmp_path, history_max_items=KEEP)
    async with open_store(settings) as opened:
        yield opened


@pytest.fixture
def histories(store: Store) -> RedisHistories:
    """The histories in it."""
    return store.histories


def of_before(interactions, name=b"\0\0\0\0", dropped=0) -> bytes:
    """A history as it was written before records were packed."""
    return b"KTH1" + name + struct.pack("<q", dropped) + interactions.tobytes()
