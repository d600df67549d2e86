"""Stores for tests: each a server process of its own, stopped at the end."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
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
        try:
            while not socket.exists():
                assert process.poll() is None, "the server did not start"
                time.sleep(0.01)
            yield socket
        finally:
            process.terminate()  # or a test that fails would wait for it
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def redis_socket() -> Iterator[Path]:
    """A server that the whole session shares."""
    with a_server() as socket:
        yield socket


@pytest.fixture(params=["redis", "embedded"])
async def opened(
    request: pytest.FixtureRequest, tmp_path: Path, redis_socket: Path
) -> AsyncIterator[Callable]:
    """Open a store of either kind, with settings of the test's own."""
    url = f"unix://{redis_socket}" if request.param == "redis" else None
    async with AsyncExitStack() as stack:

        async def open_one(**settings) -> Store:
            given = {"history_max_items": KEEP, **settings}
            return await stack.enter_async_context(
                open_store(Settings(redis_url=url, data_dir=tmp_path, **given))
            )

        yield open_one


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


_ANSWERED = """
import asyncio, sys
import numpy as np
from app.records import Answer, records_of
from app.settings import Settings
from app.store.opening import open_store
from app.store.outcomes import FORECAST
from models.contract.interaction import key_of

async def main():
    async with open_store(Settings(data_dir=sys.argv[1])) as store:
        for i in range(100000):
            one = np.array([(key_of(f"q{i}"), 7, i % 100 / 100, 2, 0, 0, 0)], FORECAST)
            store.outcomes.note("u", 7, one.tobytes())
            records = records_of([Answer(question_id=f"q{i}", correct=True)])
            await store.histories.append("u", records.interactions, records.texts)
            print(i + 1, flush=True)

asyncio.run(main())
"""


def killed_at_its_40th_answer(data_dir: Path) -> int:
    """Predict and record for user `u` in a process of its own, until it is ended by SIGKILL.

    Returns how many answers it has acknowledged; each has a forecast of model 7, of its number.
    """
    command = [sys.executable, "-c", _ANSWERED, str(data_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        acknowledged = 0
        for line in parent.stdout:
            acknowledged = int(line)
            if acknowledged == 40:
                parent.kill()
    return acknowledged


def of_before(interactions, name=b"\0\0\0\0", dropped=0) -> bytes:
    """A history as it was written before records were packed."""
    return b"KTH1" + name + struct.pack("<q", dropped) + interactions.tobytes()
