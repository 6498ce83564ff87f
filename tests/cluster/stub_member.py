"""A member of a group made of nothing but generated stubs: joins, reads, commits, gives up, resumes, leaves."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict

import grpc
import grpc.aio

from riverrun.v1 import consumer_pb2 as c
from riverrun.v1.consumer_pb2_grpc import ConsumerServiceStub


class StubMember:
    """One member on one stream at a time; it keeps what it was told.

    Attributes:
        member: what it was told of its membership.
        owned: the partitions that it reads, by number, each with its assignment epoch.
        records: the offsets of each partition that it was delivered, in order, with their values.
        epoch: the newest that it was told.
        error: why its stream ended; None while it runs, or where it ended well.
    """

    def __init__(self, address, group, *topics, acknowledges=True, **start):
        self.address = address
        self.start = {"topics": topics, "group_id": group, **start}
        self.group = group
        self.acknowledges = acknowledges
        self.member = None
        self.owned = {}
        self.coming = set()
        self.revoking = set()
        self.records = defaultdict(list)
        self.positions = {}
        self.epoch = 0
        self.lost = []
        self.confirmed_heartbeat = 0
        self.lags = {}
        self.commits = {}
        self.error = None
        self.ended = asyncio.Event()
        self._changed = asyncio.Event()
        self._commit_id = 0
        self._heartbeat_id = 0

    async def __aenter__(self):
        await self.join()
        return self

    async def __aexit__(self, *_):
        await self.cut()

    async def join(self, **start):
        """Open a stream; it beats and reads from now on."""
        await self._open(c.SubscribeStart(**{**self.start, **start}))

    async def resume(self, address=None):
        """Go on at another broker, or at the same."""
        await self.cut()
        self.address = address or self.address
        resume = c.ResumeMember(member_id=self.member.member_id, token=self.member.token)
        await self._open(c.SubscribeStart(group_id=self.group, resume=resume))

    async def _open(self, start):
        self.ended.clear()
        self.error = None
        self.owned, self.coming, self.revoking = {}, set(), set()
        self.channel = grpc.aio.insecure_channel(self.address)
        self.call = ConsumerServiceStub(self.channel).Subscribe()
        await self.call.write(c.SubscribeRequest(start=start))
        self._tasks = [
            asyncio.create_task(self._read()),
            asyncio.create_task(self._beat()),
        ]
        await self.until(lambda: self.member is not None or self.ended.is_set())

    async def cut(self):
        """End the connection, as a process that is killed does."""
        self.call.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.channel.close()

    async def half_close(self):
        """Say nothing more; deliveries go on."""
        self._tasks[1].cancel()
        await asyncio.gather(self._tasks[1], return_exceptions=True)
        await self.call.done_writing()

    async def leave(self, *, temporary=False):
        """Leave, and wait for the end of the stream."""
        await self.say(leave=c.Leave(temporary=temporary))
        await asyncio.wait_for(self.ended.wait(), 20)
        await self.cut()

    async def say(self, **kind):
        await self.call.write(c.SubscribeRequest(**kind))

    async def commit(self, offsets, topic="", **fields):
        """Commit offsets by number; return the errors by number."""
        self._commit_id += 1
        commit_id = self._commit_id
        topic = topic or self.start["topics"][0]
        commits = [
            c.OffsetCommit(topic=topic, partition=number, offset=offset)
            for number, offset in offsets.items()
        ]
        await self.say(commit=c.Commit(commit_id=commit_id, offsets=commits, **fields))
        await self.until(lambda: commit_id in self.commits)
        return {
            each.partition: each.error.reason
            for each in self.commits.pop(commit_id)
            if each.HasField("error")
        }

    async def commit_everything(self):
        mine = {n: self.positions[n] for n in self.owned}
        return await self.commit(mine, member_epoch=self.epoch)

    async def acknowledge(self):
        done = c.RevocationDone(member_epoch=self.epoch)
        self.revoking.clear()
        await self.say(revocation_done=done)

    async def until(self, what, within_s=20.0):
        """Wait until something that the member was told holds."""
        async with asyncio.timeout(within_s):
            while not what():
                self._changed.clear()
                await self._changed.wait()

    async def _beat(self):
        while True:
            await asyncio.sleep(0.5)
            self._heartbeat_id += 1
            await self.say(heartbeat=c.MemberHeartbeat(heartbeat_id=self._heartbeat_id))

    async def _read(self):
        try:
            async for response in self.call:
                await self._heard(response)
                self._changed.set()
        except grpc.aio.AioRpcError as error:
            self.error = error
        finally:
            self.ended.set()
            self._changed.set()

    async def _heard(self, response):
        match response.WhichOneof("kind"):
            case "started":
                if response.started.HasField("member"):
                    self.member = response.started.member
            case "partitions_assigned":
                assigned = response.partitions_assigned
                self.epoch = assigned.member_epoch
                self.coming.update(each.partition for each in assigned.coming)
                for each in assigned.partitions:
                    self.coming.discard(each.position.partition)
                    self.owned[each.position.partition] = each.assignment_epoch
                    self.positions[each.position.partition] = each.position.offset
            case "partitions_revoking":
                self.epoch = response.partitions_revoking.member_epoch
                for each in response.partitions_revoking.partitions:
                    self.owned.pop(each.partition, None)
                    self.coming.discard(each.partition)
                    self.revoking.add(each.partition)
                if self.acknowledges:
                    asyncio.get_running_loop().create_task(self._give_up())
            case "partitions_lost":
                for each in response.partitions_lost.partitions:
                    self.owned.pop(each.partition, None)
                    self.coming.discard(each.partition)
                    self.lost.append(each.partition)
            case "delivery":
                delivery = response.delivery
                self.records[delivery.partition] += [
                    (each.offset, each.value) for each in delivery.records
                ]
                self.positions[delivery.partition] = delivery.next_offset
            case "commit_result":
                self.commits[response.commit_result.commit_id] = response.commit_result.results
            case "heartbeat":
                self.confirmed_heartbeat = response.heartbeat.heartbeat_id
                self.lags = {
                    each.partition: each.high_watermark - each.position
                    for each in response.heartbeat.lags
                }

    async def _give_up(self):
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError, TimeoutError):
            going = {n: self.positions[n] for n in self.revoking if n in self.positions}
            if going:
                await self.commit(going, member_epoch=self.epoch)
            await self.acknowledge()

    @property
    def values(self):
        return [value for records in self.records.values() for _, value in records]


async def shared(*members, partitions, within_s=30.0):
    """Wait until members share partitions among them evenly, nobody has any twice, and nothing moves."""
    async with asyncio.timeout(within_s):
        while True:
            owned = sorted(n for each in members for n in each.owned)
            quiet = not any(each.revoking or each.coming for each in members)
            counts = [len(each.owned) for each in members]
            even = max(counts) - min(counts) <= 1
            if owned == list(range(partitions)) and quiet and even:
                return
            await asyncio.sleep(0.05)
