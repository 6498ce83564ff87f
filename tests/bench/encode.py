"""What a record costs this client: encoded, sent and acknowledged, and read.

    .venv/bin/python tests/bench/encode.py            all of it, some ten seconds
    .venv/bin/python tests/bench/encode.py encode     only the part named: encode, send or decode

Times are of the processor in ns a record, the best of several rounds, for other work on the machine
makes them longer and never shorter. `send` runs a broker in another process that takes whole streams
and answers at once, so that what is measured here is the client alone.
"""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from zlib import crc32

import grpc
import grpc.aio
import uvloop

import riverrun
from riverrun._core.batch_view import BatchView
from riverrun._core.checksums import placement_crc
from riverrun._core.encoding import encode_pairs, encode_rows, encode_values
from riverrun._core.records import TopicPartition
from riverrun.v1 import metadata_pb2, producer_pb2
from riverrun.v1.records_pb2 import RecordBatch, RecordSet

RECORDS = 2_000
ROUNDS = 40
SENT = 400_000
VALUE_BYTES = 100
NOW_MS = 1_700_000_000_000


def line(name: str, ns: float, note: str = "") -> None:
    print(f"{name:44} {ns:7.0f} ns a record  {1e3 / ns:6.2f} M/s  {note}")


def best(call: Callable[[], object], records: int = RECORDS, rounds: int = ROUNDS) -> float:
    """Return the shortest time of several rounds, in ns a record."""
    gc.collect()
    gc.disable()
    times = []
    for _ in range(rounds):
        began = time.thread_time()
        call()
        times.append(time.thread_time() - began)
    gc.enable()
    return min(times) / records * 1e9


def pairs(lengths: Callable[[], int]) -> list[tuple[bytes, bytes]]:
    return [(b"key-%04d" % number, os.urandom(lengths())) for number in range(RECORDS)]


