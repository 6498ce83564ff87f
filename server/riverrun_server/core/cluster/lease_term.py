"""For how long the holder of a lease may rely on it, by the holder's own clock."""

from __future__ import annotations

from typing import Final

# Of the time to live: the first attempt to renew, and a later one after a failure.
_RENEW_AFTER: Final = 1 / 3
_RETRY_AFTER: Final = 1 / 10


class LeaseTerm:
    """Counts from before a request was sent: whatever the answer took, the store counts from later.

    Transitions: holding (`begin`) -> holding (`begin` again, renewed) -> over (its time is up).

    Args:
        margin_s: so much earlier than the store the holder stops.
    """

    def __init__(self, margin_s: float) -> None:
        assert margin_s >= 0, margin_s
        self._margin_s = margin_s
        self._ttl_s = 0.0
        self._deadline = float("-inf")

    def anew(self) -> LeaseTerm:
        """Return the term of another lease, which has not begun."""
        return LeaseTerm(self._margin_s)

    def begin(self, sent_at: float, ttl_s: float) -> None:
        """Take note of an answer that the lease goes on.

        Args:
            sent_at: when the request was sent, by the monotonic clock.
            ttl_s: for how long the store then keeps it.
        """
        assert ttl_s > self._margin_s, (ttl_s, self._margin_s)
        self._ttl_s = ttl_s
        self._deadline = max(self._deadline, sent_at + ttl_s - self._margin_s)

    @property
    def deadline(self) -> float:
        """Until when the lease may be relied on, by the monotonic clock."""
        return self._deadline

    def holds(self, now: float) -> bool:
        """Return whether the lease may be relied on."""
        return now < self._deadline

    def pause_s(self, *, failed: bool) -> float:
        """Return how long to wait before the next renewal."""
        return self._ttl_s * (_RETRY_AFTER if failed else _RENEW_AFTER)
