"""What a group gives a stream and takes away: what its reader is told, and when it is sent something."""

import pytest

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.log.batch import PartitionId, StoredBatch
from riverrun_server.core.reading import assignment as assignment_module
from riverrun_server.core.reading.assignment import Applied, Assignment, Given
from riverrun_server.core.reading.events import (
    Assigned,
    AssignedPartition,
    CaughtUp,
    Lost,
    MemberPartition,
    PartitionFailed,
    Revoking,
    Run,
)
from riverrun_server.core.reading.places import Position
from riverrun_server.core.reading.subscription import End, Subscription, SubscriptionSettings

A, B, C = (PartitionId(b"t" * 16, number) for number in range(3))
NO_LEADER = Refusal(Reason.LEADER_NOT_AVAILABLE, "nobody leads it")


def at(partition, offset, high_watermark=100):
    return Position("t", partition, offset, high_watermark, 0)


def named(*partitions):
    return [MemberPartition("t", each) for each in partitions]


class Stream:
    """A member's subscription and its assignment."""

    def __init__(self, **settings):
        settings = {"frame_bytes": 10_000, "is_member": True, **settings}
        self.machine = Subscription(SubscriptionSettings(**settings))
        self.assignment = Assignment(self.machine)

    def give(self, epoch, *places):
        """Give partitions whose places are known at once."""
        for place in places:
            given = Given("t", place.id, epoch)
            self.assignment.given(epoch, [given])
            self.assignment.placed(given, place)

    def told(self):
        events, self.machine.events = list(self.machine.events), type(self.machine.events)()
        return events

    def offer(self, partition, end=100):
        first = self.machine.partitions[partition].offset
        batches = [
            StoredBatch(offset, offset + 10, 1, b"x" * 100) for offset in range(first, end, 10)
        ]
        self.machine.offered(partition, Run(batches, end, 100, 0))

    def deliver(self):
        delivery = self.machine.cut()
        self.machine.delivered(delivery)
        return delivery.id, delivery.first_offset, delivery.next_offset


def test_what_is_given_is_told_with_its_epochs_and_its_place_before_anything_of_it():
    stream = Stream()
    stream.assignment.given(7, [given := Given("t", A, 5)])
    assert stream.assignment.apply() == Applied([], [], [])
    assert (stream.told(), stream.machine.turn()) == ([], None)
    stream.assignment.placed(given, at(A, 20))
    assert stream.assignment.apply() == Applied([], [], [(A, at(A, 20))])
    assert stream.told() == [Assigned(7, [AssignedPartition("t", A, 5, at(A, 20))])]
    assert stream.machine.turn() == A


def test_nothing_is_delivered_behind_a_revocation_and_the_open_run_goes():
    stream = Stream(frame_bytes=100)
    stream.give(1, at(A, 0), at(B, 0))
    stream.assignment.apply()
    stream.offer(A)
    assert stream.deliver() == (A, 0, 10)
    stream.told()
    assert stream.assignment.revoked(2, [A]) == []
    assert stream.assignment.apply() == Applied([A], [], [])
    assert stream.told() == [Revoking(2, named(A))]
    assert not stream.machine.has_run
    assert stream.machine.turn() == B
    stream.machine.woke(A)
    stream.machine.paused([B])
    assert stream.machine.turn() is None


def test_a_delivery_that_is_being_written_is_finished_first():
    stream = Stream(frame_bytes=100)
    stream.give(1, at(A, 0))
    stream.assignment.apply()
    stream.offer(A)
    delivery = stream.machine.cut()
    stream.assignment.revoked(2, [A])
    stream.machine.delivered(delivery)
    stream.assignment.apply()
    assert stream.machine.partitions[A].offset == 10
    assert stream.machine.turn() is None


def test_an_acknowledged_partition_is_forgotten_without_a_word():
    stream = Stream()
    stream.give(1, at(A, 0))
    stream.assignment.apply()
    stream.told()
    for _ in range(2):  # whoever says it twice is heard once
        assert stream.assignment.revoked(2, [A]) == []
        stream.assignment.apply()
    assert stream.told() == [Revoking(2, named(A))]
    stream.assignment.released([A])
    assert stream.assignment.apply() == Applied([], [A], [])
    assert (stream.told(), stream.machine.partitions) == ([], {})


