"""Whoever leads, and whatever becomes of brokers, a record is written once, in order, and told truly."""

from __future__ import annotations

from collections import Counter
from functools import partial
from types import SimpleNamespace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from riverrun._core.backoff import Backoff
from riverrun._core.dispatch import StreamLimits
from riverrun._core.outgoing import OutgoingBatch
from riverrun._core.outlets import Outlets
from riverrun._core.records import TopicPartition
from riverrun._core.sequences import PartitionLane
from riverrun.errors import Reason, RetriableError
from tests.client.lane_cluster_world import ClusterWorld

PLACE = TopicPartition("t", 0)


def run(seed: int, *, idempotent: bool, steps: int = 400) -> ClusterWorld:
    world = ClusterWorld(seed, idempotent=idempotent)
    for _ in range(steps):
        world.step()
    world.settle()
    world.check()
    return world


# What was waited for no more failed late, on a stream that its partition had stayed with after all.
@example(seed=327605)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=500, deadline=None)
def test_with_idempotence_every_record_is_written_at_most_once_and_in_order(seed):
    run(seed, idempotent=True)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=200, deadline=None)
def test_without_idempotence_no_record_is_written_twice_and_fates_are_true(seed):
    run(seed, idempotent=False)


@pytest.mark.parametrize("idempotent", [True, False])
def test_the_worlds_are_rich_enough_to_find_something(idempotent):
    fates: Counter[str] = Counter()
    moves = 0
    for seed in range(30):
        world = run(seed, idempotent=idempotent)
        moves += world.dispatcher.moves
        for fate in world.fates.values():
            fates[fate.error.reason if fate.error else "written"] += 1
            fates["unknown"] += bool(fate.error and not fate.error.outcome_known)
    assert fates["written"] > 1000
    assert fates["unknown"] > 20
    assert moves > 100


class Driven:
    """A partition that broker 1 leads at first, with batches on their way to it."""

    def __init__(self, *, idempotent: bool = True) -> None:
        self.leader = 1
        self.outlets = Outlets(partial(self._lane, idempotent), lambda _: self.leader)
        for broker_id in (1, 2):
            self.outlets.outlet(broker_id).stream_started(StreamLimits(5, 1 << 20))

    @staticmethod
    def _lane(idempotent: bool, partition: TopicPartition) -> PartitionLane:
        backoff = Backoff(lambda: 0.0)
        return PartitionLane(
            partition, idempotent=idempotent, window=5, backoff=backoff, split=lambda _: None
        )

    def submit(self, count: int) -> None:
        for _ in range(count):
            batch = OutgoingBatch(PLACE, b"x", 1, 0, 0, 100.0, 0, SimpleNamespace())
            self.outlets.submit(batch)

    def sent(self, broker_id: int) -> list[int]:
        """Send what can be sent; return the sequences."""
        outlet, sent = self.outlets.outlet(broker_id), []
        while (append := outlet.next(0.0)) is not None:
            sent.append(append.base_sequence)
        return sent

    def move(self, leader: int) -> None:
        self.leader = leader
        self.outlets.reroute([PLACE], 0.0)


def test_nothing_is_sent_to_a_broker_that_is_being_left_nor_to_the_next_one_yet():
    driven = Driven()
    driven.submit(2)
    assert driven.sent(1) == [0, 1]
    driven.submit(2)
    driven.move(2)
    assert (driven.sent(1), driven.sent(2)) == ([], [])
    driven.outlets.outlet(1).answered(1, 0, None, 0.0)
    driven.outlets.settle(0.0)
    assert driven.sent(2) == []
    driven.outlets.outlet(1).answered(2, 1, None, 0.0)
    driven.outlets.settle(0.0)
    assert (driven.sent(1), driven.sent(2)) == ([], [2, 3])


def test_an_answer_that_is_waited_for_no_more_is_not_taken_for_that_of_another_broker():
    driven = Driven()
    driven.submit(1)
    assert driven.sent(1) == [0]
    driven.move(2)
    assert driven.outlets.give_up_answers(0.0) == []
    driven.outlets.settle(0.0)
    assert driven.sent(2) == [0], "what may have been written goes first, with its sequence"
    late = RetriableError("no leader", reason=Reason.NOT_LEADER)
    assert driven.outlets.outlet(1).answered(1, None, late, 0.0) == []
    assert driven.outlets.lane(PLACE).unanswered == 1, "tag 1 was answered by the wrong broker"
    (done,) = driven.outlets.outlet(2).answered(1, 7, None, 0.0)
    assert done.base_offset == 7


def test_without_idempotence_answers_are_waited_for_however_long_it_takes():
    driven = Driven(idempotent=False)
    driven.submit(1)
    assert driven.sent(1) == [0]
    driven.move(2)
    assert driven.outlets.give_up_answers(0.0) == []
    driven.outlets.settle(0.0)
    assert driven.outlets.lane(PLACE).unanswered == 1


def test_a_partition_that_need_not_move_after_all_goes_on_where_it_is():
    driven = Driven()
    driven.submit(1)
    assert driven.sent(1) == [0]
    driven.submit(1)
    driven.move(2)
    driven.move(1)
    assert driven.sent(1) == [1]
    assert driven.outlets.moves == 0


def test_a_stream_on_which_a_partition_has_failed_is_not_used_when_it_comes_back():
    driven = Driven()
    driven.submit(1)
    assert driven.sent(1) == [0]
    refused = RetriableError("no leader", reason=Reason.NOT_LEADER)
    driven.outlets.outlet(1).answered(1, None, refused, 0.0)
    driven.move(2)
    assert driven.sent(2) == [0]
    driven.outlets.outlet(2).answered(1, 0, None, 0.0)
    driven.submit(1)
    driven.move(1)
    assert driven.sent(1) == []
    assert driven.outlets.outlet(1).spent
    driven.outlets.outlet(1).stream_lost()
    driven.outlets.outlet(1).stream_started(StreamLimits(5, 1 << 20))
    assert driven.sent(1) == [1]


def test_who_is_refused_for_what_is_resolved_by_now_goes_on_on_another_stream():
    driven = Driven()
    driven.submit(2)
    assert driven.sent(1) == [0, 1]
    outlet = driven.outlets.outlet(1)
    preceding = RetriableError("wait", reason=Reason.PRECEDING_FAILED)
    outlet.answered(1, 0, None, 0.0)
    outlet.answered(2, None, preceding, 0.0)
    assert not outlet.stale, "it was sent behind another one, which may have failed"
    assert driven.sent(1) == [1]
    outlet.answered(3, None, preceding, 0.0)
    assert outlet.spent
    assert driven.sent(1) == []
    outlet.stream_lost()
    outlet.stream_started(StreamLimits(5, 1 << 20))
    assert driven.sent(1) == [1]
