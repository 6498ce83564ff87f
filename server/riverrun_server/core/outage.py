"""One trouble that many have at once: what to tell of it when it begins, lasts and is over.

Whoever has the trouble reports every attempt; what is returned is what an operator is to be told.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Phase(enum.Enum):
    """Where an outage stands."""

    BEGAN = "began"
    LASTS = "lasts"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Notice:
    """What is to be told of an outage.

    Attributes:
        phase: where it stands.
        lasted_s: since it began.
        failing: who has the trouble now, in order; empty where it is over.
        error: what the last one of them was told.
    """

    phase: Phase
    lasted_s: float
    failing: tuple[str, ...]
    error: str


class Outage:
    """The trouble of all members together.

    Args:
        remind_every_s: how often to tell that it still lasts.

    Transitions: none -> began (the first member failed) -> none (the last one recovered).
    """

    def __init__(self, remind_every_s: float) -> None:
        self._remind_every_s = remind_every_s
        self._failing: set[str] = set()
        self._began_at = self._told_at = 0.0

    def failed(self, member: str, error: str, now: float) -> Notice | None:
        """Note a failed attempt; return what is to be told, if anything."""
        begins = not self._failing
        self._failing.add(member)
        if begins:
            self._began_at = now
        elif now - self._told_at < self._remind_every_s:
            return None
        self._told_at = now
        return self._notice(Phase.BEGAN if begins else Phase.LASTS, error, now)

    def recovered(self, member: str, now: float) -> Notice | None:
        """Note that a member has no trouble; return what is to be told, if anything."""
        if member not in self._failing:
            return None
        self._failing.remove(member)
        return None if self._failing else self._notice(Phase.OVER, "", now)

    def _notice(self, phase: Phase, error: str, now: float) -> Notice:
        return Notice(phase, now - self._began_at, tuple(sorted(self._failing)), error)
