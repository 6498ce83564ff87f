"""A simulated cluster with consumer groups: real coordinators and gateways, members that come and go, and faults."""

from __future__ import annotations

import asyncio
import gc
import random
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.offsets import CommittedOffset, OffsetRecord
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.ports.coordination import MemberName
from riverrun_server.ports.gateways import Origin
from riverrun_server.runtime import found_coordinators
from riverrun_server.runtime.found_groups import FoundGroups
from tests.sim.groups import options as drawing
from tests.sim.groups.brokers import Broker
from tests.sim.groups.calls import Call
from tests.sim.groups.checker import RESET, Checker
from tests.sim.groups.clients import Client
from tests.sim.groups.homes import Home
from tests.sim.groups.nemesis import KINDS, Fault, plan
from tests.sim.groups.options import Options
from tests.sim.groups.processes import Process, ProcessLoop
from tests.sim.groups.topics import Topics
from tests.sim.groups.world import Violation, World
from tests.sim.loop import DeadlockError, LivelockError

FAULTS_MIN = 1
"""A run without any that did harm tells nothing."""

# When the faults are over everything is delivered and committed within this time: what members, streams
# and leases may be silent for, a few times over.
_CALM_S = 30.0
_LOOK_EVERY_S = 0.25
# So long a stream is kept that nothing comes on, and a leadership that nobody confirms.
_KEEPALIVE_S = 3.0
_LEASE_S = 1.0


