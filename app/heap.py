"""One heap for all threads of the process, and nothing given back that the next run will want.

glibc gives each thread a heap of its own, and what a model run has let go stays in the heap of its
thread, of no use to the next one: under windows of many lengths memory grows on and on. One heap
does not (`make footprint`).
What a run lets go at the end of the heap, or in pieces of some hundred kilobytes, glibc gives back
to the kernel, by bounds that it moves as it goes; the next run then faults it in anew, page by
page, and whole windows take up to a quarter longer, or not, as it happens. So the bounds are fixed
above what runs use.
"""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h

_KEPT_BYTES = 64 << 20
"""Free at the end of the heap, at most."""

_LARGE_BYTES = 32 << 20
"""Larger pieces are mapped apart and given back at once; the most that glibc takes here."""


def share_one_heap() -> bool:
    """Let all threads made from now on use one heap; False where the C library knows no such thing.

    MALLOC_ARENA_MAX in the environment says the same to glibc before the process begins.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc has it, musl has not
    if mallopt is None:
        return False
    options = (
        (_M_ARENA_MAX, 1),
        (_M_MMAP_THRESHOLD, _LARGE_BYTES),
        (_M_TRIM_THRESHOLD, _KEPT_BYTES),
    )
    done = [bool(mallopt(option, value)) for option, value in options]
    return all(done)
