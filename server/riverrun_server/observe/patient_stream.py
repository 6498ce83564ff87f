"""A text stream that neither fails nor blocks for long: whoever reads a log must not stop a broker.

A reader that is stuck, such as a collector whose own disk is full, lets its pipe fill up; the next
write would wait for it, and the event loop with it.
"""

from __future__ import annotations

import contextlib
import select
import threading
from collections.abc import Callable
from typing import Final, TextIO

# Once, for a reader that is only slow; as long as it has no room nobody waits again.
PATIENCE_S: Final = 0.05


class PatientStream:
    """Writes whole texts, or loses and counts them.

    A text that is longer than the 4 KiB that a pipe which has room at all is sure to take may still
    wait for its reader.

    Args:
        stream: where to.
        lost: makes the text that is written before the next one, of how many were lost.
    """

    def __init__(self, stream: TextIO, lost: Callable[[int], str]) -> None:
        self._stream = stream
        self._say_lost = lost
        self._lost = 0
        # Our own lines and those of libraries come with locks of their own, from any thread.
        self._one_by_one = threading.RLock()
        self._poll: select.poll | None = None
        with contextlib.suppress(OSError, ValueError):  # a stream in memory has no descriptor
            descriptor = stream.fileno()
            self._poll = select.poll()
            self._poll.register(descriptor, select.POLLOUT)

    def write(self, text: str) -> None:
        """Write, or lose the text."""
        with self._one_by_one:
            if not self._has_room():
                self._lost += 1
                return
            if self._lost:
                lost, self._lost = self._lost, 0
                text = self._say_lost(lost) + text
            with contextlib.suppress(OSError, ValueError):
                self._stream.write(text)

    def flush(self) -> None:
        """Flush, or lose what was written."""
        if self._lost:
            return
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def _has_room(self) -> bool:
        if self._poll is None:
            return True
        return bool(self._poll.poll(0 if self._lost else PATIENCE_S * 1000))
