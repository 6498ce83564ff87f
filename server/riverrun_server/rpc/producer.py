"""ProducerService: unary Produce in both forms, ProduceStream, and producer ids."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from riverrun.v1 import producer_pb2
from riverrun.v1.producer_pb2 import PartitionBatch, ProduceRequest, ProduceResponse
from riverrun.v1.records_pb2 import Record
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.pace import Pace
from riverrun_server.ports.clock import Dice
from riverrun_server.ports.partitions import Acks, Append, Appended, PartitionAccess
from riverrun_server.rpc import call_notes
from riverrun_server.rpc.appends import (
    AppendRules,
    Where,
    acks_of,
    check_records,
    tell,
    timed_out,
    where,
)
from riverrun_server.rpc.gathering import Gathering
from riverrun_server.rpc.partitioning import choose_partitions
from riverrun_server.rpc.produce_stream import ProduceStream, received
from riverrun_server.rpc.timeouts import Timeouts
from riverrun_server.runtime.in_flight import InFlightBytes
from riverrun_server.wire.ingress import AcceptedBatch, join

SERVICE = "riverrun.v1.ProducerService"


@dataclass(slots=True, eq=False)
class _Slot:
    """The place of one result in a unary reply."""

    place: Where
    record_count: int = 0
    appended: Appended | None = None


@dataclass(slots=True, eq=False)
class _Call:
    """A unary Produce under way: its results in order, and how many are still missing."""

    acks: Acks
    slots: list[_Slot] = field(default_factory=list)
    missing: int = 0
    paces: list[Pace] = field(default_factory=list)
    waiter: asyncio.Future[None] | None = None

    def refuse(self, place: Where, refusal: Refusal) -> None:
        """Add the result of what never reached a partition."""
        self.slots.append(_Slot(place, appended=Appended(None, 0, error=refusal)))

    def submit(
        self, access: PartitionAccess, batch: AcceptedBatch, expected: int | None = None
    ) -> None:
        """Append a batch; its result takes the next place."""
        done = self.expect(access, batch.header.record_count)
        access.submit(Append(batch, self.acks, done, expected))

    def expect(self, access: PartitionAccess, record_count: int) -> Callable[[Appended], None]:
        """Wait for one more result, which takes the next place; return whom to tell."""
        slot = _Slot(where(access), record_count)
        self.slots.append(slot)
        self.missing += 1

        def done(appended: Appended) -> None:
            if slot.appended is None:
                slot.appended = appended
                self.missing -= 1
                if not self.missing and self.waiter is not None and not self.waiter.done():
                    self.waiter.set_result(None)

        return done

    def gathered(self, pace: Pace) -> None:
        """Count the call there until its answer has been sent."""
        if not self.paces:
            task = asyncio.current_task()
            assert task is not None, "gRPC runs each call in a task"
            task.add_done_callback(self._left)
        self.paces.append(pace)

    def _left(self, _: object) -> None:
        for pace in self.paces:
            pace.left()

    async def finish(self, timeouts: Timeouts, timeout_s: float) -> None:
        """Wait for what is missing; what does not come in time is answered as unknown."""
        if not self.missing:
            return
        self.waiter = asyncio.get_running_loop().create_future()
        timeouts.start(self, timeout_s)
        try:
            await self.waiter
        finally:
            timeouts.stop(self, timeout_s)

    def time_out(self, timeout_s: float) -> None:
        """Answer what has not come as unknown."""
        for slot in self.slots:
            if slot.appended is None:
                slot.appended = Appended(None, slot.record_count, error=timed_out(timeout_s))
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    def response(self) -> ProduceResponse:
        """Return the results in order."""
        response = ProduceResponse()
        for slot in self.slots:
            assert slot.appended is not None, slot
            tell(response.results.add(), slot.place, slot.appended)
        return response

    def failure(self) -> Refusal | None:
        """Return why nothing at all was appended, or None where something was."""
        first: Refusal | None = None
        for slot in self.slots:
            if slot.appended is None or slot.appended.error is None:
                return None
            first = first or slot.appended.error
        return first


class ProducerService:
    """Serves riverrun.v1.ProducerService.

    Args:
        rules: how appends find their partition and are validated.
        in_flight: bounds the bytes that wait for acks.
        new_producer_id: returns a producer id that nobody has.
        draining: set when the broker shuts down.
        dice: chooses the partition of requests that leave it to the broker and have no keys.
    """

    def __init__(
        self,
        rules: AppendRules,
        in_flight: InFlightBytes,
        new_producer_id: Callable[[], Awaitable[int]],
        draining: asyncio.Event,
        dice: Dice,
    ) -> None:
        self._rules = rules
        self._in_flight = in_flight
        self._new_producer_id = new_producer_id
        self._draining = draining
        self._dice = dice
        self._gathering = Gathering(rules.now_ms)
        self._timeouts = Timeouts()

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the service's methods; streamed answers are serialised by the stream itself."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Produce": grpc.unary_unary_rpc_method_handler(
                    self.produce,
                    ProduceRequest.FromString,
                    ProduceResponse.SerializeToString,
                ),
                "ProduceStream": grpc.stream_stream_rpc_method_handler(
                    self.produce_stream,
                    received,
                    bytes,
                ),
                "InitProducer": grpc.unary_unary_rpc_method_handler(
                    self.init_producer,
                    producer_pb2.InitProducerRequest.FromString,
                    producer_pb2.InitProducerResponse.SerializeToString,
                ),
            },
        )

    def produce(
        self, request: ProduceRequest, _: grpc.aio.ServicerContext[Any, Any]
    ) -> Awaitable[ProduceResponse]:
        """Append the flat form's records, or many batches."""
        return self.append(request)

    async def append(self, request: ProduceRequest) -> ProduceResponse:
        """Do what Produce does.

        Raises:
            Refusal: the request is wrong as a whole, or the flat form appended nothing.
        """
        call = _Call(acks_of(request.acks))
        timeout = request.timeout if request.HasField("timeout") else None
        timeout_s = self._rules.timeout_s(timeout)
        budget = self._in_flight.connection()
        try:
            size_bytes = request.ByteSize()
            notes = call_notes.current()
            if notes.request is request:  # taking a batch in empties it, before the line measures
                notes.received_bytes = size_bytes
            budget.take_now(size_bytes)
            if request.batches:
                _check_not_flat(request)
                await self._append_batches(request, call)
            else:
                await self._append_flat(request, call)
            await call.finish(self._timeouts, timeout_s)
        finally:
            budget.close()
        if not request.batches and (failure := call.failure()) is not None:
            raise failure
        return call.response()

    async def _append_batches(self, request: ProduceRequest, call: _Call) -> None:
        limit = self._rules.limits.max_partitions_per_call
        if len(request.batches) > limit:
            raise Refusal(
                Reason.LIMIT_EXCEEDED,
                f"the request has {len(request.batches)} batches and {limit} are allowed; split it",
            )
        for each in request.batches:
            try:
                access = self._rules.partition(
                    each.topic, each.topic_id, each.partition, direct=request.do_not_proxy
                )
                call.submit(access, await self._rules.accept(access, each.batch), _expected(each))
            except Refusal as refusal:
                call.refuse((each.topic, each.topic_id, each.partition), refusal)

    async def _append_flat(self, request: ProduceRequest, call: _Call) -> None:
        if not request.topic:
            raise Refusal(
                Reason.INVALID_REQUEST,
                "the request names no topic; set `topic` and `records`, or `batches`",
            )
        check_records(len(request.records))
        expected = _expected(request)
        for access, records in self._chosen(request):
            try:
                packed = await self._rules.pack_records(access, records)
            except Refusal as refusal:
                call.refuse(where(access), refusal)
                continue
            if expected is None:
                done = call.expect(access, packed.records)
                call.gathered(self._gathering.add(access, packed, call.acks, done))
            else:
                call.submit(access, join([packed], self._rules.now_ms()), expected)

    def _chosen(self, request: ProduceRequest) -> list[tuple[PartitionAccess, Sequence[Record]]]:
        """Return where the flat form's records go."""
        if request.HasField("partition"):
            access = self._rules.partition(
                request.topic, b"", request.partition, direct=request.do_not_proxy
            )
            return [(access, request.records)]
        if request.HasField("expected_offset"):
            raise Refusal(
                Reason.INVALID_REQUEST,
                "expected_offset belongs to one partition; set `partition` too",
            )
        accesses = self._rules.partitions(request.topic, direct=request.do_not_proxy)
        if len(accesses) == 1:
            return [(accesses[0], request.records)]
        sticky = int(self._dice.uniform(0, len(accesses)))
        chosen = choose_partitions(request.records, len(accesses), sticky)
        return [(accesses[number], records) for number, records in chosen.items()]

    async def produce_stream(self, _: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Append what comes over the stream."""
        sticky = int(self._dice.uniform(0, 1 << 16))
        stream = ProduceStream(self._rules, self._in_flight.connection(), sticky)
        await stream.run(context, self._draining)

    async def init_producer(
        self,
        _: producer_pb2.InitProducerRequest,
        __: grpc.aio.ServicerContext[Any, Any],
    ) -> producer_pb2.InitProducerResponse:
        """Hand out a producer id."""
        producer_id = await self._new_producer_id()
        return producer_pb2.InitProducerResponse(producer_id=producer_id, producer_epoch=0)


def _check_not_flat(request: ProduceRequest) -> None:
    if request.topic or request.records or request.HasField("partition"):
        raise Refusal(
            Reason.INVALID_REQUEST,
            "a request has `batches`, or `topic` and `records`, not both",
        )


def _expected(source: ProduceRequest | PartitionBatch) -> int | None:
    return source.expected_offset if source.HasField("expected_offset") else None
