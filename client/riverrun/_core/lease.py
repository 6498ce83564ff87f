"""How long a member has its partitions for certain: its session timeout, from a sign of life that has arrived.

Intuition: a group gives a silent member's partitions to others, and cannot tell it so. What the member has
read ahead of them is then somebody else's, so it returns nothing more once the coordinator may have missed
it: that is never later than its session timeout after it sent the newest sign of life that is known to
have arrived (the lease of Gray and Cheriton, 1989).
"""

from __future__ import annotations

from collections import deque
from typing import Final

# Older ones are worth nothing: they are sent several times within a session timeout.
_KEPT: Final = 64
# Of the session timeout: what clocks and a loop that is late may take together.
_MARGIN: Final = 0.2


class Lease:
    """One member's lease. Transitions: none -> held (`confirmed`) <-> over (by time; `confirmed`) -> none (`ended`).

    All times are seconds of a monotonic clock.
    """

    def __init__(self) -> None:
        self._sent: deque[tuple[int, float]] = deque(maxlen=_KEPT)
        self._until_s: float | None = None

    def sent(self, heartbeat_id: int, now_s: float) -> None:
        """Note a sign of life that is on its way; 0 is the start of a stream. They rise within a stream."""
        if not heartbeat_id:
            # What an earlier stream has sent is confirmed by nobody any more.
            self._sent.clear()
        self._sent.append((heartbeat_id, now_s))

    def confirmed(self, heartbeat_id: int, session_timeout_s: float) -> None:
        """Take that the group knows of it, and so of all before it; what is known already changes nothing."""
        sent_s: float | None = None
        while self._sent and self._sent[0][0] <= heartbeat_id:
            sent_s = self._sent.popleft()[1]
        if sent_s is not None:
            until_s = sent_s + session_timeout_s * (1 - _MARGIN)
            self._until_s = until_s if self._until_s is None else max(self._until_s, until_s)

    def ended(self) -> None:
        """Take that it is a member no more: there is nothing to be sure of."""
        self._sent.clear()
        self._until_s = None

    def is_over(self, now_s: float) -> bool:
        """Whether others may have what the member was given."""
        return self._until_s is not None and now_s >= self._until_s
