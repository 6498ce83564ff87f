"""Random readers against a dumb model: every delivery continues the last, nothing is lost."""

import asyncio
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from riverrun.v1.records_pb2 import RecordBatch, RecordSet
from riverrun_server.core.reading.control import Grant, PartitionName, Pause, Resume, Seek
from riverrun_server.core.reading.limits import ReadingLimits
from riverrun_server.core.reading.places import Place, PlaceKind, ResetPolicy
from riverrun_server.wire import codecs, forms
from riverrun_server.wire.stored import received_records
from tests.rpc.fake_partitions import FakeDirectory
from tests.rpc.reading_world import World
from tests.sim.loop import simulate

FORMS = [forms.RECORDS, forms.batches(codecs.NAMES), forms.batches([codecs.GZIP])]
PARTITIONS = 3
CREDIT = 4
SMALL = ReadingLimits(
    run_bytes=300, chunk_bytes_min=200, read_ahead_bytes=1000, heartbeat_interval_s=0.5
)

partition = st.integers(0, PARTITIONS - 1)
codec = st.sampled_from([0, codecs.GZIP, codecs.ZSTD])
fill = st.tuples(st.just("append"), partition, st.integers(1, 9), codec)
# Weighted: most of what can go wrong needs records that wait while the reader changes its mind.
step = st.one_of(
    fill,
    fill,
    fill,
    st.tuples(st.just("commit"), partition, st.floats(0.3, 1)),
    st.tuples(st.just("commit"), partition, st.floats(0.3, 1)),
    st.tuples(st.just("trim"), partition, st.floats(0, 1)),
    st.tuples(st.just("seek"), partition, st.floats(0, 1.1)),
    st.tuples(st.just("seek"), partition, st.floats(0, 1.1)),
    st.tuples(st.just("pause"), partition),
    st.tuples(st.just("resume"), partition),
    st.tuples(st.just("credit"), st.integers(0, 8), st.one_of(st.none(), st.integers(0, 300))),
    st.tuples(st.sampled_from(["block", "flow"])),
    st.tuples(st.just("sleep"), st.sampled_from([0.0, 0.001, 0.02])),
    st.tuples(st.just("sleep"), st.sampled_from([0.0, 0.001, 0.02, 1.0])),
)


@dataclass
class Model:
    """What a reader may know: where it stands, what it was granted, what it got."""

    accesses: list
    positions: dict = field(default_factory=dict)
    paused: set = field(default_factory=set)
    granted_records: int = 0
    granted_bytes: int = 0
    got_records: int = 0
    got_bytes: int = 0
    largest: int = 0

    def see(self, frame):
        kind = frame.WhichOneof("kind")
        message = getattr(frame, kind)
        if kind == "started":
            for each in message.positions:
                self.positions[each.partition] = each.offset
        elif kind == "seek_done":
            self.positions[message.position.partition] = message.position.offset
        elif kind == "position_reset":
            assert self.positions[message.position.partition] == message.old_offset
            self.positions[message.position.partition] = message.position.offset
        elif kind == "delivery":
            self.deliver(message)
        elif kind == "caught_up":
            assert self.positions[message.position.partition] >= message.position.high_watermark
        else:
            assert kind == "heartbeat", frame

    def deliver(self, delivery):
        access = self.accesses[delivery.partition]
        assert delivery.partition not in self.paused
        assert delivery.first_offset == self.positions[delivery.partition]
        assert delivery.next_offset > delivery.first_offset
        assert delivery.next_offset <= delivery.high_watermark <= access.high_watermark
        self.positions[delivery.partition] = delivery.next_offset
        offsets = []
        for batch in delivery.batches:
            base = batch.base_offset
            assert batch.codec in (codecs.NONE, codecs.GZIP, 0) or batch.codec == codecs.ZSTD
            data = codecs.expand(batch.codec, batch.records, 1 << 20)
            for at, record in enumerate(RecordSet.FromString(data).records):
                if delivery.first_offset <= base + at < delivery.next_offset:
                    offsets.append(base + at)
                    assert record.value == access.values[base + at]
        for record in delivery.records:
            offsets.append(record.offset)
            assert record.value == access.values[record.offset]
        assert offsets == list(range(delivery.first_offset, delivery.next_offset))
        self.charge(delivery, len(offsets))

    def charge(self, delivery, records):
        # It began while there was credit of both kinds.
        assert self.got_records < self.granted_records
        assert self.got_bytes < self.granted_bytes
        self.got_records += records
        self.got_bytes += delivery.charged_bytes
        if delivery.records:
            assert self.got_records <= self.granted_records


