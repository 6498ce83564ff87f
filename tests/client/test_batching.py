"""When a batch that is not full goes out, what delays there are, and where keyless records go."""

from __future__ import annotations

import pytest

from riverrun._core.accumulator import Accumulator
from riverrun._core.backoff import Backoff, BackoffConfig
from riverrun._core.dispatch import StreamLimits
from riverrun._core.outgoing import OutgoingBatch
from riverrun._core.partitioner import Route
from riverrun._core.producing import ProducerMachine
from riverrun._core.records import TopicPartition
from riverrun._core.sequences import PartitionLane
from riverrun.errors import FatalError, Reason, UsageError

PLACES = [TopicPartition("t", number) for number in range(12)]


class Noted:
    """A receipt that remembers."""

    def __init__(self, partition: TopicPartition) -> None:
        self.partition = partition
        self.told: list[object] = []

    def acknowledged(self, first, count, base_offset):
        self.told.append((first, count, base_offset))

    def failed(self, first, count, error):
        self.told.append(error.reason)


def machine(*, linger_s: float = 0.0, partitions: int = 12, **settings) -> ProducerMachine[Noted]:
    def lane(partition: TopicPartition) -> PartitionLane:
        return PartitionLane(
            partition,
            idempotent=True,
            window=64,
            backoff=Backoff(lambda: 0.0),
            split=lambda _: None,
        )

    accumulator = Accumulator(
        Noted,
        batch_bytes=settings.pop("batch_bytes", 1000),
        linger_s=linger_s,
        delivery_timeout_s=10.0,
    )
    made = ProducerMachine(lane, accumulator, settings.pop("buffer_bytes", 10_000))
    made.learn_topic("t", bytes(16), partitions, 0)
    made.stream_started(StreamLimits(64, 1 << 20))
    return made


def put(made: ProducerMachine[Noted], place: TopicPartition, now: float = 0.0) -> Noted:
    made.reserve(40)
    return made.append(place, (None, b"12345678", 5, ()), 40, now)


def sent(made: ProducerMachine[Noted], now: float = 0.0) -> list[tuple[int, int]]:
    out = []
    while (append := made.next(now)) is not None:
        out.append((append.batch.partition.partition, append.batch.record_count))
    return out


def test_a_lone_record_leaves_at_once():
    made = machine()
    put(made, PLACES[0])
    assert sent(made) == [(0, 1)]


def test_records_gather_while_two_batches_of_their_partition_are_under_way():
    made = machine()
    for _ in range(2):
        put(made, PLACES[0])
        assert len(sent(made)) == 1
    for _ in range(5):
        put(made, PLACES[0])
    assert sent(made) == []
    made.answered(1, 0, None, 0.0)
    assert sent(made) == [(0, 5)]


def test_records_gather_while_eight_appends_of_the_stream_are_under_way():
    made = machine()
    for place in PLACES:
        put(made, place)
    assert sent(made) == [(n, 1) for n in range(8)]
    for place in PLACES:
        put(made, place)
    made.answered(1, 0, None, 0.0)
    assert sent(made) == [(8, 2)]


def test_a_partition_that_is_not_answered_holds_up_no_other():
    made = machine()
    for now in range(8):
        put(made, PLACES[0], float(now))
        # As if it were full: those go out however many are not answered.
        made.seal(PLACES[0])
        assert sent(made, float(now)) == [(0, 1)]
    put(made, PLACES[1], 7.05)
    assert sent(made, 7.05) == []
    assert made.next_wakeup_s(7.05) == pytest.approx(7.1)
    assert sent(made, 7.1) == [(1, 1)]
    # What is answered meanwhile shows that the stream is not what they wait for.
    made.acked(made.batches_in_flight, [0], 7.11)
    put(made, PLACES[2], 7.12)
    assert sent(made, 7.12) == [(2, 1)]


def test_full_batches_go_out_however_much_is_under_way():
    made = machine(batch_bytes=80)
    for _ in range(41):
        put(made, PLACES[0])
    assert sent(made) == [(0, 2)] * 20


def test_a_batch_that_is_not_full_lingers():
    made = machine(linger_s=1.0)
    put(made, PLACES[0], now=5.0)
    assert sent(made, 5.9) == []
    assert made.next_wakeup_s(5.9) == 6.0
    assert sent(made, 6.0) == [(0, 1)]


