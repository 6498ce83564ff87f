"""What a partition's lane sends next after each kind of answer."""

from __future__ import annotations

import pytest

from riverrun._core.backoff import Backoff, BackoffConfig
from riverrun._core.lane_errors import too_large
from riverrun._core.outgoing import OutgoingBatch
from riverrun._core.records import TopicPartition
from riverrun._core.sequences import PartitionLane
from riverrun.errors import (
    FatalError,
    ProducerFencedError,
    Reason,
    RetriableError,
    RiverrunError,
    UsageError,
)

PLACE = TopicPartition("t", 0)
STALLED = RetriableError("stalled", reason=Reason.STORAGE_STALLED, retry_after_s=0.1)
PRECEDING = RetriableError("preceding", reason=Reason.PRECEDING_FAILED)
UNKNOWN = RetriableError("?", reason=Reason.REQUEST_TIMED_OUT, outcome_known=False)
INVALID = UsageError("invalid", reason=Reason.INVALID_RECORD)
TOO_LARGE = UsageError("too large", reason=Reason.BATCH_TOO_LARGE)
FENCED = ProducerFencedError("fenced", reason=Reason.PRODUCER_FENCED)
UNKNOWN_PRODUCER = FatalError("who?", reason=Reason.UNKNOWN_PRODUCER)


def out_of_order(expected: int) -> RiverrunError:
    return FatalError("?", reason=Reason.OUT_OF_ORDER_SEQUENCE, expected_sequence=expected)


class Driver:
    """Sends all that a lane has, and answers by the batch's number."""

    def __init__(self, *, idempotent: bool = True, window: int = 64, batches: int = 3) -> None:
        backoff = Backoff(lambda: 0.0, BackoffConfig(1.0, 1.0))
        self.lane = PartitionLane(
            PLACE, idempotent=idempotent, window=window, backoff=backoff, split=self.split
        )
        self.now = 0.0
        self.tag = 0
        self.sent: list[tuple[int, int | None, int]] = []
        self.fates: dict[int, object] = {}
        self.batches = [self.add(number) for number in range(batches)]

    def add(self, number: int, deadline: float = 10.0) -> OutgoingBatch:
        batch = OutgoingBatch(PLACE, bytes(2), 2, 0, 0, deadline, 2, None, first_index=number)
        self.note(self.lane.add(batch))
        return batch

    def split(self, batch: OutgoingBatch):
        if batch.record_count == 1:
            return None
        return tuple(
            OutgoingBatch(PLACE, bytes(1), 1, 0, 0, 10.0, 1, None, first_index=number)
            for number in (batch.first_index * 10, batch.first_index * 10 + 1)
        )

    def send(self) -> list[tuple[int, int | None, int]]:
        """Send what may be sent; return (number, sequence, epoch) of each."""
        before = len(self.sent)
        while self.lane.sendable(self.now):
            self.tag += 1
            batch = self.lane.send(self.tag, self.now)
            self.sent.append((batch.first_index, batch.base_sequence, batch.epoch))
        return self.sent[before:]

    def answer(self, number: int, error: RiverrunError | None = None, offset: int = 7) -> None:
        batch = next(b for b in self.lane.batches() if b.first_index == number)
        self.note(self.lane.answered(batch, None if error else offset, error, self.now))

    def note(self, resolutions) -> None:
        for batch, offset, error in resolutions:
            known = None if error is None else (error.reason, error.outcome_known)
            self.fates[batch.first_index] = offset if error is None else known


def test_batches_go_out_in_order_with_sequences_that_count_records():
    driver = Driver()
    assert driver.send() == [(0, 0, 0), (1, 2, 0), (2, 4, 0)]


def test_no_more_batches_wait_for_their_answer_than_the_window():
    driver = Driver(window=2)
    assert len(driver.send()) == 2
    driver.answer(0)
    assert driver.send() == [(2, 4, 0)]


def test_a_refused_batch_and_those_behind_it_go_again_in_order_with_the_same_sequences():
    driver = Driver()
    driver.send()
    driver.answer(0, STALLED)
    driver.now += 1
    assert driver.send() == []  # not before the others are answered
    driver.answer(1, PRECEDING)
    driver.answer(2, PRECEDING)
    assert driver.send() == [(0, 0, 0), (1, 2, 0), (2, 4, 0)]


