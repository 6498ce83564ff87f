"""What a member's group gives it and takes away, brought to the stream that reads for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from riverrun_server.core.errors import Refusal
from riverrun_server.core.gateway.membership import Change, Given, Lost, Revoking
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.reading import events
from riverrun_server.core.reading.places import Place
from riverrun_server.ports.partitions import Directory
from riverrun_server.runtime.assigned_partitions import AssignedPartitions, NewPartition

# The coordinator may know of a topic, or of a partition, before this broker does.
_LOOK_AGAIN_S: Final = 0.1


class MemberPartitions:
    """The partitions of one member.

    Transitions of a partition: given -> read, once this broker knows it -> revoking -> released, or lost.
    One that was to be given up before this stream began, or before it is known where it begins, is told, and
    not read: the member may still work on what an earlier stream has delivered of it.

    Args:
        assigned: the side of the stream that changes.
        tell: tells the member.
        directory: finds partitions.
        place: where to begin in each.
        acknowledge: is told what nobody has to give up any more, and the epoch.
    """

    def __init__(
        self,
        assigned: AssignedPartitions,
        tell: Callable[[events.Event], None],
        directory: Directory,
        place: Place,
        acknowledge: Callable[[Collection[PartitionId], int], None],
    ) -> None:
        self._assigned = assigned
        self._tell = tell
        self._directory = directory
        self._place = place
        self._acknowledge = acknowledge
        # Given, and not known to this broker yet; with the epochs.
        self._unknown: dict[PartitionId, int] = {}
        # Told as coming, which is all that the stream has said of them.
        self._announced: dict[PartitionId, str] = {}
        # To be given up, and not read.
        self._unread: dict[PartitionId, str] = {}
        self._again: asyncio.TimerHandle | None = None
        self._epoch = 0

    def begin(self, epoch: int, changes: Sequence[Change]) -> None:
        """Tell the member everything that it has, and read what it reads."""
        self._epoch = epoch
        given: dict[PartitionId, int] = {}
        for change in changes:
            if isinstance(change, Given):
                given.update(change.partitions)
            elif isinstance(change, Revoking):
                names = {each: self._name(each) for each in sorted(change.partitions)}
                self._unread.update(names)
        before = _named(self._unread)
        found = self._found(given)
        self._announced = {each.access.id: each.access.topic for each in found}
        self._assigned.begin(epoch, found, before)
        if before:
            self._tell(events.Revoking(epoch, before))

    def give(self, change: Given) -> None:
        """Read partitions."""
        self._epoch = change.epoch
        self._assigned.give(change.epoch, self._found(change.partitions))

    def revoke(self, change: Revoking) -> None:
        """Read nothing more of partitions, and ask the member to give them up."""
        self._epoch = change.epoch
        # In order: what a member is told is the same in each run.
        partitions = sorted(change.partitions)
        unknown = [each for each in partitions if self._unknown.pop(each, None) is not None]
        known = [each for each in partitions if each not in unknown]
        unread = self._assigned.revoke(change.epoch, known)
        announced = self._called_off(unread)
        if announced:
            self._unread.update(announced)
            self._tell(events.Revoking(change.epoch, _named(announced)))
        unheard = [*unknown, *(each for each in unread if each not in announced)]
        if unheard:
            self._acknowledge(unheard, change.epoch)

    def lose(self, change: Lost) -> None:
        """Forget partitions, and tell the member."""
        self._epoch = change.epoch
        partitions = sorted(change.partitions)
        for each in partitions:
            self._unknown.pop(each, None)
        lost = {
            each: name for each in partitions if (name := self._unread.pop(each, None)) is not None
        }
        lost |= self._called_off(self._assigned.lose(change.epoch, partitions))
        for each in partitions:
            self._announced.pop(each, None)
        if lost:
            self._tell(events.Lost(change.epoch, _named(lost)))

    def release(self, partitions: Collection[PartitionId]) -> None:
        """Forget partitions that the member has given up."""
        for each in partitions:
            self._unread.pop(each, None)
            self._announced.pop(each, None)
        self._assigned.release(partitions)

    def close(self) -> None:
        """Look for nothing any more."""
        if self._again is not None:
            self._again.cancel()

    def _found(self, partitions: Mapping[PartitionId, int]) -> list[NewPartition]:
        """Return those that this broker knows; it looks for the others again."""
        found = []
        for partition, assignment_epoch in partitions.items():
            try:
                access = self._directory.partition("", partition.topic_id, partition.partition)
            except Refusal:
                self._unknown[partition] = assignment_epoch
            else:
                found.append(NewPartition(access, self._place, assignment_epoch))
        if self._unknown and self._again is None:
            loop = asyncio.get_running_loop()
            self._again = loop.call_later(_LOOK_AGAIN_S, self._look_again)
        return found

    def _look_again(self) -> None:
        self._again = None
        unknown, self._unknown = self._unknown, {}
        if found := self._found(unknown):
            self._assigned.give(self._epoch, found)

    def _called_off(self, unread: Collection[PartitionId]) -> dict[PartitionId, str]:
        """Return those of some partitions of which the member knows, with their names; it reads none of them."""
        return {each: self._announced.pop(each) for each in unread if each in self._announced}

    def _name(self, partition: PartitionId) -> str:
        try:
            return self._directory.partition("", partition.topic_id, partition.partition).topic
        except Refusal:
            return ""


def _named(partitions: Mapping[PartitionId, str]) -> list[events.MemberPartition]:
    return [events.MemberPartition(name, each) for each, name in partitions.items()]
