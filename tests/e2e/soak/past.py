"""Readers that begin with the oldest record: nothing is missing there that retention has to keep."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import grpc.aio
from google.protobuf.duration_pb2 import Duration

from riverrun._net.failures import error_detail
from riverrun.v1.consumer_pb2 import (
    FROM_EARLIEST,
    Delivery,
    FetchRequest,
    ReadRequest,
    StartPosition,
)
from riverrun.v1.consumer_pb2_grpc import ConsumerServiceStub
from riverrun.v1.errors_pb2 import ERROR_REASON_OFFSET_OUT_OF_RANGE, Error
from tests.e2e.soak.ledger import Following, Lane
from tests.e2e.soak.world import CALL_TIMEOUT_S, KEPT_BYTES, KEPT_MS, LANES, World

# `from` is a word of Python's.
_EARLIEST = {"from": FROM_EARLIEST}
# Retention goes by stored bytes and whole batches, and writers pause now and then.
_SHARE_KEPT = 0.5


@dataclass(slots=True)
class Past:
    """What one reading has found in a lane.

    Attributes:
        lane: which.
        following: checks that records follow one another.
        begins_at: the first offset that is still there; None until it is known.
        oldest_ms: the timestamp of the record there.
        value_bytes: of all values.
        errors: why it could not be read further.
    """

    lane: Lane
    following: Following = field(default_factory=lambda: Following({}))
    begins_at: int | None = None
    oldest_ms: int | None = None
    value_bytes: int = 0
    errors: list[Error] = field(default_factory=list)

    def take(self, delivery: Delivery) -> list[str]:
        """Note what was delivered; return what is wrong with it."""
        wrong: list[str] = []
        if self.begins_at is None:
            self.begins_at = delivery.first_offset
        for record in delivery.records:
            wrong += self.following.take(self.lane, record.offset, record.value)
            self.value_bytes += len(record.value)
            if self.oldest_ms is None:
                self.oldest_ms = record.timestamp_ms
        return wrong

    def deleted_too_much(self, now_ms: float) -> list[str]:
        """Return whether retention has taken what it has to keep."""
        if not self.begins_at:
            return []
        kept_bytes, kept_ms = KEPT_BYTES.get(self.lane.topic), KEPT_MS.get(self.lane.topic)
        wrong = []
        if kept_bytes is not None and self.value_bytes < _SHARE_KEPT * kept_bytes:
            wrong.append(
                f"{self.lane} begins at {self.begins_at} and has {self.value_bytes:,} bytes of "
                f"values, it is to keep {kept_bytes:,}"
            )
        if kept_ms is not None:
            age_ms = 0.0 if self.oldest_ms is None else now_ms - self.oldest_ms
            if age_ms < _SHARE_KEPT * kept_ms:
                wrong.append(
                    f"{self.lane} begins at {self.begins_at} with a record that is "
                    f"{age_ms:,.0f} ms old, it is to keep {kept_ms:,} ms"
                )
        return wrong


async def reading_the_past(world: World, name: str) -> None:
    """Read one partition from its beginning to its end by `Read` or `Fetch`, every few seconds.

    Retention may overtake such a reader, and then it is told so.
    """
    dice = world.rng(name)
    async with world.channel() as channel:
        stub = ConsumerServiceStub(channel)
        while not world.stop.is_set():
            past, how = Past(dice.choice(LANES)), dice.choice((_read, _fetch))
            asked_ms = time.time() * 1_000
            try:
                await how(world, name, stub, past)
            except grpc.aio.AioRpcError as failure:
                # `Read` to the end fails as a whole where its only partition cannot be read.
                if (error := error_detail(failure)) is None:
                    world.failed(name, failure)
                    return
                past.errors.append(error)
            for error in past.errors:
                if error.reason != ERROR_REASON_OFFSET_OUT_OF_RANGE:
                    world.failed(name, error)
                world.done["readers of the past that retention overtook"] += 1
            if not past.errors:
                world.failed(name, *past.deleted_too_much(asked_ms))
            world.done["readings of the past"] += 1
            world.done["bytes read from the past"] += past.value_bytes
            await world.pause(dice.uniform(1.0, 3.0))


async def _read(world: World, name: str, stub: ConsumerServiceStub, past: Past) -> None:
    lane = past.lane
    place = StartPosition(topic=lane.topic, partition=lane.partition, **_EARLIEST)
    request, end = ReadRequest(positions=[place], stop_at_end=True), 0
    async for response in stub.Read(request, timeout=CALL_TIMEOUT_S):
        if response.HasField("started"):
            (began,) = response.started.positions
            past.following.next_offset[lane], end = began.offset, began.high_watermark
        elif response.HasField("delivery"):
            world.failed(name, *past.take(response.delivery))
        elif response.HasField("partition_error"):
            past.errors.append(response.partition_error.error)
    if not past.errors and past.following.next_offset[lane] < end:
        world.failed(name, f"{lane} ended at {past.following.next_offset[lane]}, not at {end}")


async def _fetch(world: World, name: str, stub: ConsumerServiceStub, past: Past) -> None:
    lane, end = past.lane, None
    place = StartPosition(topic=lane.topic, partition=lane.partition, **_EARLIEST)
    while True:
        request = FetchRequest(positions=[place], max_wait=Duration(seconds=1))
        response = await stub.Fetch(request, timeout=CALL_TIMEOUT_S)
        past.errors.extend(failed.error for failed in response.errors)
        if past.errors:
            return
        (delivery,) = response.deliveries
        end = delivery.high_watermark if end is None else end
        world.failed(name, *past.take(delivery))
        if delivery.next_offset >= end:
            return
        place = StartPosition(
            topic=lane.topic, partition=lane.partition, offset=delivery.next_offset
        )