def append(access, count, codec):
    base = access.log_end_offset
    values = [b"%d:%d" % (access.id.partition, base + n) * 9 for n in range(count)]
    access.values.update({base + n: value for n, value in enumerate(values)})
    access.append(*values, codec=codec)


def boundary(access, share):
    """Return an offset between watermark and end at which a batch begins."""
    ends = [each.next_offset for each in access.batches] or [access.log_end_offset]
    ends = [each for each in ends if each >= access.high_watermark] or [access.high_watermark]
    return ends[min(len(ends) - 1, int(share * len(ends)))]


async def play(script, form, cold, limits, frame_bytes):
    directory = FakeDirectory()
    accesses = directory.create("t", PARTITIONS)
    for access in accesses:
        access.values = {}
        access.commits_at_once = False
        access.cold = cold
        for _ in range(4):
            append(access, 9, codecs.NONE)
        access.commit()
    async with World(directory, limits=limits) as world:
        model = Model(accesses, granted_records=CREDIT, granted_bytes=2000)
        stream = world.stream(
            *accesses,
            form=form,
            frame_bytes=frame_bytes,
            credit_records=CREDIT,
            credit_bytes=2000,
            reset=ResetPolicy.EARLIEST,
        )
        stream.on_write = model.see
        async with stream.running() as task:
            await asyncio.sleep(0.001)
            for each in script:
                await act(each, stream, model, accesses)
                if task.done():
                    break
            else:
                await finish(stream, model, accesses)
            assert not task.done(), task.result()


async def act(action, stream, model, accesses):
    kind, *arguments = action
    if kind in ("append", "commit", "trim", "seek", "pause", "resume"):
        access = accesses[arguments[0]]
        name = PartitionName("t", b"", arguments[0])
    if kind == "append":
        append(access, *arguments[1:])
    elif kind == "commit":
        access.commit(boundary(access, arguments[1]))
    elif kind == "trim":
        start, end = access.log_start_offset, access.high_watermark
        await access.trim(start + int(arguments[1] * (end - start)))
    elif kind == "seek":
        target = max(0, int(arguments[1] * (access.log_end_offset + 1)))
        await say(stream, Seek(1, name, Place(PlaceKind.OFFSET, target)))
    elif kind == "pause" and stream.flowing.is_set():
        await say(stream, Pause([name]))
        await asyncio.sleep(0.05)
        model.paused.add(arguments[0])
    elif kind == "resume":
        model.paused.discard(arguments[0])
        await say(stream, Resume([name]))
    elif kind == "credit":
        records, size = arguments
        model.granted_records += records
        model.granted_bytes += size or 0
        await say(stream, Grant(records, size))
    elif kind == "block":
        stream.flowing.clear()
    elif kind == "flow":
        stream.flowing.set()
    elif kind == "sleep":
        await asyncio.sleep(arguments[0])


async def say(stream, control):
    if stream.reader.control._queue.full():
        stream.flowing.set()
    await stream.say(control)


async def finish(stream, model, accesses):
    """With credit, flow and commits for all, every partition is delivered to its end."""
    stream.flowing.set()
    model.paused.clear()
    model.granted_records += 10_000
    model.granted_bytes += 10_000_000
    await say(stream, Resume([]))
    await say(stream, Grant(10_000, 10_000_000))
    for access in accesses:
        append(access, 1, 0)
        access.commit()
    await asyncio.sleep(60)
    assert model.positions == {each.id.partition: each.log_end_offset for each in accesses}


@settings(max_examples=120, deadline=None)
@given(
    st.lists(step, min_size=20, max_size=100),
    st.sampled_from(FORMS),
    st.booleans(),
    st.booleans(),
    st.sampled_from([100, 400, 1 << 20]),
    st.integers(0, 1 << 30),
)
def test_every_delivery_continues_the_last_and_nothing_uncommitted_is_seen(
    script, form, cold, small, frame_bytes, seed
):
    limits = SMALL if small else ReadingLimits()
    simulate(play(script, form, cold, limits, frame_bytes), seed)


def test_the_model_reads_batches_as_the_broker_does():
    directory = FakeDirectory()
    (access,) = directory.create("t")
    access.values = {}
    append(access, 3, codecs.ZSTD)
    batch = RecordBatch.FromString(access.batches[0].data)
    assert batch.record_count == 3
    records = received_records(access.batches[0].data, 0, 3, 1 << 20)
    assert [each.value for each in records] == list(access.values.values())
