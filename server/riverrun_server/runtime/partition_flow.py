"""What has passed through one partition: what was appended to it, and what its readers were handed."""

from __future__ import annotations

from riverrun_server.core.log.partition import PartitionMachine


class PartitionFlow:
    """Implements ports.partitions.Flow; cursors tell it what they hand out."""

    __slots__ = ("_machine", "delivered_records", "disk_bytes", "memory_bytes")

    def __init__(self, machine: PartitionMachine) -> None:
        self._machine = machine
        self.delivered_records = self.memory_bytes = self.disk_bytes = 0

    @property
    def appended_bytes(self) -> int:
        """Bytes of all batches ever appended, as stored."""
        return self._machine.state.appended_bytes

    def delivered(self, records: int, size_bytes: int, *, from_disk: bool) -> None:
        """Count what a reader was handed."""
        self.delivered_records += records
        if from_disk:
            self.disk_bytes += size_bytes
        else:
            self.memory_bytes += size_bytes
