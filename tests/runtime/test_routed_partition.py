"""A partition that is led elsewhere, in virtual time: what waits, what is asked again and when, what is held."""

from __future__ import annotations

import asyncio
import functools

import pytest

from riverrun_server.core.errors import LeaderHint, Reason, Refusal
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.ports.gateways import Origin
from riverrun_server.ports.partitions import Acks, Append, Appended, Chunk, Watermarks
from riverrun_server.runtime.gateway.remote_cursor import LITTLE_BYTES, LittleRoom
from riverrun_server.runtime.gateway.routed_partition import RoutedPartition
from riverrun_server.runtime.gateway.services import WAIT_S, GatewayServices
from tests.peer.batches import batch
from tests.rpc.fake_partitions import FakePartition, batch_of, records_of
from tests.sim.loop import simulate

PARTITION = PartitionId(b"t" * 16, 0)
ME = 1


def virtual(test):
    """Run a test in virtual time."""

    @functools.wraps(test)
    def run():
        simulate(test(), 1)

    return run


class Reader:
    def __init__(self, offset, last_epoch, told):
        self.offset, self.last_epoch, self.told = offset, last_epoch, told
        self.wants = []
        self.closed = False

    def want(self, max_bytes, *, wait):
        self.wants.append((max_bytes, wait))

    def close(self):
        self.closed = True


class Leaders:
    """Implements ports.gateways.Leaders as a test says."""

    def __init__(self):
        self.open = set()
        self.connects = []
        self.sent = []
        self.readers = []
        self.asked = []
        self.answers = []

    def takes_appends(self, broker):
        return broker in self.open

    def connect(self, broker):
        self.connects.append(broker)

    def append(self, broker, led, append, origin, done):
        self.sent.append((broker, led.leader_epoch, done))

    def read(self, broker, led, offset, last_epoch, origin, told):
        reader = Reader(offset, last_epoch, told)
        self.readers.append(reader)
        return reader

    async def watermarks(self, broker, led, origin):
        self.asked.append((asyncio.get_running_loop().time(), broker, led.leader_epoch))
        answer = self.answers.pop(0)
        if isinstance(answer, Refusal):
            raise answer
        return answer


class Held(FakePartition):
    """A replica of this broker; `offline` until it leads."""

    def __init__(self):
        super().__init__("t", PARTITION)
        self.offline = None
        self.wakes = set()

    def wait(self, wake):
        self.wakes.add(wake)

    def unwait(self, wake):
        self.wakes.discard(wake)


def routed(**options):
    leaders = Leaders()
    services = GatewayServices(ME, leaders, Origin, {2: {"clients": "two:1"}}, **options)
    return RoutedPartition("t", PARTITION, 1 << 20, services), leaders


def submit(partition, value=b"v"):
    answers = []
    partition.submit(Append(batch_of(records_of(value)), Acks.ALL, answers.append))
    return answers


def refusal(reason, leader=None):
    return Refusal(reason, "said so", leader=leader)


def chunk(base, count=1, high_watermark=None, batches=None):
    following = base + count
    found = [batch(base, count)] if batches is None else batches
    return Chunk(base, following, found, high_watermark or following, 0)


@virtual
async def test_an_append_waits_shortly_for_the_stream_to_its_leader():
    partition, leaders = routed()
    partition.route(1, 2)
    answers = submit(partition)
    assert leaders.connects == [2]
    assert not leaders.sent
    await asyncio.sleep(0.5)
    leaders.open.add(2)
    partition.reachable_changed()
    [(broker, epoch, done)] = leaders.sent
    assert (broker, epoch) == (2, 1)
    done(Appended(7, 1))
    assert answers == [Appended(7, 1, leader=LeaderHint(2, 1, {"clients": "two:1"}))]


@virtual
async def test_what_has_waited_too_long_is_refused_with_all_behind_it():
    partition, leaders = routed()
    first = submit(partition)
    await asyncio.sleep(0.9)
    second = submit(partition)
    await asyncio.sleep(0.2)
    for answers in (first, second):
        assert answers[0].error.reason is Reason.LEADER_NOT_AVAILABLE
    leaders.open.add(2)
    partition.route(1, 2)
    submit(partition)
    assert len(leaders.sent) == 1


