"""The fake broker's consumer service: subscriptions in batch form, offsets, commits."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration

from riverrun.v1 import consumer_pb2 as pb
from riverrun.v1 import consumer_pb2_grpc
from tests.client.fake_log import NOW_MS, FakePartition, FakeRefusal
from tests.client.faults import Fault

if TYPE_CHECKING:
    from tests.client.fake_broker import FakeBroker

DELIVERY_BATCHES = 3


@dataclass
class _Reading:
    topic: str
    log: FakePartition
    position: int
    end: int | None = None
    paused: bool = False
    failed: bool = False

    @property
    def finished(self) -> bool:
        """Whether a stream that stops at the end is through with it; a failed one may come back."""
        return (
            not self.failed and self.end is not None and self.end <= self.position <= self.log.end
        )


class _Broken(Exception):
    """The stream is to break here."""


class FakeConsumerService(consumer_pb2_grpc.ConsumerServiceServicer):
    def __init__(self, broker: FakeBroker) -> None:
        self._broker = broker

    async def Subscribe(self, request_iterator, context):  # noqa: N802
        self._broker.subscribe_streams += 1
        await self._broker.notify()
        try:
            if self._broker.refuse_streams:
                raise self._broker.refuse_streams.pop(0)
            await _Subscription(self._broker, context).run()
        except FakeRefusal as refusal:
            from tests.client.fake_broker import abort  # noqa: PLC0415

            await abort(context, refusal)
        except _Broken:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the fake breaks the stream")

    async def CommitOffset(self, request, context):  # noqa: N802
        await self._broker.note("CommitOffset", context)
        answer = pb.CommitOffsetResponse()
        for commit in request.offsets:
            result = answer.results.add(topic=commit.topic, partition=commit.partition)
            try:
                self._broker.find(commit.topic, commit.topic_id, commit.partition)
            except FakeRefusal as refusal:
                result.error.CopyFrom(refusal.proto)
                continue
            key = (request.group_id, commit.topic, commit.partition)
            self._broker.commits[key] = (commit.offset, commit.metadata)
        await self._broker.notify()
        return answer

    async def LeaveGroup(self, request, context):  # noqa: N802
        await self._broker.note("LeaveGroup", context)
        self._broker.members.pop(request.member_id, None)
        return pb.LeaveGroupResponse()

    async def FetchOffsets(self, request, context):  # noqa: N802
        await self._broker.note("FetchOffsets", context)
        answer = pb.FetchOffsetsResponse()
        asked = [(p.topic, p.topic_id, p.partition) for p in request.partitions] or [
            (topic, b"", partition)
            for group, topic, partition in sorted(self._broker.commits)
            if group == request.group_id
        ]
        for topic, topic_id, partition in asked:
            told = answer.offsets.add(topic=topic, partition=partition)
            try:
                self._broker.find(topic, topic_id, partition)
            except FakeRefusal as refusal:
                told.error.CopyFrom(refusal.proto)
                continue
            commit = self._broker.commits.get((request.group_id, topic, partition))
            if commit is None:
                told.none.SetInParent()
            else:
                told.committed.offset, told.committed.metadata = commit
                told.committed.commit_time_ms = NOW_MS
        return answer

    async def ListOffsets(self, request, context):  # noqa: N802
        await self._broker.note("ListOffsets", context)
        answer = pb.ListOffsetsResponse()
        for query in request.queries:
            topic = self._broker.topics.get(query.topic)
            logs = topic.partitions if topic else []
            if query.HasField("partition"):
                logs = logs[query.partition : query.partition + 1]
            if not logs:
                refusal = FakeRefusal("TOPIC_NOT_FOUND", f"no topic {query.topic}")
                answer.answers.add(topic=query.topic, error=refusal.proto)
            for log in logs:
                told = answer.answers.add(
                    topic=query.topic, partition=log.partition, high_watermark=log.end
                )
                if query.WhichOneof("at") == "time_ms":
                    for offset, record in enumerate(log.records()):
                        if record.timestamp_ms >= query.time_ms:
                            told.offset, told.timestamp_ms = offset, record.timestamp_ms
                            break
                else:
                    latest = getattr(query, "from") == pb.FROM_LATEST
                    told.offset = log.end if latest else log.log_start
        return answer


class _Subscription:
    def __init__(self, broker: FakeBroker, context: grpc.aio.ServicerContext) -> None:
        self._broker = broker
        self._context = context
        self._readings: dict[tuple[str, int], _Reading] = {}
        self._credit: int | None = None
        self._stop_at_end = False
        self._reset = pb.OFFSET_RESET_UNSPECIFIED
        self._group = ""
        self._not_begun: list[tuple[_Reading, FakeRefusal]] = []
        self._missing: list[tuple[str, int, FakeRefusal]] = []
        # Of a group of one, which has everything.
        self._member_id = ""
        self._do_not_proxy = False
        self._wake = asyncio.Event()
        self._control: list[pb.SubscribeRequest] = []

    async def run(self) -> None:
        first = await self._context.read()
        start = first.start
        if start.HasField("resume"):
            self._member_id = start.resume.member_id
            self._broker.subscribe_resumes.append(start)
            start = self._broker.members[self._member_id]
        elif start.group_id and start.topics:
            self._member_id = f"member-{len(self._broker.members) + 1}"
            self._broker.members[self._member_id] = start
        self._start(start)
        started = self._started()
        await self._broker.notify()
        await self._broker.streams_may_begin.wait()
        await self._context.write(started)
        if self._member_id:
            await self._assign()
        if self._broker.streams_to_leave:
            self._broker.streams_to_leave -= 1
            message = pb.SubscribeResponse()
            message.going_away.reason = "asked to"
            await self._context.write(message)
            return
        await self._broker.errors_may_come.wait()
        for topic, partition, refusal in self._missing:
            error = pb.PartitionError(topic=topic, partition=partition, error=refusal.proto)
            await self._context.write(pb.SubscribeResponse(partition_error=error))
        for reading, refusal in self._not_begun:
            self._readings[reading.topic, reading.log.partition] = reading
            await self._fail(reading, refusal)
        tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._watch())]
        try:
            await self._deliver()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, start: pb.SubscribeStart) -> None:
        broker = self._broker
        broker.subscribe_starts.append(start)
        self._reset = start.offset_reset
        self._group = start.group_id
        self._do_not_proxy = start.do_not_proxy
        self._stop_at_end = start.stop_at_end
        if start.HasField("initial_credit"):
            self._credit = start.initial_credit.bytes
        for topic in start.topics:
            if topic not in broker.topics:
                self._missing.append(
                    (topic, -1, FakeRefusal("TOPIC_NOT_FOUND", f"no topic {topic}"))
                )
                continue
            for log in broker.topics[topic].partitions:
                at = start.WhichOneof("at")
                place = pb.StartPosition(topic=topic, partition=log.partition)
                if at == "from_offset":
                    place.offset = start.from_offset
                elif at == "from_time_ms":
                    place.time_ms = start.from_time_ms
                elif at == "from_last":
                    place.last = start.from_last
                else:
                    setattr(place, "from", getattr(start, "from"))
                self._read(place, log, start.group_id)
        for place in start.positions:
            try:
                log = broker.find(place.topic, place.topic_id, place.partition)
            except FakeRefusal as refusal:
                self._missing.append((place.topic, place.partition, refusal))
            else:
                self._read(place, log, "")
        if self._member_id:
            self._missing.clear()  # a member waits for its topics
        if self._missing and not self._readings and not self._not_begun:
            raise self._missing[0][2]

    def _read(self, place: pb.StartPosition, log: FakePartition, group: str) -> None:
        commit = self._broker.commits.get((group, place.topic, place.partition))
        position = commit[0] if commit else self._resolved(place, log)
        refusal = log.offline or self._unreadable(place, log)
        if refusal is None and self._broker.fail_to_begin:
            refusal = self._broker.fail_to_begin.pop()
        if refusal is not None:
            reading = _Reading(place.topic, log, log.log_start, failed=True)
            self._not_begun.append((reading, refusal))
            return
        end = log.end if self._stop_at_end else None
        self._readings[place.topic, place.partition] = _Reading(place.topic, log, position, end)

    def _unreadable(self, place: pb.StartPosition, log: FakePartition) -> FakeRefusal | None:
        """Return why a place cannot be read here: somebody else leads, or it was truncated."""
        try:
            self._broker.check_leader(place.topic, place.partition, self._do_not_proxy)
            if place.HasField("leader_epoch"):
                log.check_position(place.offset, place.leader_epoch)
        except FakeRefusal as refusal:
            return refusal
        return None

    def _resolved(self, place: pb.StartPosition, log: FakePartition) -> int:
        at = place.WhichOneof("at")
        if at == "offset":
            return place.offset
        if at == "last":
            return max(log.log_start, log.end - place.last)
        if at == "time_ms":
            times = [record.timestamp_ms for record in log.records()]
            return next((n for n, time in enumerate(times) if time >= place.time_ms), log.end)
        if getattr(place, "from") == pb.FROM_COMMITTED:
            key = (self._group, place.topic, place.partition)
            return self._broker.commits.get(key, (log.log_start,))[0]
        return log.end if getattr(place, "from") == pb.FROM_LATEST else log.log_start

    def _position(self, reading: _Reading) -> pb.PartitionPosition:
        return pb.PartitionPosition(
            topic=reading.topic,
            topic_id=reading.log.topic_id,
            partition=reading.log.partition,
            offset=reading.position,
            high_watermark=reading.log.end,
            log_start_offset=reading.log.log_start,
        )

    def _started(self) -> pb.SubscribeResponse:
        heartbeat = Duration(nanos=int(self._broker.heartbeat_s * 1e9))
        if self._broker.heartbeat_s >= 1:
            heartbeat = Duration(seconds=int(self._broker.heartbeat_s))
        started = pb.SubscribeStarted(heartbeat_interval=heartbeat)
        if self._member_id:
            started.member.member_id, started.member.token = self._member_id, b"token"
            started.member.session_timeout.seconds = 10
            started.member.revocation_timeout.seconds = 60
        else:
            started.positions.extend(self._position(r) for r in self._readings.values())
        return pb.SubscribeResponse(started=started)

    async def _assign(self) -> None:
        """Give the member everything there is."""
        begun = [*self._readings.values()]
        all_of_them = begun + [reading for reading, _ in self._not_begun]
        told = pb.PartitionsAssigned(member_epoch=1)
        for each in all_of_them:
            told.coming.add(topic=each.topic, partition=each.log.partition)
        await self._context.write(pb.SubscribeResponse(partitions_assigned=told))
        given = pb.PartitionsAssigned(member_epoch=1)
        for each in all_of_them:
            one = given.partitions.add(assignment_epoch=1)
            if each in begun:
                one.position.CopyFrom(self._position(each))
            else:
                one.position.topic, one.position.partition = each.topic, each.log.partition
                one.position.topic_id = each.log.topic_id
        await self._context.write(pb.SubscribeResponse(partitions_assigned=given))

    def _heartbeat(self) -> pb.Heartbeat:
        return pb.Heartbeat(
            lags=[
                pb.PartitionLag(
                    topic=reading.topic,
                    topic_id=reading.log.topic_id,
                    partition=reading.log.partition,
                    position=reading.position,
                    high_watermark=reading.log.end,
                )
                for reading in self._readings.values()
            ]
        )

    async def _listen(self) -> None:
        while (request := await self._context.read()) is not grpc.aio.EOF:
            self._control.append(request)
            self._wake.set()

    async def _watch(self) -> None:
        """Wake for new records; send heartbeats, unless the broker has to be silent."""
        while True:
            try:
                async with asyncio.timeout(self._broker.heartbeat_s), self._broker.changed:
                    await self._broker.changed.wait()
            except TimeoutError:
                if not self._broker.silent:
                    await self._context.write(pb.SubscribeResponse(heartbeat=self._heartbeat()))
            self._wake.set()

    async def _deliver(self) -> None:
        while True:
            while self._control:
                await self._obey(self._control.pop(0))
            await self._fail_what_is_led_elsewhere()
            reading = self._next()
            if reading is not None and not self._broker.silent:
                await self._send(reading)
                continue
            if self._stop_at_end and all(r.finished for r in self._readings.values()):
                return
            self._wake.clear()
            await self._wake.wait()

    async def _fail_what_is_led_elsewhere(self) -> None:
        for reading in [r for r in self._readings.values() if not r.failed]:
            try:
                self._broker.check_leader(
                    reading.topic, reading.log.partition, self._do_not_proxy, quietly=True
                )
            except FakeRefusal as refusal:
                await self._fail(reading, refusal)

    def _next(self) -> _Reading | None:
        if self._credit is not None and self._credit <= 0:
            return None
        for key, reading in self._readings.items():
            if reading.paused or reading.failed or reading.position == reading.log.end:
                continue
            self._readings[key] = self._readings.pop(key)  # take turns
            return reading
        return None

    async def _send(self, reading: _Reading) -> None:
        fault = self._broker.plan.at_delivery()
        if fault is Fault.DROP_BEFORE:
            raise _Broken
        log = reading.log
        refusal = fault if isinstance(fault, FakeRefusal) else log.offline
        if refusal is not None:
            await self._fail(reading, refusal)
            return
        if not log.log_start <= reading.position <= log.end:
            await self._out_of_range(reading)
            return
        delivery = pb.Delivery(
            topic=reading.topic,
            topic_id=log.topic_id,
            partition=log.partition,
            first_offset=reading.position,
            high_watermark=log.end,
            log_start_offset=log.log_start,
        )
        position = reading.position
        for batch in log.batches:
            next_offset = batch.base_offset + batch.last_offset_delta + 1
            if next_offset <= position:
                continue
            if len(delivery.batches) == DELIVERY_BATCHES:
                break
            delivery.batches.append(batch)
            delivery.leader_epoch = batch.leader_epoch
            delivery.charged_bytes += batch.ByteSize()
            reading.position = next_offset
        delivery.next_offset = reading.position
        if self._credit is not None:
            self._credit -= delivery.charged_bytes
        await self._context.write(pb.SubscribeResponse(delivery=delivery))
        if fault is Fault.GOING_AWAY:
            message = pb.SubscribeResponse()
            message.going_away.reason = "asked to"
            await self._context.write(message)
            raise _Broken

    async def _out_of_range(self, reading: _Reading) -> None:
        log = reading.log
        refusal = FakeRefusal(
            "OFFSET_OUT_OF_RANGE",
            f"{reading.position} is not in {log.log_start} to {log.end}",
            available=(log.log_start, log.end),
        )
        if self._reset not in (pb.OFFSET_RESET_EARLIEST, pb.OFFSET_RESET_LATEST):
            await self._fail(reading, refusal)
            return
        old, earliest = reading.position, self._reset == pb.OFFSET_RESET_EARLIEST
        reading.position = log.log_start if earliest else log.end
        reset = pb.PositionReset(
            position=self._position(reading), old_offset=old, cause=refusal.proto
        )
        await self._context.write(pb.SubscribeResponse(position_reset=reset))

    async def _fail(self, reading: _Reading, refusal: FakeRefusal, seek_id: int = 0) -> None:
        reading.failed = True
        error = pb.PartitionError(
            topic=reading.topic,
            topic_id=reading.log.topic_id,
            partition=reading.log.partition,
            error=refusal.proto,
            seek_id=seek_id,
        )
        await self._context.write(pb.SubscribeResponse(partition_error=error))
        self._broker.refusals += 1
        await self._broker.notify()

    async def _obey(self, request: pb.SubscribeRequest) -> None:
        kind = request.WhichOneof("kind")
        if kind == "credit":
            assert self._credit is not None
            self._credit += request.credit.bytes
        elif kind == "seek":
            place = request.seek.position
            reading = self._readings[place.topic, place.partition]
            refusal = reading.log.offline or self._unreadable(place, reading.log)
            if refusal is not None:
                await self._fail(reading, refusal, request.seek.seek_id)
                return
            reading.position = self._resolved(place, reading.log)
            reading.failed = False
            if self._stop_at_end and reading.end is None:
                reading.end = reading.log.end
            done = pb.SeekDone(seek_id=request.seek.seek_id, position=self._position(reading))
            await self._context.write(pb.SubscribeResponse(seek_done=done))
        elif kind in ("pause", "resume"):
            partitions = getattr(request, kind).partitions
            keys = [(p.topic, p.partition) for p in partitions] or [*self._readings]
            for key in keys:
                self._readings[key].paused = kind == "pause"
