"""Many members of groups in one process: each a stream for membership alone, which does at once what it is asked.

It reads commands, one a line, and answers each with a line: `join N` opens N more streams and waits until
every one has been told what it has; `count` tells how many partitions all of them have together; `alive SECONDS`
waits until the coordinator of each of the kept has heard of it again, later than that moment of the machine's
monotonic clock; `keep BROKER` says which those are: whose group that broker coordinates, and tells how many. The
end of its input ends it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import random
import sys
import time
from collections.abc import AsyncIterator, Iterator

import grpc
import grpc.aio

from riverrun._net.failures import from_rpc
from riverrun.v1.consumer_pb2 import SubscribeRequest, SubscribeResponse
from riverrun.v1.consumer_pb2_grpc import ConsumerServiceStub
from riverrun.v1.group_pb2 import DescribeGroupRequest
from riverrun.v1.group_pb2_grpc import GroupServiceStub

# Fewer than a connection may hold.
_STREAMS_PER_CHANNEL = 200
_AT_ONCE = 50
_AGAIN_S = 0.1
_LOOK_AGAIN_S = 5.0
_GONE = {"UNKNOWN_MEMBER", "MEMBER_TAKEN_OVER"}
_OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 300),
]


class Channels:
    """Connections to all brokers, as many as the streams take."""

    def __init__(self, brokers: list[str]) -> None:
        self.brokers = brokers
        self._channels: dict[str, list[grpc.aio.Channel]] = {broker: [] for broker in brokers}
        self._streams: dict[grpc.aio.Channel, int] = {}

    @contextlib.contextmanager
    def stub(self, broker: str) -> Iterator[ConsumerServiceStub]:
        """Lend a connection that has room for one more stream."""
        channels = self._channels[broker]
        found = [each for each in channels if self._streams[each] < _STREAMS_PER_CHANNEL]
        if not found:
            found = [grpc.aio.insecure_channel(broker, options=_OPTIONS)]
            channels += found
            self._streams[found[0]] = 0
        self._streams[found[0]] += 1
        try:
            yield ConsumerServiceStub(found[0])
        finally:
            self._streams[found[0]] -= 1

    def groups(self, number: int) -> GroupServiceStub:
        """Return where to ask about groups, of those that there are connections to."""
        channels = self._channels[self.brokers[number % len(self.brokers)]]
        return GroupServiceStub(channels[0])

    async def close(self) -> None:
        """End them."""
        await asyncio.gather(*(channel.close() for channel in self._streams))


class Member:
    """One member, for as long as its task runs."""

    def __init__(
        self, channels: Channels, number: int, group: str, topic: str, session_ms: int
    ) -> None:
        self.told = asyncio.Event()
        self.partitions: set[int] = set()
        self.confirmed_s = 0.0
        self._channels = channels
        self._number = number
        self._group = group
        self._topic = topic
        self._session_ms = session_ms
        self._member_id, self._token = "", b""
        self._said: asyncio.Queue[SubscribeRequest] = asyncio.Queue()
        self._beat, self._sent_s = 0, dict[int, float]()
        self._is_first = True
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Be a member; a stream that breaks is opened again at another broker."""
        broker = self._channels.brokers[self._number % len(self._channels.brokers)]
        while True:
            with self._channels.stub(broker) as stub:
                await self._one_stream(stub)
            broker = random.choice([each for each in self._channels.brokers if each != broker])
            await asyncio.sleep(_AGAIN_S)

    async def _one_stream(self, stub: ConsumerServiceStub) -> None:
        self._said, self._is_first = asyncio.Queue(), True
        call = stub.Subscribe(self._requests(self._said))
        beating = asyncio.create_task(self._beats())
        try:
            async for response in call:
                self._hear(response)
        except grpc.aio.AioRpcError as error:
            told = from_rpc(error, "Subscribe", "")
            if told.reason.value in _GONE:
                self._member_id = ""
                self.partitions.clear()
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)
            call.cancel()

    async def _requests(
        self, said: asyncio.Queue[SubscribeRequest]
    ) -> AsyncIterator[SubscribeRequest]:
        request = SubscribeRequest()
        start = request.start
        start.group_id, start.membership_only = self._group, True
        if self._member_id:
            start.resume.member_id, start.resume.token = self._member_id, self._token
        else:
            start.topics.append(self._topic)
            start.session_timeout.FromMilliseconds(self._session_ms)
        yield request
        while True:
            yield await said.get()

    async def _beats(self) -> None:
        """Show signs of life, a third of the session timeout apart."""
        while True:
            self._say_alive()
            await asyncio.sleep(self._session_ms / 3000)

    async def heard_of(self, since_s: float) -> None:
        """Show signs of life, now and every few seconds, until the coordinator knows of one later than that moment."""
        while self.confirmed_s <= since_s:
            self._say_alive()
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_AGAIN_S):
                    await self._news.wait()

    async def coordinator(self) -> int:
        """Return the broker that coordinates its group."""
        told = await self._channels.groups(self._number).DescribeGroup(
            DescribeGroupRequest(group_id=self._group)
        )
        return told.coordinator

    def _say_alive(self) -> None:
        self._beat += 1
        self._sent_s[self._beat] = time.monotonic()
        self._said.put_nowait(SubscribeRequest(heartbeat={"heartbeat_id": self._beat}))

    def _hear(self, response: SubscribeResponse) -> None:
        match response.WhichOneof("kind"):
            case "started":
                self._member_id = response.started.member.member_id
                self._token = response.started.member.token
            case "partitions_assigned":
                assigned = response.partitions_assigned
                if self._is_first:
                    self.partitions.clear()
                self._is_first = False
                self.partitions |= {each.position.partition for each in assigned.partitions}
                self.partitions |= {each.partition for each in assigned.coming}
                self.told.set()
            case "partitions_revoking":
                revoking = response.partitions_revoking
                self.partitions -= {each.partition for each in revoking.partitions}
                done = SubscribeRequest()
                done.revocation_done.member_epoch = revoking.member_epoch
                done.revocation_done.partitions.extend(revoking.partitions)
                self._said.put_nowait(done)
            case "partitions_lost":
                self.partitions -= {each.partition for each in response.partitions_lost.partitions}
            case "heartbeat":
                self._confirmed(response.heartbeat.heartbeat_id)

    def _confirmed(self, number: int) -> None:
        sent_s = self._sent_s.get(number)
        if sent_s is None:
            return
        self.confirmed_s = max(self.confirmed_s, sent_s)
        self._news.set()
        for each in [each for each in self._sent_s if each < number]:
            del self._sent_s[each]


