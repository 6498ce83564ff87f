"""Which broker each partition's batches go to, and how a partition moves from one to another.

Intuition: a lane keeps its batches and their order, whoever leads; only the stream that they go out
on is another one. Nothing is sent on the new stream before everything on the old one is answered, or
is known to be answered no more: then it may have been written, and goes first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from riverrun._core.dispatch import Dispatcher, Troubles
from riverrun._core.leader_map import ANY
from riverrun._core.outgoing import OutgoingBatch, Resolution
from riverrun._core.records import TopicPartition
from riverrun._core.sequences import PartitionLane
from riverrun.errors import RiverrunError

Destination = Callable[[TopicPartition], int]
"""Tells which broker, by its id, leads a partition and can be reached; or ANY."""


def any_broker(_: TopicPartition) -> int:
    """Send everything to whichever broker answers."""
    return ANY


class Outlets:
    """All lanes of a producer, each at the outlet of the broker that its batches go to.

    A lane is at one outlet. Transitions: there -> leaving (its destination is another one and
    appends wait for their answers) -> elsewhere; there -> elsewhere, where none do; leaving ->
    there, where its destination is this one again.

    Args:
        new_lane: makes the lane of a partition.
        destination: tells where a partition's batches go.

    Attributes:
        moves: how many times a lane has gone from one outlet to another.
    """

    def __init__(
        self,
        new_lane: Callable[[TopicPartition], PartitionLane],
        destination: Destination = any_broker,
    ) -> None:
        self._new_lane = new_lane
        self._destination = destination
        self._troubles = Troubles()
        self._lanes: dict[TopicPartition, PartitionLane] = {}
        self._outlets: dict[int, Dispatcher] = {}
        self._at: dict[TopicPartition, int] = {}
        self._leaving: dict[TopicPartition, float] = {}
        self.moves = 0

    @property
    def leaving(self) -> bool:
        """Whether lanes wait for their last answers before they move."""
        return bool(self._leaving)

    @property
    def appends_in_flight(self) -> int:
        """How many appends wait for their answer."""
        return sum(outlet.appends_in_flight for outlet in self._outlets.values())

    def brokers(self) -> list[int]:
        """Return whose outlets there are."""
        return [*self._outlets]

    def outlet(self, broker_id: int) -> Dispatcher:
        """Return what goes to one broker."""
        outlet = self._outlets.get(broker_id)
        if outlet is None:
            outlet = self._outlets[broker_id] = Dispatcher(self.lane, self._troubles)
        return outlet

    def lanes(self) -> Iterable[PartitionLane]:
        """Iterate over all lanes."""
        return self._lanes.values()

    def lane(self, partition: TopicPartition) -> PartitionLane:
        """Return the lane of a partition."""
        lane = self._lanes.get(partition)
        if lane is None:
            lane = self._lanes[partition] = self._new_lane(partition)
            at = self._at[partition] = self._destination(partition)
            self.outlet(at).adopt(lane)
        return lane

    def where(self, partition: TopicPartition) -> int:
        """Return which broker's outlet a partition is at."""
        at = self._at.get(partition)
        if at is None:
            self.lane(partition)
            at = self._at[partition]
        return at

    def submit(self, batch: OutgoingBatch) -> list[Resolution]:
        """Take a batch to be sent behind all others of its partition."""
        return self.outlet(self.where(batch.partition)).submit(batch)

    def reroute(self, partitions: Iterable[TopicPartition], now_s: float) -> set[int]:
        """Look where partitions go by now; return the outlets that have got one.

        Args:
            partitions: whose destination may have changed.
            now_s: the time.
        """
        reached: set[int] = set()
        for partition in partitions:
            lane = self._lanes.get(partition)
            if lane is None:
                continue
            to, at = self._destination(partition), self._at[partition]
            if to == at:
                self._stay(lane, at)
            elif lane.unanswered:
                lane.leaving = True
                self._leaving.setdefault(partition, now_s)
            else:
                self._move(lane, at, to, now_s)
            reached.add(to)
        return reached

    def settle(self, now_s: float) -> set[int]:
        """Move lanes that were waiting for their last answers; return the outlets that got one."""
        return self.reroute([p for p in self._leaving if not self._lanes[p].unanswered], now_s)

    def give_up_answers(self, before_s: float) -> list[Resolution]:
        """Wait no longer for answers on streams that lanes have been leaving since before then.

        Only of lanes whose sequences let them be sent again without being written twice.
        """
        resolutions: list[Resolution] = []
        for partition, since_s in self._leaving.items():
            lane = self._lanes[partition]
            if since_s <= before_s and lane.idempotent and lane.unanswered:
                resolutions += self._outlets[self._at[partition]].give_up_answers(lane)
        return resolutions

    def expired(self, now_s: float, why: str) -> list[Resolution]:
        """Give up what has passed its deadline."""
        return [done for each in self._outlets.values() for done in each.expired(now_s, why)]

    def next_deadline_s(self) -> float | None:
        """When the next batch gives up."""
        deadlines = (outlet.next_deadline_s() for outlet in self._outlets.values())
        return min((at for at in deadlines if at is not None), default=None)

    def abandon(self, error: RiverrunError) -> list[Resolution]:
        """Fail everything."""
        return [done for outlet in self._outlets.values() for done in outlet.abandon(error)]

    def take_news(self) -> list[RiverrunError]:
        """Return why partitions cannot be written, where a person has not been told yet."""
        return self._troubles.take_news()

    def _stay(self, lane: PartitionLane, at: int) -> None:
        if self._leaving.pop(lane.partition, None) is not None:
            lane.leaving = False
            self._outlets[at].go_on(lane)

    def _move(self, lane: PartitionLane, at: int, to: int, now_s: float) -> None:
        self._leaving.pop(lane.partition, None)
        self._outlets[at].release(lane)
        lane.moved(now_s)
        self._at[lane.partition] = to
        self.outlet(to).adopt(lane)
        self.moves += 1
