"""One process of a broker: its real coordinator, gateway and member streams, over ports that the seed fills."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.assignment.values import AssignableTopic
from riverrun_server.core.groups.group_limits import GroupsLimits
from riverrun_server.core.groups.offsets import OffsetsLimits
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.reading.limits import ReadingLimits
from riverrun_server.ports.gateways import Origin
from riverrun_server.ports.leadership import Leadership
from riverrun_server.rpc.errors import to_proto
from riverrun_server.rpc.streams import Streams
from riverrun_server.rpc.subscribe import subscribe
from riverrun_server.runtime.broker_clock import BrokerClock
from riverrun_server.runtime.coordination_peers import Peers
from riverrun_server.runtime.found_coordinators import FoundCoordinators
from riverrun_server.runtime.members import Members
from riverrun_server.runtime.offsets import GroupOffsets, GroupOffsetsSettings
from riverrun_server.runtime.offsets_log import OffsetsLogSettings
from riverrun_server.runtime.offsets_topic import OFFSETS_TOPIC
from riverrun_server.runtime.reader import ReadingServices
from tests.rpc.fake_partitions import NOW_MS, InlineThreads
from tests.sim.groups.homes import Home
from tests.sim.groups.links import Links
from tests.sim.groups.processes import Process
from tests.sim.groups.topics import Topics
from tests.sim.groups.world import World

_NOBODY = Leadership(None, 0)


class _Clock:
    """A machine's two clocks; `leap_ms` is what somebody has set the wall clock by."""

    def __init__(self, world: World, begin_ms: int) -> None:
        self.leap_ms = 0
        self._begin_ms = begin_ms
        self._loop = world.loop

    def wall_ms(self) -> int:
        return self._begin_ms + self.leap_ms + round(self._loop.time() * 1000)

    def monotonic(self) -> float:
        return self._loop.time()


class _Dice:
    """Implements ports.clock.Dice."""

    def __init__(self, dice: Any) -> None:
        self._dice = dice

    def token(self, size: int) -> bytes:
        return self._dice.randbytes(size)

    def uniform(self, low: float, high: float) -> float:
        return self._dice.uniform(low, high)


class _Leaderships:
    """Implements ports.leadership.Leaderships, as far as this process has heard."""

    def __init__(self) -> None:
        self.known: dict[PartitionId, Leadership] = {}
        self._watching: dict[PartitionId, dict[object, Any]] = {}

    def of(self, partition: PartitionId) -> Leadership:
        return self.known.get(partition, _NOBODY)

    def watch(self, partition: PartitionId, changed: Any) -> Any:
        key = object()
        self._watching.setdefault(partition, {})[key] = changed
        return lambda: self._watching[partition].pop(key, None)

    def learn(self, partition: PartitionId, leadership: Leadership) -> None:
        known = self.known.get(partition)
        if known is not None and known.leader_epoch >= leadership.leader_epoch:
            return
        self.known[partition] = leadership
        for changed in [*self._watching.get(partition, {}).values()]:
            changed()


class _Directory:
    """The topics as far as this process has heard; Directory, InternalTopics and AssignableTopics."""

    def __init__(
        self, topics: Topics, homes: list[Home], dice: Any, is_cut_off: Callable[[], bool]
    ) -> None:
        self._topics = topics
        self._homes = homes
        self._dice = dice
        self._is_cut_off = is_cut_off
        self._known: dict[str, int] = {}
        self._watching: dict[object, Any] = {}
        self.learn()

    def learn(self) -> None:
        """Learn of all topics that there are."""
        known = self._topics.sizes()
        if known == self._known:
            return
        self._known = known
        for changed in [*self._watching.values()]:
            changed()

    async def caught_up(self) -> None:
        await asyncio.sleep(self._dice.uniform(0.001, 0.05))
        while self._is_cut_off():  # noqa: ASYNC110 - nothing tells when that is over
            await asyncio.sleep(0.1)
        self.learn()

    async def run(self) -> None:
        await asyncio.Event().wait()

    def current(self) -> dict[str, AssignableTopic]:
        return {
            name: AssignableTopic(topic_id=self._topics.id_of(name), partitions=size)
            for name, size in self._known.items()
        }

    def watch(self, changed: Any) -> Any:
        key = object()
        self._watching[key] = changed
        return lambda: self._watching.pop(key, None)

    async def ensure_internal_topic(self, *_: object) -> None:
        raise AssertionError("it is there")

    def partitions(self, topic: str, topic_id: bytes = b"") -> list[Any]:
        if topic == OFFSETS_TOPIC:
            return self._homes
        name = topic or self._topics.name_of(topic_id)
        if name not in self._known:
            raise Refusal(Reason.TOPIC_NOT_FOUND, f"there is no topic {topic or topic_id!r}")
        return self._topics.partitions(name)[: self._known[name]]

    def partition(self, topic: str, topic_id: bytes, partition: int) -> Any:
        found = self.partitions(topic, topic_id)
        if not 0 <= partition < len(found):
            raise Refusal(Reason.PARTITION_NOT_FOUND, f"{topic} has {len(found)} partitions")
        return found[partition]

    def is_internal(self, topic: str) -> bool:
        return topic.startswith("__")


