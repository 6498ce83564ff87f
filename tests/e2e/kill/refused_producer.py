"""A producer whose every record has to be refused, and none of which may ever be read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

import grpc.aio

from riverrun._net.failures import error_detail
from riverrun.v1 import errors_pb2 as errors
from riverrun.v1.producer_pb2 import (
    InitProducerRequest,
    PartitionBatch,
    ProduceAppend,
    ProduceRequest,
    ProduceStreamRequest,
)
from riverrun.v1.producer_pb2_grpc import ProducerServiceStub
from riverrun.v1.records_pb2 import Record
from tests.e2e.kill.calls import AGAIN_S, patiently
from tests.e2e.kill.history import Outcome
from tests.e2e.kill.stub_producers import record_batch
from tests.e2e.kill.world import CALL_TIMEOUT_S, SHARED, TOPIC, World, producers

_FAR = 1 << 40
_DAY_MS = 86_400_000
_TOO_LARGE = b"." * (1 << 20)
# Between these a broker may say that it cannot take anything just now, which is fine as well.
_TRANSIENT = {errors.ERROR_REASON_SHUTTING_DOWN, errors.ERROR_REASON_NOT_READY}


def _flat(value: bytes, partition: int, **fields: int) -> ProduceRequest:
    return ProduceRequest(topic=TOPIC, partition=partition, records=[Record(value=value)], **fields)


def _batch(value: bytes, partition: int, **fields: int) -> ProduceRequest:
    batch = record_batch([value])
    for name, content in fields.items():
        setattr(batch, name, content)
    return ProduceRequest(batches=[PartitionBatch(topic=TOPIC, partition=partition, batch=batch)])


def _requests(producer_id: int) -> dict[int, Callable[[bytes, int], ProduceRequest]]:
    """Return what has to be refused, by the reason that it has to be refused for."""
    tomorrow = int(time.time() * 1000) + _DAY_MS
    return {
        errors.ERROR_REASON_INVALID_RECORD: lambda v, p: _batch(v, p, records_crc=1),
        errors.ERROR_REASON_INVALID_TIMESTAMP: lambda v, p: _batch(
            v, p, first_timestamp_ms=tomorrow, max_timestamp_ms=tomorrow
        ),
        errors.ERROR_REASON_UNKNOWN_PRODUCER: lambda v, p: _batch(
            v, p, producer_id=producer_id, base_sequence=7
        ),
        errors.ERROR_REASON_EXPECTED_OFFSET_MISMATCH: lambda v, p: _flat(
            v, p, expected_offset=_FAR
        ),
        errors.ERROR_REASON_BATCH_TOO_LARGE: lambda v, p: _batch(v + _TOO_LARGE, p),
    }


async def refused(world: World, name: str) -> None:
    """Send what cannot be accepted, alone and at the head of a stream."""
    dice = world.rng(name)
    async with world.channel() as channel:
        stub = producers(channel)
        identity = await patiently(
            lambda: stub.InitProducer(InitProducerRequest(), timeout=CALL_TIMEOUT_S)
        )
        requests = _requests(identity.producer_id)
        while not world.stop.is_set():
            if dice.random() < 0.3:
                await _failing_stream(world, name, stub, dice.choice(SHARED))
            else:
                reason = dice.choice(list(requests))
                sending = world.sending(name, dice.choice(SHARED), dice)
                told = await _reason(stub, requests[reason](sending.value, sending.partition))
                sending.settled(Outcome.REFUSED)
                if told is not None and told not in {reason, *_TRANSIENT}:
                    expected = errors.ErrorReason.Name(reason)
                    world.failed(name, f"{sending.value!r}: expected {expected}, told {told}")
            await world.pause(dice.uniform(0.0, 0.15))


async def _reason(stub: ProducerServiceStub, request: ProduceRequest) -> int | None:
    """Return why a request was refused, 0 if it was not, None if nobody answered.

    Whatever the answer, and without one too, none of its records may be written.
    """
    try:
        response = await stub.Produce(request, timeout=CALL_TIMEOUT_S)
    except grpc.aio.AioRpcError as failure:
        error = error_detail(failure)
        return None if error is None else error.reason
    return response.results[0].error.reason


async def _failing_stream(
    world: World, name: str, stub: ProducerServiceStub, partition: int
) -> None:
    """Send appends on one stream of which the first is refused, and so all that follow it."""
    dice = world.rng(f"{name}/{len(world.recorder.events)}")
    sent = [world.sending(name, partition, dice) for _ in range(4)]
    expected = [errors.ERROR_REASON_EXPECTED_OFFSET_MISMATCH] + [
        errors.ERROR_REASON_PRECEDING_FAILED
    ] * (len(sent) - 1)

    def appends() -> Iterator[ProduceStreamRequest]:
        for tag, sending in enumerate(sent):
            append = ProduceAppend(
                tag=tag, topic=TOPIC, partition=partition, records=[Record(value=sending.value)]
            )
            if tag == 0:
                append.expected_offset = _FAR
            yield ProduceStreamRequest(append=append)

    told: dict[int, int] = {}
    try:
        async for response in stub.ProduceStream(appends(), timeout=CALL_TIMEOUT_S):
            for acked in response.acks.acked:
                told |= dict.fromkeys(range(acked.first_tag, len(acked.base_offsets)), 0)
            for result in response.acks.results:
                told[result.tag] = result.results[0].error.reason
    except grpc.aio.AioRpcError:
        await asyncio.sleep(AGAIN_S)
    for tag, sending in enumerate(sent):
        sending.settled(Outcome.REFUSED)
        if told.get(tag, expected[tag]) not in {expected[tag], *_TRANSIENT}:
            world.failed(name, f"append {tag} of {len(sent)} on one stream: told {told}")