def bench_encode() -> None:
    """Measure the encoders on batches of 256 KB, beside protobuf's own builder."""

    def by_protobuf(rows: list[tuple[bytes, bytes]]) -> bytes:
        record_set = RecordSet()
        for key, value in rows:
            record_set.records.add(key=key, value=value, timestamp_ms=NOW_MS)
        return record_set.SerializeToString()

    limit = 1 << 20
    equal = pairs(lambda: VALUE_BYTES)
    mixed = pairs(lambda: random.randrange(VALUE_BYTES // 2, VALUE_BYTES * 3 // 2))
    assert encode_pairs(mixed, NOW_MS, limit).data == by_protobuf(mixed)
    line("encode pairs of equal lengths", best(lambda: encode_pairs(equal, NOW_MS, limit)))
    line("encode pairs of mixed lengths", best(lambda: encode_pairs(mixed, NOW_MS, limit)))
    values = [value for _, value in equal]
    line("encode values of equal lengths", best(lambda: encode_values(values, NOW_MS, limit)))
    values_mixed = [value for _, value in mixed]
    line("encode values of mixed lengths", best(lambda: encode_values(values_mixed, NOW_MS, limit)))
    rows = [(key, value, NOW_MS + n, ()) for n, (key, value) in enumerate(mixed)]
    line("encode rows with a time each", best(lambda: encode_rows(rows, limit)))
    line("encode pairs with protobuf", best(lambda: by_protobuf(equal)), "for comparison")


def bench_decode() -> None:
    """Measure reading batches that are in memory: checked, and values or whole records touched."""

    place, topic_id = TopicPartition("t", 0), bytes(16)
    data, count = encode_pairs(pairs(lambda: VALUE_BYTES), NOW_MS, 1 << 20)
    batch = RecordBatch(records=data, codec=1, records_crc=crc32(data), record_count=count)
    batch.last_offset_delta, batch.format_version = count - 1, 1
    batch.placement_crc = placement_crc(topic_id, 0, batch)

    def view() -> BatchView:
        return BatchView(
            place,
            topic_id,
            batch,
            lambda records: RecordSet.FromString(records).records,
            first=0,
            end=count,
            next_offset=count,
            high_watermark=count,
        )

    line("check a batch", best(view))
    line("check a batch, touch every value", best(lambda: view().values()))
    line("check a batch, make whole records", best(lambda: view().to_records()))


def serve(pipe: Connection) -> None:
    """Run a broker that takes what comes and answers at once."""

    def started() -> producer_pb2.ProduceStreamResponse:
        limits = producer_pb2.ProduceStarted(
            max_unacknowledged_batches=64, max_in_flight_bytes=64 << 20
        )
        return producer_pb2.ProduceStreamResponse(started=limits)

    async def produce(_: object, context: grpc.aio.ServicerContext) -> None:
        await context.write(started())
        await context.read()
        for tag in itertools.count(1):
            if await context.read() is grpc.aio.EOF:
                return
            answer = producer_pb2.ProduceStreamResponse()
            answer.acks.acked.add(first_tag=tag, base_offsets=[0])
            await context.write(answer)

    async def info(*_: object) -> metadata_pb2.GetServerInfoResponse:
        return metadata_pb2.GetServerInfoResponse(version="bench")

    async def metadata(request, _: object) -> metadata_pb2.GetMetadataResponse:
        answer = metadata_pb2.GetMetadataResponse()
        topic = answer.cluster.topics.add(topic=request.topics[0], topic_id=bytes(16))
        for number in range(int(topic.topic)):
            topic.partitions.add(partition=number)
        return answer

    async def init(*_: object) -> producer_pb2.InitProducerResponse:
        return producer_pb2.InitProducerResponse(producer_id=1)

    async def main() -> None:
        unary, stream = (
            grpc.unary_unary_rpc_method_handler,
            grpc.stream_stream_rpc_method_handler,
        )
        server = grpc.aio.server()
        server.add_generic_rpc_handlers(
            [
                grpc.method_handlers_generic_handler(
                    "riverrun.v1.MetadataService",
                    {
                        "GetServerInfo": unary(
                            info, None, metadata_pb2.GetServerInfoResponse.SerializeToString
                        ),
                        "GetMetadata": unary(
                            metadata,
                            metadata_pb2.GetMetadataRequest.FromString,
                            metadata_pb2.GetMetadataResponse.SerializeToString,
                        ),
                    },
                ),
                grpc.method_handlers_generic_handler(
                    "riverrun.v1.ProducerService",
                    {
                        "InitProducer": unary(
                            init, None, producer_pb2.InitProducerResponse.SerializeToString
                        ),
                        # What comes is not even parsed.
                        "ProduceStream": stream(
                            produce, None, producer_pb2.ProduceStreamResponse.SerializeToString
                        ),
                    },
                ),
            ]
        )
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        pipe.send(port)
        await server.wait_for_termination()

    uvloop.run(main())


async def send(port: int, partitions: int, records: list[tuple[bytes, bytes]], note: str) -> None:

    async with riverrun.Client(f"127.0.0.1:{port}") as client, client.producer() as producer:
        costs, speeds = [], []
        for _ in range(4):
            source = itertools.islice(itertools.cycle(records), SENT)
            began, cpu = time.perf_counter(), time.process_time()
            summary = await producer.send_many(str(partitions), source)
            costs.append((time.process_time() - cpu) / SENT * 1e9)
            speeds.append(SENT / (time.perf_counter() - began))
            assert summary.records == SENT
    line(f"send_many, {note}", min(costs), f"{max(speeds) / 1e6:.2f} M/s by the clock")


def bench_send() -> None:
    """Measure all that the client does for a record, through gRPC on the loopback."""

    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    broker = context.Process(target=serve, args=(theirs,), daemon=True)
    broker.start()
    port = ours.recv()
    equal = pairs(lambda: VALUE_BYTES) * 5
    mixed = pairs(lambda: random.randrange(VALUE_BYTES // 2, VALUE_BYTES * 3 // 2)) * 5
    uvloop.run(send(port, 1, equal, "equal lengths, 1 partition"))
    uvloop.run(send(port, 1, mixed, "mixed lengths, 1 partition"))
    uvloop.run(send(port, 16, equal, "equal lengths, by key to 16 partitions"))
    broker.terminate()
    broker.join()


def main() -> None:
    parts = {"encode": bench_encode, "send": bench_send, "decode": bench_decode}
    for name in sys.argv[1:] or parts:
        parts[name]()


if __name__ == "__main__":
    main()
