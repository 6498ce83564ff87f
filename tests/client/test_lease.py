"""A member returns nothing once others may have what it was given: by the sending time of what has arrived."""

from __future__ import annotations

from riverrun._core.lease import Lease

SESSION_S = 10.0


def held_from(*heartbeats):
    lease = Lease()
    for heartbeat_id, sent_s in heartbeats:
        lease.sent(heartbeat_id, sent_s)
    return lease


def test_who_has_not_begun_has_nothing_to_lose():
    assert not held_from().is_over(1e9)
    assert not held_from((0, 1.0)).is_over(1e9)


def test_it_counts_from_when_the_start_was_sent_and_ends_before_the_session_does():
    lease = held_from((0, 100.0))
    lease.confirmed(0, SESSION_S)
    assert not lease.is_over(107.9)
    assert lease.is_over(108.0)


def test_a_heartbeat_counts_from_when_it_was_sent_once_it_is_confirmed():
    lease = held_from((0, 100.0), (1, 102.5), (2, 105.0))
    lease.confirmed(0, SESSION_S)
    lease.confirmed(1, SESSION_S)
    assert not lease.is_over(110.4)
    assert lease.is_over(110.5)


def test_the_newest_confirmed_counts_where_one_was_skipped():
    lease = held_from((0, 100.0), (1, 102.5), (2, 105.0))
    lease.confirmed(2, SESSION_S)
    assert not lease.is_over(112.9)
    lease.confirmed(1, SESSION_S)
    assert not lease.is_over(112.9)


def test_the_same_heartbeat_confirmed_again_changes_nothing():
    lease = held_from((0, 100.0), (1, 102.5))
    lease.confirmed(1, SESSION_S)
    lease.sent(2, 109.0)
    lease.confirmed(1, SESSION_S)
    assert lease.is_over(110.5)


def test_what_is_confirmed_late_gives_it_back():
    lease = held_from((0, 100.0), (1, 104.0))
    lease.confirmed(0, SESSION_S)
    assert lease.is_over(109.0)
    lease.confirmed(1, SESSION_S)
    assert not lease.is_over(109.0)


def test_heartbeats_of_a_stream_before_are_not_mixed_up_with_those_of_this_one():
    lease = held_from((0, 100.0), (1, 104.0), (0, 106.0))
    lease.confirmed(0, SESSION_S)
    lease.confirmed(1, SESSION_S)
    assert not lease.is_over(113.9)
    assert lease.is_over(114.0)


def test_an_old_stream_takes_nothing_from_what_a_new_one_has():
    lease = held_from((0, 100.0))
    lease.confirmed(0, 100.0)
    lease.sent(0, 101.0)
    lease.confirmed(0, SESSION_S)
    assert not lease.is_over(179.9)


def test_who_is_no_member_any_more_waits_for_nothing():
    lease = held_from((0, 100.0))
    lease.confirmed(0, SESSION_S)
    lease.ended()
    assert not lease.is_over(1e9)


def test_heartbeats_that_nobody_confirms_are_not_kept_for_ever():
    lease = held_from((0, 0.0), *((number, float(number)) for number in range(1, 10_000)))
    assert len(lease._sent) <= 64
    lease.confirmed(9_999, SESSION_S)
    assert not lease.is_over(10_000.0)
