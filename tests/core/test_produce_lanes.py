"""The refusing lanes of a produce stream, alone and under pipelining clients."""

from __future__ import annotations

from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.log.batch import BatchHeader, Stamp
from riverrun_server.core.produce_lanes import ProduceLanes
from riverrun_server.core.producers import Duplicate, ProducerTable

STALLED = Refusal(Reason.STORAGE_STALLED, "stalled")
FENCED = Refusal(Reason.PRODUCER_FENCED, "fenced")
OUT_OF_ORDER = Refusal(Reason.OUT_OF_ORDER_SEQUENCE, "gap", expected_sequence=3)


def idempotent(base: int, count: int = 1, *, pid: int = 1, epoch: int = 0) -> BatchHeader:
    return BatchHeader(count, 10, pid, epoch, base)


PLAIN = BatchHeader(1, 10)


def refused(lanes: ProduceLanes, header: BatchHeader, attempt: int = 0, lane: str = "a") -> bool:
    answer = lanes.admit(lane, header, attempt)
    if answer is not None:
        assert answer.reason is Reason.PRECEDING_FAILED
        assert answer.meaning.definite
        assert answer.meaning.retry_safe
        lanes.answered(lane, header, attempt, answer)
    return answer is not None


def failed(header: BatchHeader, attempt: int = 0, refusal: Refusal = STALLED) -> ProduceLanes:
    lanes = ProduceLanes()
    lanes.answered("a", header, attempt, refusal)
    return lanes


def test_nothing_is_refused_or_kept_while_all_goes_well():
    lanes = ProduceLanes()
    for n in range(10):
        assert not refused(lanes, idempotent(n))
        lanes.answered("a", idempotent(n), 0, None)
    assert len(lanes) == 0


def test_what_follows_a_failure_is_refused_until_the_failed_sequence_comes_again():
    lanes = failed(idempotent(5))
    assert refused(lanes, idempotent(6))
    assert refused(lanes, idempotent(7))
    assert not refused(lanes, idempotent(5))
    assert not refused(lanes, idempotent(6))


def test_other_partitions_go_on():
    lanes = failed(idempotent(5))
    assert not refused(lanes, idempotent(6), lane="b")


def test_a_newer_epoch_at_zero_begins_anew():
    lanes = failed(idempotent(5, epoch=2), refusal=FENCED)
    assert refused(lanes, idempotent(1, epoch=3))
    assert refused(lanes, idempotent(0, epoch=1))
    assert not refused(lanes, idempotent(0, epoch=3))
    assert not refused(lanes, idempotent(1, epoch=3))


def test_another_producer_id_at_zero_begins_anew():
    lanes = failed(idempotent(5), refusal=FENCED)
    assert refused(lanes, idempotent(4, pid=2))
    assert not refused(lanes, idempotent(0, pid=2))


def test_without_producer_id_a_higher_attempt_goes_on():
    lanes = failed(PLAIN, attempt=3)
    assert refused(lanes, PLAIN, attempt=3)
    assert refused(lanes, PLAIN, attempt=2)
    assert not refused(lanes, PLAIN, attempt=4)
    assert not refused(lanes, PLAIN, attempt=4)


def test_appends_without_producer_id_are_a_lane_of_their_own():
    lanes = failed(PLAIN)
    assert not refused(lanes, idempotent(8))
    lanes = failed(idempotent(8))
    assert not refused(lanes, PLAIN)
    assert refused(lanes, idempotent(9))


def test_preceding_failed_never_starts_a_refusal():
    lanes = ProduceLanes()
    lanes.answered("a", idempotent(6), 0, Refusal(Reason.PRECEDING_FAILED, ""))
    assert not refused(lanes, idempotent(7))


def test_out_of_order_starts_no_refusal_for_the_partition_refuses_by_itself():
    lanes = failed(idempotent(5), refusal=OUT_OF_ORDER)
    assert not refused(lanes, idempotent(3))
    assert not refused(lanes, idempotent(9))


def test_the_first_failure_of_several_counts():
    lanes = failed(idempotent(5))
    lanes.answered("a", idempotent(6), 0, STALLED)
    assert refused(lanes, idempotent(6))
    assert not refused(lanes, idempotent(5))
    assert not refused(lanes, idempotent(6))
    lanes = failed(idempotent(6))
    lanes.answered("a", idempotent(5), 0, STALLED)
    assert refused(lanes, idempotent(6))
    assert not refused(lanes, idempotent(5))


def test_the_highest_failed_attempt_counts():
    lanes = failed(PLAIN, attempt=2)
    lanes.answered("a", PLAIN, 1, STALLED)
    assert refused(lanes, PLAIN, attempt=2)
    assert not refused(lanes, PLAIN, attempt=3)


def test_a_failed_batch_may_come_again_in_other_pieces():
    lanes = failed(idempotent(10, 10))
    assert not refused(lanes, idempotent(10, 5))
    lanes = failed(idempotent(10, 10))
    assert not refused(lanes, idempotent(5, 15))


def test_a_batch_without_a_declared_count_resumes_too():
    lanes = failed(idempotent(10, 0))
    assert refused(lanes, idempotent(11, 0))
    assert not refused(lanes, idempotent(10, 0))


