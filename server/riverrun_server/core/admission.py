"""Whether there is room: bytes under way for each connection and the broker, and space on the disk.

Without the first, slow acks and fast senders would fill the memory; without the second, a full disk
would stop the broker's own writes too, among them the trims that make room. Not here: waiting for
room (the driver reads no more from a stream meanwhile), and who looks at the disk when.
"""

from __future__ import annotations

from collections.abc import Hashable

from riverrun_server.core.errors import Reason, Refusal


class ByteBudget:
    """How many bytes are under way, altogether and for each connection.

    Nothing is larger than a budget that is empty: limits on sizes are enforced elsewhere, and what
    passed them must not wait for ever.

    Invariants: what is used is the sum of what the connections hold; a connection that holds nothing
    is not kept; nothing is ever below zero.

    Args:
        broker_bytes_max: for all connections.
        connection_bytes_max: for each.
    """

    __slots__ = ("_held", "broker_bytes_max", "connection_bytes_max", "used_bytes")

    def __init__(self, broker_bytes_max: int, connection_bytes_max: int) -> None:
        self.broker_bytes_max = broker_bytes_max
        self.connection_bytes_max = connection_bytes_max
        self.used_bytes = 0
        self._held: dict[Hashable, int] = {}

    def held_by(self, connection: Hashable) -> int:
        """Return how many bytes a connection holds."""
        return self._held.get(connection, 0)

    def reserve(self, connection: Hashable, size_bytes: int) -> bool:
        """Take bytes where there is room; else change nothing and return False.

        A connection's key must never serve another one.
        """
        assert size_bytes >= 0, size_bytes
        held, used = self._held.get(connection, 0), self.used_bytes
        if held and held + size_bytes > self.connection_bytes_max:
            return False
        if used and used + size_bytes > self.broker_bytes_max:
            return False
        if size_bytes:
            self._held[connection] = held + size_bytes
            self.used_bytes = used + size_bytes
        return True

    def refusal(self, connection: Hashable, size_bytes: int) -> Refusal:
        """Return what to tell a client that is not going to wait, after `reserve` said no."""
        held = self.held_by(connection)
        if held and held + size_bytes > self.connection_bytes_max:
            whose, used, limit = "this connection", held, self.connection_bytes_max
        else:
            whose, used, limit = "this broker", self.used_bytes, self.broker_bytes_max
        return Refusal(
            Reason.OVERLOADED,
            f"{used} bytes are under way on {whose}, {size_bytes} more do not fit into the {limit} "
            f"allowed; send again after a moment, or less at once",
        )

    def release(self, connection: Hashable, size_bytes: int) -> None:
        """Give bytes back; does nothing for a connection that has gone."""
        held = self._held.get(connection)
        if held is None or not size_bytes:
            return
        assert 0 < size_bytes <= held, (size_bytes, held)
        self.used_bytes -= size_bytes
        if held == size_bytes:
            del self._held[connection]
        else:
            self._held[connection] = held - size_bytes

    def forget(self, connection: Hashable) -> int:
        """Give back everything that a connection holds, for it has gone; return how much that was."""
        held = self._held.pop(connection, 0)
        self.used_bytes -= held
        return held


class DiskGate:
    """Whether there is enough space on the disk for appends.

    Transitions: open -> closed when less than `low_bytes` are free; closed -> open when at least
    `high_bytes` are. The distance keeps it from flapping while trims and appends take turns.

    Args:
        low_bytes: what trims, commits and metadata need to go on.
        high_bytes: at least `low_bytes`.

    Attributes:
        free_bytes: as seen last; 0 before the first look.
        total_bytes: the size of the file system, as seen last; 0 before the first look.
    """

    __slots__ = ("_closed_at", "free_bytes", "high_bytes", "low_bytes", "total_bytes")

    def __init__(self, low_bytes: int, high_bytes: int) -> None:
        assert 0 <= low_bytes <= high_bytes, (low_bytes, high_bytes)
        self.low_bytes = low_bytes
        self.high_bytes = high_bytes
        self.free_bytes = 0
        self.total_bytes = 0
        self._closed_at: int | None = None  # free bytes as seen last while closed

    @property
    def is_open(self) -> bool:
        """Whether appends are accepted."""
        return self._closed_at is None

    def observe(self, free_bytes: int, total_bytes: int = 0) -> bool:
        """Take in how much of the disk is free; return whether the gate has opened or closed."""
        self.free_bytes, self.total_bytes = free_bytes, total_bytes
        was_open = self.is_open
        limit = self.low_bytes if was_open else self.high_bytes
        self._closed_at = free_bytes if free_bytes < limit else None
        return was_open != self.is_open

    def refusal(self) -> Refusal | None:
        """Return what to tell a producer, or None while the gate is open."""
        if self._closed_at is None:
            return None
        return Refusal(
            Reason.STORAGE_FULL,
            f"the broker's disk has {_shown(self._closed_at)} free and appends need "
            f"{_shown(self.high_bytes)} to go on (setting storage.disk_high_water_bytes); shorten "
            "retention, trim or delete topics, or add space",
        )


def _shown(size_bytes: int) -> str:
    """Write a size for people, who compare it with what `df -h` says."""
    for unit, unit_bytes in (("GiB", 1 << 30), ("MiB", 1 << 20)):
        if size_bytes >= unit_bytes:
            return f"{size_bytes / unit_bytes:.1f} {unit}"
    return f"{size_bytes} bytes"