class Crowd:
    """All members of the process."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._channels = Channels(options.bootstrap.split(","))
        self._members: list[Member] = []
        self._kept: list[Member] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._numbers = itertools.count(options.first)

    async def obey(self, command: str) -> str:
        """Do what a line says, and return what is answered."""
        what, _, value = command.partition(" ")
        match what:
            case "join":
                return await self._join(int(value))
            case "count":
                return str(sum(len(member.partitions) for member in self._members))
            case "keep":
                return await self._keep(int(value))
            case "alive":
                return await self._alive(float(value))
        raise AssertionError(f"{command!r} is none of join, count, keep, alive")

    async def _join(self, count: int) -> str:
        began_s = time.monotonic()
        await asyncio.gather(*(self._one() for _ in range(count)))
        return f"{time.monotonic() - began_s:.3f}"

    async def _one(self) -> None:
        options, number = self._options, next(self._numbers)
        group = f"{options.group}-{number}" if options.apart else options.group
        member = Member(self._channels, number, group, options.topic, options.session_ms)
        self._members.append(member)
        async with self._room:
            self._tasks.append(asyncio.create_task(member.run(), name=f"member {number}"))
            await member.told.wait()

    async def _keep(self, broker: int) -> str:
        coordinators = await asyncio.gather(*(self._coordinator(each) for each in self._members))
        them = zip(self._members, coordinators, strict=True)
        self._kept = [member for member, coordinator in them if coordinator == broker]
        return str(len(self._kept))

    async def _coordinator(self, member: Member) -> int:
        async with self._room:
            return await member.coordinator()

    async def _alive(self, since_s: float) -> str:
        await asyncio.gather(*(member.heard_of(since_s) for member in self._kept))
        return f"{time.monotonic():.3f}"

    async def close(self) -> None:
        """End everybody."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._channels.close()


async def _main(options: argparse.Namespace) -> None:
    lines = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(lines)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    crowd = Crowd(options)
    try:
        while line := await lines.readline():
            sys.stdout.write(await crowd.obey(line.decode().strip()) + "\n")
            sys.stdout.flush()
    finally:
        await crowd.close()


def main() -> None:
    """Obey until the input ends."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--first", type=int, default=0, help="number of the first member")
    parser.add_argument("--group", required=True)
    parser.add_argument("--apart", action="store_true", help="each in a group of its own")
    parser.add_argument("--topic", required=True)
    parser.add_argument("--session-ms", type=int, default=45_000)
    asyncio.run(_main(parser.parse_args()))


if __name__ == "__main__":
    main()