@virtual
async def test_a_hint_of_a_newer_leader_is_followed_behind_the_answers_that_came_with_it():
    partition, leaders = routed()
    leaders.open = {2, 3}
    partition.route(1, 2)
    told = [submit(partition) for _ in range(3)]
    hint = LeaderHint(3, 2)
    for _, _, done in leaders.sent[:2]:
        done(Appended(None, 0, error=refusal(Reason.NOT_LEADER, hint)))
    await asyncio.sleep(0.001)
    reasons = [answers[0].error.reason for answers in told]
    assert reasons == [
        Reason.LEADER_NOT_AVAILABLE,
        Reason.LEADER_NOT_AVAILABLE,
        Reason.REQUEST_TIMED_OUT,
    ]
    assert told[0][0].error.leader.broker_id == 3
    assert told[0][0].record_count == 1
    submit(partition)
    assert leaders.sent[-1][:2] == (3, 2)
    # What the metadata say later of the older leadership is no news.
    partition.route(1, 2)
    submit(partition)
    assert leaders.sent[-1][:2] == (3, 2)
    # Nor is what the old leader answers.
    leaders.sent[2][2](Appended(5, 1))
    assert len(told[2]) == 1


@virtual
async def test_one_that_was_elected_here_is_sent_appends_once_it_has_begun():
    partition, _ = routed()
    held = Held()
    held.offline = refusal(Reason.NOT_LEADER)
    partition.hold(held)
    partition.route(1, ME)
    answers = submit(partition)
    assert not answers
    held.offline = None
    for wake in list(held.wakes):
        wake()
    assert (held.submitted, answers[0].base_offset, answers[0].leader) == (1, 0, None)


@virtual
async def test_a_replica_that_is_damaged_says_so():
    partition, _ = routed()
    held = Held()
    held.offline = refusal(Reason.PARTITION_OFFLINE)
    held.answers = [held.offline]
    partition.hold(held)
    partition.route(1, ME)
    assert submit(partition)[0].error.reason is Reason.PARTITION_OFFLINE


@virtual
async def test_a_question_goes_to_whoever_is_said_to_lead():
    partition, leaders = routed()
    partition.route(1, 2)
    marks = Watermarks(0, 1, 1, 2, 10)
    leaders.answers = [refusal(Reason.NOT_LEADER, LeaderHint(3, 2)), marks]
    assert await partition.watermarks() == marks
    assert [each[1:] for each in leaders.asked] == [(2, 1), (3, 2)]


@virtual
async def test_a_crowd_that_asks_for_offsets_of_elsewhere_asks_as_often_as_one_does():
    partition, leaders = routed()
    partition.route(1, 2)
    marks = Watermarks(0, 1, 1, 2, 10)
    leaders.answers = [*(refusal(Reason.UNKNOWN_LEADER_EPOCH) for _ in range(5)), marks]
    assert await asyncio.gather(*(partition.watermarks() for _ in range(1000))) == [marks] * 1000
    assert len(leaders.asked) == 6


@virtual
async def test_who_comes_behind_a_question_without_an_answer_waits_little_longer_than_alone():
    partition, leaders = routed()
    partition.route(1, 2)
    leaders.answers = [refusal(Reason.UNKNOWN_LEADER_EPOCH) for _ in range(1000)]
    clock = asyncio.get_running_loop().time
    first = asyncio.create_task(partition.watermarks())
    await asyncio.sleep(0.01)
    began = clock()
    with pytest.raises(Refusal) as caught:
        await partition.watermarks()
    assert caught.value.reason is Reason.LEADER_NOT_AVAILABLE

    assert WAIT_S <= clock() - began <= WAIT_S + 1.1
    await asyncio.gather(first, return_exceptions=True)


@virtual
async def test_a_leader_that_does_not_lead_yet_is_asked_again_until_the_time_is_up():
    partition, leaders = routed()
    partition.route(1, 2)
    leaders.answers = [refusal(Reason.UNKNOWN_LEADER_EPOCH) for _ in range(100)]
    with pytest.raises(Refusal, match="the leadership is moving") as caught:
        await partition.watermarks()
    assert caught.value.reason is Reason.LEADER_NOT_AVAILABLE
    assert 9 <= len(leaders.asked) <= 12


@virtual
async def test_a_refusal_that_is_about_the_question_is_the_answer():
    partition, leaders = routed()
    partition.route(1, 2)
    leaders.answers = [refusal(Reason.OFFSET_NOT_AVAILABLE)]
    with pytest.raises(Refusal) as caught:
        await partition.watermarks()
    assert caught.value.reason is Reason.OFFSET_NOT_AVAILABLE


@virtual
async def test_a_reader_asks_for_news_at_the_end_and_is_sent_a_little():
    partition, leaders = routed()
    partition.route(1, 2)
    woken = asyncio.Event()
    cursor = partition.cursor(3, woken.set)
    assert cursor.in_memory(1) is None
    assert cursor.take(1000) is None
    [reader] = leaders.readers
    assert (reader.offset, reader.wants, cursor.reads_ahead) == (3, [(1000, False)], True)
    reader.told(chunk(3, 2))
    assert woken.is_set()
    assert cursor.take(1000).next_offset == 5
    assert reader.wants[1:] == [(LITTLE_BYTES, True)]
    assert (cursor.reads_ahead, cursor.in_memory(1)) == (False, 0)
    assert cursor.take(1000) is None
    little = chunk(5)
    reader.told(little)
    assert not cursor.reads_ahead
    assert cursor.in_memory(1) == len(little.batches[0].data)
    assert cursor.take(1000) == little


