"""A subscription's messages in the words of the machine, and the other way round."""

from __future__ import annotations

from collections.abc import Iterable

from riverrun._core.partition_reader import Delivered, PartitionReader, StartedPosition
from riverrun._core.records import From, TopicPartition
from riverrun._net.subscribe_settings import start_position
from riverrun.v1 import consumer_pb2 as pb
from riverrun.v1 import records_pb2


def resumed_position(reader: PartitionReader, at: From) -> pb.StartPosition:
    """Return where a partition goes on, or goes to.

    With the leader epoch of what was read last a broker notices that it has something else there.
    """
    position = start_position(reader.partition, reader.topic_id, at)
    if reader.resume_epoch is not None:
        position.leader_epoch = reader.resume_epoch
    return position


def started_position(position: pb.PartitionPosition) -> StartedPosition:
    """Take where a partition begins."""
    return StartedPosition(
        TopicPartition(position.topic, position.partition),
        position.topic_id,
        position.offset,
        position.high_watermark,
        position.log_start_offset,
    )


def delivered(delivery: pb.Delivery) -> Delivered[records_pb2.RecordBatch]:
    """Take a delivery."""
    return Delivered(
        TopicPartition(delivery.topic, delivery.partition),
        delivery.first_offset,
        delivery.next_offset,
        delivery.high_watermark,
        delivery.leader_epoch,
        delivery.charged_bytes,
        delivery.batches,
    )


def names(readers: Iterable[PartitionReader]) -> list[pb.TopicPartition]:
    """Name partitions."""
    return [
        pb.TopicPartition(
            topic=reader.partition.topic,
            topic_id=reader.topic_id,
            partition=reader.partition.partition,
        )
        for reader in readers
    ]
