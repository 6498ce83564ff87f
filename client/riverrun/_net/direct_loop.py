"""Drives a member that reads from leaders itself: a stream for its membership, and an outlet for each leader.

Intuition: what it has, its group tells on the one stream; from there on each partition is read as a lone
consumer would, so that a record comes from its leader without another broker on its way.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence, Set
from dataclasses import replace
from typing import ClassVar, Final

from riverrun._core.partition_reader import PartitionReader
from riverrun._core.records import TopicPartition
from riverrun._net.channel import Connection
from riverrun._net.direct_stream import DirectStream
from riverrun._net.member_loop import MemberLoop
from riverrun._net.member_stream import MemberStream
from riverrun._net.subscribe_loop import SubscribeLoop
from riverrun._net.subscribe_stream import SubscribeStream
from riverrun.errors import RiverrunError

_NOWHERE: Final = -2
"""The home of partitions of which nobody is asked yet, and the key of the member's own stream."""

_log = logging.getLogger("riverrun")


class DirectLoop(MemberLoop):
    """As `MemberLoop`. Transitions of a partition: given -> looked for -> read from its leader -> let go."""

    _MEMBER_AT: ClassVar[int] = _NOWHERE
    _STREAM: ClassVar[type[MemberStream]] = DirectStream

    # What the group says.

    def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """Tell the application, and read them from their leaders."""
        for each in partitions:
            self._machine.readers[each].home = _NOWHERE
        super().assigned(partitions)
        unknown = {
            each.topic
            for each in partitions
            if self._cluster.leaders.partitions(each.topic) is None
        }
        if unknown:
            self._do(self._find(unknown, partitions), "find leaders")
        else:
            self._move(partitions)

    def revoking(self, partitions: Sequence[TopicPartition]) -> None:
        """Have nothing more of them sent, and give them up as any member does."""
        super().revoking(partitions)
        self._lose(self._known(partitions))

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        """Forget partitions, and have nothing more of them sent."""
        had = self._known(partitions)
        super().lost(partitions)
        self._lose(had)

    def _known(self, partitions: Iterable[TopicPartition]) -> list[PartitionReader]:
        readers = self._machine.readers
        return [reader for each in partitions if (reader := readers.get(each)) is not None]

    def _lose(self, readers: Iterable[PartitionReader]) -> None:
        for reader in readers:
            if reader.home in self._outlets:
                self._outlets[reader.home].lose(reader)

    # Who leads.

    async def _find(self, topics: Set[str], partitions: Sequence[TopicPartition]) -> None:
        """Find out who leads topics that are new here, and read partitions from there."""
        try:
            await self._cluster.ask(topics)
        except RiverrunError as error:
            # Any broker can be read from, also where none says who leads.
            _log.info("reading from whichever broker answers: %s", error)
        self._cluster.follow(topics)
        self._move(partitions)

    def _moved(self, partitions: Set[TopicPartition]) -> None:
        """Read from elsewhere what is led elsewhere by now; what is new, the group will give to somebody."""
        self._move(each.partition for each in self._known(partitions) if each.home != _NOWHERE)

    def _move(self, partitions: Iterable[TopicPartition]) -> None:
        wanted = [each.partition for each in self._known(partitions) if not each.retired]
        SubscribeLoop._move(self, wanted)  # noqa: SLF001

    # Streams.

    async def _run(self) -> None:
        self._cluster.listen(self._moved)
        try:
            # After an end, a seek may have begun something anew.
            for home in {reader.home for reader in self._machine.readers.values()} - {_NOWHERE}:
                self._outlet(home).gain()
            await super()._run()
        finally:
            self._cluster.ignore(self._moved)

    def _new_stream(self, broker_id: int, connection: Connection) -> SubscribeStream:
        if broker_id == _NOWHERE:
            return super()._new_stream(broker_id, connection)
        # Not as a member: what is read, the group has said.
        return self._reading_stream(broker_id, connection, replace(self._settings, topics=()))

    def _stream_ended(self) -> None:
        self.through()
