"""Opens, configures, closes and drops the partitions of this broker as the metadata says.

Every pass brings what is open in line with what should be, so it does not matter how many changes
lie between two passes, or where the last one was interrupted. Between two partitions the loop goes
on with other work.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from riverrun_server.core.cluster.topic_config import TopicConfig
from riverrun_server.core.cluster.values import Durability, Id, PartitionValue, TopicValue
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.ports.log import (
    CorruptData,
    LogStore,
    StorageError,
    StorageFailed,
    StorageFull,
)
from riverrun_server.ports.partitions import PartitionAccess
from riverrun_server.runtime.hosting import Hosting, LocalPartition
from riverrun_server.runtime.offline_partition import way_back

_log = structlog.stdlib.get_logger(__name__)

# Closing waits for the disk: so many share one sync.
_CLOSED_TOGETHER: Final = 64


@dataclass(slots=True)
class _Open:
    local: LocalPartition
    config: TopicConfig


class LocalPartitions:
    """The open partitions.

    Transitions of one: absent -> open -> open (configured) -> retired -> dropped; open -> closed.

    Args:
        hosting: which of them are held here, and how.
        logs: where partitions are stored, open or not.
        data_dir: as the operator knows it, for commands in error texts.
    """

    def __init__(self, hosting: Hosting, logs: LogStore, data_dir: str) -> None:
        self._hosting = hosting
        self._logs = logs
        self._data_dir = data_dir
        self._open: dict[Id, dict[int, _Open]] = {}
        self._retired: dict[Id, list[LocalPartition]] = {}
        self.postponed: set[Id] = set()

    async def serve(
        self, topic: TopicValue, config: TopicConfig, states: Mapping[int, PartitionValue]
    ) -> tuple[PartitionAccess, ...]:
        """Bring a topic's partitions in line; return all of them in order.

        Where the disk could not take one just now, the topic is put into `postponed`.
        """
        self.postponed.discard(topic.topic_id)
        open_ones = self._open.setdefault(topic.topic_id, {})
        served: list[PartitionAccess] = []
        for number in range(topic.partitions):
            here, state = PartitionId(topic.topic_id, number), states.get(number)
            if state is None or not self._hosting.holds(state):
                served.append(self._hosting.elsewhere(topic.topic, here, config, state))
                continue
            wanted = _config_of(config, state)
            try:
                local = await self._at_hand(open_ones, topic, here, wanted, state)
            except StorageFailed:
                raise
            except StorageError as error:
                why = self._why(topic, number, error)
                served.append(self._hosting.elsewhere(topic.topic, here, config, state, why))
            else:
                served.append(self._hosting.shown(local, wanted, state))
        return tuple(served)

    def retire(self, topic_id: Id) -> None:
        """Serve a topic no more."""
        self.postponed.discard(topic_id)
        gone = self._open.pop(topic_id, {})
        if gone:
            self._retired.setdefault(topic_id, []).extend(each.local for each in gone.values())

    async def drop(self, topic_id: Id) -> None:
        """Delete everything that is stored of a topic that was retired, a partition at a time.

        Raises:
            StorageError: something is still there; do it again.
        """
        assert topic_id not in self._open, topic_id
        retired = self._retired.get(topic_id, [])
        while retired:
            await retired[-1].drop()
            retired.pop()
            await asyncio.sleep(0)
        self._retired.pop(topic_id, None)
        # What was never opened by this process: it was interrupted, or could not serve it.
        for partition in self._logs.partitions():
            if partition.topic_id == topic_id:
                self._logs.drop(partition)
                await asyncio.sleep(0)

    async def close(self) -> None:
        """Close everything, retired partitions too; their data stays for the next start.

        Raises:
            StorageError: one could not be closed well; the others are.
        """
        everything = [
            *(each.local for topic in self._open.values() for each in topic.values()),
            *(local for topic in self._retired.values() for local in topic),
        ]
        self._open.clear()
        self._retired.clear()
        failures: list[BaseException] = []
        for at in range(0, len(everything), _CLOSED_TOGETHER):
            closing = [local.close() for local in everything[at : at + _CLOSED_TOGETHER]]
            ended = await asyncio.gather(*closing, return_exceptions=True)
            failures += [each for each in ended if each is not None]
        if failures:
            raise failures[0]

    def held(self) -> Iterator[LocalPartition]:
        """Yield the partitions that are open."""
        for topic in self._open.values():
            for each in topic.values():
                yield each.local

    async def _at_hand(
        self,
        open_ones: dict[int, _Open],
        topic: TopicValue,
        partition: PartitionId,
        config: TopicConfig,
        state: PartitionValue,
    ) -> LocalPartition:
        """Return a partition that is open, with a configuration; open it where it is not.

        Raises:
            StorageError: it could not be opened now.
        """
        found = open_ones.get(partition.partition)
        if found is not None:
            if found.config != config:
                found.local.configure(config)
                found.config = config
            return found.local
        await asyncio.sleep(0)
        local = self._hosting.hold(topic.topic, partition, config, state)
        await local.open()
        open_ones[partition.partition] = _Open(local, config)
        return local

    def _why(self, topic: TopicValue, number: int, error: StorageError) -> Refusal:
        name = f"{topic.topic}-{number}"
        _log.warning("partition could not be opened", partition=name, error=str(error))
        if isinstance(error, CorruptData):
            text = f"{name} is offline: {error}. {way_back(self._data_dir, topic.topic, number)}"
            return Refusal(Reason.PARTITION_OFFLINE, text)
        self.postponed.add(topic.topic_id)
        full = isinstance(error, StorageFull)
        return Refusal(
            Reason.STORAGE_FULL if full else Reason.STORAGE_STALLED,
            f"{name} could not be opened yet: {error}; the broker tries again by itself",
        )


def _config_of(config: TopicConfig, state: PartitionValue) -> TopicConfig:
    """Return what a partition is configured with: relaxed only once its state says so too.

    As long as the in-sync set names the incarnation of the fsync class, what is acknowledged must
    be on the disk, or a crash would lose it while the partition counts as complete.
    """
    fsync = config.fsync or state.durability is not Durability.RELAXED
    return config if fsync == config.fsync else dataclasses.replace(config, fsync=fsync)
