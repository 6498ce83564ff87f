"""What a follower takes, and when it asks again."""

from __future__ import annotations

from riverrun_server.core.log.batch import PartitionId, StoredBatch
from riverrun_server.core.log.epochs import EpochEntry, EpochMap
from riverrun_server.core.log.partition import PartitionMachine
from riverrun_server.core.log.state import LogState
from riverrun_server.core.producers import ProducerTable
from riverrun_server.core.replication.following import Following, FollowingState, Taken
from riverrun_server.core.replication.messages import Acked, Diverged, Follow, Push, Restart

ID = PartitionId(b"t" * 16, 0)
EPOCH = 7


class Followed:
    """A follower whose log ends at an offset with records of epoch 3."""

    def __init__(self, end: int = 4, *epochs: EpochEntry) -> None:
        state = LogState(log_end_offset=end)
        self.machine = PartitionMachine(state, ProducerTable(1), leader_epoch=3, replicated=True)
        self.machine.synced(end)
        entries = epochs or ((EpochEntry(3, 0),) if end else ())
        self.core = Following(ID, EPOCH, self.machine, EpochMap(entries), 1.0)

    def push(self, base: int, previous: int | None, *batches: StoredBatch, now=0.0, **how) -> Taken:
        values = {"high_watermark": 0, "log_start": 0, "probe": 1, **how}
        message = Push(
            partition=ID,
            leader_epoch=EPOCH,
            previous_epoch=previous,
            batches=batches,
            base_offset=base,
            **values,
        )
        return self.core.pushed(message, now)


def stored(base: int, leader_epoch: int = 3) -> StoredBatch:
    return StoredBatch(base, base + 2, leader_epoch, b"")


def test_it_asks_with_the_epoch_of_its_last_record():
    it = Followed(4, EpochEntry(2, 0), EpochEntry(3, 2))
    assert it.core.ask(0.0) == Follow(ID, EPOCH, 4, 3)
    # An epoch that was led without a record is not that of any.
    it = Followed(4, EpochEntry(2, 0), EpochEntry(5, 4))
    assert it.core.ask(0.0) == Follow(ID, EPOCH, 4, 2)
    assert Followed(0).core.ask(0.0) == Follow(ID, EPOCH, 0, None)


def test_a_push_that_continues_the_log_is_taken():
    it = Followed()
    it.core.ask(0.0)
    assert it.push(4, 3, stored(4), stored(6)) == Taken((stored(4), stored(6)), fits=True)
    assert it.core.state is FollowingState.FOLLOWING


def test_a_push_behind_a_record_of_another_epoch_is_not_taken():
    it = Followed()
    it.core.ask(0.0)
    assert it.push(4, 2, stored(4)) == Taken()
    assert it.push(4, None, stored(4)) == Taken()
    assert it.core.state is FollowingState.HANDSHAKE
    assert it.core.ack(1) is None


def test_while_it_waits_for_an_answer_nothing_that_does_not_fit_makes_it_ask():
    it = Followed()
    it.core.ask(0.0)
    assert it.push(6, 3, stored(6)) == Taken()
    assert it.push(2, 3, stored(2)) == Taken()


def test_a_gap_makes_it_ask_once():
    it = Followed()
    it.core.ask(0.0)
    it.push(4, 3)
    assert it.push(6, 3, stored(6)) == Taken(ask=True)
    it.core.ask(0.0)
    assert it.push(8, 3, stored(8)) == Taken()


def test_what_is_sent_twice_is_written_once():
    it = Followed()
    it.core.ask(0.0)
    it.push(4, 3)
    assert it.push(0, None, stored(0), stored(2)) == Taken(fits=True)
    assert it.push(2, 3, stored(2), stored(4)) == Taken((stored(4),), fits=True)
    odd = StoredBatch(3, 5, 3, b"")
    assert it.push(2, 3, odd) == Taken(ask=True)


def test_a_log_without_an_epoch_takes_what_begins_at_its_end():
    it = Followed(0)
    it.core.ask(0.0)
    assert it.push(0, None, stored(0)).fits


def test_it_acknowledges_once_the_logs_agree_and_only_what_is_news():
    it = Followed()
    it.core.ask(0.0)
    assert it.core.ack(0) is None
    it.push(4, 3, probe=5)
    assert it.core.probe == 5
    assert it.core.ack(5) == Acked(ID, EPOCH, 4, 5)
    assert it.core.ack(5) is None
    assert it.core.ack(6) == Acked(ID, EPOCH, 4, 6)
    it.core.stop("damage")
    assert it.core.ack(7) is None


def test_it_asks_again_where_no_answer_comes_and_where_the_leader_is_silent():
    it = Followed()
    it.core.ask(10.0)
    assert not it.core.is_overdue(10.9)
    assert it.core.is_overdue(11.0)
    it.push(4, 3, now=11.0)
    assert not it.core.is_overdue(13.9)
    assert it.core.is_overdue(14.0)
    it.core.stop("damage")
    assert not it.core.is_overdue(99.0)


def test_a_leader_that_does_not_know_yet_is_asked_again_soon():
    it = Followed()
    it.core.ask(10.0)
    for _ in range(10):
        it.core.refused()
        assert it.core.is_overdue(10.1)
        it.core.ask(10.0)
    it.core.refused()
    assert not it.core.is_overdue(10.1)


def test_while_something_is_deleted_nothing_is_taken():
    it = Followed(4, EpochEntry(3, 0), EpochEntry(5, 2))
    it.core.ask(0.0)
    assert it.core.diverged(Diverged(ID, EPOCH, 4, 9, 5)) == 2
    assert it.push(4, 5, stored(4)) == Taken()
    assert it.core.diverged(Diverged(ID, EPOCH, 4, 9, 5)) is None


def test_a_log_is_thrown_away_only_where_it_ends_before_the_leaders_begins():
    it = Followed()
    it.core.ask(0.0)
    assert not it.core.restart(Restart(ID, EPOCH, 3, (), None))
    assert it.core.restart(Restart(ID, EPOCH, 4, (), None))
    assert it.core.state is FollowingState.TRUNCATING


def test_a_stopped_follower_takes_nothing():
    it = Followed()
    it.core.ask(0.0)
    it.core.stop("damage")
    assert it.push(4, 3, stored(4)) == Taken()
    assert not it.core.restart(Restart(ID, EPOCH, 9, (), None))
    assert it.core.diverged(Diverged(ID, EPOCH, 2, 1, 3)) is None


def test_what_the_leader_says_is_committed_never_goes_back():
    it = Followed()
    it.core.ask(0.0)
    it.push(4, 3, high_watermark=3, log_start=2, probe=9)
    it.push(4, 3, high_watermark=2, log_start=1, probe=8)
    assert (it.core.committed, it.core.log_start, it.core.probe) == (3, 2, 9)
