"""How this process's C library treats freed memory: large tensors come and go in every step."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_LARGEST = 1 << 30  # bytes; larger blocks are mapped and given back as before


def keep_freed_memory() -> bool:
    """Let glibc keep freed blocks for the next allocation instead of giving them back at once.

    By default each block above 32 MiB is mapped anew, and the kernel fills it with zeros page by
    page: at 224 px that was half of a forward pass's time. Peak memory stays what it was, but it is
    held until the process ends.

    Returns:
        Whether the C library took both settings; False where it is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(
        mallopt(_M_MMAP_THRESHOLD, _LARGEST) and mallopt(_M_TRIM_THRESHOLD, 2 * _LARGEST - 1)
    )
