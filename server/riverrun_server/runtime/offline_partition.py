"""A partition of which this broker can only say why it does not serve it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from riverrun_server.core.errors import Refusal
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.ports.partitions import Append, Chunk, NoFlow


def way_back(data_dir: str, topic: str, partition: int) -> str:
    """Return what an operator can do about a partition that is offline, as the end of an error."""
    return (
        "Restore the data, or stop the broker and accept the loss with: riverrun-server recover "
        f"--data-dir {data_dir} --topic {topic} --partition {partition} --accept-loss"
    )


class OfflinePartition:
    """Implements ports.partitions.PartitionAccess by refusing everything."""

    def __init__(
        self, topic: str, partition: PartitionId, max_batch_bytes: int, why: Refusal
    ) -> None:
        self.topic = topic
        self.id = partition
        self.max_batch_bytes = max_batch_bytes
        self.why = why
        self.flow = NoFlow()
        self.led_here = True

    def direct(self) -> OfflinePartition:
        """Return it: nothing is passed on from here."""
        return self

    def submit(self, append: Append) -> None:
        """Refuse a batch."""
        append.refuse(self._refusal())

    async def watermarks(self) -> NoReturn:
        """Refuse."""
        raise self._refusal()

    async def offset_at_time(self, time_ms: int) -> NoReturn:  # noqa: ARG002 - the port's signature
        """Refuse."""
        raise self._refusal()

    async def trim(self, before_offset: int) -> NoReturn:  # noqa: ARG002 - the port's signature
        """Refuse."""
        raise self._refusal()

    def cursor(self, offset: int, wake: Callable[[], None]) -> OfflineCursor:  # noqa: ARG002 - as above
        """Return a cursor that refuses to read."""
        return OfflineCursor(offset, self._refusal)

    def _refusal(self) -> Refusal:
        # A new one each time: an exception that is raised twice collects both tracebacks.
        return Refusal(self.why.reason, self.why.message)


class OfflineCursor:
    """Implements ports.partitions.Cursor by refusing to read."""

    def __init__(self, offset: int, refusal: Callable[[], Refusal]) -> None:
        self.position = offset
        self._refusal = refusal

    @property
    def reads_ahead(self) -> bool:
        """It reads nothing."""
        return False

    def in_memory(self, max_bytes: int) -> int:  # noqa: ARG002 - the port's signature
        """Refusing takes nothing."""
        return 0

    def take(self, max_bytes: int, *, read_ahead: bool = True) -> Chunk | None:  # noqa: ARG002 - the port's signature
        """Refuse."""
        raise self._refusal()

    def seek(self, offset: int, leader_epoch: int | None = None) -> None:  # noqa: ARG002 - as above
        """Go elsewhere, to be refused there."""
        self.position = offset

    def close(self) -> None:
        """Let go of nothing."""