def test_a_partition_that_comes_back_can_be_revoked_again():
    stream = Stream()
    for epoch in (1, 3):
        stream.give(epoch, at(A, 0))
        stream.assignment.apply()
        assert stream.assignment.revoked(epoch + 1, [A]) == []
        stream.assignment.apply()
        stream.assignment.released([A])
    assert [type(event) for event in stream.told()] == [Assigned, Revoking] * 2


def test_a_partition_that_comes_back_begins_anew_and_flows():
    stream = Stream(frame_bytes=100)
    stream.give(1, at(A, 0))
    stream.assignment.apply()
    stream.offer(A)
    stream.deliver()
    stream.machine.paused([A])
    stream.told()
    stream.assignment.lost(2, [A])
    stream.give(3, at(A, 70))
    assert stream.assignment.apply() == Applied([], [A], [(A, at(A, 70))])
    assert stream.told() == [
        Lost(3, named(A)),
        Assigned(3, [AssignedPartition("t", A, 3, at(A, 70))]),
    ]
    assert stream.machine.turn() == A
    stream.offer(A)
    assert stream.deliver() == (A, 70, 80)


def test_what_the_reader_never_heard_of_need_not_be_acknowledged():
    stream = Stream()
    stream.assignment.given(1, [given := Given("t", A, 1)])
    assert stream.assignment.revoked(2, [A, B]) == [A, B]
    stream.assignment.placed(given, at(A, 0))
    stream.give(3, at(C, 0))
    stream.assignment.lost(4, [C])
    assert stream.assignment.apply() == Applied([], [], [])
    assert (stream.told(), stream.machine.partitions) == ([], {})


def test_a_loss_takes_the_place_of_a_revocation_that_was_not_told():
    stream = Stream()
    stream.give(1, at(A, 0))
    stream.assignment.apply()
    stream.told()
    stream.assignment.revoked(2, [A])
    stream.assignment.lost(3, [A])
    assert stream.assignment.apply() == Applied([], [A], [])
    assert stream.told() == [Lost(3, named(A))]


def test_a_release_nobody_was_told_to_ask_for_comes_behind_its_revocation():
    """As for a reader that has half-closed, whose broker acknowledges for it."""
    stream = Stream()
    stream.give(1, at(A, 0))
    stream.assignment.apply()
    stream.told()
    stream.assignment.revoked(2, [A])
    stream.assignment.released([A])
    stream.give(3, at(A, 5))
    assert stream.assignment.revoked(4, [A]) == [A]
    stream.give(5, at(A, 6))
    assert stream.assignment.apply() == Applied([A], [A], [(A, at(A, 6))])
    assert stream.told() == [
        Revoking(5, named(A)),
        Assigned(5, [AssignedPartition("t", A, 5, at(A, 6))]),
    ]


def test_the_place_of_an_earlier_assignment_is_not_that_of_a_later_one():
    stream = Stream()
    stream.assignment.given(1, [early := Given("t", A, 1)])
    stream.assignment.lost(2, [A])
    stream.assignment.given(3, [late := Given("t", A, 3)])
    stream.assignment.placed(early, at(A, 0))
    stream.assignment.apply()
    assert stream.told() == []
    stream.assignment.placed(late, at(A, 50))
    stream.assignment.apply()
    assert stream.machine.partitions[A].offset == 50


def test_epochs_never_go_back_though_a_place_takes_long():
    stream = Stream()
    stream.give(1, at(A, 0, 0))
    stream.assignment.given(2, [slow := Given("t", B, 2)])
    stream.assignment.apply()
    stream.told()
    stream.assignment.revoked(3, [A])
    stream.assignment.apply()
    stream.assignment.placed(slow, at(B, 0))
    stream.assignment.apply()
    stream.assignment.lost(2, [A])
    stream.assignment.apply()
    assert [event.epoch for event in stream.told()] == [3, 3, 3]


