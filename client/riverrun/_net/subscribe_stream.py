"""One Subscribe stream in batch form: deliveries come in as long as there is credit for them.

Not here: what a delivery means (`_core.reading`), and when to open another stream
(`_net.subscribe_outlet`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TypeAlias

import grpc.aio

from riverrun._core import codecs
from riverrun._core.leader_map import ANY
from riverrun._core.partition_reader import Asked, Delivered, PartitionReader, StartedPosition
from riverrun._core.reading import ReaderMachine
from riverrun._core.records import PositionReset, TopicPartition
from riverrun._net.channel import Connection
from riverrun._net.describing import seconds
from riverrun._net.failures import being_cancelled, failure_of, from_proto, from_stream
from riverrun._net.subscribe_messages import (
    delivered,
    names,
    resumed_position,
    started_position,
)
from riverrun._net.subscribe_settings import SubscribeSettings, place_start, start_position
from riverrun.errors import FatalError, Reason, RetriableError, RiverrunError
from riverrun.v1 import consumer_pb2 as pb
from riverrun.v1 import records_pb2

Machine: TypeAlias = ReaderMachine[records_pb2.RecordBatch]
_Call: TypeAlias = grpc.aio.StreamStreamCall[pb.SubscribeRequest, pb.SubscribeResponse]

_START_TIMEOUT_S = 10.0
# A stream is silent for so many heartbeats before it counts as broken; and a broker that announces
# none, or very short ones, is given this long.
_SILENT_HEARTBEATS = 3
_SILENCE_MIN_S = 1.0
_SILENCE_DEFAULT_S = 30.0
_UNREAD_S = 0.1
# A cancelled call ends its read at once; whoever closes waits no longer for it.
_HANG_UP_S = 1.0

# Credit is granted when so much of it has been used, so that grants are few and there is always some.
_GRANT_SHARE = 4


class SubscribeStream:
    """One life of the stream. Transitions: opening -> open -> ended.

    Args:
        connection: the broker.
        machine: takes what comes.
        settings: what is asked of the stream.
        broker_id: the broker, whose partitions alone are read; ANY for one that is to pass on what it
            does not lead.
        prefetch_bytes: how much may be read ahead from this broker.
        whole: what was added to the topics in the meantime is read too.
        changed: called after the machine has taken something.
        on_sought: called with a reader whose seek is answered, and with the error if it is refused.
        on_failed: called with a partition that cannot be read, its topic's id, why, and the id of
            the seek that this answers.
        on_reset: called where a position was out of range and reading goes on elsewhere.
    """

    def __init__(
        self,
        connection: Connection,
        machine: Machine,
        settings: SubscribeSettings,
        *,
        broker_id: int = ANY,
        prefetch_bytes: int,
        whole: bool = True,
        changed: Callable[[], None],
        on_sought: Callable[[PartitionReader, RiverrunError | None], None],
        on_failed: Callable[[TopicPartition, bytes, RiverrunError, int], None],
        on_reset: Callable[[PositionReset], None],
    ) -> None:
        self._connection = connection
        self._machine = machine
        self._settings = settings
        self._broker_id = broker_id
        self._prefetch_bytes = prefetch_bytes
        self._whole = whole
        self._changed = changed
        self._on_sought = on_sought
        self._on_failed = on_failed
        self._on_reset = on_reset
        self._control: deque[pb.SubscribeRequest] = deque()
        self._wake = asyncio.Event()
        self._asked: dict[TopicPartition, Asked] = {}
        self._topics: frozenset[str] = frozenset()
        self._lost: set[TopicPartition] = set()
        self._call: _Call | None = None
        self._over = asyncio.Event()
        self.frames = 0
        self.going_away = False
        self.reconnect_after_s = 0.0

    def wake(self) -> None:
        """Say that credit may have come free."""
        freed_bytes = self._machine.ahead.credit_bytes(self._broker_id)
        if freed_bytes * _GRANT_SHARE >= self._prefetch_bytes:
            self._wake.set()

    def reads(self, partition: TopicPartition) -> bool:
        """Whether the broker was asked for a partition, and it has not moved to another one since."""
        asked = partition in self._asked or partition.topic in self._topics
        return asked and partition not in self._lost

    def lose(self, reader: PartitionReader) -> None:
        """Read a partition no more, which is read from another broker: what still comes is dropped."""
        if self.reads(reader.partition):
            self.pause([reader])
        self._lost.add(reader.partition)

    def seek(self, reader: PartitionReader) -> None:
        """Send the seek that the reader waits for."""
        assert reader.place is not None, "a seek goes somewhere"
        position = resumed_position(reader, reader.place)
        seek = pb.Seek(seek_id=reader.seek_id, position=position)
        self._say(pb.SubscribeRequest(seek=seek))
        if reader.held and not reader.paused:
            self.resume([reader])
        reader.held = False

    def pause(self, readers: Iterable[PartitionReader]) -> None:
        """Ask the broker to stop delivering partitions."""
        self._say(pb.SubscribeRequest(pause=pb.Pause(partitions=names(readers))))

    def resume(self, readers: Iterable[PartitionReader]) -> None:
        """Ask the broker to go on with them."""
        self._say(pb.SubscribeRequest(resume=pb.Resume(partitions=names(readers))))

    async def run(self) -> None:
        """Serve until the broker ends the stream in order.

        Raises:
            RiverrunError: it broke, or the broker refuses it.
        """
        call = self._call = self._connection.consumer.Subscribe()
        writer: asyncio.Task[None] | None = None
        try:
            await call.write(pb.SubscribeRequest(start=self._start()))
            silence_s = await self._begin(call)
            writer = asyncio.create_task(self._write(call), name="riverrun consume: control")
            await self._read(call, silence_s)
        except grpc.aio.AioRpcError as failure:
            raise self._failed(failure) from failure
        except asyncio.InvalidStateError:
            raise await self._ended(call) from None
        except asyncio.CancelledError:
            # gRPC says so too where the call was cancelled and not this task.
            if being_cancelled():
                raise
            raise self._broken("the call was cancelled") from None
        finally:
            if writer is not None:
                writer.cancel()
                await asyncio.gather(writer, return_exceptions=True)
            call.cancel()
            self._over.set()

    async def hang_up(self) -> None:
        """End the stream, and wait a moment for `run` to have seen that.

        gRPC never frees the message that arrives for a read whose task is cancelled: the call is
        cancelled, which ends its read, and the task only where that does not help.
        """
        if self._call is not None and self._call.cancel():
            with suppress(TimeoutError):
                async with asyncio.timeout(_HANG_UP_S):
                    await self._over.wait()

    def _start(self) -> pb.SubscribeStart:
        """Ask for everything from the beginning, or for what is known from where it stands."""
        settings, machine = self._settings, self._machine
        start = pb.SubscribeStart(
            topics=settings.topics,
            group_id=settings.group,
            offset_reset=settings.offset_reset,
            form=pb.FORM_BATCHES,
            accept_codecs=[records_pb2.Codec.ValueType(c) for c in codecs.accepted_codecs()],
            initial_credit=pb.Credit(
                bytes=machine.ahead.opening_credit(self._prefetch_bytes, self._broker_id)
            ),
            stop_at_end=settings.stop_at_end,
            do_not_proxy=self._broker_id != ANY,
        )
        self._asked = machine.asked(self._broker_id)
        if not machine.readers:
            place_start(start, settings.begin_at)
            start.positions.extend(start_position(p, b"", at) for p, at in machine.places.items())
            self._topics = frozenset((*settings.topics, *(p.topic for p in machine.places)))
            return start
        # Partitions that were added in the meantime are read from where they begin; a topic that is
        # gone is not asked for by its name, which another one may have by now.
        setattr(start, "from", pb.FROM_EARLIEST)
        gone = {place.topic for place, reader in machine.readers.items() if reader.gone}
        start.topics[:] = [t for t in settings.topics if self._whole and t not in gone]
        self._topics = frozenset(start.topics)
        for partition, asked in self._asked.items():
            start.positions.append(resumed_position(machine.readers[partition], asked.at))
        if not start.topics and not start.positions:
            raise next(filter(None, (reader.error for reader in machine.readers.values())))
        return start

    async def _begin(self, call: _Call) -> float:
        """Wait for the broker's first message; return how long it may be silent from now on."""
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                first = await call.read()
        except TimeoutError:
            raise self._broken("the broker did not begin it") from None
        if not isinstance(first, pb.SubscribeResponse):
            raise await self._ended(call)
        if not first.HasField("started"):
            raise FatalError(
                f"{self._connection.endpoint} began a subscription with "
                f"{first.WhichOneof('kind')} instead of `started`; is it a Riverrun broker?",
                reason=Reason.PROTOCOL_BROKEN,
            )
        self._joined(first.started)
        positions = map(started_position, first.started.positions)
        # What was asked for here and has moved meanwhile may be further already.
        answered = self._machine.started(
            [at for at in positions if at.partition not in self._lost], self._asked
        )
        for reader in answered:
            self._on_sought(reader, None)
        here = [r for r in self._machine.readers.values() if r.home == self._broker_id]
        for reader in here:
            reader.held = False
        paused = [reader for reader in here if reader.paused]
        if paused:
            self.pause(paused)
        self._changed()
        interval_s = seconds(first.started.heartbeat_interval)
        if not interval_s:
            return _SILENCE_DEFAULT_S
        return max(_SILENCE_MIN_S, _SILENT_HEARTBEATS * interval_s)

    def _joined(self, started: pb.SubscribeStarted) -> None:
        """Take whom the stream speaks for: nobody, unless it is a member's."""

    async def _read(self, call: _Call, silence_s: float) -> None:
        """Take what comes until the stream ends; silence breaks it."""
        loop = asyncio.get_running_loop()
        heard_s = loop.time()
        timer: asyncio.TimerHandle

        def look(late: bool) -> None:
            nonlocal timer
            left_s = heard_s + silence_s - loop.time()
            if left_s > 0:
                timer = loop.call_later(left_s, look, False)
            elif not late:
                # Where something has held the loop up, what came meanwhile is still to be read.
                timer = loop.call_later(_UNREAD_S, look, True)
            else:
                silence.reschedule(loop.time())

        timer = loop.call_later(silence_s, look, False)
        try:
            async with asyncio.timeout(None) as silence:
                while isinstance(response := await call.read(), pb.SubscribeResponse):
                    heard_s = loop.time()
                    self.frames += 1
                    self._take(response)
                    if self._lost and self._machine.delivered_from(self._broker_id):
                        # The broker waits to be told where to go on in what it leads no more.
                        return
        except TimeoutError:
            raise self._broken(
                f"nothing was heard for {silence_s:g} s, not even a heartbeat"
            ) from None
        finally:
            timer.cancel()
        if await call.code() is not grpc.StatusCode.OK:
            raise await self._ended(call)

    def _take(self, response: pb.SubscribeResponse) -> None:
        kind, machine = response.WhichOneof("kind"), self._machine
        match kind:
            case "delivery":
                self._take_delivery(delivered(response.delivery))
            case "seek_done":
                done = response.seek_done
                self._take_seek_done(done.seek_id, started_position(done.position))
            case "position_reset":
                self._take_reset(response.position_reset)
            case "caught_up":
                at = started_position(response.caught_up.position).partition
                if at not in self._lost:
                    machine.caught_up(at)
            case "heartbeat":
                for lag in response.heartbeat.lags:
                    partition = TopicPartition(lag.topic, lag.partition)
                    machine.lagging(partition, lag.high_watermark)
                return
            case "partition_error":
                self._take_error(response.partition_error)
            case "going_away":
                self.going_away = True
                self.reconnect_after_s = seconds(response.going_away.reconnect_after)
        self._changed()
        # What was dropped on arrival has come free at once.
        self.wake()

    def _take_delivery(self, delivery: Delivered[records_pb2.RecordBatch]) -> None:
        if delivery.partition in self._lost:
            self._machine.ahead.refuse(delivery, self._broker_id)
            return
        refused = self._machine.delivered(delivery)
        if refused is not None and not refused.held:
            # Nothing of it is taken before a seek: the broker may as well stop.
            refused.held = True
            self.pause([refused])

    def _take_seek_done(self, seek_id: int, at: StartedPosition) -> None:
        reader = None if at.partition in self._lost else self._machine.sought(seek_id, at)
        if reader is not None:
            self._on_sought(reader, None)

    def _take_reset(self, reset: pb.PositionReset) -> None:
        at = started_position(reset.position)
        if at.partition in self._lost:
            return
        if self._machine.reset(at, reset.old_offset):
            cause = from_proto(reset.cause, str(at.partition))
            self._on_reset(PositionReset(at.partition, reset.old_offset, at.offset, cause))

    def _take_error(self, failed: pb.PartitionError) -> None:
        partition = TopicPartition(failed.topic, failed.partition)
        if partition in self._lost:
            return
        error = from_proto(failed.error, str(partition))
        self._on_failed(partition, failed.topic_id, error, failed.seek_id)

    def _say(self, request: pb.SubscribeRequest) -> None:
        self._control.append(request)
        self._wake.set()

    async def _write(self, call: _Call) -> None:
        """Send control and credit. The reader hears of it where the stream has broken."""
        ahead, share = self._machine.ahead, self._prefetch_bytes // _GRANT_SHARE
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                while self._control:
                    await call.write(self._control.popleft())
                if ahead.credit_bytes(self._broker_id) >= share:
                    granted = ahead.grant(self._broker_id)
                    await call.write(pb.SubscribeRequest(credit=pb.Credit(bytes=granted)))
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                return

    async def _ended(self, call: _Call) -> RiverrunError:
        """Say how a stream ended that should have gone on."""
        failure = await failure_of(call)
        if failure is None:
            return self._broken("the broker ended it without a word")
        return self._failed(failure)

    def _failed(self, failure: grpc.aio.AioRpcError) -> RiverrunError:
        return from_stream(failure, "subscribe", self._connection.endpoint)

    def _broken(self, text: str) -> RiverrunError:
        return RetriableError(
            f"subscription at {self._connection.endpoint}: {text}", reason=Reason.CONNECTION_LOST
        )
