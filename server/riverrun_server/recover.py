"""Accepting the loss in one damaged partition, at an operator's word, while the broker is down.

What is kept is the longest beginning whose offsets continue and whose checksums hold. The next start
begins a new leader epoch there, as every start does, so readers that had come further are told that
the log was truncated.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import Final

from google.protobuf.message import DecodeError

from riverrun_server.config.settings import Settings
from riverrun_server.core.cluster import keys
from riverrun_server.core.cluster.values import Id, Incarnations, TopicValue
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.producers import ProducersSnapshot
from riverrun_server.metadata.documents import JsonDocuments
from riverrun_server.metadata_opening import open_metadata, without_metadata_no_start
from riverrun_server.offline_store import open_offline
from riverrun_server.ports.log import CorruptData
from riverrun_server.ports.metadata import Documents, MetadataStore
from riverrun_server.runtime.broker_start import accept_partition_loss
from riverrun_server.runtime.clock import SystemClock, SystemDice
from riverrun_server.runtime.supervisor import CannotStart
from riverrun_server.storage.log import RocksLog
from riverrun_server.storage.rocks_store import RocksStore
from riverrun_server.storage.salvage import cut_log, is_damaged
from riverrun_server.storage.store import renew_index
from riverrun_server.wire.snapshots import decode_snapshot, encode_snapshot

_FORGOTTEN: Final = (
    "its producers are forgotten: they have to begin anew, and what they send again of what it holds "
    "is written again"
)


def accept_loss(settings: Settings, topic: str, partition: int) -> str:
    """Cut a partition where it is damaged; return what was done, for a person.

    Raises:
        CannotStart: there is no such partition here.
        StorageError: the store cannot be opened or written.
    """
    with without_metadata_no_start():
        renewed = _renew_damaged_index(settings, topic, partition)
        store = open_offline(settings)
        try:
            told = asyncio.run(_accept_and_write_down(store, settings, topic, partition))
        finally:
            store.close()
    return told + renewed


def _renew_damaged_index(settings: Settings, topic: str, partition: int) -> str:
    """Give the store a new index where the old one is damaged; return what to say of it."""
    store = open_offline(settings)
    try:
        asyncio.run(_check_known(store, settings, topic, partition))
        if store.has_whole_index():
            return ""
    finally:
        store.close()
    renew_index(settings.data_dir)
    return (
        "; the index, which all partitions share, was damaged and has been made anew: others that "
        "have lost their rows are offline too, until their loss is accepted in the same way"
    )


async def _check_known(store: RocksStore, settings: Settings, topic: str, partition: int) -> None:
    async with _metadata(store, settings) as metadata:
        await _find(metadata, JsonDocuments(), topic, partition)


async def _accept_and_write_down(
    store: RocksStore, settings: Settings, topic: str, partition: int
) -> str:
    """Cut the partition, and have the metadata say that what is left is all there is."""
    identity, dice, documents = store.identity, SystemDice(), JsonDocuments()
    async with _metadata(store, settings) as metadata:
        found = await _find(metadata, documents, topic, partition)
        before = _newest_epoch(store, found)
        told = _accept(store, found, f"{topic}-{partition}")
        await accept_partition_loss(
            metadata,
            documents,
            dice,
            identity.broker_id,
            Incarnations(Id(identity.fsync), Id(identity.relaxed)),
            topic,
            partition,
            max(before, _newest_epoch(store, found)),
        )
    return told


def _metadata(store: RocksStore, settings: Settings) -> AbstractAsyncContextManager[MetadataStore]:
    async def durable() -> None:
        store.sync()

    return open_metadata(settings, store.table(b"metadata"), durable, SystemClock(), SystemDice())


async def _find(
    metadata: MetadataStore, documents: Documents, topic: str, partition: int
) -> PartitionId:
    entry = await metadata.get(keys.topic(topic))
    if entry is not None:
        value = documents.decode(TopicValue, entry)
        # Also one of which nothing is stored: that it was there may be what is lost.
        if partition < value.partitions:
            return PartitionId(value.topic_id, partition)
    raise CannotStart(
        f"this broker's metadata has no partition {partition} of a topic {topic!r}; look at the "
        "broker's log for the damaged ones"
    )


def _newest_epoch(store: RocksStore, partition: PartitionId) -> int:
    """Return the largest leader epoch that is stored of a partition: the metadata may be older."""
    if partition not in store.partitions():
        return 0
    log = store.open(partition)
    try:
        epochs = [entry.leader_epoch for entry in log.epochs()]
    except CorruptData:
        epochs = []
    return max([log.state.accepted_epoch, *epochs])


def _accept(store: RocksStore, partition: PartitionId, name: str) -> str:
    if partition not in store.partitions():
        store.open(partition)
        return f"{name}: nothing of it is stored; it begins empty at offset 0"
    log = store.open(partition)
    if log.damage:
        return _rebuild(store, partition, f"{name}: {log.damage}")
    was = log.state.log_end_offset
    if is_damaged(log) and store.move_out(partition):
        log = store.open(partition)
    cut = cut_log(log)
    forgot = _keep_recoverable(log)
    if not cut and not forgot:
        return f"{name} is whole, offsets {log.state.log_start_offset} to {was}; nothing was done"
    told = f"{name} now ends at offset {log.state.log_end_offset}; it ended at {was}"
    return told + (f"; {_FORGOTTEN}" if forgot else "")


def _rebuild(store: RocksStore, partition: PartitionId, told: str) -> str:
    """Make what is stored beside the batches anew from them; what follows a gap goes."""
    if not store.rebuild(partition):
        store.drop(partition)
        store.open(partition)
        return f"{told}; nothing could be kept, it begins empty at offset 0"
    if store.open(partition).is_followed() and store.move_out(partition):
        told += "; it has moved away from damage"
    log = store.open(partition)
    log.truncate(log.state, log.epochs())
    _keep_recoverable(log)
    return (
        f"{told}; what its batches say was kept, offsets {log.state.log_start_offset} to "
        f"{log.state.log_end_offset}, deleted records may be among them; " + _FORGOTTEN
    )


def _keep_recoverable(log: RocksLog) -> bool:
    """Leave a snapshot that can be started from; return whether producers had to be forgotten.

    The cut may have taken the last one, or it may itself be what is damaged. A new one at the log
    end replaces whatever there is.
    """
    state, found = log.state, log.snapshot()
    if found is None and not state.log_start_offset:
        return False
    if found is not None and found[0] <= state.log_end_offset:
        try:
            decode_snapshot(found[1])
        except DecodeError:
            pass
        else:
            return False
    end = state.log_end_offset
    log.save(state, snapshot=(end, encode_snapshot(ProducersSnapshot(end, ()))))
    return True
