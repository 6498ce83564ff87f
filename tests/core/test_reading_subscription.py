"""What a stream sends next, what it tells, and when it ends."""

import pytest

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.log.batch import PartitionId, StoredBatch
from riverrun_server.core.reading.events import (
    CaughtUp,
    PartitionFailed,
    PositionReset,
    Run,
    SeekDone,
)
from riverrun_server.core.reading.places import Position, ResetPolicy
from riverrun_server.core.reading.subscription import End, Subscription, SubscriptionSettings

A, B = (PartitionId(b"t" * 16, number) for number in range(2))
OUT_OF_RANGE = Refusal(Reason.OFFSET_OUT_OF_RANGE, "gone", available=(50, 100))


def at(partition, offset, high_watermark=100, log_start=0):
    return Position("t", partition, offset, high_watermark, log_start)


def batches(first, end, step=10, size=100, epoch=1):
    return [
        StoredBatch(offset, min(end, offset + step), epoch, b"x" * size)
        for offset in range(first, end, step)
    ]


def run(first, end, *, high_watermark=100, more=False, **shape):
    return Run(batches(first, end, **shape), end, high_watermark, 0, more)


def subscription(*positions, **settings):
    machine = Subscription(SubscriptionSettings(**{"frame_bytes": 10_000, **settings}))
    machine.assigned(positions)
    return machine


def deliver(machine):
    delivery = machine.cut()
    machine.delivered(delivery)
    return delivery


def span(delivery):
    return delivery.first_offset, delivery.next_offset


def told(machine):
    events, machine.events = list(machine.events), type(machine.events)()
    return events


def test_a_delivery_packs_what_was_read_and_the_next_one_continues_it():
    machine = subscription(at(A, 0))
    assert machine.turn() == A
    machine.offered(A, run(0, 50))
    first = deliver(machine)
    assert span(first) == (0, 50)
    assert (len(first.pieces), first.records, first.charged_bytes) == (5, 50, 500)
    assert not machine.has_run
    machine.offered(A, run(50, 70))
    assert span(deliver(machine)) == (50, 70)


def test_cutting_changes_nothing():
    machine = subscription(at(A, 0), credit_records=15, frame_bytes=250)
    machine.offered(A, run(0, 50))
    assert machine.cut() == machine.cut()
    assert machine.heartbeat().credit_records == 15
    assert machine.partitions[A].offset == 0


def test_a_frame_is_filled_up_to_its_aim_and_holds_at_least_one_piece():
    machine = subscription(at(A, 0), frame_bytes=320)
    machine.offered(A, run(0, 50))
    assert [span(deliver(machine)) for _ in range(2)] == [(0, 30), (30, 50)]
    machine.offered(A, run(50, 60, size=5000))
    assert span(deliver(machine)) == (50, 60)


def test_a_batch_is_sent_while_credit_is_above_zero_and_may_overdraw_it():
    machine = subscription(at(A, 0), credit_records=15)
    machine.offered(A, run(0, 50))
    assert span(deliver(machine)) == (0, 20)
    assert machine.heartbeat().credit_records == -5
    assert machine.turn() is None
    machine.granted(5, None)
    assert machine.turn() is None
    machine.granted(1, None)
    assert machine.turn() == A
    assert span(deliver(machine)) == (20, 30)


def test_credit_in_bytes_counts_as_well():
    machine = subscription(at(A, 0), credit_bytes=150)
    assert machine.room_bytes() == 150
    machine.offered(A, run(0, 50))
    assert deliver(machine).charged_bytes == 200
    assert machine.turn() is None


def test_no_credit_sends_nothing_and_unset_credit_everything():
    assert subscription(at(A, 0), credit_records=0).turn() is None
    assert subscription(at(A, 0)).turn() == A


def test_after_half_close_credit_refills_as_it_is_delivered():
    machine = subscription(at(A, 0), credit_records=20)
    machine.offered(A, run(0, 90))
    assert span(deliver(machine)) == (0, 20)
    assert machine.turn() is None
    machine.half_closed()
    assert [span(deliver(machine)) for _ in range(2)] == [(20, 40), (40, 60)]


def test_single_records_never_overdraw_credit_for_records():
    machine = subscription(at(A, 0), credit_records=3)
    machine.offered(A, run(0, 50, step=1))
    assert span(deliver(machine)) == (0, 3)
    assert machine.heartbeat().credit_records == 0


def test_max_records_cuts_through_a_batch_and_ends_the_stream():
    machine = subscription(at(A, 0), max_records=25)
    machine.offered(A, run(0, 50))
    delivery = deliver(machine)
    assert span(delivery) == (0, 25)
    assert [piece.next_offset for piece in delivery.pieces] == [10, 20, 30]
    assert machine.turn() is None
    assert machine.end() == End()


