"""A lock on a file that lives as long as any process that was given it."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console


@contextmanager
def alone(path: Path, console: Console) -> Iterator[int]:
    """Hold the lock `path`, after waiting for it; yield its file descriptor.

    A child that the descriptor is passed on to holds the lock too. So it stays locked while a
    training lives, even where the command that started it was killed, and two trainings never
    write into one folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.print(f"{path.with_suffix('')} is in the hands of another process; waiting")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()