def test_nothing_is_sealed_while_there_is_no_stream():
    made = machine()
    made.stream_lost()
    for _ in range(3):
        put(made, PLACES[0])
    assert sent(made) == []
    made.stream_started(StreamLimits(64, 1 << 20))
    assert sent(made) == [(0, 3)]


def test_what_was_never_sent_gives_up_at_its_deadline():
    made = machine()
    made.stream_lost()
    receipt = put(made, PLACES[0], now=1.0)
    assert made.next_deadline_s() == 11.0
    made.expire(10.9, "late")
    assert made.take_resolved() == []
    made.expire(11.0, "late")
    for resolution in made.take_resolved():
        resolution.deliver()
    assert receipt.told == [Reason.TIMED_OUT]
    assert made.buffered_bytes == 0
    assert made.idle


def test_the_buffer_holds_what_is_not_resolved():
    made = machine(buffer_bytes=100)
    put(made, PLACES[0])
    assert made.has_room(60)
    assert not made.has_room(61)
    sent(made)
    made.answered(1, 7, None, 0.0)
    assert made.buffered_bytes == 0
    assert made.has_room(10_000)


def test_an_answer_to_nothing_is_a_broken_protocol():
    made = machine()
    put(made, PLACES[0])
    sent(made)
    made.answered(1, 0, None, 0.0)
    for tag in (1, 2):
        with pytest.raises(FatalError, match=f"tag {tag}") as caught:
            made.answered(tag, 0, None, 0.0)
        assert caught.value.reason is Reason.PROTOCOL_BROKEN


def test_partitions_take_turns():
    made = machine()
    for number in (0, 0, 0, 1, 2):
        made.reserve(1)
        batch = OutgoingBatch(PLACES[number], b"x", 1, 0, 0, 9.0, 1, Noted(PLACES[0]))
        made.submit(batch)
    assert [number for number, _ in sent(made)] == [0, 1, 2, 0, 0]


def test_no_more_bytes_are_under_way_than_the_stream_allows():
    made = machine()
    made.stream_lost()
    made.stream_started(StreamLimits(64, 10))
    for place in PLACES[:4]:
        made.reserve(6)
        made.submit(OutgoingBatch(place, b"123456", 1, 0, 0, 9.0, 6, Noted(place)))
    assert len(sent(made)) == 2
    made.answered(1, 0, None, 0.0)
    assert len(sent(made)) == 1


def test_abandoning_resolves_everything():
    made = machine()
    receipts = [put(made, place) for place in PLACES]
    sent(made)
    made.abandon(UsageError("closed", reason=Reason.CLOSED))
    for resolution in made.take_resolved():
        resolution.deliver()
    assert [receipt.told for receipt in receipts] == [[Reason.CLOSED]] * 12
    assert made.buffered_bytes == 0
    assert made.idle


def test_keyless_records_move_on_with_each_batch():
    made = machine(partitions=3)
    places = []
    for _ in range(5):
        place = made.partition_for("t", (None, b"", 0, ()))
        places.append(place.partition)
        put(made, place)
        sent(made)
    assert places == [0, 1, 2, 0, 1]


def test_a_topic_made_anew_with_fewer_partitions_is_spread_over_those():
    made = machine(partitions=3)
    made.learn_topic("t", bytes(16), 1, 0)
    assert made.partition_for("t", (b"some key", b"", 0, ())).partition == 0


def test_a_sticky_partitioner_goes_round_and_grows():
    sticky = Route(2, first=5)
    assert sticky.partition() == 1
    sticky.grow(3)
    sticky.move_on()
    assert sticky.partition() == 2


def test_delays_double_up_to_their_bound_and_start_again():
    backoff = Backoff(lambda: 1.0, BackoffConfig(1.0, 5.0))
    assert [backoff.next_s() for _ in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]
    backoff.reset()
    assert backoff.next_s(at_least_s=0.5) == 1.5


def test_delays_are_spread_over_the_whole_range():
    assert Backoff(lambda: 0.0).next_s() == 0.0
    assert Backoff(lambda: 0.0).next_s(2.0) == 2.0
