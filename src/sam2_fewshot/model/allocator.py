"""Memory that a network's tensors can use again, instead of giving it back to the system after each."""

from __future__ import annotations

import ctypes
import sys

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
"""Their numbers in glibc's ``malloc.h``."""
_IN_HEAP = 32 << 20
"""Bytes; the largest that glibc allows."""
_KEPT = 256 << 20


def reuse_memory() -> bool:
    """Make glibc keep what was freed, up to 256 MB, for the whole of this process.

    A network on a CPU allocates and frees tensors of megabytes hundreds of times a second. Where these come fresh from
    the system, each of their pages is made and cleared anew. By default glibc learns from that, after a while and
    partly; but Dask starts its workers with ``MALLOC_TRIM_THRESHOLD_=65536``, which turns the learning off: a frame
    then took 1.6 times as long.

    Returns
    -------
    bool
        Whether there is a glibc that took it. Other systems' allocators have no such setting.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # musl has none
        return False
    # Either alone turns off what glibc adapts by itself, so both have to be set.
    return bool(mallopt(_MMAP_THRESHOLD, _IN_HEAP)) and bool(mallopt(_TRIM_THRESHOLD, _KEPT))
