"""How many bytes may be on their way to readers, and who may hold how many of them.

A reader that does not read holds what it was sent, and gRPC has no way to take it back. So a reader
gets room before anything is read for it, and no connection may take what would leave others without.

Half of the budget is a reserve: out of it a connection that holds nothing takes one batch, and nobody
takes anything else. Of the other half a connection may hold as much as it leaves over (the dynamic
thresholds of Choudhury and Hahne): the first gets a quarter of everything, the second an eighth.

Invariant: beyond the one batch that each connection began with, all of them together hold no more
than the budget without its reserve. So whoever holds nothing finds room for a batch unless so many
connections hold something that a batch for each of them fills the reserve: 128, each with the answer
to a batch of 1 MiB that it does not read, at the default budget of 512 MiB. What is held for good
by twice as many fills any budget of that size, however it is shared out.

Nobody waits in a circle: once nothing is held anything fits, however large, and whoever holds
something can give it back without more room. A stream delivers what it has read ahead, a Fetch answers
with what it has.
"""

from __future__ import annotations

from collections.abc import Hashable


class DeliveryBudget:
    """Bytes on their way to readers, altogether and for each connection.

    Invariants: what is used is the sum of what connections hold, and never above `max_bytes` but by
    what was larger than everything, or forced; a connection that holds nothing is not kept.

    Args:
        max_bytes: for all connections.
    """

    __slots__ = ("_held", "max_bytes", "reserve_bytes", "used_bytes")

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.reserve_bytes = max_bytes // 2
        self.used_bytes = 0
        self._held: dict[Hashable, int] = {}

    def held_by(self, connection: Hashable) -> int:
        """Return how many bytes a connection holds."""
        return self._held.get(connection, 0)

    def fits(self, connection: Hashable, size_bytes: int, *, one_batch: bool = False) -> bool:
        """Return whether a connection may take so much more.

        Args:
            connection: who asks.
            size_bytes: how much more.
            one_batch: whether that is the least with which it can go on: room for one batch.
        """
        if not self.used_bytes:
            return True  # nothing waits for ever because it is large
        needs = self.needs(connection, size_bytes, one_batch=one_batch)
        return self.max_bytes - self.used_bytes >= needs

    def needs(self, connection: Hashable, size_bytes: int, *, one_batch: bool = False) -> int:
        """Return how much must be left over before a connection takes so much more.

        Afterwards there is as much left as it holds, beside the reserve; a first batch needs no more
        than its own size.
        """
        held = self._held.get(connection, 0)
        if one_batch and not held:
            return size_bytes
        return self.reserve_bytes + held + 2 * size_bytes

    def take(self, connection: Hashable, size_bytes: int) -> None:
        """Take bytes, whether they fit or not."""
        assert size_bytes >= 0, size_bytes
        if size_bytes:
            self._held[connection] = self._held.get(connection, 0) + size_bytes
            self.used_bytes += size_bytes

    def release(self, connection: Hashable, size_bytes: int) -> None:
        """Give bytes back."""
        if not size_bytes:
            return
        held = self._held[connection]
        assert 0 < size_bytes <= held, (size_bytes, held)
        self.used_bytes -= size_bytes
        if held == size_bytes:
            del self._held[connection]
        else:
            self._held[connection] = held - size_bytes
