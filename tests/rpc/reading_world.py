"""A broker's reading side on fake partitions, in virtual time or behind a real gRPC server."""

from __future__ import annotations

import asyncio
import contextlib

import grpc.aio

from riverrun.v1 import consumer_pb2
from riverrun_server.core.reading.control import HalfClosed
from riverrun_server.core.reading.limits import ReadingLimits
from riverrun_server.core.reading.places import EARLIEST
from riverrun_server.core.reading.subscription import Subscription, SubscriptionSettings
from riverrun_server.observe.metrics import Metrics
from riverrun_server.ports.gateways import Origin
from riverrun_server.rpc.admission import Admission, Caps
from riverrun_server.rpc.consumer import ConsumerService
from riverrun_server.rpc.door import Door
from riverrun_server.rpc.errors import to_proto
from riverrun_server.rpc.reading_plans import places_of
from riverrun_server.rpc.streams import Streams
from riverrun_server.rpc.text import TextService
from riverrun_server.runtime.found_coordinators import FoundCoordinators
from riverrun_server.runtime.members import Members
from riverrun_server.runtime.offsets import GroupOffsets, GroupOffsetsSettings
from riverrun_server.runtime.places import Wanted
from riverrun_server.runtime.reader import Reader, ReadingServices
from riverrun_server.wire import forms
from tests.metadata.fakes import SeededDice
from tests.rpc.fake_partitions import NOW_MS, FakeDirectory, InlineThreads
from tests.sim.loop import simulate


class World:
    """What a composition root would put together."""

    def __init__(
        self, directory=None, *, limits=None, offsets_settings=None, peers=None, now_ms=None
    ):
        self.directory = directory or FakeDirectory()
        self.threads = InlineThreads()
        self.draining = asyncio.Event()
        self.offsets = GroupOffsets(
            self.directory,
            self.directory,
            self.directory,
            now_ms or (lambda: NOW_MS),
            self.threads,
            SeededDice(),
            offsets_settings or GroupOffsetsSettings(),
            peers,
        )
        self.services = ReadingServices(
            self.directory,
            self.offsets,
            self.threads,
            limits or ReadingLimits(),
            to_proto,
            SeededDice(),
        )
        self.members = Members(FoundCoordinators(self.offsets, Origin), SeededDice())
        self.streams = Streams(self.services, self.members, self.draining)
        self.target = None
        self.metrics = Metrics(process=False)
        self._running = None

    async def __aenter__(self):
        self._running = [
            asyncio.create_task(self.offsets.run()),
            asyncio.create_task(self.members.run()),
        ]
        await asyncio.sleep(0.001)
        return self

    async def __aexit__(self, *_):
        for task in reversed(self._running):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def stream(self, *accesses, form=forms.RECORDS, place=EARLIEST, group_id="", **settings):
        return Stream(self, [Wanted(each, place) for each in accesses], form, group_id, settings)


class Stream:
    """A reader and its transport; `blocked` is a subscriber that does not read."""

    def __init__(self, world, wanted, form, group_id, settings):
        self.frames = []
        self.writing = 0
        self.on_write = None
        self.flowing = asyncio.Event()
        self.flowing.set()
        on_delivery = settings.pop("commit_on_delivery", False)
        room, store = settings.pop("room", None), settings.pop("store", None)
        settings = SubscriptionSettings(**{"frame_bytes": 1 << 20, **settings})
        self._world, self._wanted, self._group_id = world, wanted, group_id
        self.machine = Subscription(settings)
        self.reader = Reader(
            world.services,
            self.machine,
            [each.access for each in wanted],
            form,
            self._write,
            group_id=group_id,
            commit_on_delivery=on_delivery,
            store=store,
            room=room,
        )

    async def _write(self, frame):
        self.writing += 1
        assert self.writing == 1, "one message at a time"
        await self.flowing.wait()
        self.writing -= 1
        parsed = consumer_pb2.SubscribeResponse.FromString(frame)
        self.frames.append(parsed)
        if self.on_write is not None:
            self.on_write(parsed)

    async def run(self):
        positions = await places_of(self._wanted, self._world.offsets, self._group_id)
        await self.reader.run(positions)

    @contextlib.asynccontextmanager
    async def running(self):
        task = asyncio.create_task(self.run())
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def say(self, control):
        await self.reader.control.say(control)

    async def half_close(self):
        await self.say(HalfClosed())

    def kinds(self):
        return [frame.WhichOneof("kind") for frame in self.frames]

    def of(self, kind):
        return [getattr(frame, kind) for frame in self.frames if frame.WhichOneof("kind") == kind]

    def values(self):
        return [record.value for each in self.of("delivery") for record in each.records]

    def spans(self, partition=0):
        return [
            (each.first_offset, each.next_offset)
            for each in self.of("delivery")
            if each.partition == partition
        ]


@contextlib.asynccontextmanager
async def serving(world, append=None):
    """Serve a world on a port of 127.0.0.1; yield a channel to it."""
    admission = Admission(Caps(100, 100, 100), world.metrics)
    door = Door(admission, "test")
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((door,))
    door.add_generic_rpc_handlers(
        (ConsumerService(world.streams).handler(), TextService(world.streams, append).handler())
    )
    world.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        async with world, grpc.aio.insecure_channel(world.target) as channel:
            yield channel
    finally:
        await server.stop(None)


async def until(condition, timeout_s=10.0):
    """Wait until something holds that only real I/O brings about."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - nothing in the fakes tells
            await asyncio.sleep(0.005)


def simulated(scenario):
    """Run a scenario with a world whose topic `t` has two partitions, under a few schedules."""

    def test():
        async def run():
            directory = FakeDirectory()
            directory.create("t", 2)
            async with World(directory) as world:
                await scenario(world, *directory.topics["t"])

        for seed in range(5):
            simulate(run(), seed)

    test.__name__ = scenario.__name__
    test.__doc__ = scenario.__doc__
    return test
