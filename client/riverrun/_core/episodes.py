"""When a person is told of trouble: once for each episode, not for each attempt.

Intuition: an episode begins with the first attempt that fails and ends with one that works. What only
a person can mend is worth telling at once; what usually passes by itself, once it has lasted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from riverrun.errors import Reason, RiverrunError

S = TypeVar("S")

PATIENCE_S = 5.0
"""How long what usually passes by itself is kept quiet about."""

# The broker waits for an operator, or has a bug: trying again mends neither.
_AT_ONCE = frozenset({Reason.PARTITION_OFFLINE, Reason.INTERNAL})


@dataclass(slots=True)
class _Episode:
    """One run of failed attempts, and the reasons that a person has heard."""

    begun_s: float
    told: set[Reason] = field(default_factory=set)


class Episodes(Generic[S]):
    """The trouble that several things are in, such as partitions, each on its own."""

    def __init__(self) -> None:
        self._open: dict[S, _Episode] = {}

    @property
    def subjects(self) -> tuple[S, ...]:
        """What is in trouble."""
        return tuple(self._open)

    def failed(
        self, subject: S, error: RiverrunError, now_s: float, *, at_once: bool = False
    ) -> bool:
        """Note an attempt that failed; return whether a person is to be told of it.

        Args:
            subject: what is in trouble.
            error: why; each reason is told once in an episode.
            now_s: on a clock that does not go back.
            at_once: whether it is news whatever the reason.
        """
        episode = self._open.setdefault(subject, _Episode(now_s))
        if error.reason in episode.told:
            return False
        lasts = now_s - episode.begun_s >= PATIENCE_S
        if not (at_once or lasts or error.reason in _AT_ONCE):
            return False
        episode.told.add(error.reason)
        return True

    def lasted_s(self, subject: S, now_s: float) -> float:
        """Return how long it has been in trouble; 0 where it is in none."""
        episode = self._open.get(subject)
        return 0.0 if episode is None else now_s - episode.begun_s

    def worked(self, subject: S) -> bool:
        """End the episode; return whether a person was told of it."""
        episode = self._open.pop(subject, None)
        return episode is not None and bool(episode.told)
