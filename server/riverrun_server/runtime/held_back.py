"""How long a coordinator writes nothing, because what it has tried to write was refused and would be again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from riverrun_server.core.backoff import Backoff
from riverrun_server.core.errors import Refusal


class HeldBack:
    """Transitions: free -> held (`refused`) -> free (by time) ...; each time longer, until something `worked`.

    Args:
        uniform: returns a random number between two.
        first_s: how long it lasts at most for the first time.
        max_s: and after many times.
    """

    def __init__(
        self, uniform: Callable[[float, float], float], first_s: float, max_s: float
    ) -> None:
        self._backoff = Backoff(uniform, first_s, max_s)
        self._why: Refusal | None = None
        self._until_s = 0.0

    @property
    def why(self) -> Refusal | None:
        """Why nothing is to be written now; None where something may."""
        return self._why if self.left_s > 0 else None

    @property
    def left_s(self) -> float:
        """How long that goes on."""
        return max(0.0, self._until_s - asyncio.get_running_loop().time())

    def refused(self, why: Refusal) -> None:
        """Learn that something was not written, for certain."""
        self._why = why
        self._until_s = asyncio.get_running_loop().time() + self._backoff.next_s()

    def worked(self) -> None:
        """Learn that something was written."""
        self._backoff.reset()
