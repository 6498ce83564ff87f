"""How this process keeps memory: large messages come and go, and the kernel need not see each of them."""

from __future__ import annotations

import ctypes
import gc

# Parameters of glibc's mallopt(3). By itself it gives blocks above 128 KB back to the kernel at once,
# to get them again, page by page and zeroed, for the next message: a fifth of the time that reading
# batches of 1 MB takes.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_KEPT_BYTES = 128 << 20
_GROWN_BY_BYTES = 8 << 20
_MMAPPED_FROM_BYTES = 32 << 20


def keep_memory() -> None:
    """Prepare a process of our own for moving records; never called by the library."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # the C libraries of other systems have their own ways
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_TOP_PAD, _GROWN_BY_BYTES)
        mallopt(_MMAP_THRESHOLD, _MMAPPED_FROM_BYTES)
    # What has been imported stays; the collector need not look at it again and again.
    gc.freeze()
