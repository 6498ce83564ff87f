"""A reader on nothing but generated stubs, or the client: alone or in a group, how many records a second it gets.

    .venv/bin/python -m tests.bench.group_reader --address HOST:PORT --topic T --records N [--group G] [--client]

On stubs it asks one broker; the client goes to leaders, as a member by `direct`. It looks at every value, and counts from the first delivery to the last.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import AsyncIterator

import grpc.aio

import riverrun
from riverrun.v1.consumer_pb2 import FORM_BATCHES, SubscribeRequest
from riverrun.v1.consumer_pb2_grpc import ConsumerServiceStub
from riverrun.v1.records_pb2 import RecordSet

_HEARTBEAT_S = 2.0
_OPTIONS = [("grpc.max_receive_message_length", -1)]


async def read(address: str, topic: str, group: str, count: int) -> float:
    """Return records a second, of so many."""
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        call = ConsumerServiceStub(channel).Subscribe(_requests(topic, group))
        got, began_s = 0, 0.0
        async for response in call:
            if not response.HasField("delivery"):
                continue
            if not got:
                began_s = time.perf_counter()
            for batch in response.delivery.batches:
                records = RecordSet.FromString(batch.records).records
                got += sum(1 for record in records if record.value)
            if got >= count:
                break
        seconds = time.perf_counter() - began_s
        call.cancel()
    return got / seconds


async def read_by_client(address: str, topic: str, group: str, count: int) -> float:
    """Return records a second, of so many, that the client gets from leaders."""
    as_member = {"group": group, "direct": True} if group else {}
    async with (
        riverrun.Client(address) as client,
        client.consumer(topic, **as_member) as consumer,
    ):
        got, began_s = 0, 0.0
        async for batch in consumer.batches():
            if not got:
                began_s = time.perf_counter()
            got += sum(1 for value in batch.values() if value)
            if got >= count:
                break
        return got / (time.perf_counter() - began_s)


async def _requests(topic: str, group: str) -> AsyncIterator[SubscribeRequest]:
    request = SubscribeRequest()
    request.start.topics.append(topic)
    request.start.group_id, request.start.form = group, FORM_BATCHES
    yield request
    number = 0
    while True:
        await asyncio.sleep(_HEARTBEAT_S)
        if group:
            number += 1
            yield SubscribeRequest(heartbeat={"heartbeat_id": number})


def main() -> None:
    """Read, and print how fast."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--address", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--group", default="")
    parser.add_argument("--records", type=int, required=True)
    parser.add_argument("--client", action="store_true", help="read by the client")
    told = parser.parse_args()
    way = read_by_client if told.client else read
    print(asyncio.run(way(told.address, told.topic, told.group, told.records)))


if __name__ == "__main__":
    main()