def test_a_refused_batch_waits_as_long_as_the_broker_asks():
    driver = Driver(batches=1)
    driver.send()
    driver.answer(0, STALLED)
    driver.now = 0.09
    assert driver.send() == []
    driver.now = 0.1
    assert driver.send() == [(0, 0, 0)]


def test_a_batch_refused_for_good_fails_alone_and_the_others_start_in_the_next_epoch():
    driver = Driver()
    driver.send()
    driver.answer(0, INVALID)
    driver.answer(1, PRECEDING)
    driver.answer(2, PRECEDING)
    assert driver.fates == {0: (Reason.INVALID_RECORD, True)}
    assert driver.send() == [(1, 0, 1), (2, 2, 1)]


def test_the_next_epoch_waits_until_nothing_is_unresolved_in_the_old_one():
    driver = Driver()
    driver.send()
    driver.answer(0, UNKNOWN)
    driver.answer(1, INVALID)
    driver.answer(2, PRECEDING)
    driver.now += 1
    assert driver.send() == [(0, 0, 0)]
    driver.answer(0)
    assert driver.send() == [(2, 0, 1)]


def test_a_lost_stream_sends_everything_again_with_the_same_sequences():
    driver = Driver()
    driver.send()
    driver.answer(0)
    driver.note(driver.lane.stream_lost())
    assert driver.send() == [(1, 2, 0), (2, 4, 0)]
    assert driver.fates == {0: 7}


def test_without_idempotence_a_lost_stream_fails_what_may_be_written_and_all_behind_it():
    driver = Driver(idempotent=False, window=2)
    driver.send()
    driver.note(driver.lane.stream_lost())
    assert driver.fates == {
        0: (Reason.CONNECTION_LOST, False),
        1: (Reason.BATCH_FAILED_BEFORE, False),
        2: (Reason.BATCH_FAILED_BEFORE, True),
    }


def test_a_deadline_passed_with_an_answer_outstanding_leaves_the_outcome_unknown():
    driver = Driver(batches=2, window=1)
    driver.send()
    driver.note(driver.lane.expired(10.0, "late"))
    assert driver.fates[0] == (Reason.TIMED_OUT, False)
    assert driver.fates[1] == (Reason.BATCH_FAILED_BEFORE, True)
    driver.add(5, deadline=20.0)
    assert driver.send() == [(5, 0, 1)]


def test_a_deadline_passed_before_sending_is_definite():
    driver = Driver(batches=1)
    driver.note(driver.lane.expired(10.0, "late"))
    assert driver.fates == {0: (Reason.TIMED_OUT, True)}


def test_a_deadline_passed_after_a_definite_refusal_is_definite_and_spares_the_others():
    driver = Driver(batches=1)
    driver.add(1, deadline=20.0)
    driver.send()
    driver.answer(0, STALLED)
    driver.answer(1, PRECEDING)
    driver.note(driver.lane.expired(10.0, "late"))
    assert driver.fates == {0: (Reason.TIMED_OUT, True)}
    driver.now = 10.0
    assert driver.send() == [(1, 0, 1)]


def test_what_stands_behind_a_doubtful_batch_is_doubtful_although_that_is_refused_now():
    driver = Driver(batches=2, window=1)
    driver.send()
    driver.note(driver.lane.stream_lost())  # 0 may be written
    driver.lane.window = 2
    assert len(driver.send()) == 2
    driver.answer(0, STALLED)  # says nothing of the first append
    driver.note(driver.lane.stream_lost())
    driver.note(driver.lane.expired(10.0, "late"))
    assert driver.fates[1] == (Reason.BATCH_FAILED_BEFORE, False)


def test_what_stands_behind_a_batch_known_not_to_be_written_is_known_not_to_be_either():
    driver = Driver(batches=2)
    driver.send()
    driver.answer(0, STALLED)
    driver.note(driver.lane.stream_lost())
    driver.note(driver.lane.expired(10.0, "late"))
    assert driver.fates == {0: (Reason.TIMED_OUT, True), 1: (Reason.TIMED_OUT, True)}


