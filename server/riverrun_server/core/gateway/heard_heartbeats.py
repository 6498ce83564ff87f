"""A member's own heartbeats, and which of them its coordinator knows of once it has attached the member anew."""

from __future__ import annotations

from collections import deque
from typing import Final

# More than a member sends while its coordinator is looked for.
_KEPT: Final = 8


class HeardHeartbeats:
    """The heartbeats of one member, which rise.

    Attributes:
        newest: the last one; 0 is none.
    """

    def __init__(self) -> None:
        self.newest = 0
        self._heard: deque[tuple[float, int]] = deque(maxlen=_KEPT)

    def heard(self, heartbeat_id: int, now: float) -> None:
        """Note one; what is older than the newest is passed over."""
        if heartbeat_id > self.newest:
            self.newest = heartbeat_id
            self._heard.append((now, heartbeat_id))

    def until(self, time: float) -> int:
        """Return the last one that had come by then: who says later that the member lives vouches for it."""
        return max((each for heard_at, each in self._heard if heard_at <= time), default=0)
