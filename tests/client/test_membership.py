"""A consumer's membership as its gateways tell it: what it had without a break, and what it lost."""

from riverrun._core.membership import Member, Membership
from riverrun._core.records import TopicPartition

ME = Member("m", b"token", 10.0, 60.0)
P0, P1, P2 = (TopicPartition("t", number) for number in range(3))


def member_with(*partitions, epoch=1):
    membership = Membership()
    membership.joined(ME)
    assert membership.begun(epoch, partitions) == []
    assert membership.assigned(epoch, dict.fromkeys(partitions, epoch)) == []
    return membership


def test_it_is_placed_once_everything_that_it_has_has_a_place():
    membership = Membership()
    assert membership.committer is None
    membership.joined(ME)
    assert not membership.is_placed
    membership.begun(3, [P0, P1])
    assert not membership.is_placed
    membership.assigned(3, {P0: 3})
    assert not membership.is_placed
    membership.assigned(3, {P1: 3})
    assert membership.is_placed
    assert membership.is_complete
    assert membership.committer == ("m", 3)


def test_nothing_is_everything_too():
    membership = Membership()
    membership.joined(ME)
    membership.begun(0, [])
    assert membership.is_placed


def test_what_another_stream_has_in_the_same_epoch_was_had_without_a_break():
    membership = member_with(P0, P1)
    membership.joined(ME)
    assert membership.begun(4, [P0, P1]) == []
    assert membership.assigned(4, {P0: 1, P1: 4}) == [P0]


def test_what_another_stream_does_not_name_is_lost():
    membership = member_with(P0, P1)
    membership.joined(ME)
    assert membership.begun(2, [P1, P2]) == [P0]
    assert membership.assigned(2, {P1: 1, P2: 2}) == [P1]


def test_what_is_to_be_given_up_is_news_once_and_given_up_once():
    membership = member_with(P0, P1)
    assert membership.revoking(2, [P0]) == [P0]
    assert membership.revoking(3, [P0]) == []
    assert not membership.is_complete
    assert membership.given_up([P0, P1]) == [P0]
    assert membership.given_up([P0]) == []
    assert membership.is_complete
    assert membership.epoch == 3
    assert membership.assigned(4, {P0: 4}) == [], "it has come back, with a break"


def test_what_is_lost_need_not_be_given_up():
    membership = member_with(P0, P1)
    membership.revoking(2, [P0])
    membership.lost(3, [P0])
    assert membership.given_up([P0]) == []
    assert membership.is_complete


def test_a_member_no_more_had_what_it_had_and_begins_anew():
    membership = member_with(P0, P1, epoch=7)
    membership.revoking(8, [P1])
    assert sorted(membership.expired()) == [P0, P1]
    assert membership.member is None
    assert membership.epoch == 0
    assert membership.expired() == []


def test_an_epoch_does_not_go_back():
    membership = member_with(P0, epoch=5)
    membership.revoking(4, [P0])
    assert membership.epoch == 5
