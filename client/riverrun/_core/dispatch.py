"""Which append a stream sends next: partitions take turns, within what the broker allows in flight."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from riverrun._core.acks import TagLedger
from riverrun._core.episodes import Episodes
from riverrun._core.outgoing import OutgoingBatch, Resolution
from riverrun._core.records import TopicPartition
from riverrun._core.sequences import PartitionLane
from riverrun.errors import Reason, RiverrunError

# A broker remembers the failures of so many partitions on one stream, times four.
_FAILURES_MAX = 1024


class StreamLimits(NamedTuple):
    """What a broker allows to wait for its answer: batches of a partition, bytes of a stream."""

    unacknowledged_batches: int
    in_flight_bytes: int


class Append(NamedTuple):
    """One append to put on the stream, as it was decided on.

    The batch may be given up, and even be numbered anew, while it is compressed; what its tag was
    entered for is sent all the same, for the broker will answer it.
    """

    lane: PartitionLane
    batch: OutgoingBatch
    attempt: int
    tag: int
    topic_id: bytes
    epoch: int
    base_sequence: int


class Troubles:
    """Which partitions cannot be written, wherever they are sent to, and what is told of it."""

    def __init__(self) -> None:
        self._episodes: Episodes[TopicPartition] = Episodes()
        self._news: list[RiverrunError] = []

    def note(self, lane: PartitionLane, now_s: float) -> None:
        """Take how a lane fares."""
        if lane.trouble is None:
            self._episodes.worked(lane.partition)
        elif self._episodes.failed(lane.partition, lane.trouble, now_s):
            self._news.append(lane.trouble)

    def take_news(self) -> list[RiverrunError]:
        """Return why partitions cannot be written, where a person has not been told yet."""
        news, self._news = self._news, []
        return news


class Dispatcher:
    """The lanes whose batches go to one broker, and what the stream to it has under way.

    A lane stands in the queue of those that may have something to send; it takes one turn and goes
    to the end. A lane that has nothing leaves, and comes back when something happened to it.

    A broker refuses what comes for a partition behind a failure, on the same stream, until what
    failed comes again. A lane that went to another broker with it never sends it here again; should
    it come back, the stream is `stale`, and nothing more is sent on it. So it is where an append is
    refused for what stood before it, and nothing did that is not resolved: what failed there may
    have been waited for no more, and written from elsewhere.

    Args:
        new_lane: makes the lane of a partition.
        troubles: what is told of the lanes.

    Attributes:
        stale: another stream is needed, and this one ends as soon as it is `spent`.
        sent_s: when an append was sent last.
    """

    def __init__(
        self,
        new_lane: Callable[[TopicPartition], PartitionLane],
        troubles: Troubles | None = None,
    ) -> None:
        self._new_lane = new_lane
        self._troubles = troubles or Troubles()
        self._failed: set[TopicPartition] = set()
        # The newest append of each lane that was sent while no other one waited for its answer. Without
        # sequences a higher attempt is let in, whatever failed before.
        self._alone: dict[TopicPartition, int] = {}
        self.stale = False
        self.sent_s = float("-inf")
        self._lanes: dict[TopicPartition, PartitionLane] = {}
        self._turns: deque[PartitionLane] = deque()
        self._listed: set[TopicPartition] = set()
        self._held: set[TopicPartition] = set()
        self._ledger = TagLedger()
        self._limits: StreamLimits | None = None

    @property
    def appends_in_flight(self) -> int:
        """How many appends wait for their answer."""
        return len(self._ledger)

    @property
    def appends_ahead(self) -> int:
        """How many appends were sent behind the newest one that is answered."""
        return self._ledger.ahead

    @property
    def connected(self) -> bool:
        """Whether there is a stream to send on."""
        return self._limits is not None

    @property
    def spent(self) -> bool:
        """Whether the stream is of no use any more: nothing goes out on it, and no answer counts."""
        return self.stale and not any(lane.unanswered for lane in self._lanes.values())

    def __contains__(self, partition: object) -> bool:
        """Whether the partition's batches go here."""
        return partition in self._lanes

    def lanes(self) -> Iterable[PartitionLane]:
        """Iterate over all lanes."""
        return self._lanes.values()

    def adopt(self, lane: PartitionLane) -> None:
        """Take a lane that goes here from now on; nothing of it waits for an answer."""
        assert not lane.unanswered, "what a lane has sent is answered where it was sent to"
        self._lanes[lane.partition] = lane
        if self._limits is not None:
            lane.window = self._limits.unacknowledged_batches
            self.stale = self.stale or lane.partition in self._failed
        self._list(lane)

    def release(self, lane: PartitionLane) -> None:
        """Let a lane go that goes elsewhere; nothing of it waits for an answer."""
        assert not lane.unanswered, "answers still to come would not find it"
        del self._lanes[lane.partition]
        self._held.discard(lane.partition)

    def go_on(self, lane: PartitionLane) -> None:
        """Let a lane that was to leave take turns again."""
        self._list(lane)

    def give_up_answers(self, lane: PartitionLane) -> list[Resolution]:
        """Wait no longer for what a lane has sent: it may have been written."""
        self._ledger.disown(lane)
        self._failed.add(lane.partition)
        return lane.stream_lost()

    def lane(self, partition: TopicPartition) -> PartitionLane:
        """Return the lane of a partition."""
        lane = self._lanes.get(partition)
        if lane is None:
            lane = self._lanes[partition] = self._new_lane(partition)
        return lane

    def submit(self, batch: OutgoingBatch) -> list[Resolution]:
        """Take a batch to be sent behind all others of its partition."""
        lane = self.lane(batch.partition)
        resolutions = lane.add(batch)
        self._list(lane)
        return resolutions

    def next(self, now_s: float) -> Append | None:
        """Return the next append to send; None where there is nothing or no room."""
        if self._limits is None or self._ledger.bytes >= self._limits.in_flight_bytes:
            return None
        if self.stale:
            return None
        while self._turns:
            lane = self._turns.popleft()
            self._listed.discard(lane.partition)
            if lane.partition not in self._lanes:
                continue
            if not lane.sendable(now_s):
                if lane.hold_until_s > now_s:
                    self._held.add(lane.partition)
                continue
            if lane.idempotent and not lane.unanswered:
                self._alone[lane.partition] = self._ledger.next_tag
            self.sent_s = now_s
            batch = lane.send(self._ledger.next_tag, now_s)
            self._ledger.enter(lane, batch)
            self._list(lane)
            assert batch.base_sequence is not None, "a batch has a sequence before it is sent"
            return Append(
                lane,
                batch,
                lane.attempt,
                batch.tag,
                lane.topic_id,
                batch.epoch,
                batch.base_sequence,
            )
        return None

    def answered(
        self, tag: int, base_offset: int | None, error: RiverrunError | None, now_s: float
    ) -> list[Resolution]:
        """Take one answer.

        Raises:
            FatalError: nothing waits under this tag.
        """
        waiting = self._ledger.take(tag)
        if waiting is None:
            return []
        lane, batch = waiting
        resolutions = lane.answered(batch, base_offset, error, now_s)
        if error is not None:
            self._failed.add(lane.partition)
            self.stale = self.stale or len(self._failed) >= _FAILURES_MAX
            if error.reason is Reason.PRECEDING_FAILED and self._alone.get(lane.partition) == tag:
                self.stale = True
        elif self._failed and not lane.in_flight:
            self._failed.discard(lane.partition)
        self._troubles.note(lane, now_s)
        self._list(lane)
        return resolutions

    def take_news(self) -> list[RiverrunError]:
        """Return why partitions cannot be written, where a person has not been told yet."""
        return self._troubles.take_news()

    def stream_started(self, limits: StreamLimits) -> None:
        """Begin to send: everything in flight goes first, again."""
        self._limits = limits
        self._begin_anew()
        for lane in self._lanes.values():
            lane.window = limits.unacknowledged_batches
            self._list(lane)

    def stream_lost(self) -> list[Resolution]:
        """Stop sending: the stream broke, or ended."""
        self._limits = None
        self._begin_anew()
        return [done for lane in self._lanes.values() for done in lane.stream_lost()]

    def expired(self, now_s: float, why: str) -> list[Resolution]:
        """Give up what has passed its deadline."""
        resolutions: list[Resolution] = []
        for lane in self._lanes.values():
            given_up = lane.expired(now_s, why)
            if given_up:
                resolutions += given_up
                self._list(lane)
        return resolutions

    def release_held(self, now_s: float) -> None:
        """Let lanes whose delay is over take turns again."""
        for partition in [p for p in self._held if self._lanes[p].hold_until_s <= now_s]:
            self._list(self._lanes[partition])

    def next_hold_s(self) -> float | None:
        """When the next delay of a lane is over."""
        return min((self._lanes[p].hold_until_s for p in self._held), default=None)

    def next_deadline_s(self) -> float | None:
        """When the next batch gives up."""
        deadlines = (lane.next_deadline_s() for lane in self._lanes.values())
        return min((at for at in deadlines if at is not None), default=None)

    def abandon(self, error: RiverrunError) -> list[Resolution]:
        """Fail everything."""
        return [done for lane in self._lanes.values() for done in lane.abandon(error)]

    def _begin_anew(self) -> None:
        """Reckon with a broker that knows nothing of what was on the last stream."""
        self._ledger = TagLedger()
        self._failed.clear()
        self._alone.clear()
        self.stale = False

    def _list(self, lane: PartitionLane) -> None:
        self._held.discard(lane.partition)
        if lane.partition not in self._listed:
            self._listed.add(lane.partition)
            self._turns.append(lane)
