"""Attacks on memory, on places and on patience, each until it is told to stop."""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections.abc import Awaitable, Callable

import h2.errors

from riverrun.v1 import admin_pb2 as a
from riverrun.v1 import consumer_pb2 as c
from riverrun.v1 import producer_pb2 as p
from riverrun.v1.records_pb2 import Record, RecordBatch, RecordSet
from riverrun_server.wire import codecs
from tests.e2e.hostile.raw_http2 import Crowd, RawConnection, framed

PRODUCER, CONSUMER = "/riverrun.v1.ProducerService/", "/riverrun.v1.ConsumerService/"
ADMIN, METADATA = "/riverrun.v1.AdminService/", "/riverrun.v1.MetadataService/"
FULL, SINK = "attacked-full", "attacked-sink"
MIB = 1 << 20
# int64's and Duration's largest.
_INFINITE = 2**63 - 1
_YEARS_S = 315_576_000_000

# (connections of the attacker, set when it is over, how many connections idle ones have).
Attack = Callable[[Crowd, asyncio.Event, int], Awaitable[None]]


async def prepare(address: str) -> None:
    """Make what attackers read: a topic of large batches, more than the broker has in memory."""
    async with Crowd(address) as crowd:
        raw = await crowd.connect()
        for topic in (FULL, SINK):
            await _admin(raw, "CreateTopic", a.CreateTopicRequest(topic=topic, partitions=8))
        large = Record(value=b"\xa5" * 900_000)
        for number in range(64):
            request = p.ProduceRequest(topic=FULL, partition=number % 8, records=[large])
            answer = await raw.ask(PRODUCER + "Produce", request.SerializeToString())
            assert answer.status == 0, answer


async def _admin(raw: RawConnection, method: str, request: object) -> None:
    await raw.ask(ADMIN + method, request.SerializeToString())


async def idle_connections(crowd: Crowd, stop: asyncio.Event, connections: int) -> None:
    """Connect thousands of times and do nothing."""
    await crowd.connect_idle(connections, stop)
    await crowd.hold(stop)


async def open_streams(crowd: Crowd, stop: asyncio.Event, _: int) -> None:
    """Open ten thousand streams."""
    start = c.SubscribeRequest(start=c.SubscribeStart(topics=[SINK]))
    for _ in range(40):
        raw = await crowd.connect()
        for _ in range(250):
            if stop.is_set():
                return
            await raw.send(raw.call(CONSUMER + "Subscribe"), framed(start.SerializeToString()))
        await raw.hear(0.01)
    await crowd.hold(stop)


async def never_reading_subscribers(crowd: Crowd, stop: asyncio.Event, _: int) -> None:
    """Subscribe with all the credit there is, and never read."""
    credit = c.Credit(records=_INFINITE, bytes=_INFINITE)
    start = c.SubscribeRequest(
        start=c.SubscribeStart(
            topics=[FULL], form=c.FORM_BATCHES, initial_credit=credit, max_frame_bytes=2**31 - 1
        )
    )
    for _ in range(10):
        # What says that the stream has started goes through, the first delivery does not.
        raw = await crowd.connect(window=4_000)
        for _ in range(50):
            if stop.is_set():
                return
            await raw.send(raw.call(CONSUMER + "Subscribe"), framed(start.SerializeToString()))
    await crowd.hold(stop)


async def never_reading_fetches(crowd: Crowd, stop: asyncio.Event, _: int) -> None:
    """Ask for as much as there is, again and again, and read none of it."""
    positions = [c.StartPosition(topic=FULL, partition=n) for n in range(8)]
    request = c.FetchRequest(positions=positions, form=c.FORM_BATCHES, max_bytes=2**31 - 1)
    for _ in range(5):
        raw = await crowd.connect(window=0)
        for _ in range(100):
            await raw.send(
                raw.call(CONSUMER + "Fetch"), framed(request.SerializeToString()), end=True
            )
    await crowd.hold(stop)