class Broker:
    """One process of a broker.

    Args:
        world: of the seed.
        broker_id: the broker; each start is another process.
        start: counts its starts.
        cluster: the others.
    """

    def __init__(self, world: World, broker_id: int, start: int, cluster: Any) -> None:
        self.broker_id = broker_id
        self.start = start
        self.process = Process(world.loop, f"broker-{broker_id}.{start}")
        self._world = world
        self._cluster = cluster
        self._dice = world.dice(str(self.process))
        self.process.run(self._build)

    def _build(self) -> None:
        world, dice = self._world, self._dice
        self.clock = _Clock(world, NOW_MS + dice.randint(-500, 500))
        self.leaderships = _Leaderships()
        self.directory = _Directory(
            self._cluster.topics,
            self._cluster.homes,
            dice,
            lambda: self._cluster.is_cut_off(self.process),
        )
        self.links = Links(world, self, self._cluster)
        threads, wall = InlineThreads(), BrokerClock(self.clock)
        self.offsets = GroupOffsets(
            self.directory,
            self.directory,
            self.directory,
            wall,
            threads,
            _Dice(dice),
            self._settings(),
            Peers(
                leaderships=self.leaderships,
                coordinators=self.links,
                caught_up=self.directory.caught_up,
                broker_id=self.broker_id,
                origin=Origin,
            ),
        )
        limits = ReadingLimits(heartbeat_interval_s=1.0)
        services = ReadingServices(
            self.directory, self.offsets, threads, limits, to_proto, _Dice(dice)
        )
        self.members = Members(FoundCoordinators(self.offsets, Origin), _Dice(dice))
        self.draining = asyncio.Event()
        self.streams = Streams(services, self.members, self.draining)
        self.process.spawn(self.offsets.run(), "offsets")
        self.process.spawn(self.members.run(), "members")

    def _settings(self) -> GroupOffsetsSettings:
        options = self._world.options
        log = OffsetsLogSettings(
            limits=OffsetsLimits(rewrite_records_min=options.rewrite_records, rewrite_factor=3),
            groups=GroupsLimits(),
            rewrite_again_after_s=2.0,
        )
        return GroupOffsetsSettings(partitions=options.homes, coordinator_wait_s=5.0, log=log)

    @property
    def coordinator(self) -> Any:
        """This broker, as the coordinator of groups."""
        return self.offsets.coordinator

    @property
    def member_streams(self) -> list[Any]:
        """The streams of members that it holds."""
        return list(self.members._beats.streams)

    def learns(self, home: Home, leadership: Leadership, old: Any) -> None:
        """Hear of an election, after a while."""
        self.process.after(self._dice.uniform(0.001, 0.1), self._learn, home.id, leadership, old)

    def _learn(self, home: PartitionId, leadership: Leadership, old: Any) -> None:
        if self._cluster.is_cut_off(self.process):
            # Nobody tells it.
            self.process.after(0.1, self._learn, home, leadership, old)
            return
        if old is not None and old.process is self.process:
            old.learn()
        if leadership.here is not None:
            leadership.here.begin()
        self.leaderships.learn(home, leadership)

    def topics_are_new(self) -> None:
        """Hear of topics, after a while."""
        self.process.after(self._dice.uniform(0.001, 0.3), self.directory.learn)

    def serve(self, call: Any) -> asyncio.Task[None]:
        """Serve a Subscribe call."""
        task = self.process.spawn(subscribe(call, self.streams), f"{call}")
        task.add_done_callback(partial(self._served, call), context=self.process.context)
        return task

    def _served(self, call: Any, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            call.ended(None)
            return
        error = task.exception()
        if error is not None and not isinstance(error, Refusal):
            self._world.failed(f"a stream failed with {error!r}", error)
        call.ended(error)
