"""What the reader of a member's stream knows: everything is checked against what it was told before."""

from __future__ import annotations

from riverrun_server.core.errors import Reason
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.reading.events import (
    Assigned,
    CaughtUp,
    Lost,
    PartitionFailed,
    Revoking,
    SeekDone,
)


class ToldReader:
    """The reader's side of one stream.

    Attributes:
        next: what comes next of each partition that it has; None where nobody could say.
        revoking: what it is asked to give up, and what it has given up and not been given anew.
        paused: what it has asked not to be sent.
        failed: what has failed and was not sought since.
        epoch: the last one that it was told.
    """

    def __init__(self):
        self.next = {}
        self.revoking = set()
        self.paused = set()
        self.failed = set()
        self.epoch = 0

    @property
    def mine(self):
        """The partitions that it may still be sent something of."""
        return self.next.keys() - self.revoking

    def hear(self, event):
        match event:
            case Assigned(epoch, partitions):
                self.reach(epoch)
                for each in partitions:
                    assert each.assignment_epoch <= epoch
                    # What it has not finished with cannot be given anew.
                    assert each.id not in self.next or each.id in self.revoking
                    self.drop(each.id)
                    self.next[each.id] = each.position and each.position.offset
            case Revoking(epoch, partitions):
                self.reach(epoch)
                for each in partitions:
                    assert each.id in self.next
                    assert each.id not in self.revoking
                    self.revoking.add(each.id)
            case Lost(epoch, partitions):
                self.reach(epoch)
                for each in partitions:
                    assert each.id in self.next
                    self.drop(each.id)
            case SeekDone(_, position):
                self.check_mine(position.id)
                self.next[position.id] = position.offset
                self.failed.discard(position.id)
            case CaughtUp(position):
                self.check_mine(position.id)
                assert position.offset == self.next[position.id]
            case PartitionFailed() if event.refusal.reason is Reason.PARTITION_NOT_ASSIGNED:
                pass  # it has named what it does not have
            case PartitionFailed():
                failed = PartitionId(event.topic_id, event.partition)
                self.check_mine(failed)
                self.failed.add(failed)
            case _:
                raise AssertionError(event)

    def receive(self, delivery):
        """Each record at most once an assignment, in order, none behind its revocation."""
        self.check_mine(delivery.id)
        assert delivery.id not in self.paused | self.failed
        assert delivery.first_offset == self.next[delivery.id]
        assert delivery.first_offset < delivery.next_offset
        self.next[delivery.id] = delivery.next_offset

    def check_mine(self, each):
        assert each in self.mine

    def reach(self, epoch):
        assert epoch >= self.epoch
        self.epoch = epoch

    def drop(self, each):
        self.next.pop(each, None)
        for kept in (self.revoking, self.paused, self.failed):
            kept.discard(each)

    def flows(self, each):
        """Return whether something may come of a partition."""
        return (
            self.next.get(each) is not None
            and each not in self.revoking | self.paused | self.failed
        )