class Cluster:
    """Brokers, members, and what they share.

    Args:
        world: of the seed.
        faults: what goes wrong.
    """

    def __init__(self, world: World, faults: Sequence[Fault]) -> None:
        options = world.options
        self.world = world
        self.faults = faults
        self.topics = Topics(world)
        for number, size in enumerate(options.topics):
            self.topics.create(f"t{number}", size)
        self.groups = [f"g{number}" for number in range(options.groups)]
        self.calls: list[Call] = []
        self.clients: list[Client] = []
        self.brokers: dict[int, Broker] = {}
        self.homes: list[Home] = []
        self.checker = Checker(world, self)
        self._cut_off: dict[Process, None] = {}
        self._disturbed: dict[Process, float] = {}
        self._unleased: dict[int, float] = {}
        self._dice = world.dice("cluster")

    # Its life.

    async def run(self) -> None:
        """Let everything go wrong, then right, and see that it comes to an end."""
        world, options = self.world, self.world.options
        self.homes += [Home(world, number, self) for number in range(options.homes)]
        for broker_id in range(1, options.brokers + 1):
            self._start(broker_id, 0)
        for home in self.homes:
            home.elect(self._dice.choice(list(self.brokers.values())))
        for group_id in self.groups:
            for number in range(options.members):
                instance_id = f"i{number}" if number < options.static else ""
                self.add_member(group_id, instance_id)
        work = [self._write(), self._look()]
        tasks = [asyncio.create_task(each) for each in work]
        broken = asyncio.create_task(world.is_broken.wait())
        for work in (self._go_wrong, partial(self._come_to_an_end, tasks[0])):
            if world.violation is not None:
                break
            phase = asyncio.create_task(work())
            await asyncio.wait((phase, broken), return_when=asyncio.FIRST_COMPLETED)
            tasks.append(phase)
            if phase.done():
                phase.result()
        for task in (*tasks, broken):
            task.cancel()
        await asyncio.gather(*tasks, broken, return_exceptions=True)

    async def _go_wrong(self) -> None:
        world = self.world
        for fault in self.faults:
            await asyncio.sleep(fault.at_s - world.loop.time())
            if KINDS[fault.kind](self, random.Random(fault.seed)):
                world.faults[fault.kind] += 1
                world.note("nemesis", fault.kind)
        await asyncio.sleep(max(0.0, world.options.faults_s - world.loop.time()))

    async def _write(self) -> None:
        while True:
            await asyncio.sleep(self.world.options.produce_every_s)
            self._dice.choice(self.topics.all()).write()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            now = self.world.loop.time()
            for call in self.calls:
                if not call.is_over and not call.is_cut and not self.has_lease(call):
                    self._unleased[call.number] = now
            self.checker.check_flow()

    def _calm_down(self) -> None:
        self.world.note("nemesis", "calm")
        for broker in self.brokers.values():
            broker.process.resume()
        self._cut_off.clear()
        for home in self.homes:
            if home.leader is not None:
                home.leader.scarce_until = min(home.leader.scarce_until, self.world.loop.time())
        for client in self.clients:
            client.process.resume()
            client.gives_up_late_s = 0.0

    async def _come_to_an_end(self, writing: asyncio.Task[None]) -> None:
        """Let everything go right; then every group is where each partition ends, and it must be soon."""
        writing.cancel()
        self._calm_down()
        until = self.world.loop.time() + _CALM_S
        while True:
            left = self._left()
            if not left:
                return
            if self.world.loop.time() > until:
                self.world.broken("liveness", f"{left[:6]} is left")
                return
            await asyncio.sleep(_LOOK_EVERY_S)

    def _left(self) -> list[Any]:
        found = []
        for group_id in self.groups:
            for partition in self.topics.all():
                newest = self.checker.newest(group_id, partition.id)
                if newest != partition.high_watermark:
                    found.append(
                        (group_id, partition.topic, partition.id.partition, newest,
                         partition.high_watermark)
                    )  # fmt: skip
        return found

    # Brokers.

    def alive(self) -> list[Broker]:
        """Return the brokers that have not ended."""
        return [each for each in self.brokers.values() if not each.process.has_ended]

    def running(self) -> list[Broker]:
        """Return the brokers that neither have ended, stand still, nor are cut off."""
        return [
            each
            for each in self.brokers.values()
            if each.process.runs and each.process not in self._cut_off
        ]

    def any_broker(self, dice: random.Random) -> Broker | None:
        """Return a broker that a client reaches."""
        found = [each for each in self.brokers.values() if each.process.runs]
        found = [each for each in found if not each.draining.is_set()]
        return dice.choice(found) if found else None

    def is_cut_off(self, process: Process) -> bool:
        """Return whether a process reaches no other broker."""
        return process in self._cut_off

    def reaches(self, gateway: Broker, to_id: int) -> bool:
        """Return whether one broker reaches another."""
        there = self.brokers.get(to_id)
        if there is None or there.process.has_ended:
            return False
        return not (self.is_cut_off(gateway.process) or self.is_cut_off(there.process))

    def kill(self, broker: Broker, restart_s: float) -> None:
        """End a broker's process, and begin another one after a while."""
        if broker.process.has_ended:
            return
        self.world.note("nemesis", "kills", broker.process)
        broker.process.end()
        self._cut_off.pop(broker.process, None)
        for call in self.calls:
            if call.broker is broker:
                call.cut(0, self._dice.uniform(0, 0.2))
        self.world.loop.call_later(self._dice.uniform(0.01, 0.2), self._cut_links_to, broker)
        self.world.loop.call_later(restart_s, self._start, broker.broker_id, broker.start + 1)
        for home in self.homes:
            if home.leader_id == broker.broker_id:
                self.world.loop.call_later(
                    self._dice.uniform(0.05, _LEASE_S), self._elect_other, home, broker.process
                )

    def pause(self, broker: Broker, seconds: float, *, elect: bool) -> None:
        """Have a broker stand still."""
        self.disturb(broker.process)
        broker.process.pause()
        loop = self.world.loop
        loop.call_later(seconds, self._resume, broker)
        if seconds >= _KEEPALIVE_S:
            loop.call_later(_KEEPALIVE_S - 0.1, self._cut_links_to, broker)
        if elect and seconds > _LEASE_S:
            for home in self.homes:
                if home.leader_id == broker.broker_id:
                    loop.call_later(_LEASE_S, self._elect_other, home, broker.process)

    def cut_off(self, broker: Broker, seconds: float) -> None:
        """Have a broker reach no other one for a while; others are elected in its place."""
        self.disturb(broker.process)
        self._cut_off[broker.process] = None
        loop = self.world.loop
        loop.call_later(self._dice.uniform(0.05, 0.5), self._cut_links_to, broker)
        for link in broker.links.links.values():
            loop.call_later(self._dice.uniform(0.05, 0.5), link.cut)
        loop.call_later(seconds, self._reached_again, broker)
        for home in self.homes:
            if home.leader_id == broker.broker_id:
                loop.call_later(_LEASE_S, self._elect_other, home, broker.process)

    def elect(self, home: Home, dice: random.Random) -> bool:
        """Elect another broker; return whether there is one."""
        others = [each for each in self.running() if each.broker_id != home.leader_id]
        if not others:
            return False
        home.elect(dice.choice(others))
        return True

    def disturb(self, process: Process) -> None:
        """Note that something is done to a process."""
        self._disturbed[process] = self.world.loop.time()

    def topics_are_new(self) -> None:
        """Let brokers hear of topics."""
        for broker in self.alive():
            broker.topics_are_new()

    def _start(self, broker_id: int, start: int) -> None:
        broker = Broker(self.world, broker_id, start, self)
        self.brokers[broker_id] = broker
        for home in self.homes:
            home.tell(broker)

    def _resume(self, broker: Broker) -> None:
        self.disturb(broker.process)
        broker.process.resume()

    def _reached_again(self, broker: Broker) -> None:
        self.disturb(broker.process)
        self._cut_off.pop(broker.process, None)

    def _cut_links_to(self, broker: Broker) -> None:
        for other in self.alive():
            if other is not broker and broker.broker_id in other.links.links:
                other.links.link(broker.broker_id).cut()

    def _elect_other(self, home: Home, process: Process) -> None:
        """Elect another broker in the place of a process that is gone, stands still or is cut off."""
        leader = home.leader
        if leader is None or leader.process is not process:
            return
        if process.runs and process not in self._cut_off:
            return
        if not self.elect(home, self._dice):
            self.world.loop.call_later(0.2, self._elect_other, home, process)

    # Members.

    def members(self) -> list[Client]:
        """Return the members that are at work."""
        return [each for each in self.clients if each.process.runs and not each.has_left]

    def add_member(self, group_id: str, instance_id: str) -> Client:
        """Have one more process join a group."""
        name = f"client-{len(self.clients)}"
        client = Client(self.world, name, group_id, instance_id, self)
        self.clients.append(client)
        return client

    def replace(self, client: Client, after_s: float) -> None:
        """Have another process come in the place of one that ends."""
        self.world.loop.call_later(after_s, self.add_member, client.group_id, client.instance_id)

    def kill_member(self, client: Client) -> None:
        """End a member's process, unless it is the last one of its group."""
        others = [each for each in self.members() if each.group_id == client.group_id]
        if others != [client] and not client.process.has_ended:
            client.kill()

    def open(self, client: Client, broker: Broker) -> Call:
        """Open a Subscribe call."""
        call = Call(self.world, len(self.calls), client.process, broker)
        call.group_id = client.group_id
        self.calls.append(call)
        broker.process.after(self._dice.uniform(0.0005, 0.003), call.begin, self.checker)
        return call

    # Operators.

    async def reset(self, broker: Broker, dice: random.Random) -> None:
        """Make a group go on elsewhere, in some partitions of a topic."""
        group_id = dice.choice(self.groups)
        partitions = self.topics.partitions(dice.choice(self.topics.names()))
        records = []
        for partition in dice.sample(partitions, dice.randint(1, len(partitions))):
            offset = dice.randint(0, partition.high_watermark)
            value = CommittedOffset(offset, None, RESET, round(self.world.loop.time() * 1000))
            records.append(OffsetRecord(group_id, partition.id, value))
        groups = FoundGroups(broker.offsets, Origin, broker.broker_id)
        await self._asked(groups.reset_offsets(group_id, records, dice.choice((1.0, 3.0))))

    async def read(self, broker: Broker, group_id: str) -> None:
        """Ask for the offsets of a group, and check what is told."""
        floors = self.checker.floors(group_id)
        found = await self._asked(broker.offsets.committed(group_id))
        if found is not None:
            self.checker.read(group_id, floors, found)

    async def remove(self, broker: Broker, client: Client) -> None:
        """Throw a member out."""
        call = client.call
        assert call is not None
        self.checker.removed(client.group_id, call.member_id)
        groups = FoundGroups(broker.offsets, Origin, broker.broker_id)
        await self._asked(
            groups.remove_member(client.group_id, MemberName(member_id=call.member_id))
        )

    async def _asked(self, asked: Any) -> Any:
        try:
            return await asked
        except Refusal as refusal:
            self.world.counts[f"operators refused {refusal.reason.name}"] += 1
            if refusal.reason in (Reason.INTERNAL, Reason.INVALID_REQUEST):
                self.world.broken("refused", f"an operator was refused with {refusal!r}")
            return None

    # What the checker asks.

    def has_lease(self, call: Call) -> bool:
        """Return whether a call's broker may deliver on it."""
        for stream in call.broker.member_streams:
            if stream.member_id == call.member_id:
                may_deliver = stream._membership.may_deliver(self.world.loop.time())
                return may_deliver and not stream._is_fenced
        return False

    def is_calm(self, call: Call, for_s: float) -> bool:
        """Return whether nothing has been done to a call's two processes, nor its lease, for so long."""
        now = self.world.loop.time()
        broker, client = call.broker.process, call.client
        if not broker.runs or not client.runs or call.is_leaving or now - call.opened_at < for_s:
            return False
        times = (
            self._disturbed.get(broker, -1.0),
            broker.resumed_at,
            client.resumed_at,
            self._unleased.get(call.number, -1.0),
        )
        return now - max(times) > for_s or max(times) < 0

    def is_calm_home(self, group_id: str, for_s: float) -> bool:
        """Return whether nothing has been done to a group's coordinator for so long."""
        home = self.homes[zlib.crc32(group_id.encode()) % len(self.homes)]
        leader = home.leader
        if leader is None or not leader.process.runs or leader.process in self._cut_off:
            return False
        disturbed = self._disturbed.get(leader.process, -1.0)
        latest = max(home.elected_at, leader.scarce_until, leader.process.resumed_at, disturbed)
        return self.world.loop.time() - latest > for_s

    def written_at(self, partition: PartitionId, offset: int) -> float | None:
        """Return when the record at an offset was written; None where there is none yet."""
        written = self._partition(partition).written_at
        return written[offset] if offset < len(written) else None

    def _partition(self, partition: PartitionId) -> Any:
        name = self.topics.name_of(partition.topic_id)
        return self.topics.partitions(name)[partition.partition]


