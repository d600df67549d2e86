"""Threads share a heap: what one has let go, the next one uses."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import ctypes, sys, threading
from app.heap import share_one_heap
if sys.argv[1] == "shared":
    assert share_one_heap()
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
meet = threading.Barrier(4)
def work():
    libc.malloc(5000)
    meet.wait()
threads = [threading.Thread(target=work) for _ in range(4)]
[t.start() for t in threads], [t.join() for t in threads]
out = ctypes.c_void_p(libc.fopen(b"/dev/stdout", b"w"))
libc.malloc_info(0, out), libc.fclose(out)
"""


def heaps(how: str) -> int:
    command = [sys.executable, "-c", CODE, how]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.count("<heap nr=")


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's own way of keeping heaps")
def test_threads_share_one_heap():
    """Each would have its own otherwise."""
    assert heaps("apart") > 1
    assert heaps("shared") == 1
