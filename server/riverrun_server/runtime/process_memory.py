"""How the broker's process keeps memory: what the allocator gives back, and when the collector looks.

Both defaults are made for programs of another kind. glibc gives the memory of one message back to the
kernel, to get it again, page by page and zeroed, for the next. And Python's collector looks at all
objects of the process each time that a quarter more of them have lived for a while: with a few hundred
thousand objects that stay for ever, that held up the event loop for 50 ms, several times a minute under
load, and took a tenth of its time.
"""

from __future__ import annotations

import ctypes
import gc
from typing import Final

# Parameters of glibc's mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# Each of malloc's arenas may keep so much for later, so it is no more than a few messages take.
_KEPT_BYTES: Final = 16 << 20
_MMAPPED_FROM_BYTES: Final = 8 << 20

# What dies at once does not count, only what lives for a while, and calls under way do: with the
# default of 700 a dozen of them were looked at again and again.
_YOUNG_OBJECTS: Final = 10_000
_ROUNDS_BEFORE_OLDER: Final = 20


def keep_memory() -> None:
    """Let the allocator keep what large messages need; call it before there are threads."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # the C libraries of other systems have their own ways
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_MMAP_THRESHOLD, _MMAPPED_FROM_BYTES)


def settle() -> None:
    """Let the collector leave alone what is there; call it once everything is open."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, _ROUNDS_BEFORE_OLDER, _ROUNDS_BEFORE_OLDER)
