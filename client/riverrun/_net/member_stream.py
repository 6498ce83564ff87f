"""One Subscribe stream of a member: its group gives it partitions and takes them away while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from riverrun._core import codecs
from riverrun._core.membership import Member, Membership
from riverrun._core.partition_reader import Asked, Delivered, StartedPosition
from riverrun._core.records import Offset, TopicPartition
from riverrun._net.describing import seconds
from riverrun._net.failures import from_proto
from riverrun._net.member_settings import MemberSettings
from riverrun._net.subscribe_messages import started_position
from riverrun._net.subscribe_settings import place_start
from riverrun._net.subscribe_stream import SubscribeStream
from riverrun.errors import FatalError, Reason, RetriableError, RiverrunError
from riverrun.v1 import consumer_pb2 as pb
from riverrun.v1 import records_pb2

# So many heartbeats within a session timeout: one may be late, and one may be lost.
_HEARTBEATS: Final = 4


class Rebalances(Protocol):
    """Whoever acts on what a group gives a member and takes away."""

    def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """The member reads these from now on, besides what it reads."""
        ...

    def revoking(self, partitions: Sequence[TopicPartition]) -> None:
        """The member is to give these up; it calls `MemberStream.give_up` when it is through with them."""
        ...

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        """The member has these no longer."""
        ...

    def through(self) -> None:
        """Look whether everything has come that was asked for."""
        ...


class MemberStream(SubscribeStream):
    """One life of a member's stream. Transitions: opening -> open -> ended; another one resumes it."""

    membership: Membership
    member_settings: MemberSettings
    rebalances: Rebalances
    _unplaced: set[TopicPartition]

    def serve(
        self, membership: Membership, settings: MemberSettings, rebalances: Rebalances
    ) -> MemberStream:
        """Take what is a member's own; to be called before it runs."""
        self.membership = membership
        self.member_settings = settings
        self.rebalances = rebalances
        self._unplaced = set()
        return self

    async def run(self) -> None:
        """Serve until the broker ends the stream in order.

        Raises:
            RiverrunError: it broke, or the broker refuses it.
        """
        beating = asyncio.create_task(self._beat(), name="riverrun consumer: heartbeats")
        try:
            await super().run()
        except RiverrunError as error:
            if error.reason is not Reason.UNKNOWN_MEMBER:
                raise
            self.rebalances.lost(self.membership.expired())
            raise RetriableError(
                f"{error.message}; it joins again", reason=Reason.UNKNOWN_MEMBER
            ) from error
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)

    def give_up(self, partitions: Iterable[TopicPartition]) -> None:
        """Say that the member is through with partitions that it was to give up."""
        self._say(
            pb.SubscribeRequest(
                revocation_done=pb.RevocationDone(
                    member_epoch=self.membership.epoch,
                    partitions=[
                        pb.TopicPartition(topic=each.topic, partition=each.partition)
                        for each in partitions
                    ],
                )
            )
        )

    def _start(self) -> pb.SubscribeStart:
        """Join, or go on as the member that it is."""
        settings, machine = self._settings, self._machine
        start = pb.SubscribeStart(
            group_id=settings.group,
            offset_reset=settings.offset_reset,
            form=pb.FORM_BATCHES,
            accept_codecs=[records_pb2.Codec.ValueType(c) for c in codecs.accepted_codecs()],
            initial_credit=pb.Credit(
                bytes=machine.ahead.opening_credit(self._prefetch_bytes, self._broker_id)
            ),
        )
        place_start(start, settings.begin_at)
        self.membership.lease.sent(0, asyncio.get_running_loop().time())
        member = self.membership.member
        if member is not None:
            start.resume.CopyFrom(pb.ResumeMember(member_id=member.member_id, token=member.token))
        else:
            start.topics[:] = settings.topics
            self.member_settings.fill(start)
        return start

    def reads(self, partition: TopicPartition) -> bool:
        """Whether the stream has begun to read a partition."""
        return partition in self._asked

    def _joined(self, started: pb.SubscribeStarted) -> None:
        if not started.HasField("member"):
            raise FatalError(
                f"{self._connection.endpoint} does not make members of groups; is it of an older version?",
                reason=Reason.PROTOCOL_BROKEN,
            )
        told = started.member
        self.membership.joined(
            Member(
                told.member_id,
                told.token,
                seconds(told.session_timeout),
                seconds(told.revocation_timeout),
            )
        )

    async def _beat(self) -> None:
        heartbeat_id = 0
        while True:
            member = self.membership.member
            await asyncio.sleep((member.session_timeout_s if member else 1.0) / _HEARTBEATS)
            heartbeat_id += 1
            self.membership.lease.sent(heartbeat_id, asyncio.get_running_loop().time())
            self._say(pb.SubscribeRequest(heartbeat=pb.MemberHeartbeat(heartbeat_id=heartbeat_id)))

    def _take(self, response: pb.SubscribeResponse) -> None:
        match response.WhichOneof("kind"):
            case "partitions_assigned":
                self._assigned(response.partitions_assigned)
            case "partitions_revoking":
                told = response.partitions_revoking
                news = self.membership.revoking(told.member_epoch, _named(told.partitions))
                self.rebalances.revoking(news)
            case "partitions_lost":
                partitions = _named(response.partitions_lost.partitions)
                self.membership.lost(response.partitions_lost.member_epoch, partitions)
                self._gone(partitions)
            case "partition_error":
                self._take_error(response.partition_error)
            case "heartbeat":
                self._confirmed(response.heartbeat.heartbeat_id)
                super()._take(response)
                return
            case kind:
                if kind in ("caught_up", "position_reset"):
                    position = getattr(response, kind).position
                    at = TopicPartition(position.topic, position.partition)
                    self._placed(at, position.high_watermark)
                super()._take(response)
                self.rebalances.through()
                return
        self.rebalances.through()
        self._changed()

    def _confirmed(self, heartbeat_id: int) -> None:
        """Take how far the group knows that the member lives."""
        now_s = asyncio.get_running_loop().time()
        lease, member = self.membership.lease, self.membership.member
        was_over = lease.is_over(now_s)
        if member is not None:
            lease.confirmed(heartbeat_id, member.session_timeout_s)
        if was_over and not lease.is_over(now_s):
            self._changed()

    def _assigned(self, told: pb.PartitionsAssigned) -> None:
        if not self.membership.has_begun:
            gone = self.membership.begun(told.member_epoch, _named(told.coming))
            self._gone(gone)
        placed = {started_position(each.position): each for each in told.partitions}
        kept = self.membership.assigned(
            told.member_epoch, {at.partition: each.assignment_epoch for at, each in placed.items()}
        )
        new = [at for at in placed if at.partition not in kept]
        # Whatever was read of it before was another assignment's.
        again = [at.partition for at in new if at.partition in self._machine.readers]
        if again:
            self._gone(again)
        for at in placed:
            self._asked[at.partition] = Asked(Offset(at.offset), False, 0)
            if at.partition in kept:
                self._go_on(at)
        self._machine.is_told = self._machine.is_told or self.membership.is_placed
        if new:
            self._machine.started(new, {})
            for at in new:
                if not at.high_watermark and not at.offset:
                    # It is empty, or nobody could say where it begins: what comes next tells.
                    self._unplaced.add(at.partition)
                    reader = self._machine.readers[at.partition]
                    reader.begun, reader.end = False, None
            self.rebalances.assigned([at.partition for at in new])

    def _go_on(self, at: StartedPosition) -> None:
        """Go on in a partition that another stream has read before, from where that came to."""
        reader = self._machine.readers.get(at.partition)
        if reader is None:
            return
        if reader.place is None and reader.resume_at == Offset(at.offset):
            self._machine.started([at], {at.partition: Asked(Offset(at.offset), False, 0)})
        elif not reader.retired:
            self.seek(reader if reader.place is not None else self._machine.ask_again(at.partition))

    def _gone(self, partitions: Sequence[TopicPartition]) -> None:
        for each in partitions:
            self._asked.pop(each, None)
        self.rebalances.lost(partitions)

    def _take_delivery(self, delivery: Delivered[records_pb2.RecordBatch]) -> None:
        if delivery.partition not in self._machine.readers:
            # It was on its way when the partition was lost.
            self._machine.ahead.refuse(delivery, self._broker_id)
            return
        self._placed(delivery.partition, delivery.high_watermark)
        super()._take_delivery(delivery)

    def _placed(self, partition: TopicPartition, high_watermark: int) -> None:
        """Take that a partition begins where it was said to."""
        if partition in self._unplaced:
            self._unplaced.discard(partition)
            if (reader := self._machine.readers.get(partition)) is not None:
                reader.begun = True
                if self._machine.stop_at_end and reader.end is None:
                    reader.end = high_watermark

    def _take_error(self, failed: pb.PartitionError) -> None:
        partition = TopicPartition(failed.topic, failed.partition)
        reader = self._machine.readers.get(partition)
        error = from_proto(failed.error, str(partition))
        if reader is None or error.reason is Reason.PARTITION_NOT_ASSIGNED:
            return  # it was said of one that is gone by now
        if partition in self._unplaced and not failed.seek_id:
            # It is to begin where the group has come to.
            self._unplaced.discard(partition)
            reader.place = "committed"
        self._on_failed(partition, failed.topic_id, error, failed.seek_id)


def _named(partitions: Iterable[pb.TopicPartition]) -> list[TopicPartition]:
    return [TopicPartition(each.topic, each.partition) for each in partitions]
