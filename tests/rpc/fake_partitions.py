"""A broker's partitions in memory: Directory, PartitionAccess and Cursor with real stored batches.

A test moves the high watermark, breaks partitions and loses what is not committed by hand. By
default everything that is appended is committed at once. `cold` cursors answer None first and wake
later, as a read of the disk does.
"""

from __future__ import annotations

import asyncio
import itertools
import zlib
from bisect import bisect_right

from riverrun.v1.records_pb2 import Record, RecordBatch, RecordSet
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.assignment.values import AssignableTopic
from riverrun_server.core.log.batch import PartitionId, Stamp, StoredBatch
from riverrun_server.ports.partitions import Acks, Appended, Chunk, NoFlow, Watermarks
from riverrun_server.runtime.cursor import LocalCursor
from riverrun_server.runtime.partition_flow import PartitionFlow
from riverrun_server.wire import codecs
from riverrun_server.wire.ingress import IngressLimits, accept
from riverrun_server.wire.stored import record_times

NOW_MS = 1_700_000_000_000


class InlineThreads:
    """Implements ports.threads.Threads: every call runs at once; counts them."""

    def __init__(self):
        self.calls = 0

    def run(self, function, *args):
        self.calls += 1
        future = asyncio.get_running_loop().create_future()
        try:
            future.set_result(function(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    async def close(self, within_s):
        pass


def records_of(*values, **fields):
    return [Record(value=value, **fields) for value in values]


def batch_of(records, codec=codecs.NONE):
    data = codecs.compress(codec, RecordSet(records=records).SerializeToString())
    batch = RecordBatch(records=data, codec=codec, records_crc=zlib.crc32(data))
    return accept(batch, IngressLimits(3 << 20), NOW_MS)


class FakePartition:
    """Implements ports.partitions.PartitionAccess."""

    def __init__(self, topic="t", partition=None, *, cold=False):
        self.topic = topic
        self.id = partition or PartitionId(b"t" * 16, 0)
        self.max_batch_bytes = 3 << 20
        self.cold = cold
        self.commits_at_once = True
        self.batches = []
        self.log_start_offset = self.high_watermark = self.log_end_offset = 0
        self.leader_epoch = 1
        self.epochs = []
        self.cursors = []
        self.waiting = []
        self.takes = 0
        self.submitted = 0
        self.lags = {}
        self.broken = None
        self.answers = []
        self.now_ms = NOW_MS
        self.flow = NoFlow()
        self.led_here = True

    # What a test does.

    def append(self, *values, codec=codecs.NONE, **fields):
        """Append one batch of records with these values; return its base offset."""
        return self.store(batch_of(records_of(*values, **fields), codec))

    def store(self, batch):
        base, count = self.log_end_offset, batch.header.record_count
        stamp = Stamp(base, count - 1, self.leader_epoch, self.now_ms, self.now_ms)
        stored = StoredBatch(
            base, stamp.next_offset, self.leader_epoch, batch.stamped(self.id, stamp)
        )
        if not self.epochs or self.epochs[-1][0] < self.leader_epoch:
            self.epochs.append((self.leader_epoch, base))
        self.batches.append(stored)
        self.log_end_offset = stamp.next_offset
        if self.commits_at_once:
            self.commit()
        return base

    def commit(self, offset=None):
        """Move the high watermark, wake who waits, answer appends."""
        self.high_watermark = self.log_end_offset if offset is None else offset
        self.wake_all()
        waiting, self.waiting = self.waiting, []
        for end, append, appended in waiting:
            if end <= self.high_watermark:
                append.done(appended)
            else:
                self.waiting.append((end, append, appended))

    def wake_all(self):
        for cursor in list(self.cursors):
            cursor.wake()

    def truncate(self, offset, leader_epoch):
        """Lose everything from an offset on and go on in a new epoch: an accepted loss."""
        self.batches = [each for each in self.batches if each.next_offset <= offset]
        self.epochs = [each for each in self.epochs if each[1] < offset]
        self.log_end_offset = self.high_watermark = offset
        self.leader_epoch = leader_epoch

    def crash(self):
        """Lose what is not committed, and everyone who waits."""
        self.batches = [each for each in self.batches if each.next_offset <= self.high_watermark]
        self.log_end_offset = self.high_watermark
        self.waiting = []
        self.cursors = []

    # ports.partitions.PartitionAccess

    def submit(self, append):
        self.submitted += 1
        if self.answers and (refusal := self.answers.pop(0)) is not None:
            count = append.batch.header.record_count
            if not refusal.meaning.definite:
                self.store(append.batch)
            append.done(Appended(None, count, error=refusal))
            return
        base = self.log_end_offset
        if append.expected_offset not in (None, base):
            append.refuse(Refusal(Reason.EXPECTED_OFFSET_MISMATCH, f"the log ends at {base}"))
            return
        appended = Appended(base, append.batch.header.record_count, self.log_start_offset)
        if append.acks is Acks.ALL:
            self.waiting.append((base + appended.record_count, append, appended))
            self.store(append.batch)
        else:
            self.store(append.batch)
            append.done(appended)

    async def watermarks(self):
        if self.broken:
            raise self.broken
        return Watermarks(
            self.log_start_offset,
            self.high_watermark,
            self.log_end_offset,
            self.leader_epoch,
            0,
            self.lags,
        )

    async def offset_at_time(self, time_ms):
        if self.broken:
            raise self.broken
        for batch in self.batches:
            for offset, timestamp in record_times(batch.data):
                if self.log_start_offset <= offset < self.high_watermark and timestamp >= time_ms:
                    return offset, timestamp
        return None

    def cursor(self, offset, wake):
        cursor = FakeCursor(self, offset, wake)
        self.cursors.append(cursor)
        return cursor

    async def trim(self, before_offset):
        target = self.high_watermark if before_offset == -1 else before_offset
        assert target <= self.high_watermark
        self.log_start_offset = max(self.log_start_offset, target)
        self.batches = [each for each in self.batches if each.next_offset > self.log_start_offset]
        return self.log_start_offset

    # What its cursors ask.

    def check_readable(self, offset, leader_epoch):
        if self.broken:
            raise self.broken
        if leader_epoch is not None:
            for epoch, start in self.epochs:
                if epoch > leader_epoch and start < offset:
                    raise Refusal(
                        Reason.LOG_TRUNCATED, "what you saw is gone", diverging_offset=start
                    )
        if not self.log_start_offset <= offset <= self.log_end_offset:
            raise Refusal(
                Reason.OFFSET_OUT_OF_RANGE,
                f"offset {offset} is out of range",
                available=(self.log_start_offset, self.log_end_offset),
            )

    def read(self, offset, max_bytes):
        at = bisect_right(self.batches, offset, key=lambda each: each.next_offset)
        found, size = [], 0
        for batch in itertools.islice(self.batches, at, None):
            size += len(batch.data)
            if batch.next_offset > self.high_watermark or (found and size > max_bytes):
                break
            found.append(batch)
        return found


class FakeCursor:
    """Implements ports.partitions.Cursor."""

    def __init__(self, partition, offset, wake):
        self.partition = partition
        self.position = offset
        self.leader_epoch = None
        self._wake = wake
        self._warm_at = None
        self.closed = False

    def wake(self):
        if not self.closed:
            self._wake()

    @property
    def reads_ahead(self):
        return self._warm_at == self.position

    def in_memory(self, max_bytes):
        partition = self.partition
        if self.position >= partition.high_watermark:
            return 0
        if partition.cold:
            return None
        return sum(len(batch.data) for batch in partition.read(self.position, max_bytes))

    def take(self, max_bytes, *, read_ahead=True):
        assert not self.closed
        partition = self.partition
        partition.takes += 1
        partition.check_readable(self.position, self.leader_epoch)
        if self.position >= partition.high_watermark:
            return None
        if partition.cold and self._warm_at != self.position:
            self._warm_at = self.position
            asyncio.get_running_loop().call_later(0.01, self.wake)
            return None
        first = self.position
        batches = partition.read(first, max_bytes)
        if batches:
            self.position, self.leader_epoch = batches[-1].next_offset, batches[-1].leader_epoch
        else:
            self.position = partition.high_watermark
        return Chunk(
            first, self.position, batches, partition.high_watermark, partition.log_start_offset
        )

    def seek(self, offset, leader_epoch=None):
        self.position, self.leader_epoch, self._warm_at = offset, leader_epoch, None

    def close(self):
        self.closed = True
        if self in self.partition.cursors:
            self.partition.cursors.remove(self)


class BehindPartition:
    """A FakePartition with the broker's own cursor, which reads ahead; nothing is in the hot tail."""

    def __init__(self, fake):
        self._fake = fake
        self.reads = []
        self.flow = PartitionFlow(None)  # only what is appended would ask the machine

    def __getattr__(self, name):
        return getattr(self._fake, name)

    def cursor(self, offset, wake):
        return LocalCursor(self, offset, wake)

    def read_tail(self, offset, max_bytes):
        return None

    def read_disk(self, offset, max_bytes):
        """Answer with one batch after 10 ms."""
        loop = asyncio.get_running_loop()
        answer = loop.create_future()
        self.reads.append((offset, max_bytes))
        loop.call_later(0.01, lambda: answer.done() or answer.set_result(self.read(offset, 1)))
        return answer

    def wait(self, wake):
        pass

    def unwait(self, wake):
        pass


class FakeDirectory:
    """Implements ports.partitions.Directory, the catalog's ensure_internal_topic, and AssignableTopics."""

    def __init__(self):
        self.topics = {}
        self.watching = {}
        self.made = []
        self._ids = itertools.count(1)

    def create(self, topic, partitions=1, *, cold=False):
        topic_id = next(self._ids).to_bytes(16, "big")
        self.topics[topic] = [
            FakePartition(topic, PartitionId(topic_id, number), cold=cold)
            for number in range(partitions)
        ]
        self.topics_are_new()
        return self.topics[topic]

    def grow(self, topic, partitions):
        found = self.topics[topic]
        topic_id = found[0].id.topic_id
        found += [
            FakePartition(topic, PartitionId(topic_id, number))
            for number in range(len(found), partitions)
        ]
        self.topics_are_new()

    def delete(self, topic):
        del self.topics[topic]
        self.topics_are_new()

    async def run(self):
        await asyncio.Event().wait()

    def current(self):
        return {
            name: AssignableTopic(topic_id=found[0].id.topic_id, partitions=len(found))
            for name, found in self.topics.items()
            if not name.startswith("__")
        }

    def watch(self, changed):
        key = object()
        self.watching[key] = changed
        return lambda: self.watching.pop(key, None)

    def topics_are_new(self):
        for changed in list(self.watching.values()):
            changed()

    async def ensure_internal_topic(self, name, partitions, configs):
        await asyncio.sleep(0)
        if name not in self.topics:
            self.made.append((name, partitions, dict(configs)))
            self.create(name, partitions)

    def partitions(self, topic, topic_id=b""):
        for name, found in self.topics.items():
            if name == topic or (not topic and found[0].id.topic_id == topic_id):
                if topic_id and found[0].id.topic_id != topic_id:
                    raise Refusal(Reason.TOPIC_ID_MISMATCH, f"topic {topic!r} has another id")
                return found
        if not topic and not topic_id:
            raise Refusal(Reason.INVALID_REQUEST, "no topic is named")
        raise Refusal(Reason.TOPIC_NOT_FOUND, f"there is no topic {topic or topic_id.hex()!r}")

    def partition(self, topic, topic_id, partition):
        found = self.partitions(topic, topic_id)
        if not 0 <= partition < len(found):
            raise Refusal(
                Reason.PARTITION_NOT_FOUND, f"topic {topic!r} has {len(found)} partitions"
            )
        return found[partition]

    def is_internal(self, topic):
        return topic.startswith("__")