def test_a_partition_whose_place_is_not_found_is_assigned_fails_and_can_be_sought():
    stream = Stream()
    stream.assignment.given(1, [given := Given("t", A, 1)])
    stream.assignment.placed(given, NO_LEADER)
    stream.assignment.apply()
    assert stream.told() == [
        Assigned(1, [AssignedPartition("t", A, 1, None)]),
        PartitionFailed("t", *A, NO_LEADER),
    ]
    assert stream.machine.turn() is None
    stream.machine.sought(1, at(A, 5))
    assert stream.machine.turn() == A


def test_a_revoked_partition_is_never_caught_up():
    stream = Stream()
    stream.give(1, at(A, 100), at(B, 0))
    stream.assignment.apply()
    assert [type(event) for event in stream.told()] == [Assigned, CaughtUp]
    stream.assignment.revoked(2, [B])
    stream.assignment.apply()
    stream.told()
    stream.machine.partitions[B].offset = 100
    stream.machine.resumed([B])
    assert stream.told() == []


def test_many_partitions_are_told_in_parts(monkeypatch):
    monkeypatch.setattr(assignment_module, "PARTITIONS_PER_EVENT", 2)
    stream = Stream()
    stream.give(1, at(A, 0), at(B, 0), at(C, 0))
    stream.assignment.apply()
    assert [len(event.partitions) for event in stream.told()] == [2, 1]
    stream.assignment.lost(2, [A, B, C])
    stream.assignment.apply()
    assert [event.partitions for event in stream.told()] == [named(A, B), named(C)]


def test_a_fenced_stream_delivers_nothing_and_goes_on_where_it_was():
    stream = Stream(frame_bytes=100)
    stream.give(1, at(A, 0), at(B, 0))
    stream.assignment.apply()
    stream.offer(A)
    stream.deliver()
    stream.machine.fenced()
    assert stream.machine.turn() is None
    with pytest.raises(AssertionError):
        stream.machine.cut()
    stream.machine.unfenced()
    assert stream.machine.turn() == A
    assert stream.deliver() == (A, 10, 20)


def test_a_delivery_that_is_being_written_while_the_stream_is_fenced_counts():
    stream = Stream(frame_bytes=100)
    stream.give(1, at(A, 0))
    stream.assignment.apply()
    stream.offer(A)
    delivery = stream.machine.cut()
    stream.machine.fenced()
    stream.machine.delivered(delivery)
    assert stream.machine.partitions[A].offset == 10


def test_a_member_without_partitions_waits_for_some():
    stream = Stream(stop_at_end=True)
    stream.machine.half_closed()
    assert stream.machine.end() is None
    stream.give(1, at(A, 0, 0))
    stream.assignment.apply()
    assert stream.machine.end() == End()
    stream.assignment.lost(2, [A])
    stream.assignment.apply()
    assert stream.machine.end() is None


def test_a_member_that_nobody_can_control_ends_when_all_that_it_has_has_failed():
    """So that its group gives them to somebody who may do better."""
    stream = Stream()
    stream.give(1, at(A, 0))
    stream.assignment.apply()
    stream.machine.half_closed()
    assert stream.machine.end() is None
    stream.machine.stopped(A, NO_LEADER)
    assert stream.machine.end() == End(NO_LEADER)


def test_a_stream_that_is_no_members_ends_without_partitions():
    assert Subscription(SubscriptionSettings(frame_bytes=1)).end() == End()


def test_debts_of_an_assignment_that_is_gone_are_not_paid_by_the_next():
    stream = Stream(frame_bytes=100)
    stream.give(1, at(A, 0))
    stream.assignment.apply()
    for _ in range(2):
        stream.offer(A, 50)
        while stream.machine.has_run:
            stream.deliver()
        stream.machine.sought(1, at(A, 0))
    stream.machine.idle(A)
    stream.assignment.lost(2, [A])
    stream.give(3, at(A, 0), at(B, 0))
    stream.assignment.apply()
    assert stream.machine.turn() == A


def test_bounds_that_come_late_are_those_of_nobody():
    stream = Stream()
    stream.machine.observed(A, 50, 0)
    stream.machine.woke(A)
    assert stream.machine.turn() is None
