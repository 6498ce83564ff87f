"""A partition whose log is here: its offsets, places and batches, who waits for more, what may be appended.

Not here: how the log grows and is cut (runtime/partition, runtime/replication), a reader's place
(runtime/cursor).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Self

import structlog

from riverrun_server.core.cluster.topic_config import TopicConfig
from riverrun_server.core.cluster.topic_rules import INTERNAL_PREFIX
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.log.batch import PartitionId, StoredBatch
from riverrun_server.core.log.epochs import EpochMap
from riverrun_server.core.log.hot_tail import HotTail
from riverrun_server.core.log.partition import PartitionMachine
from riverrun_server.ports.log import CorruptData, Log, StorageError, StorageFailed
from riverrun_server.ports.partitions import Watermarks
from riverrun_server.runtime.cursor import LocalCursor
from riverrun_server.runtime.lookup import find_time
from riverrun_server.runtime.offline_partition import way_back
from riverrun_server.runtime.partition_flow import PartitionFlow
from riverrun_server.runtime.partition_services import PartitionServices

_log = structlog.stdlib.get_logger(__name__)


class HeldPartition:
    """What services see of a partition, whoever else holds it; implements runtime.cursor.Readable.

    Transitions: closed -> online, by whoever opens it -> offline (damage found by a read).

    Args:
        topic: the topic's name.
        partition: whose log it is.
        config: the topic's configuration.
        services: what all partitions share.
        log: the stored half.
        epochs: of the log.
        machine: knows the bounds.
        tail: has the newest batches.
    """

    def __init__(
        self,
        topic: str,
        partition: PartitionId,
        config: TopicConfig,
        services: PartitionServices,
        log: Log,
        epochs: EpochMap,
        machine: PartitionMachine,
        tail: HotTail,
    ) -> None:
        self.topic = topic
        self.id = partition
        self._log = log
        self._epochs = epochs
        self._machine = machine
        self._tail = tail
        self._config = config
        self._services = services
        # The brokers' own topics keep what the disk's reserve is for: groups must be able to commit.
        self._internal = topic.startswith(INTERNAL_PREFIX)
        self._wakes: set[Callable[[], None]] = set()
        self.led_here = True
        self.flow = PartitionFlow(machine)
        self._closed: Refusal | None = Refusal(
            Reason.NOT_READY, f"{self} is being opened; ask again after a moment"
        )

    def __str__(self) -> str:
        """Name it as people do."""
        return f"{self.topic}-{self.id.partition}"

    @property
    def _way_back(self) -> str:
        return way_back(self._services.data_dir, self.topic, self.id.partition)

    @property
    def config(self) -> TopicConfig:
        """The topic's configuration."""
        return self._config

    def configure(self, config: TopicConfig) -> None:
        """Take a changed configuration."""
        self._config = config

    @property
    def max_batch_bytes(self) -> int:
        """The largest batch that the topic allows, also expanded."""
        return self._config.max_batch_bytes

    @property
    def offline(self) -> Refusal | None:
        """Why nothing can be done with the partition, or None."""
        return self._closed

    def go_offline(self, damage: str) -> None:
        """Serve nothing any more, for what is stored cannot be trusted."""
        _log.error("partition is offline", partition=str(self), damage=damage)
        self._closed = Refusal(
            Reason.PARTITION_OFFLINE,
            f"{self} is offline on this broker: {damage}. {self._way_back}",
        )
        self._wake_readers()

    def direct(self) -> Self:
        """Return it: nothing is passed on from here."""
        return self

    @property
    def leader_epoch(self) -> int:
        """Of the newest leadership of this broker."""
        return self._machine.leader_epoch

    @property
    def high_watermark(self) -> int:
        """What lies below it is committed."""
        return self._machine.high_watermark

    @property
    def log_start_offset(self) -> int:
        """The first offset that can be read."""
        return self._machine.log_start

    async def watermarks(self) -> Watermarks:
        """Return the partition's offsets."""
        self._check_online()
        machine = self._machine
        return Watermarks(
            machine.log_start,
            machine.high_watermark,
            machine.log_end,
            machine.leader_epoch,
            machine.size_bytes,
        )

    async def offset_at_time(self, time_ms: int) -> tuple[int, int] | None:
        """Return (offset, timestamp) of the first record at or after a time, or None."""
        self._check_online()
        with self._reading(f"looking for time {time_ms}"):
            return await find_time(self._log, self._machine.state, time_ms, self._services.threads)

    def cursor(self, offset: int, wake: Callable[[], None]) -> LocalCursor:
        """Begin to read at an offset."""
        return LocalCursor(self, offset, wake)

    def check_readable(self, offset: int, leader_epoch: int | None) -> None:
        """Raise the Refusal for an offset that cannot be read (KIP-320 for truncated ones).

        Whether the log was truncated is asked first: what was cut off lies above the log end, and
        out of range would move the reader by its reset policy instead of telling it.
        """
        self._check_online()
        machine = self._machine
        diverging = None
        if leader_epoch is not None and offset > machine.log_start:
            diverging = self._epochs.diverges(offset, leader_epoch)
        if diverging is not None:
            raise Refusal(
                Reason.LOG_TRUNCATED,
                f"the record before offset {offset} was read in leader epoch {leader_epoch}, which "
                f"ended at offset {diverging}: what came behind was truncated after an accepted "
                f"loss; go on from offset {diverging} or choose where to",
                available=(machine.log_start, machine.log_end),
                diverging_offset=diverging,
            )
        machine.readable(offset)

    def read_tail(self, offset: int, max_bytes: int) -> list[StoredBatch] | None:
        """Return committed batches from memory, or None where they are not there."""
        return self._tail.read(offset, self._machine.high_watermark, max_bytes)

    def read_disk(self, offset: int, max_bytes: int) -> asyncio.Future[list[StoredBatch]]:
        """Return committed batches from the disk, read in a thread."""
        reading = self._services.threads.run(self._read, offset, self.high_watermark, max_bytes)
        reading.add_done_callback(self._stop_at_damage)
        return reading

    def _read(self, offset: int, end: int, max_bytes: int) -> list[StoredBatch]:
        try:
            return self._log.read(offset, end, max_bytes)
        except CorruptData as damage:
            raise Refusal(
                Reason.CORRUPT_DATA,
                f"{self} is damaged at or behind offset {offset}: {damage}. {self._way_back}",
            ) from damage
        except StorageError as error:
            raise self._closed or Refusal(
                Reason.STORAGE_STALLED, f"{self} could not be read at offset {offset}: {error}"
            ) from error

    @contextlib.contextmanager
    def _reading(self, doing: str) -> Iterator[None]:
        """Refuse with what a read of the store met; only damage takes the partition offline."""
        try:
            yield
        except StorageFailed:
            raise  # for the store as a whole, and so for the process
        except CorruptData as damage:
            raise self._damaged(f"{doing}: {damage}") from damage
        except StorageError as error:
            raise self._closed or Refusal(
                Reason.STORAGE_STALLED,
                f"{self} could not be read, {doing}: {error}; nothing happened, try again",
            ) from error

    def _damaged(self, damage: str) -> Refusal:
        self.go_offline(damage)
        return Refusal(Reason.CORRUPT_DATA, f"{self} is damaged: {damage}. {self._way_back}")

    def _stop_at_damage(self, reading: asyncio.Future[list[StoredBatch]]) -> None:
        error = None if reading.cancelled() else reading.exception()
        if isinstance(error, Refusal) and error.reason is Reason.CORRUPT_DATA:
            self.go_offline(error.message.removesuffix(f". {self._way_back}"))

    def wait(self, wake: Callable[[], None]) -> None:
        """Call `wake` once, when the high watermark has moved."""
        self._wakes.add(wake)

    def unwait(self, wake: Callable[[], None]) -> None:
        """Take a `wait` back."""
        self._wakes.discard(wake)

    def _wake_readers(self) -> None:
        wakes, self._wakes = self._wakes, set()
        for wake in wakes:
            wake()

    def _check_append(self) -> None:
        """Raise the Refusal for an append that this broker cannot take just now."""
        self._check_online()
        if not self._internal and (full := self._services.admits_produce()) is not None:
            raise full

    def _check_online(self) -> None:
        if self._closed is not None:
            raise self._closed
