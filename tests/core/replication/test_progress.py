"""What a leader knows of followers, and what it may send them."""

from __future__ import annotations

from riverrun_server.core.log.batch import StoredBatch
from riverrun_server.core.replication.feeding import Feeds, Portion, Windows
from riverrun_server.core.replication.progress import Followers, Probes


def test_a_later_process_of_a_broker_has_acknowledged_nothing_yet():
    it = Followers(0.0)
    it.acked(it.heard(2, 50), 10, 0, 10, 1.0)
    assert it.heard(2, 60).durable_end is None
    assert it.of(2, 50) is None


def test_an_earlier_process_of_a_broker_is_not_listened_to():
    it = Followers(0.0)
    it.heard(2, 60)
    assert it.heard(2, 50) is None


def test_a_probe_confirms_the_time_when_it_was_sent():
    it = Followers(0.0)
    probe = it.probes.mark(5.0, 0)
    it.acked(it.heard(2, 50), 0, probe, 0, 9.0)
    assert it.of(2, 50).confirmed_at == 5.0


def test_confirmations_that_come_late_take_nothing_back():
    it = Followers(0.0)
    first, second = it.probes.mark(5.0, 0), it.probes.mark(6.0, 0)
    progress = it.heard(2, 50)
    it.acked(progress, 20, second, 20, 9.0)
    it.acked(progress, 10, first, 20, 9.5)
    assert progress.confirmed_at == 6.0
    assert progress.durable_end == 20


def test_a_probe_that_was_never_sent_confirms_nothing():
    it = Followers(0.0)
    it.acked(it.heard(2, 50), 0, 3, 0, 9.0)
    assert it.of(2, 50).confirmed_at is None


def test_probes_are_forgotten_in_the_end():
    probes = Probes()
    first = probes.mark(0.0, 0)
    for second in range(1, 100):
        probes.mark(float(second), 0)
    assert probes.find(first) is None
    assert probes.find(probes.newest).at == 99.0


def test_who_has_everything_has_kept_up_until_now():
    it = Followers(0.0)
    it.acked(it.heard(2, 50), 10, 0, 10, 8.0)
    assert it.caught_up_at(2) == 8.0


def test_who_has_what_there_was_at_a_probe_kept_up_until_then():
    """A busy leader is never caught up with, only a moment later."""
    it = Followers(0.0)
    probe = it.probes.mark(5.0, 10)
    it.acked(it.heard(2, 50), 10, probe, 30, 8.0)
    assert it.caught_up_at(2) == 5.0


def test_who_has_less_than_there_was_did_not_keep_up():
    it = Followers(1.0)
    probe = it.probes.mark(5.0, 10)
    it.acked(it.heard(2, 50), 9, probe, 30, 8.0)
    assert it.caught_up_at(2) == 1.0
    assert it.caught_up_at(3) == 1.0  # never heard of


def test_time_in_which_the_leader_did_not_run_counts_against_nobody():
    it = Followers(0.0)
    it.acked(it.heard(2, 50), 10, 0, 10, 8.0)
    it.forgive(20.0, 28.5)
    assert it.caught_up_at(2) == 28.0
    it.forgive(20.0, 29.0)
    assert it.caught_up_at(2) == 29.0


def stored(base: int, size: int = 36) -> StoredBatch:
    return StoredBatch(base, base + 1, 1, bytes(size))


def feeds(max_push_bytes, max_under_way_bytes, windows=None, hungry=lambda: None) -> Feeds:
    return Feeds(max_push_bytes, max_under_way_bytes, windows or Windows(1 << 30), hungry)


def test_who_asks_is_answered_also_where_there_is_nothing():
    it = feeds(1_000, 2_000)
    assert it.next_portion(2, 5) is None
    it.begin(2, 5)
    assert it.next_portion(2, 5) == Portion(5, 0)
    it.sent(2, ())
    assert it.next_portion(2, 5) is None
    it.owe()
    assert it.next_portion(2, 5) == Portion(5, 0)


def test_no_more_is_under_way_than_allowed_until_it_is_acknowledged():
    it = feeds(150, 250)  # a batch of 36 bytes counts 100
    it.begin(2, 0)
    assert it.next_portion(2, 9) == Portion(0, 150)
    it.sent(2, (stored(0), stored(1)))
    assert it.next_portion(2, 9) == Portion(2, 50)
    it.sent(2, (stored(2),))
    assert it.next_portion(2, 9) is None
    it.acked(2, 1)
    assert it.next_portion(2, 9) is None
    it.acked(2, 2)
    assert it.next_portion(2, 9) == Portion(3, 150)


def test_a_follower_that_asks_anew_has_nothing_under_way():
    it = feeds(150, 250)
    it.begin(2, 0)
    it.sent(2, (stored(0), stored(1), stored(2)))
    it.begin(2, 1)
    assert it.next_portion(2, 9) == Portion(1, 150)
    it.end(2)
    assert it.next_portion(2, 9) is None


def test_all_partitions_together_leave_no_more_unacknowledged_than_allowed():
    windows, told = Windows(250), []
    one = feeds(150, 250, windows, lambda: told.append("one"))
    other = feeds(150, 250, windows, lambda: told.append("other"))
    for each in (one, other):
        each.begin(2, 0)
        each.begin(3, 0)
    one.sent(2, (stored(0), stored(1)))
    assert other.next_portion(2, 9) == Portion(0, 50)
    other.sent(2, (stored(0),))
    assert other.next_portion(2, 9) is None
    assert other.next_portion(3, 9) == Portion(0, 150)  # another broker has a window of its own
    one.acked(2, 1)
    assert told == []
    one.acked(2, 2)
    assert told == ["other"]
    assert other.next_portion(2, 9) == Portion(1, 150)
    other.owe()
    one.sent(2, (stored(2), stored(3)))
    assert other.next_portion(2, 9) == Portion(1, 0)  # news without batches always fit


def test_what_is_given_up_is_not_under_way():
    windows, told = Windows(150), []
    one = feeds(150, 250, windows)
    other = feeds(150, 250, windows, lambda: told.append("other"))
    for each in (one, other):
        each.begin(2, 0)
        each.sent(2, (stored(0),))
    assert other.next_portion(2, 9) is None
    one.begin(2, 0)
    assert told == ["other"]
    other.end(2)
    assert windows.room(2) == 150
    one.sent(2, (stored(0), stored(1)))
    other.begin(2, 0)
    other.sent(2, ())
    assert other.next_portion(2, 9) is None
    other.close()
    one.close()
    assert windows.room(2) == 150
    assert told == ["other"]
