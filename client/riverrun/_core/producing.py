"""A producer without its streams: records come in, appends go out, answers settle them.

Drivers ask `next` what to send, tell what was answered, lost or is late, and after each call deliver
what `take_resolved` has. The buffer is counted here: what was accepted holds its bytes until it is resolved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Generic, TypeVar

from riverrun._core.accumulator import Accumulator, UnencodableError
from riverrun._core.dispatch import Append, Dispatcher, StreamLimits
from riverrun._core.encoding import Row
from riverrun._core.leader_map import ANY
from riverrun._core.outgoing import OutgoingBatch, Receipt, Resolution
from riverrun._core.outlets import Destination, Outlets, any_broker
from riverrun._core.partitioner import Route, RouteMaker, route_maker
from riverrun._core.producer_statistics import ProducerCounters
from riverrun._core.records import TopicPartition
from riverrun._core.sequences import PartitionLane
from riverrun.errors import Reason, RiverrunError, UsageError

R = TypeVar("R", bound=Receipt)

# While so many batches of a partition, or appends of the stream, wait for their answers, records
# gather in batches that are not full yet: a message costs 0.2 ms of two processes however small.
_LANE_BUSY = 2
_STREAM_BUSY = 8
# What is not answered by then waits for its own partition: others do not wait with it.
_STREAM_BUSY_S = 0.1

_NO_LIMIT = 1 << 62


class ProducerMachine(Generic[R]):
    """All that a producer knows between two calls of its driver.

    Args:
        new_lane: makes the lane of a partition.
        accumulator: gathers single records.
        buffer_bytes: how much may be accepted and not resolved.
        new_route: makes what chooses the partitions of a topic's records.
        destination: tells which broker a partition's batches go to.

    Attributes:
        counters: what it has done so far.
        buffered_bytes: accepted and not resolved.
    """

    def __init__(
        self,
        new_lane: Callable[[TopicPartition], PartitionLane],
        accumulator: Accumulator[R],
        buffer_bytes: int,
        new_route: RouteMaker | None = None,
        destination: Destination = any_broker,
    ) -> None:
        self._outlets = Outlets(new_lane, destination)
        self._accumulator = accumulator
        self._buffer_bytes = buffer_bytes
        self._new_route = new_route or route_maker("crc32")
        self._routes: dict[str, Route] = {}
        self._resolved: list[Resolution] = []
        self.counters = ProducerCounters()
        self.buffered_bytes = 0

    @property
    def idle(self) -> bool:
        """Whether everything accepted has been resolved."""
        return not self._accumulator and not any(lane.unresolved for lane in self._outlets.lanes())

    def has_room(self, size_bytes: int) -> bool:
        """Whether so much more may be accepted; an empty buffer takes anything."""
        return not self.buffered_bytes or self.buffered_bytes + size_bytes <= self._buffer_bytes

    def reserve(self, size_bytes: int) -> None:
        """Count what has been accepted."""
        self.buffered_bytes += size_bytes

    def release(self, size_bytes: int) -> None:
        """Give back what was reserved for records that never came into a batch."""
        self.buffered_bytes -= size_bytes
        assert self.buffered_bytes >= 0, "more was released than reserved"

    def learn_topic(self, topic: str, topic_id: bytes, partitions: int, first: int) -> None:
        """Reckon with what the cluster says of a topic; a topic made anew starts anew.

        Args:
            topic: its name.
            topic_id: its id.
            partitions: how many it has.
            first: where records without a key begin.
        """
        route = self._routes.get(topic)
        if route is None or route.partitions > partitions:
            self._routes[topic] = self._new_route(topic, partitions, first)
        else:
            route.grow(partitions)
        for partition in range(partitions):
            self._outlets.lane(TopicPartition(topic, partition)).topic_id = topic_id

    def forget_topic(self, topic: str) -> None:
        """Ask for the topic again before the next record for it."""
        self._routes.pop(topic, None)

    def route(self, topic: str) -> Route | None:
        """Return how the topic's records are spread; None where the topic is not known yet."""
        return self._routes.get(topic)

    def partition_for(self, topic: str, row: Row) -> TopicPartition:
        """Choose the partition for a record of a known topic.

        Raises:
            UsageError: the application's own partitioner failed, or chose none that there is.
        """
        return TopicPartition(topic, self._routes[topic].choose(row[0], row[1]))

    def append(
        self,
        partition: TopicPartition,
        row: Row,
        size_bytes: int,
        now_s: float,
        accepted_s: float | None = None,
    ) -> R:
        """Put one record, whose bytes are reserved and which was taken then, into its open batch."""
        if self._accumulator.is_full(partition, size_bytes, self.limit_bytes(partition)):
            self.seal(partition)
        return self._accumulator.append(partition, row, size_bytes, now_s, accepted_s)

    def submit(self, batch: OutgoingBatch) -> None:
        """Take a whole batch, whose bytes are reserved, behind all records of its partition."""
        self.seal(batch.partition)
        self._settle(self._outlets.submit(batch))

    def seal(self, partition: TopicPartition) -> None:
        """Close the partition's open batch, if there is one, so that it goes out next."""
        try:
            batch = self._accumulator.seal(partition)
        except UnencodableError as failure:
            # Its records fail, and nobody else's.
            text = f"the batch cannot be encoded, and was not sent: {failure}"
            error = UsageError(text, reason=Reason.INVALID_RECORD)
            self._settle([Resolution(failure.batch, None, error)])
            return
        if batch is None:
            return
        route = self._routes.get(partition.topic)
        if route is not None and route.partition() == partition.partition:
            route.move_on()
        self._settle(self._outlets.submit(batch))

    def seal_all(self) -> None:
        """Close all open batches."""
        for partition in self._accumulator.partitions():
            self.seal(partition)

    def take_resolved(self) -> list[Resolution]:
        """Return what has been resolved since the last call, in order."""
        resolved, self._resolved = self._resolved, []
        return resolved

    def take_news(self) -> list[RiverrunError]:
        """Return why partitions cannot be written, where a person has not been told yet."""
        return self._outlets.take_news()

    def limit_bytes(self, partition: TopicPartition) -> int:
        """Return how large a batch the partition takes, as far as that is known."""
        return self._outlets.lane(partition).largest_accepted_bytes or _NO_LIMIT

    @property
    def batches_in_flight(self) -> int:
        """How many batches wait for their answer."""
        return self._outlets.appends_in_flight

    def unresolved(self) -> list[OutgoingBatch]:
        """Return all batches on their way; open ones are not among them."""
        return [batch for lane in self._outlets.lanes() for batch in lane.batches()]

    # One broker's stream.

    def where(self, partition: TopicPartition) -> int:
        """Return the broker that a partition's batches go to, or ANY."""
        return self._outlets.where(partition)

    def brokers(self) -> list[int]:
        """Return the brokers that batches go to, or have gone to."""
        return self._outlets.brokers()

    def used(self, broker_id: int) -> bool:
        """Whether any partition's batches go to that broker."""
        return any(True for _ in self._outlets.outlet(broker_id).lanes())

    def idle_at(self, broker_id: int) -> bool:
        """Whether there is nothing accepted and unresolved that goes to that broker."""
        outlet = self._outlets.outlet(broker_id)
        if any(lane.unresolved for lane in outlet.lanes()):
            return False
        return not any(partition in outlet for partition in self._accumulator.partitions())

    def spent(self, broker_id: int) -> bool:
        """Whether the stream to that broker is of no use any more, and another one is needed."""
        return self._outlets.outlet(broker_id).spent

    def next(self, now_s: float, broker_id: int = ANY) -> Append | None:
        """Return the next append to send to a broker, if there is something and room for it."""
        outlet = self._outlets.outlet(broker_id)
        if not outlet.connected or outlet.stale:
            return None
        outlet.release_held(now_s)
        append = outlet.next(now_s)
        while append is None and now_s >= _busy_until_s(outlet):
            partition = self._accumulator.due(now_s, partial(_has_turn, outlet))
            if partition is None:
                break
            # Where the producer is fenced off, this resolves the batch instead of sending it.
            self.seal(partition)
            append = outlet.next(now_s)
        if append is not None:
            self.counters.sent(append.batch, now_s)
        return append

    def next_wakeup_s(self, now_s: float, broker_id: int = ANY) -> float | None:
        """When `next` may have something although nothing else happens."""
        outlet = self._outlets.outlet(broker_id)
        lingered_s = self._accumulator.next_linger_s(outlet, now_s)
        moments = (outlet.next_hold_s(), lingered_s, _busy_until_s(outlet))
        return min((at for at in moments if at is not None and at > now_s), default=None)

    def stream_started(self, limits: StreamLimits, broker_id: int = ANY) -> None:
        """Begin to send on a new stream."""
        self._outlets.outlet(broker_id).stream_started(limits)

    def stream_lost(self, broker_id: int = ANY) -> None:
        """Reckon with a stream that broke, or ended."""
        self._settle(self._outlets.outlet(broker_id).stream_lost())

    def acked(
        self, first_tag: int, base_offsets: Iterable[int], now_s: float, broker_id: int = ANY
    ) -> None:
        """Take a run of answers that are all well.

        Raises:
            FatalError: nothing waits under such a tag.
        """
        outlet = self._outlets.outlet(broker_id)
        for tag, base_offset in enumerate(base_offsets, first_tag):
            self._settle(outlet.answered(tag, base_offset, None, now_s), now_s)

    def answered(
        self,
        tag: int,
        base_offset: int | None,
        error: RiverrunError | None,
        now_s: float,
        broker_id: int = ANY,
    ) -> None:
        """Take one answer.

        Raises:
            FatalError: nothing waits under this tag.
        """
        outlet = self._outlets.outlet(broker_id)
        self._settle(outlet.answered(tag, base_offset, error, now_s), now_s)

    # Another broker leads.

    @property
    def leaving(self) -> bool:
        """Whether partitions wait for their last answers before they go to another broker."""
        return self._outlets.leaving

    def reroute(self, partitions: Iterable[TopicPartition], now_s: float) -> set[int]:
        """Look where partitions go by now; return the brokers that get more to do by that.

        Args:
            partitions: whose destination has changed.
            now_s: the time.
        """
        return self._outlets.reroute(partitions, now_s)

    def moved(self, now_s: float) -> set[int]:
        """Let go to another broker what was waiting for its last answers; return who gets it."""
        return self._outlets.settle(now_s)

    def give_up_answers(self, before_s: float) -> None:
        """Wait no longer for answers of brokers that were to be left before then."""
        self._settle(self._outlets.give_up_answers(before_s))

    # The end.

    def next_deadline_s(self) -> float | None:
        """When something gives up."""
        moments = (self._outlets.next_deadline_s(), self._accumulator.next_deadline_s())
        return min((at for at in moments if at is not None), default=None)

    def expire(self, now_s: float, why: str) -> None:
        """Give up what has passed its deadline; `why` ends the errors' text."""
        for partition in self._accumulator.overdue(now_s):
            self.seal(partition)
        self._settle(self._outlets.expired(now_s, why))

    def abandon(self, error: RiverrunError) -> None:
        """Fail everything: the producer ends."""
        self.seal_all()
        self._settle(self._outlets.abandon(error))

    def _settle(self, resolutions: list[Resolution], now_s: float | None = None) -> None:
        for resolution in resolutions:
            self.release(resolution.batch.reserved_bytes)
            self.counters.settled(resolution, now_s)
        self._resolved += resolutions


def _busy_until_s(outlet: Dispatcher) -> float:
    """Return until when records gather because of what is under way on a stream."""
    return outlet.sent_s + _STREAM_BUSY_S if outlet.appends_ahead >= _STREAM_BUSY else 0.0


def _has_turn(outlet: Dispatcher, partition: TopicPartition) -> bool:
    return partition in outlet and outlet.lane(partition).unresolved < _LANE_BUSY
