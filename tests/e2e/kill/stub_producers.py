"""Producers on nothing but generated stubs, who send again themselves what was not answered."""

from __future__ import annotations

import asyncio
import random
import zlib
from typing import NamedTuple

import grpc
import grpc.aio

from riverrun._net.failures import error_detail
from riverrun.v1.errors_pb2 import ERROR_REASON_EXPECTED_OFFSET_MISMATCH
from riverrun.v1.producer_pb2 import (
    InitProducerRequest,
    InitProducerResponse,
    PartitionBatch,
    ProduceRequest,
    ProduceResult,
)
from riverrun.v1.producer_pb2_grpc import ProducerServiceStub
from riverrun.v1.records_pb2 import Record, RecordBatch, RecordSet
from tests.e2e.kill.calls import AGAIN_S, final, patiently
from tests.e2e.kill.history import Outcome, Recognised
from tests.e2e.kill.world import CALL_TIMEOUT_S, OWNED, SHARED, TOPIC, Sending, World, producers

# The broker answers repetitions of this many batches of a producer with their offset.
_REMEMBERED = 64


class _Sent(NamedTuple):
    """A batch that was acknowledged."""

    request: ProduceRequest
    base_offset: int | None


def record_batch(values: list[bytes], **fields: int) -> RecordBatch:
    """Return a batch as any language makes it: serialise, checksum, wrap."""
    data = RecordSet(records=[Record(value=value) for value in values]).SerializeToString()
    return RecordBatch(
        records=data, records_crc=zlib.crc32(data), record_count=len(values), **fields
    )


async def idempotent_unary(world: World, name: str) -> None:
    """Write batches with sequences, each sent again until it is answered, some once more later."""
    async with world.channel() as channel:
        stub = producers(channel)
        identity = await patiently(
            lambda: stub.InitProducer(InitProducerRequest(), timeout=CALL_TIMEOUT_S)
        )
        async with asyncio.TaskGroup() as partitions:
            for partition in SHARED:
                writer = _sequenced(world, name, stub, identity, partition)
                partitions.create_task(writer, name=f"{name} {partition}")


async def _sequenced(
    world: World,
    name: str,
    stub: ProducerServiceStub,
    identity: InitProducerResponse,
    partition: int,
) -> None:
    dice = world.rng(f"{name}/{partition}")
    sent: list[_Sent] = []
    sequence = 0
    while not world.stop.is_set():
        if sent and dice.random() < 0.25:
            await _once_more(world, name, stub, partition, sent, dice)
        chunk = [world.sending(name, partition, dice) for _ in range(dice.randint(1, 5))]
        batch = record_batch(
            [sending.value for sending in chunk],
            producer_id=identity.producer_id,
            producer_epoch=identity.producer_epoch,
            base_sequence=sequence,
        )
        request = ProduceRequest(
            batches=[PartitionBatch(topic=TOPIC, partition=partition, batch=batch)]
        )
        result = await _produced(stub, request)
        _settle(world, name, chunk, result)
        if result.HasField("error"):
            return
        base_offset = result.base_offset if result.HasField("base_offset") else None
        sent.append(_Sent(request, base_offset))
        sequence += len(chunk)
        await world.pause(dice.uniform(0.0, 0.02))


def _settle(world: World, name: str, chunk: list[Sending], result: ProduceResult) -> None:
    if result.HasField("error"):
        world.failed(name, result.error)
    elif result.duplicate:
        world.recorder.add(Recognised(name, result.partition))
    for place, sending in enumerate(chunk):
        if result.HasField("error"):
            sending.settled(Outcome.UNKNOWN)
        else:
            known = result.HasField("base_offset")
            sending.settled(Outcome.ACKED, result.base_offset + place if known else None)


async def _once_more(
    world: World,
    name: str,
    stub: ProducerServiceStub,
    partition: int,
    sent: list[_Sent],
    dice: random.Random,
) -> None:
    """Repeat a batch that is written: the broker has to know it, after any number of crashes."""
    back = dice.randint(1, min(len(sent), 2 * _REMEMBERED))
    old = sent[-back]
    result = await _produced(stub, old.request)
    answered = result.base_offset if result.HasField("base_offset") else None
    known = {old.base_offset} if back <= _REMEMBERED else {old.base_offset, None}
    if result.HasField("error") or not result.duplicate or answered not in known:
        what = f"batch {back} from the end, at {old.base_offset}, sent again: {result}"
        world.failed(name, what)
    else:
        world.recorder.add(Recognised(name, partition))


async def _produced(stub: ProducerServiceStub, request: ProduceRequest) -> ProduceResult:
    """Send a batch until the answer is final; its sequence makes that safe."""
    while True:
        response = await patiently(lambda: stub.Produce(request, timeout=CALL_TIMEOUT_S))
        result = response.results[0]
        if not result.HasField("error") or final(result.error):
            return result
        await asyncio.sleep(AGAIN_S)


async def expecting_offsets(world: World, name: str) -> None:
    """Append only where the log is as it was left: what a single writer without a producer id does.

    An append of unknown outcome is sent again. The answer that the log has grown by it means that
    it was written, for nobody else writes here.
    """
    dice, end = world.rng(name), 0
    async with world.channel() as channel:
        stub = producers(channel)
        while not world.stop.is_set():
            sending = world.sending(name, OWNED, dice)
            request = ProduceRequest(
                topic=TOPIC,
                partition=OWNED,
                records=[Record(value=sending.value)],
                expected_offset=end,
            )
            try:
                response = await patiently(
                    lambda request=request: stub.Produce(request, timeout=CALL_TIMEOUT_S)
                )
                stands_at = response.results[0].base_offset
            except grpc.aio.AioRpcError as failure:
                refusal = error_detail(failure)
                assert refusal is not None, "only a refusal ends patience"
                grown = refusal.available.latest == end + 1
                if not grown or refusal.reason != ERROR_REASON_EXPECTED_OFFSET_MISMATCH:
                    world.failed(name, f"expected {end}: {failure}")
                    sending.settled(Outcome.UNKNOWN)
                    return
                stands_at = end
                world.recorder.add(Recognised(name, OWNED))
            sending.settled(Outcome.ACKED, stands_at)
            end += 1
            await world.pause(dice.uniform(0.0, 0.02))