@virtual
async def test_idle_readers_share_the_room_for_what_they_are_sent_unasked():
    partition, leaders = routed(room=LittleRoom(2 * LITTLE_BYTES))
    partition.route(1, 2)
    cursors = [partition.cursor(0, lambda: None) for _ in range(3)]
    for cursor in cursors:
        cursor.take(1000)
    for reader in leaders.readers:
        reader.told(chunk(0, 0, batches=[]))
    assert [reader.wants[1] for reader in leaders.readers] == [
        (LITTLE_BYTES, True),
        (LITTLE_BYTES, True),
        (0, True),
    ]
    cursors[0].close()
    assert leaders.readers[0].closed
    another = partition.cursor(0, lambda: None)
    another.take(1000)
    leaders.readers[3].told(chunk(0, 0, batches=[]))
    assert leaders.readers[3].wants[1] == (LITTLE_BYTES, True)


@virtual
async def test_a_reader_without_a_leader_asks_nobody_until_there_is_one():
    partition, leaders = routed()
    wakes = []
    cursor = partition.cursor(0, lambda: wakes.append(1))
    assert cursor.take(1000) is None
    await asyncio.sleep(60)
    assert not wakes
    partition.route(1, 2)
    assert wakes == [1]
    assert cursor.take(1000) is None
    assert len(leaders.readers) == 1


@virtual
async def test_a_reader_that_is_refused_for_the_moment_asks_again_less_and_less_often():
    partition, leaders = routed()
    partition.route(1, 2)
    cursor = partition.cursor(0, lambda: asyncio.get_running_loop().call_soon(cursor.take, 1000))
    cursor.take(1000)
    for _ in range(1000):
        reader = leaders.readers[-1]
        if reader.wants:
            reader.wants.clear()
            reader.told(refusal(Reason.LEADER_NOT_AVAILABLE))
        await asyncio.sleep(0.01)
    # 10 s: after 0.1, 0.2, 0.4, 0.8 and then every second.
    assert 11 <= len(leaders.readers) <= 14


@virtual
async def test_a_reader_is_told_what_is_about_its_place_or_the_data():
    partition, leaders = routed()
    partition.route(1, 2)
    for reason in (Reason.OFFSET_OUT_OF_RANGE, Reason.LOG_TRUNCATED, Reason.PARTITION_OFFLINE):
        cursor = partition.cursor(0, lambda: None)
        cursor.take(1000)
        leaders.readers[-1].told(refusal(reason))
        for _ in range(2):
            with pytest.raises(Refusal) as caught:
                cursor.take(1000)
            assert caught.value.reason is reason


@virtual
async def test_a_closed_partition_answers_everyone():
    partition, leaders = routed()
    leaders.open.add(2)
    partition.route(1, 2)
    sent = submit(partition)
    leaders.open.clear()
    partition.reachable_changed()
    waits = submit(partition)
    woken = asyncio.Event()
    cursor = partition.cursor(0, woken.set)
    partition.close(refusal(Reason.TOPIC_NOT_FOUND))
    assert not sent[0].error.meaning.definite
    assert waits[0].error.reason is Reason.TOPIC_NOT_FOUND
    assert submit(partition)[0].error.reason is Reason.TOPIC_NOT_FOUND
    assert woken.is_set()
    assert cursor.in_memory(1) == 0
    for ask in (partition.watermarks, lambda: partition.trim(1), lambda: _take(cursor)):
        with pytest.raises(Refusal) as caught:
            await ask()
        assert caught.value.reason is Reason.TOPIC_NOT_FOUND


async def _take(cursor):
    return cursor.take(1000)


@virtual
async def test_a_client_that_asks_leaders_only_is_told_who_leads():
    partition, leaders = routed()
    direct = partition.direct()
    with pytest.raises(Refusal) as caught:
        await direct.watermarks()
    assert caught.value.reason is Reason.LEADER_NOT_AVAILABLE
    leaders.open.add(2)
    partition.route(1, 2)
    answers = []
    direct.submit(Append(batch_of(records_of(b"v")), Acks.ALL, answers.append))
    assert answers[0].error.reason is Reason.NOT_LEADER
    assert answers[0].error.leader == LeaderHint(2, 1, {"clients": "two:1"})
    with pytest.raises(Refusal):
        direct.cursor(0, lambda: None).take(1000)
    assert not leaders.sent
    assert not leaders.readers
    held = Held()
    partition.hold(held)
    partition.route(2, ME)
    direct.submit(Append(batch_of(records_of(b"v")), Acks.ALL, answers.append))
    assert answers[1].base_offset == 0
