"""What a consumer that commits by itself has to commit: afterwards what was finished, or before it is given.

Intuition: *at least once* commits behind the application, so that a crash repeats; what is in its hands
does not count. *At most once* commits ahead of it: the batches that come next are committed and only
then released, so that a crash loses what was released and not yet given, and repeats nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Generic, NamedTuple, TypeAlias, TypeVar

from riverrun._core.batch_view import WireBatch
from riverrun._core.read_ahead import ReadAhead, Upcoming
from riverrun._core.records import CommittedOffset, TopicPartition

B = TypeVar("B", bound=WireBatch)

Positions: TypeAlias = Mapping[TopicPartition, CommittedOffset]
"""How far a group has come, by partition."""

RELEASE_RECORDS = 500
"""How many records are committed ahead at least, where so many have come: what one `poll` of Kafka's
consumer returns. One batch is committed whole, however many it has."""


class Ledger:
    """What has been stored for a group, so that nothing is stored twice."""

    def __init__(self) -> None:
        self._stored: dict[TopicPartition, CommittedOffset] = {}

    def due(self, positions: Positions) -> dict[TopicPartition, CommittedOffset]:
        """Return those of the positions that are not what is stored; some may lie before that."""
        return {p: at for p, at in positions.items() if self._stored.get(p) != at}

    def sending(self, positions: Iterable[TopicPartition]) -> None:
        """Forget what is stored there: until the answer has come, nobody knows."""
        for partition in positions:
            self._stored.pop(partition, None)

    def stored(self, positions: Positions) -> None:
        """Note what has been stored."""
        self._stored.update(positions)


class Front(NamedTuple, Generic[B]):
    """The batches to be released next, and the positions to be committed before that."""

    batches: list[Upcoming[B]]
    positions: dict[TopicPartition, CommittedOffset]


def front_of(ahead: ReadAhead[B], records: int = RELEASE_RECORDS) -> Front[B]:
    """Return batches until they have so many records; at least one, where there is one."""
    front: Front[B] = Front([], {})
    for upcoming in ahead.upcoming():
        front.batches.append(upcoming)
        # Of a topic that is gone nothing can be committed, and nothing can come twice.
        if not upcoming.reader.gone:
            front.positions[upcoming.reader.partition] = _place(upcoming)
        records -= upcoming.batch.record_count
        if records <= 0:
            break
    return front


def with_released(positions: Positions, ahead: ReadAhead[B]) -> Positions:
    """Return the positions of *at most once*: behind what may be given without another commit."""
    places = dict(positions)
    for upcoming in ahead.released():
        partition, place = upcoming.reader.partition, _place(upcoming)
        if partition in places and places[partition].offset < place.offset:
            places[partition] = place
    return places


class Floors:
    """What the application has committed itself: commits of the consumer's own do not go back behind it.

    A floor holds until the positions have passed it, another one takes its place, or the application
    goes elsewhere.
    """

    def __init__(self) -> None:
        self._floors: dict[TopicPartition, CommittedOffset] = {}

    def stored(self, positions: Positions) -> None:
        """Note what the application has committed."""
        self._floors.update(positions)

    def forget(self, partition: TopicPartition) -> None:
        """Note that reading goes on elsewhere."""
        self._floors.pop(partition, None)

    def under(self, positions: Positions) -> Positions:
        """Return the positions, none of them behind its floor; what lies above its own has done with it."""
        for partition, at in positions.items():
            if partition in self._floors and at.offset > self._floors[partition].offset:
                del self._floors[partition]
        return {partition: self._floors.get(partition, at) for partition, at in positions.items()}


def _place(upcoming: Upcoming[B]) -> CommittedOffset:
    return CommittedOffset(upcoming.end, leader_epoch=upcoming.batch.leader_epoch)
