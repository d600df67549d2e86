"""One heap for all threads of the process.

glibc gives each thread a heap of its own, and what a model run has let go stays in the heap of its
thread, of no use to the next one: under windows of many lengths memory grows on and on. One heap
does not (`make footprint`), and costs runs no time that could be seen. Giving large pieces back at
once (M_MMAP_THRESHOLD) did not grow either, but made whole windows slower by a quarter or more:
they are faulted in anew in each run.
"""

from __future__ import annotations

import ctypes
import sys

_M_ARENA_MAX = -8  # malloc.h


def share_one_heap() -> bool:
    """Let all threads made from now on use one heap; False where the C library knows no such thing.

    MALLOC_ARENA_MAX in the environment says the same to glibc before the process begins.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc has it, musl has not
    return mallopt is not None and bool(mallopt(_M_ARENA_MAX, 1))
