"""A producer at a fixed rate that keeps a book, and somebody who asks how far the group has come."""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Sequence

import grpc
import grpc.aio

import riverrun
from riverrun import RiverrunError
from riverrun.v1.consumer_pb2 import FetchOffsetsRequest, TopicPartition
from riverrun.v1.consumer_pb2_grpc import ConsumerServiceStub
from tests.cluster.group_chaos.checks import Acknowledged, Look
from tests.cluster.group_chaos.diary import now_s

_TICK_S = 0.005
# What is behind by more, because the machine had no time, is not made up for.
_BEHIND_S = 0.5
_LOOK_EVERY_S = 0.25
_LOOK_TIMEOUT_S = 15.0
_CLOSE_S = 60.0


class Book:
    """Sends numbered records to all partitions in turn, and notes what is acknowledged.

    Args:
        producer: which sends them; it is closed at the end.
        topic: where to.
        partitions: how many it has.
        rate: records in a second.
        size_bytes: of each value, which is its number and blanks.

    Attributes:
        acknowledged: what was.
        failures: what a send raised; the first few.
        sent: records given to the producer.
    """

    def __init__(
        self,
        producer: riverrun.Producer,
        topic: str,
        partitions: int,
        rate: int,
        size_bytes: int = 16,
    ) -> None:
        self.acknowledged: list[Acknowledged] = []
        self.failures: list[str] = []
        self.sent = 0
        self._producer = producer
        self._topic = topic
        self._partitions = partitions
        self._rate = rate
        self._size_bytes = size_bytes

    async def write(self, stop: asyncio.Event) -> None:
        """Send at the rate until it is told to stop, and wait for every answer."""
        began_s, base = now_s(), 0
        try:
            while not stop.is_set():
                due = int((now_s() - began_s) * self._rate) - (self.sent - base)
                if due > self._rate * _BEHIND_S:
                    began_s, base, due = now_s(), self.sent, 0
                for _ in range(due):
                    self._send()
                    if self.sent % 500 == 0:
                        await self._producer.drain()
                await asyncio.sleep(_TICK_S)
        finally:
            await self._producer.close(timeout_s=_CLOSE_S)

    def _send(self) -> None:
        number = self.sent
        self.sent += 1
        value = b"%d" % number
        future = self._producer.send_nowait(
            self._topic, value.ljust(self._size_bytes), partition=number % self._partitions
        )
        future.add_done_callback(functools.partial(self._settled, number))

    def _settled(self, number: int, future: asyncio.Future[riverrun.RecordMetadata]) -> None:
        error = future.exception()
        if error is None:
            told = future.result()
            self.acknowledged.append(Acknowledged(told.partition, told.offset, number))
            return
        assert isinstance(error, RiverrunError), error
        if len(self.failures) < 5:
            self.failures.append(f"SEND record {number}: {error}")


class Looker:
    """Asks one broker after the other how far a group has come.

    Attributes:
        looks: what was told.
    """

    def __init__(self, brokers: Sequence[str], group: str, topic: str, partitions: int) -> None:
        self.looks: list[Look] = []
        self._brokers = brokers
        self._request = FetchOffsetsRequest(
            group_id=group,
            partitions=[TopicPartition(topic=topic, partition=p) for p in range(partitions)],
        )

    async def look(self, stop: asyncio.Event, dice: random.Random) -> None:
        """Ask again and again until it is told to stop."""
        while not stop.is_set():
            await self.committed(dice.choice(self._brokers))
            await asyncio.sleep(_LOOK_EVERY_S)

    async def committed(self, broker: str) -> dict[int, int]:
        """Return what a broker tells of each partition; what nobody could say is left out."""
        asked_s = now_s()
        async with grpc.aio.insecure_channel(broker) as channel:
            try:
                answer = await ConsumerServiceStub(channel).FetchOffsets(
                    self._request, timeout=_LOOK_TIMEOUT_S
                )
            except grpc.aio.AioRpcError:
                return {}
        told_s = now_s()
        known: dict[int, int] = {}
        for each in answer.offsets:
            if not each.HasField("error"):
                known[each.partition] = each.committed.offset if each.HasField("committed") else -1
        self.looks += [Look(asked_s, told_s, p, offset) for p, offset in known.items()]
        return known