def test_an_earlier_batch_sent_again_passes_without_ending_the_refusal():
    lanes = failed(idempotent(10))
    assert not refused(lanes, idempotent(9))
    assert refused(lanes, idempotent(11))


def test_a_late_failure_of_an_earlier_sending_does_not_refuse_for_ever():
    lanes = failed(idempotent(5))
    for n in (5, 6, 7):
        assert not refused(lanes, idempotent(n))
    # Batch 6 had been sent before; only now is that sending answered.
    lanes.answered("a", idempotent(6), 0, STALLED)
    assert refused(lanes, idempotent(8))
    lanes.answered("a", idempotent(5), 0, None)
    assert refused(lanes, idempotent(8))
    lanes.answered("a", idempotent(6), 0, None)
    assert not refused(lanes, idempotent(8))
    assert len(lanes) == 0


def test_a_late_failure_of_an_ended_epoch_does_not_refuse_for_ever():
    for after in (idempotent(0, epoch=1), idempotent(0, pid=2)):
        lanes = failed(idempotent(5))
        lanes.answered("a", after, 0, None)
        assert len(lanes) == 0
    lanes = failed(PLAIN)
    lanes.answered("a", PLAIN, 0, None)
    assert refused(lanes, PLAIN)


def test_lanes_are_bounded_and_beyond_that_the_stream_must_be_opened_anew():
    lanes = ProduceLanes(max_lanes=2)
    for lane in ("a", "b", "c"):
        lanes.answered(lane, idempotent(5), 0, STALLED)
    assert len(lanes) == 2
    answer = lanes.admit("d", idempotent(0), 0)
    assert answer is not None
    assert answer.reason is Reason.LIMIT_EXCEEDED
    assert not refused(lanes, idempotent(5), lane="a")
    # A lane that has become free does not help: the failure in "c" was not kept.
    assert lanes.admit("c", idempotent(6), 0) is not None


class Broker:
    """A partition whose answers may come late and that now and then refuses to write."""

    def __init__(self, luck: list[bool], delays: list[int]) -> None:
        self.luck, self.delays = deque(luck), deque(delays)
        self.lanes = ProduceLanes()
        self.table = ProducerTable(10)
        self.log: list[tuple[int, int]] = []  # (number of the message, attempt)
        self.waiting: deque[tuple[int, int, BatchHeader, int, Refusal | None]] = deque()
        self.now = 0

    def receive(self, tag: int, number: int, header: BatchHeader, attempt: int) -> None:
        self.now += 1
        refusal = self.lanes.admit("a", header, attempt)
        if refusal is None:
            try:
                if self.luck and not self.luck.popleft():
                    raise STALLED
                if not isinstance(self.table.check(header), Duplicate):
                    place = Stamp(len(self.log), 0, 0, 0, 0)
                    self.table.appended(header, place)
                    self.log.append((number, attempt))
            except Refusal as error:
                refusal = error
        delay = self.delays.popleft() if self.delays else 0
        self.waiting.append((self.now + delay, tag, header, attempt, refusal))

    def answers(self) -> list[tuple[int, Refusal | None]]:
        """Answers come in order; a late one holds up those behind it."""
        out = []
        while self.waiting and self.waiting[0][0] <= self.now:
            _, tag, header, attempt, refusal = self.waiting.popleft()
            self.lanes.answered("a", header, attempt, refusal)
            out.append((tag, refusal))
        return out


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.booleans(), max_size=30),
    st.lists(st.integers(0, 6), max_size=60),
    st.integers(1, 6),
)
def test_a_pipelining_idempotent_client_gets_everything_in_once_and_in_order(luck, delays, window):
    broker = Broker(luck, delays)
    acked: set[int] = set()
    under_way: dict[int, int] = {}
    position, tag, total = 0, 0, 12
    for _ in range(2000):
        if len(acked) == total:
            break
        # It does not wait for what is under way before it goes back: the hardest client.
        if len(under_way) < window and position < total:
            tag += 1
            under_way[tag] = position
            broker.receive(tag, position, idempotent(position), 0)
            position += 1
        else:
            broker.now += 1
        for answered, refusal in broker.answers():
            number = under_way.pop(answered)
            if refusal is None:
                acked.add(number)
            else:
                position = min(position, number)
    assert [number for number, _ in broker.log] == list(range(total))
    assert len(acked) == total


@settings(max_examples=200, deadline=None)
@given(st.lists(st.booleans(), max_size=30), st.integers(1, 6))
def test_without_idempotence_known_failures_keep_the_order(luck, window):
    # A local partition decides at once, so each failure is known before the next batch is admitted.
    broker = Broker(luck, [])
    to_send, attempt, tag = deque(range(12)), 0, 0
    under_way: dict[int, int] = {}
    while to_send or under_way:
        answers: list[tuple[int, Refusal | None]] = []
        while to_send and len(under_way) < window:
            tag += 1
            number = to_send.popleft()
            under_way[tag] = number
            broker.receive(tag, number, PLAIN, attempt)
            answers += broker.answers()
        again = []
        for answered, refusal in answers:
            number = under_way.pop(answered)
            if refusal is not None:
                again.append(number)
        if again:
            attempt += 1
            to_send.extendleft(reversed(again))
    assert [number for number, _ in broker.log] == list(range(12))