async def endless_fetches(crowd: Crowd, stop: asyncio.Event, _: int) -> None:
    """Wait for more bytes than there will ever be, for longer than anybody lives."""
    positions = [c.StartPosition(topic=SINK, partition=0)]
    request = c.FetchRequest(positions=positions, min_bytes=2**31 - 1, max_bytes=2**31 - 1)
    request.max_wait.seconds = _YEARS_S
    for _ in range(4):
        raw = await crowd.connect()
        for _ in range(500):
            await raw.send(
                raw.call(CONSUMER + "Fetch"), framed(request.SerializeToString()), end=True
            )
    await crowd.hold(stop)


async def half_sent_requests(crowd: Crowd, stop: asyncio.Event, _: int) -> None:
    """Begin requests of 4 MiB and stop half way."""
    half = b"\0" + struct.pack(">I", 4 * MIB) + b"\x1a" * (2 * MIB)
    for _ in range(4):
        raw = await crowd.connect()
        for _ in range(40):
            if stop.is_set():
                return
            await raw.send(raw.call(PRODUCER + "Produce"), half)
    await crowd.hold(stop)


async def unread_acks(crowd: Crowd, stop: asyncio.Event, _: int) -> None:
    """Send tiny appends that are refused, as fast as they are taken, and read none of the answers."""
    one = p.ProduceStreamRequest(append=p.ProduceAppend(tag=1, topic="none", partition=0))
    many = framed(one.SerializeToString()) * 200

    async def flood() -> None:
        raw = await crowd.connect(window=0)
        stream = raw.call(PRODUCER + "ProduceStream")
        while not (stop.is_set() or raw.closed) and await raw.send(stream, many, patience_s=1.0):
            pass  # until the broker takes no more of them

    await asyncio.gather(*(flood() for _ in range(4)))
    await crowd.hold(stop)


async def tiny_messages(crowd: Crowd, stop: asyncio.Event, _: int) -> None:
    """Write one byte at a time."""
    request = p.ProduceRequest(topic=SINK, partition=0, records=[Record(value=b"x")])
    await _ask_all_the_time(crowd, stop, PRODUCER + "Produce", itertools.repeat(request), 4)


async def bombs(crowd: Crowd, stop: asyncio.Event, _: int) -> None:
    """Send batches that are small and become large: in every codec, nested, and with huge windows."""
    zeros = RecordSet(records=[Record(value=bytes(64 * MIB))]).SerializeToString()
    packed = [(codec, codecs.compress(codec, zeros)) for codec in (2, 3, 4)]
    # A zstd frame that declares a window of 2 GiB, and one that declares 2^60 bytes.
    packed += [(3, b"\x28\xb5\x2f\xfd\x00\xa8" + b"\x00" * 30)]
    packed += [(3, b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 2**60) + b"\x00" * 30)]
    packed += [(codec, codecs.compress(codec, data)) for codec, data in packed[:3]]
    packed += [(0, b"\x0a\x00" * 400_000)]  # empty records
    requests = [
        p.ProduceRequest(
            batches=[
                p.PartitionBatch(
                    topic=SINK, partition=1, batch=RecordBatch(records=data, codec=codec)
                )
            ]
        )
        for codec, data in packed
    ]
    empty = p.ProduceRequest(topic=SINK, partition=1)
    empty.MergeFromString(b"\x1a\x00" * 1_000_000)
    requests.append(empty)
    await _ask_all_the_time(crowd, stop, PRODUCER + "Produce", itertools.cycle(requests), 2)