def test_an_unknown_producer_with_nothing_unresolved_takes_the_next_epoch():
    driver = Driver(batches=2)
    driver.send()
    driver.answer(0, UNKNOWN_PRODUCER)
    driver.answer(1, PRECEDING)
    driver.now += 2
    assert driver.send() == [(0, 0, 1), (1, 2, 1)]


def test_an_unknown_producer_leaves_a_doubtful_batch_unknown():
    driver = Driver(batches=1)
    driver.send()
    driver.note(driver.lane.stream_lost())
    driver.send()
    driver.answer(0, UNKNOWN_PRODUCER)
    assert driver.fates == {0: (Reason.UNKNOWN_PRODUCER, False)}


def test_out_of_order_behind_a_failure_goes_back_to_what_is_expected():
    driver = Driver()
    driver.send()
    driver.answer(0, STALLED)
    driver.answer(1, out_of_order(0))
    driver.answer(2, out_of_order(0))
    driver.now += 2
    assert driver.send() == [(0, 0, 0), (1, 2, 0), (2, 4, 0)]


def test_out_of_order_below_what_was_acknowledged_says_that_records_are_lost():
    driver = Driver(batches=2)
    driver.send()
    driver.answer(0)
    driver.answer(1, out_of_order(0))
    assert driver.fates[1] == (Reason.OUT_OF_ORDER_SEQUENCE, True)


def test_a_fenced_producer_fails_everything_now_and_later():
    driver = Driver()
    driver.send()
    driver.answer(0, FENCED)
    driver.add(9)
    assert driver.fates[0] == (Reason.PRODUCER_FENCED, True)
    assert driver.fates[1] == (Reason.PRODUCER_FENCED, False)
    assert driver.fates[9] == (Reason.PRODUCER_FENCED, True)


def test_a_record_that_its_topic_does_not_allow_is_told_with_what_lets_it_in():
    broker_said = UsageError(
        "this one record takes 9 bytes and the topic allows 8 (max.batch.bytes); raise the setting",
        reason=Reason.BATCH_TOO_LARGE,
    )
    told = too_large(TopicPartition("t", 0), broker_said)
    assert (
        "raise the setting: `riverrun topic alter t --config max.batch.bytes=3145728`, or"
        in str(told)
    )
    assert broker_said.message.endswith("raise the setting"), "the broker's error is left as it was"
    assert too_large(TopicPartition("t", 0), TOO_LARGE) is TOO_LARGE


def test_a_batch_that_is_too_large_is_halved_and_keeps_its_sequences():
    driver = Driver(batches=2)
    driver.send()
    driver.answer(1, TOO_LARGE)
    driver.answer(0)
    assert driver.send() == [(10, 2, 0), (11, 3, 0)]
    assert driver.lane.largest_accepted_bytes == 1


def test_one_record_that_is_too_large_fails():
    driver = Driver(batches=1)
    driver.send()
    driver.answer(0, TOO_LARGE)
    driver.send()
    driver.answer(0, TOO_LARGE)
    driver.answer(1, PRECEDING)
    assert driver.fates == {0: (Reason.BATCH_TOO_LARGE, True)}


def test_refusals_without_a_known_cause_are_not_answered_at_once():
    driver = Driver(batches=1)
    driver.send()
    driver.answer(0, PRECEDING)
    driver.lane.hold_until_s = max(driver.lane.hold_until_s, 0.0)
    assert driver.lane.attempt == 1


def test_without_idempotence_each_failure_raises_the_attempt():
    driver = Driver(idempotent=False, batches=1)
    driver.send()
    assert driver.lane.attempt == 0
    driver.answer(0, STALLED)
    driver.now += 1
    driver.send()
    assert driver.lane.attempt == 1


@pytest.mark.parametrize("idempotent", [True, False])
def test_abandoning_tells_what_may_be_written(idempotent):
    driver = Driver(idempotent=idempotent, window=1, batches=2)
    driver.send()
    driver.note(driver.lane.abandon(UsageError("closed", reason=Reason.CLOSED)))
    assert driver.fates == {0: (Reason.CLOSED, False), 1: (Reason.CLOSED, True)}
    assert driver.lane.unresolved == 0
