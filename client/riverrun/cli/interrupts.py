"""SIGINT and SIGTERM: the first one ends the work in order, a second one ends the process."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from types import TracebackType
from typing import Self

from riverrun.cli.exits import write_note


class Interrupts:
    """A context in which the first signal calls `stop` and is remembered.

    Attributes:
        received: the signal that came, or None.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, stop: Callable[[], None]) -> None:
        self.received: signal.Signals | None = None
        self._stop = stop

    @property
    def exit_code(self) -> int:
        """What shells say of a process that a signal ended; 0 where none came."""
        return 128 + self.received if self.received else 0

    def __enter__(self) -> Self:
        """Take over the signals."""
        loop = asyncio.get_running_loop()
        for number in self.SIGNALS:
            loop.add_signal_handler(number, self._receive, number)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the signals back."""
        loop = asyncio.get_running_loop()
        for number in self.SIGNALS:
            loop.remove_signal_handler(number)

    def _receive(self, number: signal.Signals) -> None:
        """Stop in order, or at the second signal at once."""
        if self.received is not None:
            write_note("stopped at once, at the second signal")
            os._exit(128 + number)
        self.received = number
        self._stop()
