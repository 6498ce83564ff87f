"""Members as applications run them: they handle records, commit, give up what they are asked to, and come back."""

from __future__ import annotations

import asyncio
from typing import Any

from google.protobuf.duration_pb2 import Duration

from riverrun.v1 import consumer_pb2 as pb
from riverrun_server.core.errors import Reason
from tests.sim.groups.calls import Broken, Call, Ended, beside
from tests.sim.groups.processes import Process
from tests.sim.groups.world import World


def _duration(milliseconds: int) -> Duration:
    return Duration(seconds=milliseconds // 1000, nanos=milliseconds % 1000 * 1_000_000)


def _key(named: Any) -> tuple[bytes, int]:
    return named.topic_id, named.partition


class Client:
    """One process of an application that is a member of a group.

    Args:
        world: of the seed.
        name: of its process.
        group_id: its group.
        instance_id: its place in the group, or empty.
        cluster: the brokers.
    """

    def __init__(
        self, world: World, name: str, group_id: str, instance_id: str, cluster: Any
    ) -> None:
        self.process = Process(world.loop, name)
        self.group_id = group_id
        self.instance_id = instance_id
        self.call: Call | None = None
        self.is_over = False
        self.has_left = False
        # How it behaves, which faults change.
        self.gives_up_late_s = 0.0
        # It says nothing behind its start, as the simplest of clients: the broker commits for it.
        self.is_half_closed = world.dice(f"kind of {name}").random() < world.options.half_closed
        self._world = world
        self._cluster = cluster
        self._dice = world.dice(name)
        self._member: Any = None
        self._epoch = 0
        self._positions: dict[tuple[bytes, int], tuple[int, Any]] = {}
        self._dirty: dict[tuple[bytes, int], None] = {}
        self._revoking: dict[tuple[bytes, int], int] = {}
        self._serial = 0
        self._heard_at = 0.0
        self.process.spawn(self._run(), name)

    # What faults do.

    def kill(self) -> None:
        """End at once; the broker notices at some time."""
        self.is_over = True
        self.process.end()
        if self.call is not None:
            self.call.cut(self._dice.choice((0.001, 0.05, 1.0, 3.0)))

    def lose_stream(self) -> None:
        """Lose the connection; the two sides notice at different times."""
        if self.call is not None:
            late = self._dice.choice((0.001, 0.05, 0.5, 3.0))
            self.call.cut(late, self._dice.choice((0.0, 0.1)))

    def leave(self, *, temporary: bool) -> None:
        """Leave the group in order."""
        self.has_left = True
        self.process.after(0, self._leave, temporary)

    def _leave(self, temporary: bool) -> None:
        if self.call is not None and self._member is not None and not self.is_half_closed:
            self._cluster.checker.leaves(self.group_id, self._member.member_id, temporary)
            self._commit()
            self.call.is_leaving = True
            self.call.send(pb.SubscribeRequest(leave=pb.Leave(temporary=temporary)))
        else:
            self.kill()

    # Its life.

    async def _run(self) -> None:
        while not self.is_over:
            broker = self._cluster.any_broker(self._dice)
            if broker is None:
                await asyncio.sleep(0.2)
                continue
            call = self._cluster.open(self, broker)
            self.call = call
            try:
                await self._follow(call)
            except Broken:
                self._world.counts["streams broken"] += 1
            except Ended as ended:
                self._ended(ended.refusal)
            self.call = None
            self._positions.clear()
            self._dirty.clear()
            self._revoking.clear()
            await asyncio.sleep(self._dice.uniform(0.01, 0.3))

    def _ended(self, refusal: Any) -> None:
        if self.has_left:
            self.is_over = True
            return
        reason = None if refusal is None else refusal.reason
        self._world.counts[f"streams ended {reason and reason.name}"] += 1
        if reason in (Reason.UNKNOWN_MEMBER, Reason.MEMBER_TAKEN_OVER):
            self._member = None
        elif reason in (Reason.INVALID_REQUEST, Reason.INTERNAL):
            self._world.broken("refused", f"{self.process} was refused with {refusal!r}")

    async def _follow(self, call: Call) -> None:
        call.send(pb.SubscribeRequest(start=self._start()))
        self._heard_at = self._world.loop.time()
        if self.is_half_closed:
            call.is_half_closed = True
            call.send(None)
        said = [] if self.is_half_closed else [self._heartbeats(call), self._commits()]
        async with beside(*said, self._watch(call)):
            while True:
                message, known = await call.receive()
                self._heard_at = self._world.loop.time()
                if self._hears(call, message, known):
                    return

    def _start(self) -> Any:
        start = pb.SubscribeStart(group_id=self.group_id)
        if self._member is not None and not self.is_half_closed:
            start.resume.member_id = self._member.member_id
            start.resume.token = self._member.token
            return start
        options = self._world.options
        if self.is_half_closed:
            start.commit_mode = pb.COMMIT_MODE_ON_DELIVERY
        start.topic_pattern = "t.*"
        start.instance_id = self.instance_id
        start.session_timeout.CopyFrom(_duration(options.session_timeout_ms))
        start.revocation_timeout.CopyFrom(_duration(options.revocation_timeout_ms))
        return start

    def _hears(self, call: Call, message: Any, known: Any) -> bool:
        kind = message.WhichOneof("kind")
        match kind:
            case "started":
                self._member = message.started.member
            case "partitions_assigned":
                self._epoch = message.partitions_assigned.member_epoch
                for each in message.partitions_assigned.partitions:
                    key = _key(each.position)
                    self._revoking.pop(key, None)
                    self._positions[key] = (each.position.offset, known[key])
                if any(_key(each) in self._revoking for each in message.partitions_assigned.coming):
                    self._world.counts["revoking told before"] += 1
            case "delivery":
                key = _key(message.delivery)
                if key in self._positions:
                    self._positions[key] = (message.delivery.next_offset, self._positions[key][1])
                    self._dirty[key] = None
            case "partitions_revoking":
                revoking = message.partitions_revoking
                self._epoch = revoking.member_epoch
                keys = [_key(each) for each in revoking.partitions]
                self._revoking.update(dict.fromkeys(keys, revoking.member_epoch))
                late_s = self.gives_up_late_s or self._dice.uniform(0, 0.1)
                loop = asyncio.get_running_loop()
                loop.call_later(late_s, self._give_up, call, revoking.member_epoch, keys)
            case "partitions_lost":
                self._epoch = message.partitions_lost.member_epoch
                for each in message.partitions_lost.partitions:
                    self._forget(_key(each))
                self._world.counts["partitions lost"] += len(message.partitions_lost.partitions)
            case "commit_result":
                for each in message.commit_result.results:
                    if each.HasField("error") and _key(each) in self._positions:
                        self._dirty[_key(each)] = None
            case "seek_done":
                position = message.seek_done.position
                self._positions[_key(position)] = (position.offset, known)
            case "partition_error":
                self._seek(call, message.partition_error)
            case "going_away":
                return True
        return False

    def _seek(self, call: Call, failed: Any) -> None:
        """Find a partition's place that could not be found before."""
        self._world.counts["partition errors"] += 1
        if self.is_half_closed:
            call.cut(0.05)
            return
        self._serial += 1
        position = pb.StartPosition(topic_id=failed.topic_id, partition=failed.partition)
        setattr(position, "from", pb.FROM_COMMITTED)
        seek = pb.SubscribeRequest(seek=pb.Seek(seek_id=self._serial, position=position))
        asyncio.get_running_loop().call_later(0.3, call.send, seek)

    # What it says.

    def _give_up(self, call: Call, epoch: int, keys: list[tuple[bytes, int]]) -> None:
        if call is not self.call or self.is_over or self.is_half_closed:
            return
        mine = [key for key in keys if self._revoking.get(key) == epoch]
        self._commit()
        for key in mine:
            self._forget(key)
        partitions = [pb.TopicPartition(topic_id=key[0], partition=key[1]) for key in mine]
        if partitions:
            self._cluster.checker.gives_up(call, mine)
            done = pb.RevocationDone(member_epoch=epoch, partitions=partitions)
            call.send(pb.SubscribeRequest(revocation_done=done))

    def _forget(self, key: tuple[bytes, int]) -> None:
        self._positions.pop(key, None)
        self._dirty.pop(key, None)
        self._revoking.pop(key, None)

    def _commit(self) -> None:
        if not self._dirty or self.call is None:
            return
        offsets = []
        for key in self._dirty:
            offset, instance = self._positions[key]
            offsets.append(
                pb.OffsetCommit(
                    topic_id=key[0], partition=key[1], offset=offset, metadata=str(instance)
                )
            )
        self._dirty.clear()
        self._serial += 1
        commit = pb.Commit(commit_id=self._serial, offsets=offsets, member_epoch=self._epoch)
        self._cluster.checker.asked(self.call, commit)
        self.call.send(pb.SubscribeRequest(commit=commit))

    async def _commits(self) -> None:
        while True:
            await asyncio.sleep(self._world.options.commit_every_s)
            self._commit()

    async def _heartbeats(self, call: Call) -> None:
        while True:
            await asyncio.sleep(self._world.options.session_timeout_ms / 3000)
            self._serial += 1
            beat = pb.MemberHeartbeat(heartbeat_id=self._serial)
            call.send(pb.SubscribeRequest(heartbeat=beat))

    async def _watch(self, call: Call) -> None:
        """Give a call up on which nothing is heard any more."""
        while True:
            await asyncio.sleep(1.0)
            if self._world.loop.time() - self._heard_at > 4.0:
                self._world.counts["calls given up"] += 1
                call.cut(self._dice.choice((0.05, 2.0)))
