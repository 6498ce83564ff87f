"""How many bytes may be on their way to readers, and who may hold how many of them.

A reader that does not read holds what it was sent, and gRPC has no way to take it back. So a reader
gets room before anything is read for it, and no connection may take what would leave others without:
one may hold as much as is left over (the dynamic thresholds of Choudhury and Hahne). The first gets
half of everything, the second a third of it; a thousandth still finds some.
"""

from __future__ import annotations

from collections.abc import Hashable


class DeliveryBudget:
    """Bytes on their way to readers, altogether and for each connection.

    Invariants: what is used is the sum of what connections hold, and never above `max_bytes` but by
    what was forced; a connection that holds nothing is not kept.

    Args:
        max_bytes: for all connections.
    """

    __slots__ = ("_held", "max_bytes", "used_bytes")

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.used_bytes = 0
        self._held: dict[Hashable, int] = {}

    def held_by(self, connection: Hashable) -> int:
        """Return how many bytes a connection holds."""
        return self._held.get(connection, 0)

    def fits(self, connection: Hashable, size_bytes: int) -> bool:
        """Return whether a connection may take so much more."""
        if not self.used_bytes:
            return True  # nothing waits for ever because it is large
        return self.max_bytes - self.used_bytes >= self.needs(connection, size_bytes)

    def needs(self, connection: Hashable, size_bytes: int) -> int:
        """Return how much must be left over before a connection takes so much more.

        Afterwards there is as much left as it holds.
        """
        return self._held.get(connection, 0) + 2 * size_bytes

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
