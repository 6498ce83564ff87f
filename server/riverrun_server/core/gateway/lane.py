"""The lane of a partition's appends at a broker: in order to one leader at a time, none sent twice.

What is sent to a leader is answered by it, or counts as unknown the moment that a newer leader epoch is
known: nobody waits for a leader that is gone, and nothing goes to the new one before. What comes while
there is no leader to send to waits for one, shortly: whoever makes a call with nothing but a generated
stub has no loop around it that tries again, and an election takes longer than a call. It never waits
long, for it holds the room of other appends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final, Generic, NamedTuple, TypeVar

WAIT_S: Final = 1.0
WAITING_BYTES_MAX: Final = 8 << 20

T = TypeVar("T")


class Steps(NamedTuple, Generic[T]):
    """What is to be done, in this order.

    Attributes:
        unknown: these were sent, and nobody will know what became of them.
        refused: these were not sent and will not be.
        send: to the leader that is followed now.
    """

    unknown: Sequence[T] = ()
    refused: Sequence[T] = ()
    send: Sequence[T] = ()


class AppendLane(Generic[T]):
    """One partition's appends, from all clients of this broker.

    Transitions of an append: new -> sent (the leader can be reached) | waiting (it cannot) | refused
    (too much waits). Waiting -> sent, when the leader can be reached | refused, when the oldest that
    waits has waited too long, or when one that was sent before it has failed. Sent -> answered |
    unknown, when a newer leader epoch is known or the lane is closed.

    So what is sent was handed in after every failure that came before its sending: nothing overtakes
    the retry of a failed one but what had been sent already. Nothing is sent twice.

    Args:
        wait_s: how long one may wait for a leader.
        max_waiting_bytes: how much may wait; more than that only where it is one append.
    """

    __slots__ = ("_max_waiting_bytes", "_reachable", "_sent", "_wait_s", "_waiting", "_waiting_bytes", "leader_epoch")  # fmt: skip

    def __init__(self, wait_s: float = WAIT_S, max_waiting_bytes: int = WAITING_BYTES_MAX) -> None:
        self._wait_s = wait_s
        self._max_waiting_bytes = max_waiting_bytes
        self._reachable = False
        # Keys in the order of sending; a set would not keep it.
        self._sent: dict[T, None] = {}
        self._waiting: deque[tuple[T, float]] = deque()
        self._waiting_bytes = 0
        self.leader_epoch = -1

    @property
    def expires_at(self) -> float | None:
        """When what waits is refused, as `submit` counts time; None where nothing waits."""
        return self._waiting[0][1] if self._waiting else None

    def submit(self, append: T, size_bytes: int, now: float) -> Steps[T]:
        """Take an append in."""
        if self._reachable:
            self._sent[append] = None
            return Steps(send=(append,))
        if self._waiting and self._waiting_bytes + size_bytes > self._max_waiting_bytes:
            return Steps(refused=(append,))
        self._waiting.append((append, now + self._wait_s))
        self._waiting_bytes += size_bytes
        return Steps()

    def follow(self, leader_epoch: int, *, reachable: bool) -> Steps[T]:
        """Learn which leadership is the newest, and whether appends can be sent to it; older news are none."""
        if leader_epoch < self.leader_epoch:
            return Steps()
        unknown: Sequence[T] = ()
        refused: Sequence[T] = ()
        if leader_epoch > self.leader_epoch:
            self.leader_epoch = leader_epoch
            unknown, self._sent = tuple(self._sent), {}
        self._reachable = reachable
        if unknown:
            refused = self._take_waiting()
        send = self._take_waiting() if reachable else ()
        self._sent.update(dict.fromkeys(send))
        return Steps(unknown, refused, send)

    def answered(self, append: T, *, failed: bool) -> Steps[T] | None:
        """Take the answer to what was sent; None where it counts as unknown already: drop the answer."""
        if append not in self._sent:
            return None
        del self._sent[append]
        return Steps(refused=self._take_waiting()) if failed and self._waiting else Steps()

    def expire(self, now: float) -> Steps[T]:
        """Refuse everything that waits where the oldest has waited too long: later ones must not overtake it."""
        expires_at = self.expires_at
        if expires_at is None or now < expires_at:
            return Steps()
        return Steps(refused=self._take_waiting())

    def close(self) -> Steps[T]:
        """Answer everything."""
        unknown, self._sent = tuple(self._sent), {}
        self._reachable = False
        return Steps(unknown, self._take_waiting())

    def _take_waiting(self) -> Sequence[T]:
        taken = tuple(append for append, _ in self._waiting)
        self._waiting.clear()
        self._waiting_bytes = 0
        return taken
