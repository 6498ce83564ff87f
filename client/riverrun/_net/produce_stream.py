"""One ProduceStream: appends go out while answers come in, until either side ends it.

Not here: what to send and what an answer means (`_core.producing`), and when to open another stream
(`_net.produce_outlet`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias
from zlib import crc32

import grpc.aio
from google.protobuf.duration_pb2 import Duration

from riverrun._core import codecs
from riverrun._core.dispatch import Append, StreamLimits
from riverrun._core.leader_map import ANY
from riverrun._core.outgoing import OutgoingBatch
from riverrun._core.producing import ProducerMachine
from riverrun._core.records import TopicPartition
from riverrun._net.channel import Connection
from riverrun._net.failures import (
    being_cancelled,
    failure_of,
    from_proto,
    from_stream,
    leader_hint,
)
from riverrun._net.receipts import RecordFutures
from riverrun.errors import FatalError, LeaderHint, Reason, RetriableError, RiverrunError
from riverrun.v1 import producer_pb2 as pb
from riverrun.v1 import records_pb2

Machine: TypeAlias = ProducerMachine[RecordFutures]
_Call: TypeAlias = grpc.aio.StreamStreamCall[pb.ProduceStreamRequest, pb.ProduceStreamResponse]

# The first message comes at once from a broker that works.
_START_TIMEOUT_S = 10.0
# After half-closing, a broker answers what is under way and ends the stream.
_DRAIN_TIMEOUT_S = 30.0

_log = logging.getLogger("riverrun")

_ACKS = {"all": pb.ACKS_ALL, "leader": pb.ACKS_LEADER, "none": pb.ACKS_NONE}


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """What a producer asks of each of its streams.

    Attributes:
        acks: "all", "leader" or "none".
        timeout_s: how long the broker waits for the ack condition of each append.
        codec: how batches are compressed.
        producer_id: 0 without idempotence.
    """

    acks: str
    timeout_s: float
    codec: int
    producer_id: int


class ProduceStream:
    """One life of the stream. Transitions: opening -> open -> draining -> ended; open -> ended.

    Args:
        connection: the broker.
        machine: what to send, and where answers go.
        settings: what is asked of the stream.
        wake: set by others when the machine may have something to send.
        deliver: called after the machine has taken answers.
        broker_id: the broker, whose partitions alone are sent; ANY for one that is to pass on what it
            does not lead.
        on_leader: called with a partition, and who leads it, or None where the broker only says that
            it does not.
        judged: returns what a broker's error about a topic means, given what others say of it.

    Attributes:
        answers: how many messages with answers have come.
        going_away: the broker has announced that it ends the stream.
        reconnect_after_s: how long the broker wants to be left alone, once it has ended the stream.
    """

    def __init__(
        self,
        connection: Connection,
        machine: Machine,
        settings: StreamSettings,
        wake: asyncio.Event,
        deliver: Callable[[], None],
        broker_id: int = ANY,
        on_leader: Callable[[TopicPartition, LeaderHint | None], None] = lambda _, __: None,
        judged: Callable[[str, RiverrunError], RiverrunError] = lambda _, error: error,
    ) -> None:
        self._judged = judged
        self._broker_id = broker_id
        self._on_leader = on_leader
        self._connection = connection
        self._machine = machine
        self._settings = settings
        self._wake = wake
        self._deliver = deliver
        self._draining = self._spent = False
        self.answers = 0
        self.going_away = False
        self.reconnect_after_s = 0.0

    def drain(self) -> None:
        """Send nothing more, and end once everything sent is answered."""
        self._draining = True
        self._wake.set()

    async def run(self) -> None:
        """Serve until the stream ends in order: drained, of no use any more, or the broker goes away.

        Raises:
            RiverrunError: it broke. In any case the machine has been told that it is over.
        """
        call = self._connection.producer.ProduceStream()
        reader: asyncio.Task[None] | None = None
        try:
            await call.write(self._start())
            self._machine.stream_started(await self._limits(call), self._broker_id)
            reader = asyncio.create_task(self._read(call), name="riverrun produce: answers")
            reader.add_done_callback(lambda done: self._reader_ended(call, done))
            await self._write(call, reader)
            if self._spent:
                return
            await call.done_writing()
            async with asyncio.timeout(_DRAIN_TIMEOUT_S):
                await reader
        except TimeoutError:
            raise self._broken("it did not end after all appends were answered") from None
        except grpc.aio.AioRpcError as failure:
            raise _bad_end(reader) or self._failed(failure) from failure
        except (asyncio.InvalidStateError, grpc.aio.InternalError):
            # Written to, or closed, after it ended: how it ended is in the call.
            raise _bad_end(reader) or await self._ended(call) from None
        except asyncio.CancelledError:
            # gRPC says so too where the call was cancelled, by us or by itself, and not this task.
            if being_cancelled():
                raise
            raise _bad_end(reader) or self._broken("the call was cancelled") from None
        finally:
            if reader is not None:
                reader.cancel()
                await asyncio.gather(reader, return_exceptions=True)
            call.cancel()
            self._machine.stream_lost(self._broker_id)
            self._deliver()

    def _start(self) -> pb.ProduceStreamRequest:
        timeout_s = self._settings.timeout_s
        timeout = Duration(seconds=int(timeout_s), nanos=int(timeout_s % 1 * 1e9))
        start = pb.ProduceStart(
            acks=_ACKS[self._settings.acks],
            timeout=timeout,
            do_not_proxy=self._broker_id != ANY,
        )
        return pb.ProduceStreamRequest(start=start)

    async def _limits(self, call: _Call) -> StreamLimits:
        """Wait for the broker's first message."""
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                first = await call.read()
        except TimeoutError:
            raise self._broken("the broker did not begin it") from None
        if not isinstance(first, pb.ProduceStreamResponse):
            raise await self._ended(call)
        if not first.HasField("started"):
            raise FatalError(
                f"{self._connection.endpoint} began a produce stream with "
                f"{first.WhichOneof('kind')} instead of `started`; is it a Riverrun broker?",
                reason=Reason.PROTOCOL_BROKEN,
            )
        started = first.started
        return StreamLimits(
            max(1, started.max_unacknowledged_batches), max(1, started.max_in_flight_bytes)
        )

    async def _write(self, call: _Call, reader: asyncio.Task[None]) -> None:
        """Send appends until the stream shall end, or has ended."""
        loop, machine, broker_id = asyncio.get_running_loop(), self._machine, self._broker_id
        while not self._draining and not reader.done():
            # One reading of the clock for both questions: a delay that ran out between two would be
            # over for the second and not for the first, and nothing would ever wake this.
            now_s = loop.time()
            append = machine.next(now_s, broker_id)
            self._deliver()
            if append is not None:
                await call.write(await self._request(append))
                continue
            if machine.spent(broker_id):
                self._spent = True
                return
            self._wake.clear()
            wakeup_s = machine.next_wakeup_s(now_s, broker_id)
            timer = None if wakeup_s is None else loop.call_at(wakeup_s, self._wake.set)
            try:
                await self._wake.wait()
            finally:
                if timer is not None:
                    timer.cancel()

    async def _request(self, append: Append) -> pb.ProduceStreamRequest:
        await self._finish(append.batch)
        request = pb.ProduceStreamRequest()
        message = request.append
        message.tag = append.tag
        message.topic, message.partition = append.lane.partition
        message.topic_id = append.topic_id
        message.attempt = 0 if self._settings.producer_id else append.attempt
        _fill(message.batch, append, self._settings.producer_id)
        return request

    async def _finish(self, out: OutgoingBatch) -> None:
        """Compress and sum a batch, once, just before it is first sent."""
        if out.crc is None:
            if self._settings.codec != codecs.NONE:
                codec, plain = self._settings.codec, out.records
                out.records = await asyncio.to_thread(codecs.compress, codec, plain)
                out.codec = codec
            out.crc = crc32(out.records)

    async def _read(self, call: _Call) -> None:
        """Take answers until the broker ends the stream."""
        loop = asyncio.get_running_loop()
        while isinstance(response := await call.read(), pb.ProduceStreamResponse):
            kind = response.WhichOneof("kind")
            if kind == "acks":
                self.answers += 1
                self._take(response.acks, loop.time())
                self._deliver()
                self._wake.set()
            elif kind == "going_away":
                after = response.going_away.reconnect_after
                self.reconnect_after_s = after.seconds + after.nanos / 1e9
                self.going_away = True
                self.drain()
        if not self._draining:
            raise await self._ended(call)

    def _reader_ended(self, call: _Call, reader: asyncio.Task[None]) -> None:
        """Wake the writer; where the broker broke the rules, also out of a write that waits."""
        self._wake.set()
        if not reader.cancelled() and reader.exception() is not None:
            call.cancel()

    def _take(self, acks: pb.ProduceAcks, now_s: float) -> None:
        for run in acks.acked:
            self._machine.acked(run.first_tag, run.base_offsets, now_s, self._broker_id)
        for answer in acks.results:
            result = answer.results[0] if len(answer.results) == 1 else None
            if result is None:
                raise FatalError(
                    f"the broker answers one batch with {len(answer.results)} results",
                    reason=Reason.PROTOCOL_BROKEN,
                    outcome_known=False,
                )
            error: RiverrunError | None = None
            if result.HasField("error"):
                context = f"{result.topic}[{result.partition}]"
                error = self._judged(result.topic, from_proto(result.error, context))
            base_offset = result.base_offset if result.HasField("base_offset") else None
            self._machine.answered(answer.tag, base_offset, error, now_s, self._broker_id)
            self._hear_of_leader(result, error)
        for trouble in self._machine.take_news():
            _log.warning("cannot be written, trying again: %s", trouble.message)

    def _hear_of_leader(self, result: pb.ProduceResult, error: RiverrunError | None) -> None:
        """Pass on what an answer says of who leads."""
        partition = TopicPartition(result.topic, result.partition)
        if result.HasField("leader"):
            self._on_leader(partition, leader_hint(result.leader))
        elif error is not None and (error.leader or error.reason is Reason.NOT_LEADER):
            self._on_leader(partition, error.leader)

    async def _ended(self, call: _Call) -> RiverrunError:
        """Say how a stream ended that should have gone on."""
        failure = await failure_of(call)
        if failure is None:
            return self._broken("the broker ended it without a word")
        return self._failed(failure)

    def _failed(self, failure: grpc.aio.AioRpcError) -> RiverrunError:
        return from_stream(failure, "produce stream", self._connection.endpoint)

    def _broken(self, text: str) -> RiverrunError:
        return RetriableError(
            f"produce stream at {self._connection.endpoint}: {text}",
            reason=Reason.CONNECTION_LOST,
            outcome_known=False,
        )


def _bad_end(reader: asyncio.Task[None] | None) -> BaseException | None:
    """Return what the reader died of, if it was not the stream itself that broke."""
    if reader is None or not reader.done() or reader.cancelled():
        return None
    error = reader.exception()
    return None if isinstance(error, grpc.aio.AioRpcError) else error


def _fill(batch: records_pb2.RecordBatch, append: Append, producer_id: int) -> None:
    """Write a batch into its message; in place, for each copy of the records costs."""
    out = append.batch
    assert out.crc is not None, "a batch is summed before it is sent"
    batch.records = out.records
    batch.codec = records_pb2.Codec.ValueType(out.codec or codecs.NONE)
    batch.records_crc = out.crc
    batch.record_count = out.record_count
    batch.first_timestamp_ms = out.first_timestamp_ms
    batch.max_timestamp_ms = out.max_timestamp_ms
    if producer_id:
        batch.producer_id = producer_id
        batch.producer_epoch = append.epoch
        batch.base_sequence = append.base_sequence