@dataclass(frozen=True, slots=True)
class Result:
    """What a seed came to."""

    violation: Violation | None
    cluster: Cluster
    steps: int
    faults: Counter[str]


def simulate(
    seed: int, options: Options | None = None, faults: Sequence[Fault] | None = None
) -> Result:
    """Run one seed.

    Args:
        seed: fixes everything.
        options: instead of those that are drawn.
        faults: instead of those that are drawn.
    """
    options = options or drawing.draw(seed)
    if faults is None:
        faults = plan(seed, options.kinds, options.mean_gap_s, options.faults_s)
    loop = ProcessLoop(seed)
    world = World(loop, options)
    cluster: list[Cluster] = []

    async def main() -> None:
        loop.set_exception_handler(_failed)
        cluster.append(Cluster(world, faults))
        try:
            await cluster[0].run()
        finally:
            world.is_over = True
            loop.end_processes()

    def _failed(_: Any, context: dict[str, Any]) -> None:
        error = context.get("exception")
        world.failed(f"{context['message']}: {error!r}", error)

    tokens = world.dice("tokens")
    # What waits in a process that has ended is not to be collected while others go on.
    gc.disable()
    with (
        patch.object(found_coordinators, "secrets", _Secrets(tokens)),
        asyncio.Runner(loop_factory=lambda: loop) as runner,
    ):
        try:
            runner.run(main())
        except (DeadlockError, LivelockError) as stuck:
            world.is_over = False
            world.broken("stuck", str(stuck).partition("\n")[0])
            loop.end_processes()
    gc.enable()
    return Result(world.violation, cluster[0], cluster[0].checker.checks, world.faults)


class _Secrets:
    """What gateways draw from the system's dice, drawn from the seed's."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice

    def token_bytes(self, size: int) -> bytes:
        return self._dice.randbytes(size)

    def token_hex(self, size: int) -> str:
        return self._dice.randbytes(size).hex()
