"""A consumer that is closed while records arrive leaves no memory behind, neither Python's nor gRPC's."""

from __future__ import annotations

import ctypes
import gc
import sys

import riverrun

# Before they are judged, allocators have to have what they reuse.
WARM, CLOSED = 20, 100
# Where messages are left, each consumer leaves more than 20 KiB on average.
LEFT_MAX_BYTES = 5 << 10


class _Mallinfo(ctypes.Structure):
    # mallinfo2(3)
    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    )


def allocated_bytes() -> int:
    """Return what C code and Python hold of the C library's allocator; it alone sees gRPC's."""
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = _Mallinfo
    gc.collect()
    told = mallinfo()
    return told.uordblks + told.hblkhd


async def close_in_the_middle(client, topic) -> None:
    async with client.consumer(topic, from_="earliest") as consumer:
        await consumer.getmany(1)


async def test_consumers_closed_while_a_message_arrives_leave_no_memory_behind(
    shared_broker, topic
):
    async with riverrun.Client(shared_broker.address) as client:
        await client.admin().create_topic(topic, partitions=4)
        async with client.producer() as producer:
            await producer.send_many(topic, [b"x" * 100] * 4_000)
        for _ in range(WARM):
            await close_in_the_middle(client, topic)
        before = allocated_bytes()
        for _ in range(CLOSED):
            await close_in_the_middle(client, topic)
        left = allocated_bytes() - before
    sys.stdout.write(f"{left / CLOSED / 1024:.1f} KiB were left by each\n")
    assert left < CLOSED * LEFT_MAX_BYTES