def test_max_records_counts_over_partitions():
    machine = subscription(at(A, 0), at(B, 0), max_records=15)
    machine.offered(A, run(0, 10))
    deliver(machine)
    assert machine.end() is None
    machine.offered(B, run(0, 10))
    assert span(deliver(machine)) == (0, 5)
    assert machine.end() == End()


def test_a_position_inside_a_batch_costs_only_what_was_asked_for():
    machine = subscription(at(A, 7), max_records=5)
    machine.offered(A, run(0, 50))
    delivery = deliver(machine)
    assert (span(delivery), delivery.records) == ((7, 12), 5)
    assert len(delivery.pieces) == 2


def test_stop_at_end_means_the_watermarks_of_the_start():
    machine = subscription(at(A, 0, 30), at(B, 5, 5), stop_at_end=True)
    assert machine.end() is None
    machine.offered(A, run(0, 50))
    assert span(deliver(machine)) == (0, 30)
    assert machine.end() == End()


def test_a_seek_back_makes_a_finished_partition_unfinished():
    machine = subscription(at(A, 30, 30), stop_at_end=True)
    assert machine.end() == End()
    machine.sought(1, at(A, 10, 60))
    assert machine.end() is None
    machine.offered(A, run(10, 60))
    assert span(deliver(machine)) == (10, 30)
    assert machine.end() == End()


def test_a_gap_in_the_offsets_is_passed():
    machine = subscription(at(A, 0))
    machine.offered(A, Run(batches(10, 20), 40, 100, 0))
    assert span(deliver(machine)) == (0, 40)
    machine.offered(A, Run([], 60, 100, 0))
    delivery = deliver(machine)
    assert (span(delivery), delivery.records) == ((40, 60), 0)


def test_the_turn_stays_while_a_chunk_has_more():
    machine = subscription(at(A, 0), at(B, 0), frame_bytes=100)
    machine.offered(A, run(0, 10, more=True))
    deliver(machine)
    assert machine.turn() == A
    assert not machine.has_run
    machine.offered(A, run(10, 20))
    deliver(machine)
    assert machine.turn() == B


def test_partitions_take_turns_by_bytes():
    machine = subscription(at(A, 0, 1000), at(B, 0, 1000), frame_bytes=400)
    sent = {A: 0, B: 0}
    for _ in range(100):
        partition = machine.turn()
        if not machine.has_run:
            offset = machine.partitions[partition].offset
            size = 1000 if partition == A else 100
            machine.offered(partition, run(offset, offset + 10, high_watermark=10_000, size=size))
        sent[partition] += deliver(machine).charged_bytes
    assert sent[A] == pytest.approx(sent[B], abs=1000)


def test_caught_up_is_told_once_and_again_after_a_seek():
    machine = subscription(at(A, 0, 20), at(B, 20, 20))
    assert told(machine) == [CaughtUp(at(B, 20, 20))]
    machine.offered(A, run(0, 20, high_watermark=20))
    deliver(machine)
    assert [type(event) for event in told(machine)] == [CaughtUp]
    machine.offered(A, run(20, 30, high_watermark=30))
    deliver(machine)
    assert told(machine) == []
    machine.sought(1, at(A, 20, 30))
    machine.offered(A, run(20, 30, high_watermark=30))
    deliver(machine)
    assert [type(event) for event in told(machine)] == [SeekDone, CaughtUp]


def test_old_watermarks_do_not_make_a_reader_caught_up():
    machine = subscription(at(A, 0, 20))
    machine.observed(A, 50, 0)
    machine.offered(A, run(0, 20, high_watermark=20))
    deliver(machine)
    assert told(machine) == []


def test_nothing_from_the_old_position_comes_after_a_seek():
    machine = subscription(at(A, 0), frame_bytes=100)
    machine.offered(A, run(0, 50))
    deliver(machine)
    machine.sought(9, at(A, 80))
    assert not machine.has_run
    assert told(machine) == [SeekDone(9, at(A, 80))]
    machine.offered(A, run(80, 90))
    assert span(deliver(machine)) == (80, 90)


def test_a_pause_drops_the_open_run_and_a_resume_goes_on_where_it_stopped():
    machine = subscription(at(A, 0), at(B, 0), frame_bytes=100)
    machine.offered(A, run(0, 50))
    deliver(machine)
    assert machine.paused([A]) == A
    assert machine.turn() == B
    assert machine.paused([B]) is None
    assert machine.turn() is None
    machine.woke(A)
    assert machine.turn() is None
    machine.resumed([A])
    assert machine.turn() == A
    machine.offered(A, run(10, 50))
    assert span(deliver(machine))[0] == 10


