"""A member of a group on nothing but generated stubs, in a process of its own, that writes a diary.

It joins by Subscribe, works on what it is delivered at once, commits on the stream, gives partitions up
a while after it was asked to, and goes on at another broker with its token when its stream breaks. It works on
nothing once its lease may be over, by its own clock: until the last MemberHeartbeat that its coordinator
has heard of is as old as the session timeout. SIGTERM lets it commit and leave.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import grpc
import grpc.aio

from riverrun._net.failures import from_rpc
from riverrun.v1.consumer_pb2 import (
    CommitResult,
    Delivery,
    Heartbeat,
    OffsetCommit,
    PartitionsAssigned,
    PartitionsRevoking,
    SubscribeRequest,
    SubscribeResponse,
    SubscribeStarted,
    TopicPartition,
)
from riverrun.v1.consumer_pb2_grpc import ConsumerServiceStub
from tests.cluster.group_chaos.diary import (
    Assigned,
    Committed,
    Committing,
    Ended,
    Joined,
    Lease,
    Left,
    Lost,
    Processed,
    Released,
    Revoking,
    Writer,
    Wrong,
    now_s,
)
from tests.cluster.group_chaos.member_options import Options, told

_TICK_S = 0.05
_COMMIT_S = 0.1
_BUSY_S = 0.3
# Of the session timeout; three may be lost.
_HEARTBEAT_SHARE = 1 / 6
_AGAIN_S = 0.1
# Of the broker's interval of heartbeats: the stream of a broker that stands still never breaks.
_SILENCES = 2
# A broker looks for the coordinator for so long before it answers.
_START_S = 15.0
_LEAVE_S = 20.0
_OPTIONS = [
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 300),
    ("grpc.enable_retries", 0),
    # Channels share connections; one that was made to a process that is gone is of no use.
    ("grpc.use_local_subchannel_pool", 1),
]
_GONE = {"UNKNOWN_MEMBER", "MEMBER_TAKEN_OVER"}
# Somebody else may be in this member's place for a while, and nobody may know where the group is.
_MISTAKES = {"INVALID_REQUEST", "INVALID_NAME", "INTERNAL"}


@dataclass
class _Place:
    """A partition that is read."""

    epoch: int
    position: int


class Member:
    """One member.

    Transitions: outside -> joined (`started`) -> apart (its stream has ended) -> joined, by its token; from
    each of them -> outside, where nobody knows it any more; -> over, once it has left.
    """

    def __init__(self, options: Options, diary: Writer) -> None:
        self._options = options
        self._diary = diary
        self._next_broker = options.first
        self._member_id, self._token = "", b""
        self._epoch = 0
        self._lease_until_s = 0.0
        self._places: dict[int, _Place] = {}
        # What was delivered while the lease was over, or may have been.
        self._waiting: list[Delivery] = []
        self._dirty: set[int] = set()
        # What it is asked for and still busy with: until when, and in which epoch it was asked.
        self._finishing: list[tuple[float, int, list[int]]] = []
        self._commits: dict[int, list[list[int]]] = {}
        self._commit_id = 0
        self._heartbeat_id = 0
        self._sent_s: dict[int, float] = {}
        self._is_leaving = self._is_over = False
        self.stop = asyncio.Event()

    @property
    def beat_s(self) -> float:
        """How often it shows a sign of life."""
        return self._options.session_ms / 1000 * _HEARTBEAT_SHARE

    async def run(self) -> None:
        """Be a member until it is told to stop."""
        give_up_s = float("inf")
        while not self._is_over and now_s() < give_up_s:
            if self.stop.is_set():
                give_up_s = min(give_up_s, now_s() + _LEAVE_S)
                if not self._member_id:
                    break
            brokers = self._options.bootstrap.split(",")
            broker = brokers[self._next_broker % len(brokers)]
            self._next_broker += 1
            async with grpc.aio.insecure_channel(broker, options=_OPTIONS) as channel:
                await _Stream(self, broker, channel).run()
            await asyncio.sleep(_AGAIN_S)

    # What a stream asks.

    def start(self) -> SubscribeRequest:
        """Return the first word of a stream."""
        options = self._options
        request = SubscribeRequest()
        start = request.start
        start.group_id = options.group
        if self._member_id:
            start.resume.member_id, start.resume.token = self._member_id, self._token
            return request
        start.topics.append(options.topic)
        start.instance_id = options.instance
        start.session_timeout.FromMilliseconds(options.session_ms)
        start.client_id = "stub"
        return request

    def requests(self, at_s: float, heartbeat_due: bool) -> list[SubscribeRequest]:
        """Return what is to be said now."""
        said = self._finished(at_s)
        if heartbeat_due:
            self._heartbeat_id += 1
            self._sent_s[self._heartbeat_id] = at_s
            said.append(SubscribeRequest(heartbeat={"heartbeat_id": self._heartbeat_id}))
        if self._dirty and not self._is_leaving:
            said.append(self._commit(self._dirty & self._places.keys()))
        if self.stop.is_set() and not self._is_leaving and not self._dirty and not self._commits:
            self._is_leaving = True
            self._diary.note(Released(at_s, sorted(self._places)))
            said.append(SubscribeRequest(leave={"temporary": bool(self._options.instance)}))
        return said

    def _commit(self, partitions: set[int]) -> SubscribeRequest:
        self._dirty -= partitions
        self._commit_id += 1
        offsets = [[each, self._places[each].position] for each in sorted(partitions)]
        self._commits[self._commit_id] = offsets
        self._diary.note(Committing(now_s(), self._commit_id, offsets))
        topic = self._options.topic
        request = SubscribeRequest()
        request.commit.commit_id, request.commit.member_epoch = self._commit_id, self._epoch
        request.commit.offsets.extend(
            OffsetCommit(topic=topic, partition=partition, offset=offset)
            for partition, offset in offsets
        )
        return request

    # What a stream has heard.

    def started(self, started: SubscribeStarted, sent_s: float, gateway: str) -> None:
        """Take it that a stream speaks for the member, as of when it was asked for."""
        if not started.HasField("member"):
            self._wrong("the stream is no member's")
            return
        member = started.member
        self._member_id, self._token = member.member_id, member.token
        self._diary.note(Joined(now_s(), self._member_id, gateway))
        self._extend(sent_s)

    def heartbeat(self, heartbeat: Heartbeat) -> None:
        """Take it that the coordinator knows of a sign of life."""
        sent_s = self._sent_s.get(heartbeat.heartbeat_id)
        if sent_s is None:
            return
        for number in [each for each in self._sent_s if each < heartbeat.heartbeat_id]:
            del self._sent_s[number]
        self._extend(sent_s)
        waiting, self._waiting = self._waiting, []
        for delivery in waiting:
            self.delivered(delivery)

    def _extend(self, sent_s: float) -> None:
        until_s = sent_s + self._options.session_ms / 1000
        if until_s > self._lease_until_s:
            self._lease_until_s = until_s
            self._diary.note(Lease(now_s(), until_s))

    def assigned(self, told: PartitionsAssigned, *, first: bool) -> None:
        """Take partitions."""
        given = [
            [each.position.partition, each.position.offset, each.assignment_epoch]
            for each in told.partitions
        ]
        coming = [each.partition for each in told.coming]
        self._epoch = told.member_epoch
        self._diary.note(Assigned(now_s(), self._epoch, given, coming, first))
        if first:
            # The positions of an earlier stream mean nothing on this one.
            self._places.clear()
            self._finishing.clear()
            self._dirty.clear()
            self._waiting.clear()
        for partition, offset, epoch in given:
            self._places[partition] = _Place(epoch, offset)

    def delivered(self, delivery: Delivery) -> None:
        """Work on a delivery, or keep it until the lease is known to hold."""
        partition, at_s = delivery.partition, now_s()
        place = self._places.get(partition)
        if place is None or any(partition in each[2] for each in self._finishing):
            self._wrong(f"a delivery of partition {partition}, which it does not have, or gives up")
            return
        if self.stop.is_set():
            return
        if at_s >= self._lease_until_s or self._waiting:
            self._waiting.append(delivery)
            return
        numbers = self._numbers(delivery) if self._options.is_numbered else []
        self._diary.note(
            Processed(
                at_s, partition, place.epoch, delivery.first_offset, delivery.next_offset, numbers
            )
        )
        place.position = delivery.next_offset
        self._dirty.add(partition)

    def _numbers(self, delivery: Delivery) -> list[int]:
        offsets = [record.offset for record in delivery.records]
        if offsets != list(range(delivery.first_offset, delivery.next_offset)):
            self._wrong(f"partition {delivery.partition}: offsets {offsets} in {delivery}")
            return [-1] * (delivery.next_offset - delivery.first_offset)
        return [int(record.value) for record in delivery.records]

    def revoking(self, told: PartitionsRevoking) -> None:
        """Take it that partitions are wanted back; it is busy with each for a while."""
        at_s, partitions = now_s(), [each.partition for each in told.partitions]
        self._diary.note(Revoking(at_s, told.member_epoch, partitions))
        self._epoch = told.member_epoch
        self._finishing.append((at_s + _BUSY_S, told.member_epoch, partitions))
        self._waiting = [each for each in self._waiting if each.partition not in partitions]

    def _finished(self, at_s: float) -> list[SubscribeRequest]:
        """Return what is said of partitions that it is through with: the last commit, and that it is done."""
        said = []
        for due in [each for each in self._finishing if each[0] <= at_s]:
            self._finishing.remove(due)
            _, epoch, partitions = due
            dirty = self._dirty & set(partitions) & self._places.keys()
            if dirty:
                said.append(self._commit(dirty))
            self._drop(partitions)
            self._diary.note(Released(now_s(), partitions))
            done = SubscribeRequest()
            done.revocation_done.member_epoch = epoch
            done.revocation_done.partitions.extend(
                TopicPartition(topic=self._options.topic, partition=each) for each in partitions
            )
            said.append(done)
        return said

    def lost(self, partitions: Sequence[int]) -> None:
        """Take it that others have partitions."""
        self._diary.note(Lost(now_s(), list(partitions)))
        self._drop(partitions)

    def _drop(self, partitions: Sequence[int]) -> None:
        for partition in partitions:
            self._places.pop(partition, None)
            self._dirty.discard(partition)
        self._waiting = [each for each in self._waiting if each.partition in self._places]

    def committed(self, result: CommitResult) -> None:
        """Take it what became of a commit; what was refused and is still here is tried again."""
        offsets = self._commits.pop(result.commit_id, None)
        if offsets is None:
            self._wrong(f"a result of commit {result.commit_id}, which was answered or not made")
            return
        results = [[each.partition, int(each.error.reason)] for each in result.results]
        self._diary.note(Committed(now_s(), result.commit_id, results))
        refused = {partition for partition, reason in results if reason}
        self._dirty |= refused & self._places.keys()

    def ended(self, why: str, reason: str) -> None:
        """Take it that the stream is over."""
        at_s = now_s()
        self._diary.note(Ended(at_s, why))
        self._commits.clear()
        self._waiting.clear()
        if self._is_leaving and not reason:
            self._diary.note(Left(at_s))
            self._is_over = True
        elif reason in _GONE or (self._is_leaving and not self._member_id):
            self.lost(sorted(self._places))
            self._member_id, self._token = "", b""
            self._lease_until_s = 0.0
        elif reason in _MISTAKES:
            self._wrong(why)
        self._is_leaving = False

    def _wrong(self, what: str) -> None:
        self._diary.note(Wrong(now_s(), what[:2000]))


class _Stream:
    """One stream of a member, from its start to whatever ends it."""

    def __init__(self, member: Member, broker: str, channel: grpc.aio.Channel) -> None:
        self._member = member
        self._broker = broker
        self._stub = ConsumerServiceStub(channel)
        self._said: asyncio.Queue[SubscribeRequest] = asyncio.Queue()
        self._heard_s = now_s()
        self._patience_s = _START_S
        self._has_been_given = False

    async def run(self) -> None:
        """Open it and follow it."""
        sent_s = now_s()
        call = self._stub.Subscribe(self._requests())
        ticking = asyncio.create_task(self._tick(call), name="tick")
        why, reason = "the broker has ended it", ""
        try:
            async for response in call:
                self._heard_s = now_s()
                if self._hear(response, sent_s):
                    why, reason = "the broker goes away", "SHUTTING_DOWN"
                    break
        except grpc.aio.AioRpcError as error:
            told = from_rpc(error, "Subscribe", self._broker)
            why, reason = f"{told.reason.value}: {told}", told.reason.value
        except asyncio.CancelledError:
            if not call.cancelled():
                raise
            why, reason = "nothing was heard for too long", "UNKNOWN"
        finally:
            ticking.cancel()
            await asyncio.gather(ticking, return_exceptions=True)
            call.cancel()
        self._member.ended(why, reason)

    async def _requests(self) -> AsyncIterator[SubscribeRequest]:
        yield self._member.start()
        while True:
            yield await self._said.get()

    def _say(self, said: Sequence[SubscribeRequest]) -> None:
        for each in said:
            self._said.put_nowait(each)

    async def _tick(
        self, call: grpc.aio.StreamStreamCall[SubscribeRequest, SubscribeResponse]
    ) -> None:
        """Commit and show signs of life; end a stream on which nothing is heard."""
        member = self._member
        beat_s = member.beat_s
        next_beat_s = next_commit_s = 0.0
        while True:
            await asyncio.sleep(_TICK_S)
            at_s = now_s()
            if at_s - self._heard_s > self._patience_s:
                call.cancel()
                return
            if not self._has_been_given or at_s < next_commit_s:
                continue
            next_commit_s = at_s + _COMMIT_S
            due = at_s >= next_beat_s
            if due:
                next_beat_s = at_s + beat_s
            self._say(member.requests(at_s, due))

    def _hear(self, response: SubscribeResponse, sent_s: float) -> bool:
        """Pass on what was said; return whether another stream is to be opened."""
        member = self._member
        match response.WhichOneof("kind"):
            case "started":
                interval = response.started.heartbeat_interval.ToTimedelta()
                self._patience_s = _SILENCES * interval.total_seconds()
                member.started(response.started, sent_s, self._broker)
            case "partitions_assigned":
                member.assigned(response.partitions_assigned, first=not self._has_been_given)
                self._has_been_given = True
            case "delivery":
                member.delivered(response.delivery)
            case "partitions_revoking":
                member.revoking(response.partitions_revoking)
            case "partitions_lost":
                member.lost([each.partition for each in response.partitions_lost.partitions])
            case "commit_result":
                member.committed(response.commit_result)
            case "heartbeat":
                member.heartbeat(response.heartbeat)
            case "going_away":
                return True
        return False


async def _main(options: Options, diary: Writer) -> None:
    member = Member(options, diary)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, member.stop.set)
    await member.run()


def main() -> None:
    """Be a member until SIGTERM."""
    options = told()
    with contextlib.closing(Writer(options.diary)) as diary:
        asyncio.run(_main(options, diary))


if __name__ == "__main__":
    main()
