"""The fake broker's produce streams: appends in order, answers in order, faults in between."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from riverrun.v1 import producer_pb2 as pb
from tests.client.fake_log import FakeRefusal, RefusingLane
from tests.client.faults import DEFINITE, UNKNOWN, Fault

if TYPE_CHECKING:
    from tests.client.fake_broker import FakeBroker


class _Broken(Exception):
    """The stream is to break here."""


async def serve_produce_stream(broker: FakeBroker, context: grpc.aio.ServicerContext) -> None:
    await _Stream(broker, context).run()


class _Stream:
    def __init__(self, broker: FakeBroker, context: grpc.aio.ServicerContext) -> None:
        self._broker = broker
        self._context = context
        self._lanes: dict[tuple[str, int], RefusingLane] = {}
        self._answers: list[tuple[int, int] | pb.TagResult] = []
        self._ready = asyncio.Event()
        self._ended = False
        self._do_not_proxy = False

    async def run(self) -> None:
        started = pb.ProduceStarted(
            max_unacknowledged_batches=self._broker.max_unacknowledged,
            max_in_flight_bytes=self._broker.max_in_flight_bytes,
        )
        await self._context.write(pb.ProduceStreamResponse(started=started))
        writer = asyncio.create_task(self._write())
        going_away = broken = False
        try:
            going_away = await self._read()
        except _Broken:
            broken = True
            self._answers.clear()
        finally:
            # gRPC allows one write at a time: the writer has to be through with its own.
            self._ended = True
            self._ready.set()
            await writer
        if broken:
            await self._context.abort(grpc.StatusCode.UNAVAILABLE, "the fake breaks the stream")
        if going_away:
            message = pb.GoingAway(reason="asked to")
            await self._context.write(pb.ProduceStreamResponse(going_away=message))

    async def _read(self) -> bool:
        """Take appends; return whether the stream ends with a word."""
        while (request := await self._context.read()) is not grpc.aio.EOF:
            if request.HasField("start"):
                self._do_not_proxy = request.start.do_not_proxy
                continue
            if self._broker.hangs:
                self._broker.swallowed += 1
                await self._broker.notify()
                continue
            fault = self._broker.plan.at_append()
            if fault is Fault.DROP_BEFORE:
                raise _Broken
            if fault in (Fault.GOING_AWAY, Fault.END_QUIETLY):
                return fault is Fault.GOING_AWAY
            self._take(request.append, fault)
            await self._broker.notify()
            if fault is Fault.LOSE_ACK:
                raise _Broken
        return False

    def _take(self, append: pb.ProduceAppend, fault: Fault | FakeRefusal | None) -> None:
        batch, attempt = append.batch, append.attempt
        lane = self._lanes.setdefault((append.topic, append.partition), RefusingLane())
        result = pb.ProduceResult(
            topic=append.topic, partition=append.partition, record_count=batch.record_count
        )
        try:
            lane.check(batch, attempt)
            if fault is Fault.REFUSE_ONCE:
                raise DEFINITE
            if fault is Fault.UNKNOWN_BEFORE:
                raise UNKNOWN
            if isinstance(fault, FakeRefusal):
                raise fault
            self._broker.check_leader(append.topic, append.partition, self._do_not_proxy)
            partition = self._broker.find(append.topic, append.topic_id, append.partition)
            appended = partition.append(batch)
            if fault is Fault.UNKNOWN_AFTER:
                raise UNKNOWN
        except FakeRefusal as refusal:
            if refusal.reason not in ("PRECEDING_FAILED", "OUT_OF_ORDER_SEQUENCE"):
                lane.failed(batch, attempt)
            result.error.CopyFrom(refusal.proto)
            self._answers.append(pb.TagResult(tag=append.tag, results=[result]))
        else:
            if appended.duplicate:
                result.duplicate = True
                if appended.base_offset is not None:
                    result.base_offset = appended.base_offset
                self._answers.append(pb.TagResult(tag=append.tag, results=[result]))
            else:
                self._answers.append((append.tag, appended.base_offset))
        self._ready.set()

    async def _write(self) -> None:
        while not self._ended:
            await self._ready.wait()
            await self._flush()

    async def _flush(self) -> None:
        self._ready.clear()
        answers, self._answers = self._answers, []
        acks = pb.ProduceAcks()
        for answer in answers:
            if isinstance(answer, pb.TagResult):
                acks.results.append(answer)
                continue
            tag, base_offset = answer
            runs = acks.acked
            if runs and runs[-1].first_tag + len(runs[-1].base_offsets) == tag:
                runs[-1].base_offsets.append(base_offset)
            else:
                runs.add(first_tag=tag, base_offsets=[base_offset])
        if answers:
            await self._context.write(pb.ProduceStreamResponse(acks=acks))
