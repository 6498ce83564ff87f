"""A member at its gateway: it is told differences, in order, and is sent something only under a lease."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverrun_server.core.gateway.membership import (
    Given,
    Lost,
    Membership,
    Revoking,
)
from riverrun_server.core.groups.group_views import MemberView
from riverrun_server.core.log.batch import PartitionId

A, B, C = (PartitionId(b"t" * 16, number) for number in range(3))


@pytest.fixture
def member():
    return Membership(10.0, now=100.0)


def told(member, epoch, owned=(), revoking=()):
    """Tell what it has, and return what it is told."""
    member.told(MemberView(epoch, dict(owned), dict(revoking)))
    changes = list(member.changes)
    member.changes.clear()
    return changes


def test_what_is_new_is_given_and_what_stays_is_not_mentioned(member):
    assert told(member, 1, {A: 1, B: 1}) == [Given(1, {A: 1, B: 1})]
    assert told(member, 2, {A: 1, B: 1, C: 2}) == [Given(2, {C: 2})]
    assert told(member, 2, {A: 1, B: 1, C: 2}) == []


def test_a_revoked_partition_is_given_up_once_and_gone_once_that_is_acknowledged(member):
    told(member, 1, {A: 1, B: 1})
    assert told(member, 2, {A: 1}, {B: 1}) == [Revoking(2, frozenset({B}))]
    assert told(member, 2, {A: 1}, {B: 1}) == []
    assert member.unacknowledged == {B}
    assert member.acknowledged([B], 2) == {B: 1}
    # Until the coordinator is seen to know, it has to be told again after it has moved.
    assert told(member, 2, {A: 1}, {B: 1}) == []
    assert member.to_acknowledge() == {B: 1}
    assert told(member, 3, {A: 1}) == []
    assert member.to_acknowledge() == {}


def test_what_is_gone_without_being_revoked_is_lost(member):
    told(member, 1, {A: 1, B: 1})
    told(member, 2, {A: 1}, {B: 1})
    assert told(member, 4, {}, {}) == [Lost(4, frozenset({A, B}))]
    assert member.acknowledged([B], 4) == {}


def test_one_that_is_given_in_another_epoch_is_lost_first(member):
    told(member, 1, {A: 1})
    assert told(member, 5, {A: 5}) == [Lost(5, frozenset({A})), Given(5, {A: 5})]


def test_a_view_that_is_overtaken_says_nothing(member):
    told(member, 3, {A: 3})
    assert told(member, 2, {B: 2}) == []
    assert member.epoch == 3


def test_what_another_gateway_had_told_it_to_give_up_is_told_again(member):
    assert told(member, 4, {A: 1}, {B: 1}) == [Revoking(4, frozenset({B})), Given(4, {A: 1})]
    assert member.acknowledged([B], 4) == {B: 1}


def test_an_acknowledgement_that_crossed_a_later_revocation_does_not_count_for_it(member):
    told(member, 1, {A: 1})
    told(member, 2, {}, {A: 1})
    told(member, 3, {A: 3})
    told(member, 4, {}, {A: 3})
    assert member.acknowledged([A], 2) == {}
    assert member.acknowledged([A], 4) == {A: 3}


def test_only_what_it_has_or_is_giving_up_can_be_committed(member):
    told(member, 1, {A: 1, B: 1})
    told(member, 2, {A: 1}, {B: 1})
    assert member.assignment_epoch(A) == 1
    assert member.assignment_epoch(B) == 1
    assert member.assignment_epoch(C) is None
    member.acknowledged([B], 2)
    assert member.assignment_epoch(B) is None


def test_nothing_is_delivered_before_the_coordinator_has_attached_it(member):
    assert not member.may_deliver(100.0)
    member.attached(100.0)
    assert member.may_deliver(100.0)


def test_the_lease_counts_from_when_the_confirmed_beat_was_sent(member):
    member.attached(100.0)
    assert member.may_deliver(107.9)
    assert not member.may_deliver(108.0)
    member.confirmed(104.0)
    # An answer that comes late, of a beat before, takes nothing back.
    member.confirmed(101.0)
    assert member.may_deliver_until == 112.0


def test_the_lease_ends_before_the_coordinator_gives_its_partitions_to_another(member):
    member.attached(100.0)
    assert member.may_deliver_until < 110.0


def test_a_sign_of_life_is_passed_on_until_the_coordinator_knows_of_it(member):
    member.attached(100.0)
    member.confirmed(101.0)
    assert not member.beats(101.5)
    member.heard(101.0)
    assert member.beats(101.5)
    member.heard(101.5)
    assert member.beats(102.0)
    # A beat from before it was heard says nothing of it.
    member.confirmed(101.0)
    assert member.beats(103.0)
    member.confirmed(102.0)
    assert not member.beats(104.0)
    member.heard(104.5)
    assert member.beats(105.0)


def test_a_silent_member_is_left_out_of_beats_and_one_that_speaks_again_is_not(member):
    member.attached(100.0)
    member.heard(101.0)
    assert member.beats(110.9)
    assert not member.beats(111.0)
    member.heard(111.5)
    assert member.beats(112.0)


def test_who_has_half_closed_lives_by_its_transport(member):
    member.attached(100.0)
    member.half_closed()
    assert member.beats(1000.0)


def test_who_is_apart_from_its_coordinator_takes_no_part_in_beats_and_keeps_its_lease(member):
    member.attached(100.0)
    member.detached()
    assert not member.beats(101.0)
    assert member.may_deliver(101.0)
    member.heard(102.0)
    member.detached()
    assert not member.beats(103.0)
    member.attached(103.0)
    member.heard(103.5)
    assert member.beats(104.0)


class Coordinator:
    """What a coordinator would say of one member; it follows the rules of core/groups."""

    def __init__(self):
        self.epoch = 0
        self.owned = {}
        self.revoking = {}

    def view(self):
        return MemberView(self.epoch, dict(self.owned), dict(self.revoking))

    def give(self, partition):
        if partition not in self.owned and partition not in self.revoking:
            self.epoch += 1
            self.owned[partition] = self.epoch

    def revoke(self, partition):
        if partition in self.owned:
            self.epoch += 1
            self.revoking[partition] = self.owned.pop(partition)

    def drop(self, partition):
        if partition in self.owned or partition in self.revoking:
            self.epoch += 1
            self.owned.pop(partition, None)
            self.revoking.pop(partition, None)


PARTITION = st.sampled_from([A, B, C])
ACTION = st.one_of(
    st.tuples(st.sampled_from(["give", "revoke", "drop", "acknowledge"]), PARTITION),
    st.tuples(st.sampled_from(["tell", "tell late", "move"]), st.none()),
)


@given(st.lists(ACTION, max_size=60))
def test_the_member_believes_what_its_coordinator_says_whatever_is_missed(actions):
    """Views are missed and overtaken, acknowledgements come at any time, coordinators move."""
    coordinator, member = Coordinator(), Membership(10.0, 0.0)
    earlier = coordinator.view()
    believed = {}
    giving_up = set()

    def hear():
        while member.changes:
            match member.changes.popleft():
                case Given(_, partitions):
                    assert not believed.keys() & partitions.keys()
                    believed.update(partitions)
                case Revoking(_, partitions):
                    assert not giving_up & partitions
                    giving_up.update(partitions)
                    for each in partitions:
                        believed.pop(each, None)
                case Lost(_, partitions):
                    assert partitions <= believed.keys() | giving_up
                    giving_up.difference_update(partitions)
                    for each in partitions:
                        believed.pop(each, None)

    for what, partition in actions:
        match what:
            case "give" | "revoke" | "drop":
                getattr(coordinator, what)(partition)
            case "acknowledge":
                giving_up.discard(partition)
                member.acknowledged([partition], member.epoch)
            case "tell":
                earlier = coordinator.view()
                member.told(earlier)
            case "tell late":
                member.told(earlier)
            case "move":
                # The next coordinator is told again what was given up.
                for each in member.to_acknowledge():
                    if each in coordinator.revoking:
                        coordinator.drop(each)
        hear()
        assert member.unacknowledged == giving_up
    member.told(coordinator.view())
    hear()
    assert believed == coordinator.owned
    assert giving_up | member.to_acknowledge().keys() == coordinator.revoking.keys()