async def topics(crowd: Crowd, stop: asyncio.Event, _: int) -> None:
    """Make a hundred thousand topics, impossible ones among them."""

    def requests():
        for number in itertools.count():
            yield a.CreateTopicRequest(topic=f"flood-{number}", partitions=1 + number % 3)
            yield a.CreateTopicRequest(topic=f"vast-{number}", partitions=2**31 - 1)
            yield a.CreateTopicRequest(topic="x" * 100_000)
            yield a.CreateTopicRequest(topic=f"../../{number}\r\n")
            yield a.CreateTopicRequest(
                topic=f"mapped-{number}", configs={f"key-{n}": "v" for n in range(2_000)}
            )
            yield a.CreateTopicRequest(topic=f"value-{number}", configs={"fsync": "v" * 10_000})

    await _ask_all_the_time(crowd, stop, ADMIN + "CreateTopic", requests(), 2)


async def producers(crowd: Crowd, stop: asyncio.Event, _: int) -> None:
    """Be a million producers, with ids that were handed out and with made-up ones."""
    records = RecordSet(records=[Record(value=b"x")]).SerializeToString()

    def requests():
        for number in itertools.count(1):
            batches = [
                p.PartitionBatch(
                    topic=SINK,
                    partition=2,
                    batch=RecordBatch(records=records, producer_id=number * 1000 + n),
                )
                for n in range(200)
            ]
            yield p.ProduceRequest(batches=batches)

    await asyncio.gather(
        _ask_all_the_time(crowd, stop, PRODUCER + "Produce", requests(), 1),
        _ask_all_the_time(
            crowd,
            stop,
            PRODUCER + "InitProducer",
            itertools.repeat(p.InitProducerRequest()),
            1,
        ),
    )


async def groups(crowd: Crowd, stop: asyncio.Event, _: int) -> None:
    """Commit for thousands of groups, with as much metadata as there may be."""

    def requests():
        for number in itertools.count():
            offset = c.OffsetCommit(topic=SINK, partition=0, offset=0, metadata="m" * 4096)
            yield c.CommitOffsetRequest(group_id=f"group-{number}", offsets=[offset])

    await _ask_all_the_time(crowd, stop, CONSUMER + "CommitOffset", requests(), 2)


async def pages(crowd: Crowd, stop: asyncio.Event, _: int) -> None:
    """Ask for the largest page of everything."""
    request = a.ListTopicsRequest(page_size=2**31 - 1, include_internal=True)
    await _ask_all_the_time(crowd, stop, ADMIN + "ListTopics", itertools.repeat(request), 2)


async def resets(crowd: Crowd, stop: asyncio.Event, _: int) -> None:
    """Begin calls and take them back."""
    while not stop.is_set():
        raw = await crowd.connect()
        for _ in range(200):
            if raw.closed or stop.is_set():
                break
            for _ in range(50):
                stream = raw.call(METADATA + "GetServerInfo")
                raw.h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
            await raw.flush()
            await asyncio.sleep(0)
        await raw.close()


async def _ask_all_the_time(crowd, stop, method, requests, connections) -> None:
    requests = iter(requests)

    async def ask() -> None:
        raw = await crowd.connect()
        while not stop.is_set() and not raw.closed:
            streams = []
            for _ in range(8):
                streams.append(raw.call(method))
                await raw.send(streams[-1], framed(next(requests).SerializeToString()), end=True)
            for stream in streams:
                while not (stop.is_set() or raw.closed or raw.answers[stream].over):
                    await raw.hear(0.1)
            if raw.h2.highest_outbound_stream_id > 2**20:
                raw = await crowd.connect()

    await asyncio.gather(*(ask() for _ in range(connections)))


# These hold what they got and do nothing any more: whoever else calls must not notice. The others
# keep the broker busy, and share its core with everybody.
HOLDING = frozenset(
    {
        "idle_connections",
        "open_streams",
        "never_reading_subscribers",
        "never_reading_fetches",
        "endless_fetches",
        "unread_acks",
    }
)
ATTACKS: dict[str, Attack] = {
    attack.__name__: attack
    for attack in (
        idle_connections,
        open_streams,
        never_reading_subscribers,
        never_reading_fetches,
        endless_fetches,
        half_sent_requests,
        unread_acks,
        tiny_messages,
        bombs,
        topics,
        producers,
        groups,
        pages,
        resets,
    )
}