def test_a_pause_leaves_credit_alone():
    machine = subscription(at(A, 0), credit_records=10)
    machine.paused([A])
    machine.resumed([A])
    assert machine.heartbeat().credit_records == 10


@pytest.mark.parametrize("policy", [ResetPolicy.EARLIEST, ResetPolicy.LATEST])
def test_a_position_out_of_range_is_reset_and_said_so(policy):
    machine = subscription(at(A, 7), reset=policy)
    assert machine.refused(A, OUT_OF_RANGE) is policy
    machine.reset(at(A, 50, 100, 50), OUT_OF_RANGE)
    assert told(machine) == [PositionReset(at(A, 50, 100, 50), 7, OUT_OF_RANGE)]
    assert machine.turn() == A


def test_a_position_out_of_range_stops_its_partition_where_nothing_else_was_asked():
    machine = subscription(at(A, 7), at(B, 0))
    assert machine.refused(A, OUT_OF_RANGE) is ResetPolicy.ERROR
    assert told(machine) == [PartitionFailed("t", *A, OUT_OF_RANGE)]
    machine.woke(A)
    assert machine.turn() == B


@pytest.mark.parametrize(
    "reason", [Reason.LOG_TRUNCATED, Reason.CORRUPT_DATA, Reason.PARTITION_OFFLINE]
)
def test_only_positions_out_of_range_are_ever_reset(reason):
    machine = subscription(at(A, 7), reset=ResetPolicy.EARLIEST)
    assert machine.refused(A, Refusal(reason, "no")) is ResetPolicy.ERROR
    assert machine.turn() is None


def test_a_seek_revives_a_partition_that_has_stopped():
    machine = subscription(at(A, 7))
    machine.stopped(A, OUT_OF_RANGE)
    assert machine.turn() is None
    machine.sought(1, at(A, 60))
    assert machine.turn() == A


def test_a_partition_whose_place_was_not_found_can_be_sought():
    machine = subscription(at(B, 0))
    machine.failed_to_start("t", A, Refusal(Reason.PARTITION_OFFLINE, "no"))
    machine.sought(1, at(A, 60))
    machine.paused([B])
    assert machine.turn() == A


def test_a_stream_that_nobody_can_control_ends_with_the_failure_of_its_last_partition():
    machine = subscription(at(A, 0), at(B, 0))
    machine.stopped(A, OUT_OF_RANGE)
    machine.stopped(B, Refusal(Reason.CORRUPT_DATA, "no"))
    assert machine.end() is None
    machine.half_closed()
    assert machine.end() == End(OUT_OF_RANGE)


def test_a_stream_goes_on_for_the_partitions_that_can_be_read():
    machine = subscription(at(A, 0), at(B, 0))
    machine.half_closed()
    machine.stopped(A, OUT_OF_RANGE)
    assert machine.end() is None
    assert machine.turn() == B


def test_stop_at_end_with_a_failed_partition_ends_with_the_failure():
    machine = subscription(at(A, 0, 10), at(B, 0, 10), stop_at_end=True)
    machine.half_closed()
    machine.stopped(A, OUT_OF_RANGE)
    machine.offered(B, run(0, 10))
    deliver(machine)
    assert machine.end() == End(OUT_OF_RANGE)


def test_a_position_out_of_range_is_neither_finished_nor_caught_up():
    beyond = Position("t", A, 500, 100, 0, in_range=False)
    machine = subscription(beyond, stop_at_end=True)
    assert told(machine) == []
    assert machine.end() is None
    assert machine.turn() == A
    machine.idle(A)
    assert [type(event) for event in told(machine)] == [CaughtUp]
    assert machine.end() == End()


def test_a_heartbeat_tells_lags_and_credit():
    machine = subscription(at(A, 0, 30), credit_bytes=1000)
    machine.observed(A, 70, 5)
    heartbeat = machine.heartbeat()
    assert heartbeat.positions == [at(A, 0, 70, 5)]
    assert (heartbeat.credit_records, heartbeat.credit_bytes) == (None, 1000)


def test_the_epoch_of_a_delivery_is_that_of_its_last_batch():
    machine = subscription(at(A, 0))
    pieces = [*batches(0, 10, epoch=3), *batches(10, 20, epoch=4)]
    machine.offered(A, Run(pieces, 20, 100, 0))
    assert deliver(machine).leader_epoch == 4
    assert machine.partitions[A].leader_epoch == 4


def test_a_woken_stranger_is_ignored():
    machine = subscription(at(A, 0))
    machine.woke(B)
    assert machine.turn() == A
